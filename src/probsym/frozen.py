"""A symmetrized model with the same noise at every call: a smooth function of its inputs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from probsym.distributions import Noise
from probsym.distributions.base import samples_of
from probsym.estimators import Estimate, Estimator, MonteCarlo, Source
from probsym.groups.whole import whole_number
from probsym.reps import Inputs


class Frozen(nn.Module):
    """phi with noise from one seed: two calls with the same inputs give the same output; `phi.frozen(seed)` makes it.

        phi_eps(x) = 1/k sum_k g_k f(g_k^-1 x),    g_k = transport(x, eps_k),    eps drawn from the seed at each call

    An energy is then a function of the positions, its gradient is a force that conserves it, and a line search does not
    chase noise. It shares the model and the distribution with phi, and follows its mode and its estimator.

    Two things to know. One frozen phi is not equivariant: its error is that of phi with as many samples, which a design
    makes small; only over seeds it vanishes on average. And the noise belongs to the shapes of a call: an input may
    have other noise in another batch, so evaluate one structure as it will be evaluated later.

    Args:
        phi: the `Symmetrizer`.
        seed: of the noise.
        example: inputs (dict of keywords, tuple, or a single argument) for which the noise is drawn now and kept, as
            many samples as the estimator of phi's present mode takes. Calls must then have these shapes; they can be
            compiled and exported, where generators cannot.

    Raises:
        ValueError: a negative seed; with an example, an estimator that draws more than once (`Adaptive`); at the
            call, other shapes than those of the example.
        TypeError: at the call, a generator or noise.

    >>> import probsym as ps
    >>> space = ps.SO(3)
    >>> energy = nn.Sequential(nn.Flatten(), nn.Linear(12, 8), nn.Tanh(), nn.Linear(8, 1))
    >>> phi = ps.symmetrize(energy, ps.Rep(None, space), ps.Rep(), "haar").eval()
    >>> x = torch.randn(2, 4, 3)
    >>> smooth = phi.frozen(seed=0)
    >>> torch.equal(smooth(x), smooth(x)), torch.equal(phi(x), phi(x))
    (True, False)
    """

    def __init__(self, phi: Any, seed: int, example: Any = None) -> None:
        super().__init__()
        self.phi = phi
        self.training = phi.training  # as of every module; a call follows phi's own mode
        self.seed = whole_number("seed", seed, 0)
        self._shapes: dict[str, tuple[int, ...]] | None = None
        self._kept: Noise = None
        self._estimator: Estimator | None = None
        if example is not None:
            self._keep(example)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """The output of phi; `samples`, `estimator`, `tol` and `return_estimate` as there."""
        kwargs.update(self.noise_options(self.phi.bind(args, _inputs_alone(kwargs)), kwargs))
        return self.phi(*args, **kwargs)

    def noise_options(self, x: Inputs, chosen: Mapping[str, Any]) -> dict[str, Any]:
        """What a call of phi takes beside its arguments so that its noise is this one: a generator, or noise.

        Args:
            x: the bound inputs of the call.
            chosen: its other options; the noise that was kept for an example comes with the estimator that it is for,
                unless `samples`, `estimator` or `tol` is among them.

        Raises:
            TypeError: a generator or noise is among them.
        """
        for name in ("generator", "noise"):
            if chosen.get(name) is not None:
                raise TypeError(f"{name}: a frozen phi has its own noise, of seed {self.seed}; call phi itself instead")
        if self._shapes is None:
            return {"generator": self._generator(x.device)}
        self._check_shapes(x)
        own_estimator = all(chosen.get(name) is None for name in ("samples", "estimator", "tol"))
        if self._kept is None and own_estimator:
            return {}  # nothing is drawn
        if self._kept is None:
            return {"generator": self._generator(x.device)}  # the estimator of the call may draw
        options: dict[str, Any] = {"noise": self._placed(self._kept)}
        if own_estimator:
            options["estimator"] = self._estimator  # with its chunks and its design
        return options

    def estimate(self, *args: Any, **kwargs: Any) -> Estimate:
        """`forward` with `return_estimate=True`: mean, standard error, samples used, diagnostics."""
        return self(*args, return_estimate=True, **kwargs)

    def _generator(self, device: torch.device) -> torch.Generator:
        return torch.Generator(device=device).manual_seed(self.seed)

    # ---------------------------------------------------------------- noise that is kept

    def _keep(self, example: Any) -> None:
        """Draw the noise of an example, as tensors that move and are saved with the module."""
        phi = self.phi
        args: tuple[Any, ...] = ()
        kwargs: dict[str, Any] = {}
        if isinstance(example, dict) and isinstance(phi.inputs, dict):
            kwargs = example
        elif isinstance(example, tuple):
            args = example
        else:
            args = (example,)
        x = phi.bind(args, kwargs)
        self._shapes = _shapes(x)

        # 1. How many samples: those of the estimator.
        estimator = phi.train_estimator if phi.training else phi.eval_estimator
        if not isinstance(estimator, MonteCarlo):
            if phi.distribution.has_enumerate_support:
                return
            raise ValueError(f"example: noise can be kept for MonteCarlo(k), got {estimator!r}; leave the example out")
        self._estimator = estimator

        # 2. The noise as the design arranges it.
        noise = estimator.draw(phi.distribution, x, Source(self._generator(x.device)))

        # 3. Each of its tensors becomes a buffer.
        for number, tensor in enumerate(_tensors(noise)):
            self.register_buffer(f"noise{number}", tensor)
        self._kept = noise

    def _placed(self, noise: Noise) -> Noise:
        """The noise that was kept, from the buffers, which may have moved to another device."""
        buffers = [getattr(self, f"noise{number}") for number, _ in enumerate(_tensors(noise))]
        return _rebuilt(noise, iter(buffers))

    def _check_shapes(self, x: Inputs) -> None:
        expected = self._shapes or {}
        for name, shape in _shapes(x).items():
            if shape != expected.get(name):
                raise ValueError(
                    f"{name}: expected the shape of the example, {expected.get(name)}, for which the noise was drawn, "
                    f"got {shape}; make another frozen phi, or one without an example"
                )

    def extra_repr(self) -> str:
        if self._kept is None:
            return f"seed={self.seed}"
        return f"seed={self.seed}, {samples_of(self._kept)} samples kept"


OPTIONS = ("samples", "estimator", "tol", "max_samples", "generator", "noise", "return_estimate")


def _inputs_alone(kwargs: dict[str, Any]) -> dict[str, Any]:
    """The keywords that belong to the model."""
    return {name: value for name, value in kwargs.items() if name not in OPTIONS}


def _shapes(x: Inputs) -> dict[str, tuple[int, ...]]:
    return {leaf.name: tuple(leaf.value.shape) for leaf in x.leaves.values()}


def _tensors(noise: Noise) -> list[Tensor]:
    """The tensors of noise, in order."""
    if isinstance(noise, Tensor):
        return [noise]
    parts = noise.values() if isinstance(noise, Mapping) else noise
    tensors: list[Tensor] = []
    for part in parts:
        tensors += _tensors(part)
    return tensors


def _rebuilt(noise: Noise, tensors: Iterator[Tensor]) -> Noise:
    """Containers like those of `noise` around other tensors."""
    if isinstance(noise, Tensor):
        return next(tensors)
    if isinstance(noise, Mapping):
        return {key: _rebuilt(part, tensors) for key, part in noise.items()}
    return tuple(_rebuilt(part, tensors) for part in noise)
