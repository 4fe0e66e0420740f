"""The equation phi(x) = E_{g ~ p(g|x)} [ g f(g^-1 x) ], and the module that computes it.

Once, `symmetrize` (here) turns a name such as "haar" into a distribution p: distributions/registry.py.

The way of a call `phi(pos=x)`, file by file. Imports never go up; the estimator is handed `orbit`, which is here.

1. `Symmetrizer.forward` (here) binds the arguments to their Reps and checks them: reps/inputs.py, reps/binding.py,
   reps/values.py.
2. It chooses an estimator, plain Monte Carlo unless told otherwise: estimators/monte_carlo.py. The estimator draws
   noise and lets p make group elements of it: distributions/ (base.py; haar.py, learned.py, frames/frame.py, ...).
   Features are projected on the group in groups/, scores of nodes in reps/storage.py; both compute in kernels/.
3. The estimator calls `Orbit` (here) with these elements: the inverse action on every input (reps/rep.py, and the
   groups themselves in groups/, for node axes reps/storage.py), samples stacked as rows (`Inputs.fold`), the model,
   its outputs checked (reps/outputs.py), rows taken apart into samples, the action on them.
4. The estimator averages the samples (estimators/samples.py) into an `Estimate`, whose mean is returned.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from probsym.distributions import EquivariantDistribution, Noise, by_name, complete
from probsym.distributions.base import samples_asked, samples_of
from probsym.estimators import Adaptive, Estimate, Estimator, Exact, MonteCarlo, OutputSamples, Source
from probsym.frozen import Frozen
from probsym.groups import Element
from probsym.groups.whole import positive
from probsym.kernels.values import readable
from probsym.reps import Inputs, Rep, Signature, as_spec, group_of, unfold
from probsym.reps.compiling import marked, marked_element, marked_inputs, replays
from probsym.reps.outputs import DeclaredOutputs, OutputStructure
from probsym.reps.signature import positional_names
from probsym.reps.unique_rows import UniqueRows

Samples = int | Estimator | None


@dataclass(frozen=True, eq=False)
class Orbit:
    """(x, g) -> g f(g^-1 x): the model f moved by g, which acts on functions from inputs to outputs.

    Args:
        model: f.
        outputs: the Reps of its outputs.
        training: whether f trains.
        averaged: whether the outputs will be averaged, so that they must be numbers with a mean.
        poses, moved: both actions, `poses_of` and `moved_by`, or the same compiled.

    >>> import probsym as ps
    >>> space = ps.O(2)
    >>> phi = ps.symmetrize(nn.Identity(), ps.Rep(space), ps.Rep(space), "haar")
    >>> x = phi.bind((torch.eye(2),), {})
    >>> g = space.haar((5, 2))                                       # K = 5 elements for each of B = 2 inputs
    >>> phi.orbit(x, g).tensors[0].allclose(torch.eye(2), atol=1e-6)  # the identity is equivariant: g g^-1 x = x
    True
    """

    model: nn.Module
    outputs: DeclaredOutputs
    training: bool = False
    averaged: bool = True
    poses: Callable[[Inputs, Element], Inputs] = field(default_factory=lambda: poses_of)
    moved: Callable[[Rep, Element, Tensor], Tensor] = field(default_factory=lambda: moved_by)

    def __call__(self, x: Inputs, g: Element, active: Tensor | None = None, deduplicate: bool = False) -> OutputSamples:
        """The samples g_k f(g_k^-1 x) of every output, tensors (K, B, ...), in a ragged batch (K, sum N, ...).

        Args:
            x: B inputs. g: elements of batch shape (K, B).
            active: (K, B) bool, the samples that matter: others are not evaluated, and zero. None for all.
            deduplicate: whether to evaluate equal poses g_k^-1 x only once; asks for `active`.

        Raises:
            ValueError, TypeError: an output of the model does not fit its Rep; names it.
        """
        times = g.shape[0]

        # 1. The inverse acts on every declared input. The poses g_k^-1 x become rows of one batch, row = k B + b.
        rows = self.poses(x, g)

        # 2. Rows that nobody needs, or that equal others, are left out.
        unique = None
        if active is not None:
            unique = UniqueRows(rows, active.reshape(-1), deduplicate and times > 1)
            rows = unique.inputs

        # 3. The model. It gets containers of its own, since it may exchange the entries of an object.
        given = rows.map(lambda leaf: leaf.value)
        returned = self.model(*given.args, **given.kwargs)

        # 4. The declared outputs, each checked against its Rep.
        structure = OutputStructure.of(returned, self.outputs, x)
        outputs = self.outputs.read(returned, rows, self.averaged)

        # 5. Rows become samples again, and g acts on them.
        samples = []
        for rep, out in zip(self.outputs.reps, outputs, strict=True):
            if unique is not None:
                out = unique.restore(out, rep)
            samples.append(self.moved(rep, g, out))

        # 6. Elements may have weights: numbers of value one pass a gradient on to p.
        return OutputSamples(samples, structure).weighted(g.weight)


def poses_of(x: Inputs, g: Element) -> Inputs:
    """The poses g_k^-1 x of B inputs for elements (K, B), as rows of one batch: row = k B + b."""
    inverse = g.inverse()
    return x.fold(lambda leaf: leaf.rep.act(inverse, leaf.value, leaf.rep.batch_dims), g.shape[0])


def moved_by(rep: Rep, g: Element, out: Tensor) -> Tensor:
    """The samples g_k y_k (K, B, ...) for outputs y of rows (K B, ...)."""
    return rep.act(g, unfold(out, rep, g.shape[0]))


class CompiledActions:
    """`poses_of` and `moved_by` as `torch.compile` makes them, once for batches of any size.

    Args:
        options: of `torch.compile`.
    """

    def __init__(self, options: dict[str, Any]) -> None:
        self.compiled_poses = torch.compile(poses_of, **options)
        self.compiled_moved = torch.compile(moved_by, **options)
        self.replays = replays(options)

    def poses(self, x: Inputs, g: Element) -> Inputs:
        """`poses_of`."""
        if not x.readable:
            return poses_of(x, g)
        return self.compiled_poses(marked_inputs(x), marked_element(g))

    def moved(self, rep: Rep, g: Element, out: Tensor) -> Tensor:
        """`moved_by`."""
        if not readable(out):
            return moved_by(rep, g, out)
        y = self.compiled_moved(rep, marked_element(g), marked(out, 0))
        # A CUDA graph writes the next result into the same memory, and this one is the caller's.
        return y.clone() if self.replays else y


class Symmetrizer(nn.Module):
    """phi(x) = E_{g ~ p(g|x)} [ g f(g^-1 x) ], a drop-in for the model f; see `symmetrize`.

    Attributes:
        model: f. distribution: p. inputs, output: the Reps.
    """

    train_estimator: Estimator
    eval_estimator: Estimator
    _actions: CompiledActions | None = None

    def __init__(
        self,
        model: nn.Module,
        inputs: Any,
        output: Any,
        distribution: EquivariantDistribution,
        train_samples: Samples = None,
        eval_samples: Samples = None,
    ) -> None:
        super().__init__()
        self.model = model
        self.inputs = as_spec(inputs, "inputs", untouched=True)
        _refuse_own_names(model, self.inputs)
        self._signature = Signature(self.inputs)
        self.output = as_spec(output, "output", untouched=True)
        self._outputs = DeclaredOutputs(self.output)
        if not self._outputs.reps:
            raise ValueError("output: expected at least one Rep, got none")
        self.group = group_of(self.inputs, self.output)
        self.distribution = distribution
        self.train_samples = train_samples
        self.eval_samples = eval_samples
        self._values_checked = False  # all that a call ever changes here, so that a GPU need not wait in training

    def forward(
        self,
        *args: Any,
        samples: int | None = None,
        estimator: Estimator | None = None,
        tol: float | None = None,
        max_samples: int = 1024,
        noise: Noise = None,
        generator: torch.Generator | None = None,
        return_estimate: bool = False,
        **kwargs: Any,
    ) -> Any:
        """The model's output, symmetrized.

        Values are checked at every call, for the price of one sum of each argument: NaN, infinity, node numbers out of
        range, masks with holes. Two exceptions: a training step on a GPU, which would have to wait, checks at its first
        call only, and a traced call (compile, export, vmap) never.

        Args:
            args, kwargs: the model's own arguments.
            samples: number of samples K; estimator: how to average. At most one of samples, estimator and tol.
            tol: evaluation until the standard error of each input is below it, with at most `max_samples`.
            noise: noise drawn before with `draw_noise`, instead of a generator; as many samples as the estimator takes.
                Without an estimator of this call it is MonteCarlo of as many samples: no design, no chunks.
            return_estimate: return the `Estimate` instead of its mean.

        Raises:
            ValueError, TypeError: an argument does not fit its Rep; names it.
        """
        x = self._checked(args, kwargs)
        _check_generator(generator)
        if self._actions is not None and self._actions.replays and not torch.is_grad_enabled():
            torch.compiler.cudagraph_mark_step_begin()  # all graphs of this call are one step
        estimator = self.estimator_of(samples, estimator, tol, max_samples, noise)
        source = Source(generator, noise, statistics=return_estimate)
        estimate = estimator(self.distribution, x, self.orbit, source)
        return estimate if return_estimate else estimate.mean

    @property
    def orbit(self) -> Orbit:
        """(x, g) -> the samples g_k f(g_k^-1 x), for inputs that `bind` made; what estimators average."""
        return self._orbit(averaged=True)

    def _orbit(self, averaged: bool) -> Orbit:
        if self._actions is None or torch.compiler.is_compiling():
            return Orbit(self.model, self._outputs, self.training, averaged)
        actions = self._actions
        return Orbit(self.model, self._outputs, self.training, averaged, actions.poses, actions.moved)

    def compile(self, *args: Any, **options: Any) -> None:
        """Compile in place what averaging costs: the distribution and its net, and the actions on inputs and outputs.

        As `nn.Module.compile` it takes the options of `torch.compile`, and changes neither outputs nor gradients nor
        what is saved. The mode is "reduce-overhead" (CUDA graphs) on a GPU unless `mode`, `options` or `backend` say
        otherwise. There is one compilation for batches of all sizes, in training and one in evaluation; a batch of one
        input has its own. Other sizes (samples, nodes) are compiled for when they change.

        The model is compiled by `phi.model.compile()`, or with everything else in one graph by `torch.compile(phi)`.
        As before run: checks of values and the drawing of noise, so that a generator gives the samples that it gives
        without; estimates with statistics (`phi.estimate`), in which p is not compiled; `support` of `Exact`; function
        transforms. Frames and ragged batches, whose sizes depend on data, break the graph and give the same results.
        A default net of p must be built: by `example=` of `symmetrize`, or one call before.

        Raises:
            TypeError: options that are given by position.

        >>> import probsym as ps
        >>> space = ps.SO(3)
        >>> phi = ps.symmetrize(nn.Identity(), ps.Rep(None, space), ps.Rep(None, space), "haar")
        >>> phi.compile(backend="eager")                             # phi.compile() for the compiler itself
        >>> phi(torch.randn(2, 5, 3)).shape
        torch.Size([2, 5, 3])
        """
        if args:
            raise TypeError(f"compile: expected options by keyword, got {args!r}")
        first = next(self.parameters(), None)
        if first is not None and first.is_cuda and not {"mode", "options", "backend"} & set(options):
            options["mode"] = "reduce-overhead"
        self.distribution.compile(**options)
        self._actions = CompiledActions(options)

    def __setattr__(self, name: str, value: Any) -> None:
        """Attributes that may change later: model, distribution, both estimators, which take numbers of samples too.

        Raises:
            AttributeError: `inputs` or `output` after they were read.
            ValueError: a distribution over other groups than those declared; no estimator and no number.
        """
        # 1. Reps are read once. Another one would be shown, and ignored.
        if name in ("inputs", "output") and name in self.__dict__:
            raise AttributeError(
                f"{name}: fixed when phi was made; make another one with ps.symmetrize(phi.model, ...)"
            )

        # 2. What averages, under its own name or that of the argument of `symmetrize`, which nobody would read.
        for mode, number in (("train", 0), ("eval", 1)):
            if name in (f"{mode}_samples", f"{mode}_estimator"):
                value = as_estimator(value, self.distribution.default_samples[number], name)
                name = f"{mode}_estimator"

        # 3. A distribution over all that acts, and over no more. A wrapper that another library puts around it passes.
        if name == "distribution":
            present = self._modules.get("distribution")
            wraps = present is not None and isinstance(value, nn.Module) and present in list(value.modules())
            if not wraps or isinstance(value, EquivariantDistribution):
                value = complete(value, self.group).for_output(self.output)
                self._check_groups(value)
        super().__setattr__(name, value)

    def __getstate__(self) -> dict[str, Any]:
        # Without what was compiled. Copied: Python gives the dict of this object itself where torch has no way.
        state = dict(super().__getstate__())  # type: ignore[misc]  # as of nn.Module
        state.pop("_actions", None)
        return state

    def _checked(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Inputs:
        """`bind`, with the values looked at.

        Not while a compiler or a function transform follows. On a GPU a look waits for all work under way, so that
        there a training step looks at the first call only.
        """
        x = self.bind(args, kwargs)
        if not x.readable:
            return x
        in_training = self.training and torch.is_grad_enabled()
        if x.device.type == "cpu" or not in_training or not self._values_checked:
            x.check_values()
        if not self._values_checked:
            self._values_checked = True
        return x

    def estimate(self, *args: Any, **kwargs: Any) -> Estimate:
        """`forward` with `return_estimate=True`: mean, standard error, samples used, diagnostics."""
        return self(*args, return_estimate=True, **kwargs)

    def sample(
        self,
        *args: Any,
        samples: int | None = None,
        generator: torch.Generator | None = None,
        noise: Noise = None,
        **kwargs: Any,
    ) -> Any:
        """One output per sample, g_k f(g_k^-1 x): the output's structure with shapes (K, B, ...).

        Samples are not averaged, so integers and booleans may come out where the group only moves entries.

        Args:
            samples: how many, K; None takes as many as the noise has, else one.

        Raises:
            ValueError, TypeError: an argument does not fit its Rep; names it. `samples` is not that of the noise.
        """
        samples = samples_asked(samples, noise)
        x = self._checked(args, kwargs)
        _check_generator(generator)
        if noise is None:
            noise = self.distribution.draw(x, samples, generator)
        elif x.readable:
            self.distribution.check_noise(x, noise)
        orbit = self._orbit(averaged=False)
        drawn = orbit(x, self.distribution.transport(x, noise))
        return drawn.build(drawn.tensors)

    def draw_noise(
        self, *args: Any, samples: int = 1, generator: torch.Generator | None = None, **kwargs: Any
    ) -> Noise:
        """The noise that a call with these arguments would draw; pass it on as `noise=`."""
        _check_generator(generator)
        return self.distribution.draw(self.bind(args, kwargs), positive("samples", samples), generator)

    def frozen(self, seed: int, example: Any = None) -> Frozen:
        """phi with the same noise at every call, a smooth function of its inputs: for forces, line searches, exports.

        Args:
            seed: of the noise. example: inputs whose noise is drawn now and kept, so that calls can be exported.
        """
        return Frozen(self, seed, example)

    def bind(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Inputs:
        """The call's arguments with their Reps, shapes and dtypes checked."""
        if args and isinstance(self.inputs, dict):
            kwargs = self._by_name(args, kwargs)
            args = ()
        elif args:
            args, kwargs = self._signature.with_markers_named(args, kwargs, self.model)
        return Inputs.bind(self._signature, args, kwargs)

    def _by_name(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
        """Positional arguments under the names that the model's signature gives them, beside those given by name."""
        names = positional_names(self.model)
        if len(args) > len(names):
            raise TypeError(f"inputs declares keyword arguments {list(self.inputs)}, got {len(args)} positional ones")
        named = dict(zip(names, args, strict=False))
        for name in named:
            if name in kwargs:
                raise TypeError(f"argument {name!r}: given twice, by position and by name")
        return {**named, **kwargs}

    def estimator_of(
        self,
        samples: int | None = None,
        estimator: Estimator | None = None,
        tol: float | None = None,
        max_samples: int = 1024,
        noise: Noise = None,
    ) -> Estimator:
        """What averages a call with these options: what was asked for, else the Symmetrizer's own."""
        given = [value for value in (samples, estimator, tol) if value is not None]
        if len(given) > 1:
            raise ValueError("at most one of samples, estimator and tol can be given")
        if estimator is not None:
            return as_estimator(estimator, None, "estimator")
        if tol is not None:
            return Adaptive(tol, max_samples)
        if samples is not None:
            return as_estimator(samples, None, "samples")
        if noise is not None:
            return MonteCarlo(samples_of(noise))
        return self.train_estimator if self.training else self.eval_estimator

    def _check_groups(self, distribution: EquivariantDistribution) -> None:
        """Refuse groups that act on the outputs alone, and distributions over other groups than those declared.

        Raises:
            ValueError: names the group.
        """
        if not self.group.factors:
            raise ValueError("inputs, output: no group acts on any declared axis; declare one, such as ps.Rep(nodes)")

        # An average over a group that leaves the inputs alone keeps nothing but the invariant part of the output.
        known = group_of(self.inputs).factors
        for factor in group_of(self.output).factors:
            if factor not in known and not factor.trivial:
                raise ValueError(
                    f"output: {factor!r} acts on the output but on no input (there act {', '.join(map(repr, known))}), "
                    "so the average would not follow the inputs: declare it on an input too, as the same group"
                )

        covered = set(distribution.group.factors)
        declared = set(self.group.factors)
        if declared - covered:
            missing = ", ".join(map(repr, declared - covered))
            raise ValueError(
                f"distribution: {missing} acts on the declared axes, but {distribution.brief} does not cover it; "
                "multiply distributions (p1 * p2), or declare the axis None or ps.Axis(...)"
            )
        if covered - declared:
            surplus = ", ".join(map(repr, covered - declared))
            raise ValueError(f"distribution: {surplus} acts on no declared axis of inputs or output")


def _refuse_own_names(model: nn.Module, inputs: Any) -> None:
    """Refuse names of the model's arguments that a call of the Symmetrizer takes for its own.

    Arguments that are declared by position never meet them.

    Raises:
        ValueError: names the argument.
    """
    if isinstance(model, Symmetrizer):
        return  # options that it has in common with phi are for phi

    # Names under which the model may be given something: those declared, and those left after the positional ones.
    arguments = _keywords(model.forward)
    if isinstance(inputs, dict):
        names = [*inputs, *arguments]
    elif isinstance(inputs, tuple):
        names = arguments[len(inputs) :]
    else:
        names = arguments[1:]

    own = _keywords(Symmetrizer.forward)
    for name in names:
        if name in own:
            raise ValueError(
                f"argument {name!r} of the model: phi(..., {name}=...) means the Symmetrizer's own {name!r}, so it "
                "could not be passed on; rename it in a wrapper, or declare the inputs by position as a tuple"
            )


def _keywords(function: Callable[..., Any]) -> list[str]:
    """The names of arguments that a function takes by keyword, in order; none where it cannot tell."""
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):
        return []
    kinds = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    return [p.name for p in parameters if p.kind in kinds and p.name != "self"]


def _check_generator(generator: Any) -> None:
    """Refuse a seed where a generator is expected.

    Raises:
        TypeError: it is no generator.
    """
    if generator is not None and not isinstance(generator, torch.Generator):
        raise TypeError(
            f"generator: expected a torch.Generator, such as torch.Generator().manual_seed(0), got {generator!r}; "
            "phi.frozen(seed) takes a number"
        )


def as_estimator(given: Samples, default: int | None, name: str) -> Estimator:
    """An int is MonteCarlo, None the distribution's default, in which None means Exact."""
    if isinstance(given, Estimator):
        return given
    k = default if given is None else given
    if k is None:
        return Exact()
    return MonteCarlo(positive(name, k))


def symmetrize(
    model: nn.Module,
    inputs: Any,
    output: Any,
    distribution: str | EquivariantDistribution = "learned",
    train_samples: Samples = None,
    eval_samples: Samples = None,
    example: Any = None,
) -> Symmetrizer:
    """Make a model equivariant by averaging it over a distribution of group elements.

        phi(x) = E_{g ~ p(g|x)} [ g f(g^-1 x) ]                             (arXiv 2306.02866, eq. 4)

    The group is whatever acts on the declared axes.

    Args:
        model: any module; called with the same arguments on K*B rows, row = k B + b.
        inputs: Reps of its arguments: a dict for keywords, a tuple for positions, one Rep for a single argument.
            None instead of a Rep passes an argument, or an entry of one, as it is. Any other tensor with at least one
            axis is refused if it is not declared; numbers, strings and tensors without axes need no declaration.
        output: Rep of its output, or a dict or tuple of them. Averages come back in containers of the kind that the
            model returns (tuple, namedtuple, `ModelOutput`). A dict chooses outputs by name, or by number those of a
            tuple; a tuple stands for all entries, None leaves one out. A model that would return `pos + net(pos)`
            returns net(pos), declared `space.vector`, and `pos + phi(pos=pos)` adds the positions: inside the average
            they send a wrong gradient to a learned order (docs/theory.md, eq. 8).
        distribution: "learned", "haar", "frame", "canonical", "recursive", or a distribution over the group.
        train_samples, eval_samples: samples or an estimator; None takes the distribution's own.
        example: a sample input (dict of keywords, tuple, or a single argument) that fixes the channel counts of the
            default net now; without it they are fixed at the first call.

    Raises:
        ValueError, TypeError: a group without a distribution, an unknown name, malformed Reps.

    >>> import torch, probsym as ps
    >>> nodes, space = ps.S("nodes"), ps.E(3, "space")
    >>> class Model(torch.nn.Linear):
    ...     def forward(self, pos):
    ...         return super().forward(pos.flatten(1)).view_as(pos)
    >>> phi = ps.symmetrize(Model(15, 15), {"pos": ps.Rep(nodes, space)}, ps.Rep(nodes, space), "haar")
    >>> phi(pos=torch.randn(2, 5, 3)).shape
    torch.Size([2, 5, 3])
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"model: expected an nn.Module, got {type(model).__name__}")
    declared = as_spec(inputs, "inputs", untouched=True)
    declared_output = as_spec(output, "output", untouched=True)
    if isinstance(distribution, str):
        distribution = by_name(distribution, declared, group_of(declared, declared_output))
    phi = Symmetrizer(model, declared, declared_output, distribution, train_samples, eval_samples)
    if example is not None:
        _materialise(phi, example)
    return phi


@torch.no_grad()
def _materialise(phi: Symmetrizer, example: Any) -> None:
    """Let lazy nets see an input once; the global random state is left alone."""
    if isinstance(example, dict) and isinstance(phi.inputs, dict):
        x = phi.bind((), example)
    elif isinstance(example, tuple):
        x = phi.bind(example, {})
    else:
        x = phi.bind((example,), {})
    generator = torch.Generator(device=x.device).manual_seed(0)
    phi.distribution.transport(x, phi.distribution.noise(x, (1,), generator))
