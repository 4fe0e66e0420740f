"""The checker of models: is E[phi(gx)] = g E[phi(x)]?"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from probsym.estimators import Exact
from probsym.groups import Element
from probsym.reps import Inputs, Rep, as_spec, group_of, leaves
from probsym.reps.containers import dotted, lookup
from probsym.symmetrizer import Symmetrizer
from probsym.testing.elements import as_real, bind, centering_element, expand_samples, precise, random_elements, seeded
from probsym.testing.rounding import VANISHED, converted, in_precision, jittered, reach, tolerance_of
from probsym.testing.statistics import family_wise, symmetric_p_value

CHUNK = 64
ILL = 100  # times the tolerance: what an ill-conditioned model may make of the rounding of its inputs
LARGEST_ILL = 0.1  # and of points far from the origin


@dataclass(frozen=True)
class EquivarianceReport:
    """What `equivariance_error` found.

    Args:
        error: root-mean-square of E[phi(gx)] - g E[phi(x)], relative to that of the outputs about the centroid
            of the points, and to what rounding makes of them; of the worst output, and for exact outputs of the worst
            input.
        stderr: what Monte Carlo noise alone would make of it; zero for exact models.
        p_value: of the hypothesis that the model is equivariant; for exact models 1 within the tolerance, else 0.
        alpha: the false-alarm rate. samples: draws on each side, 0 for exact models. tolerance: allowed relative error.
        elements: random group elements an input. where: the worst output.
    """

    error: float
    stderr: float
    p_value: float
    alpha: float
    samples: int
    elements: int
    tolerance: float
    group: str
    where: str

    @property
    def passed(self) -> bool:
        return self.p_value >= self.alpha

    def __str__(self) -> str:
        verdict = "equivariant" if self.passed else "NOT equivariant"
        kind = f"{self.samples} samples" if self.samples else f"exact, tolerance {self.tolerance:.0e}"
        noise = f" +- {self.stderr:.2e} (noise)" if self.samples else ""
        return (
            f"{verdict} under {self.group}: relative error {self.error:.2e}{noise} of {self.where}, "
            f"p = {self.p_value:.1e} (alpha {self.alpha:.0e}; {kind}, {self.elements} elements)"
        )


@torch.no_grad()
def equivariance_error(
    f: Callable[..., Any],
    inputs: Any,
    reps: Any = None,
    output: Any = None,
    samples: int = 256,
    alpha: float = 1e-6,
    generator: torch.Generator | None = None,
    *,
    elements: int = 4,
    projections: int = 2,
    tolerance: float | None = None,
) -> EquivarianceReport:
    """Test E[phi(gx)] = g E[phi(x)] at the inputs, for random g (translations are of the size of the data).

    An exact phi (a plain model, `Exact()` with zero standard error) is compared to a tolerance. A random one is drawn
    `samples` times at gx and again at x. Under the hypothesis the differences of the draws are symmetric about zero,
    whatever their tails, so `testing.statistics.symmetric_p_value` bounds the false-alarm rate by `alpha` without any
    approximation, for every number of samples. (Should only the means of phi(gx) and g phi(x) agree and not their laws,
    the bound is that of the central limit theorem.) Half of alpha goes to a few random projections of each output,
    input and g; the other half to one projection of everything, learned on the first half of the draws and tested
    on the second: it finds a bias that is spread over many inputs.

    Args:
        f: a Symmetrizer, or any model or function of the same arguments.
        inputs: as the model is called: a dict of keywords, a tuple of positions, or the single argument.
        reps, output: Reps of inputs and output; those of the Symmetrizer unless given.
        alpha: false-alarm rate of the whole test.
        elements: random group elements an input. tolerance: relative error that counts as rounding. By default 1e-10
            in float64, 1e-5 in float32, 2 % below, whichever is the coarsest of inputs and outputs. Where that fails,
            rounding is measured: the answer to a change of the last digits of the inputs, at gx and at x, counts as
            rounding too, up to a hundred times the tolerance (and up to 10 % for points so far from the origin that
            their own digits are lost), unless a tolerance is given. Outputs that vanish are all rounding: a sum of
            forces, whose size in double precision is below a thousandth of that in single.

    Raises:
        TypeError: a bare model without reps and output. ValueError: samples below 4.

    >>> import torch, probsym as ps
    >>> rep = ps.Rep(ps.S("nodes"))
    >>> phi = ps.symmetrize(torch.nn.Linear(4, 4), rep, rep, "haar")
    >>> equivariance_error(phi, torch.randn(2, 4)).passed
    True
    >>> equivariance_error(phi.model, torch.randn(2, 4), rep, rep).passed
    False
    """
    if isinstance(f, Symmetrizer):
        reps, output = f.inputs if reps is None else reps, f.output if output is None else output
    if reps is None or output is None:
        raise TypeError(f"expected reps and output, the Reps to test against, for a {type(f).__name__}")
    if samples < 4 or elements < 1:
        raise ValueError(f"expected samples >= 4 and elements >= 1, got {samples} and {elements}")
    x = bind(as_spec(reps, "reps", untouched=True), inputs)
    test = _Test(f, as_spec(output, "output", untouched=True), x, samples, seeded(generator, x.device), tolerance)
    test.compare(elements)
    report = test.report(alpha, elements, projections)
    if report.passed:
        return report
    test.look_closer()
    return test.report(alpha, elements, projections)


def assert_equivariant(f: Callable[..., Any], inputs: Any, *args: Any, **kwargs: Any) -> EquivarianceReport:
    """`equivariance_error`, raising its report.

    Raises:
        AssertionError: the model is not equivariant.

    >>> import torch, probsym as ps
    >>> assert_equivariant(torch.nn.Tanh(), torch.randn(2, 4), ps.Rep(ps.S("nodes")), ps.Rep(ps.S("nodes"))).passed
    True
    """
    report = equivariance_error(f, inputs, *args, **kwargs)
    if not report.passed:
        raise AssertionError(str(report))
    return report


class _Test:
    """One comparison; draws and means of both sides by output."""

    def __init__(
        self, f: Any, output: Any, x: Inputs, samples: int, generator: torch.Generator, tolerance: float | None
    ) -> None:
        self.f, self.output, self.x, self.generator, self.samples = f, output, x, generator, samples
        self.group = group_of(x.signature.spec, output)
        self.reps = leaves(output)
        self.given = tolerance
        self.exact = self._exact()
        self.moves: list[tuple[Element, Element, Inputs]] = []  # h, what brings the centroid of hx home, and hx
        self.tolerance: dict[Any, float] = {}
        self.rounding: dict[Any, Tensor] = {}  # size of what a closer look found: per g and input, or one number
        self.gaps: dict[Any, list[Tensor]] = {path: [] for path in self.reps}  # per g, exact phi: (rows, ...)
        self.draws: dict[Any, list[Tensor]] = {path: [] for path in self.reps}  # per g, random phi: (samples, ...)
        self.near: dict[Any, list[Tensor]] = {path: [] for path in self.reps}  # size about the centroid
        self.far: dict[Any, list[Tensor]] = {path: [] for path in self.reps}  # size

    def _exact(self) -> Tensor:
        """Inputs (B,) at which f is a plain function."""
        args, kwargs, ones = (
            self.x.args,
            self.x.kwargs,
            torch.ones(self.x.count, dtype=torch.bool, device=self.x.device),
        )
        if not isinstance(self.f, Symmetrizer):
            first, second = (self.f(*args, **kwargs) for _ in range(2))
            same = all(
                torch.equal(lookup(first, path, "output "), lookup(second, path, "output ")) for path in self.reps
            )
            return ones & same
        noisy = ~ones
        estimator = self.f.train_estimator if self.f.training else self.f.eval_estimator
        if not isinstance(estimator, Exact):  # a few samples may agree by chance, at nearly symmetric inputs
            return noisy
        stderr = self.f.estimate(*args, generator=self.generator, **kwargs).stderr
        for path, rep in self.reps.items():
            wrong = lookup(stderr, path, "output ") != 0
            rows = self.rows(rep, len(wrong))
            noisy = noisy.index_add(0, rows, wrong.reshape(len(rows), -1).any(-1))
        return ~noisy

    def rows(self, rep: Rep, count: int) -> Tensor:
        """The input of every one of the rows of an output."""
        if rep.ragged is None:
            return torch.arange(self.x.count, device=self.x.device)
        return self.x.layouts[rep.ragged].owner(rep.slots[0], count)

    def compare(self, elements: int) -> None:
        for _ in range(elements):
            h = random_elements(self.group, self.x, self.generator)
            moved = self.x.act(h)
            home = centering_element(self.group, moved)
            self.moves.append((h, home, moved))
            if bool(self.exact.any()):
                self._add(self.gaps, h, home, self._mean(moved), self._mean(self.x), 1)
            if not bool(self.exact.all()):
                for start in range(0, self.samples, CHUNK):
                    k = min(CHUNK, self.samples - start)
                    self._add(self.draws, h, home, self._draw(moved, k), self._draw(self.x, k), k)

    def _mean(self, x: Inputs, f: Any = None) -> Any:
        """One evaluation, with a sample axis of one in front."""
        options = {"generator": self.generator} if isinstance(self.f, Symmetrizer) else {}
        y = (self.f if f is None else f)(*x.args, **x.kwargs, **options)
        return {path: lookup(y, path, "output ")[None] for path in self.reps}

    def _draw(self, x: Inputs, k: int) -> Any:
        if isinstance(self.f, Symmetrizer):
            y = self.f.sample(*x.args, samples=k, generator=self.generator, **x.kwargs)
            return {path: lookup(y, path, "output ") for path in self.reps}
        ys = [self._mean(x) for _ in range(k)]
        return {path: torch.cat([y[path] for y in ys]) for path in self.reps}

    def _add(self, store: Any, h: Element, home: Element, left: Any, right: Any, k: int) -> None:
        """Differences of phi(gx) and g phi(x), both with the centroid at the origin and padding zero."""
        for path, rep in self.reps.items():
            if path not in self.tolerance:
                kinds = [left[path], right[path]]
                self.tolerance[path] = tolerance_of(self.x, kinds) if self.given is None else self.given
            a, b = self._sides(path, rep, h, home, left, right, k)
            store[path].append(a - b)
            self.far[path].append(_size(left[path]))
            self.near[path].append(torch.maximum(_size(a), _size(b)))

    def _sides(self, path: Any, rep: Rep, h: Element, home: Element, left: Any, right: Any, k: int) -> list[Tensor]:
        """phi(gx) and g phi(x), both with the centroid at the origin, in float64."""
        a, b = precise(left[path]), precise(right[path])
        b = rep.act(expand_samples(h, k), b)
        return [as_real(rep.act(expand_samples(home, k), y)) for y in (a, b)]

    def look_closer(self) -> None:
        """Measure what rounding makes of each output, `rounding`; asked for where a comparison fails."""
        share = ILL * (1 + max(reach(moved) for _, _, moved in self.moves))
        for path, rep in self.reps.items():
            if self.given is None:
                most = min(share * self.tolerance[path], LARGEST_ILL) * self.size(path)
                self.rounding[path] = (8 * self._response(path, rep)).clamp_max(most)
        for path in self._vanishing():
            near = torch.stack(self.near[path]).amax()
            self.rounding[path] = torch.maximum(self.rounding.get(path, torch.zeros_like(near)), 8 * near)

    def _response(self, path: Any, rep: Rep) -> Tensor:
        """Change of an output with the last digits of the inputs, at gx and x: of each g and input if exact."""
        found = []
        for h, home, moved in self.moves:
            if bool(self.exact.all()):
                near, far = self._mean(moved), self._mean(self.x)
                other = self._mean(jittered(moved, self.generator)), self._mean(jittered(self.x, self.generator))
            elif isinstance(self.f, Symmetrizer):
                noise = self.f.draw_noise(*self.x.args, samples=16, generator=self.generator, **self.x.kwargs)
                draw = lambda x, eps=noise: self._coupled(x, eps)  # noqa: E731
                near, far = draw(moved), draw(self.x)
                other = draw(jittered(moved, self.generator)), draw(jittered(self.x, self.generator))
            else:
                return torch.zeros((), dtype=torch.float64, device=self.x.device)
            k = len(near[path])
            before, after = (self._sides(path, rep, h, home, *pair, k) for pair in ((near, far), other))
            found.append(torch.maximum(*((a - b).square() for a, b in zip(before, after, strict=True))))
        square = torch.cat(found)
        if bool(self.exact.all()):
            return self._by_input(rep, square).sqrt()
        return square.mean().sqrt() if square.numel() else square.new_zeros(())

    def _coupled(self, x: Inputs, noise: Any) -> Any:
        y = self.f.sample(*x.args, noise=noise, **x.kwargs)
        return {path: lookup(y, path, "output ") for path in self.reps}

    def _vanishing(self) -> list[Any]:
        """Outputs that are rounding alone at x and at every gx: what they are shrinks with the precision."""
        sizes: dict[torch.dtype, dict[Any, list[Tensor]]] = {}
        for kind in (torch.float32, torch.float64):
            try:
                f = in_precision(self.f, kind)
                places = [
                    (self.x, centering_element(self.group, self.x)),
                    *((moved, home) for _, home, moved in self.moves),
                ]
                sizes[kind] = {path: [] for path in self.reps}
                for x, home in places:
                    y = self._mean(converted(x, kind), f)
                    for path, rep in self.reps.items():
                        sizes[kind][path].append(_size(as_real(rep.act(expand_samples(home, 1), precise(y[path])))))
            except (RuntimeError, TypeError, ValueError, AttributeError):
                return []  # a function of one precision, or a module that cannot be copied: no second opinion
        single, double = (sizes[kind] for kind in (torch.float32, torch.float64))
        return [
            path for path in self.reps
            if float(torch.stack(double[path]).amax()) < VANISHED * float(torch.stack(single[path]).amin())
        ]  # fmt: skip

    def size(self, path: Any) -> Tensor:
        """Size of an output about the centroid, or of one sample of it."""
        near = torch.stack(self.near[path]).amax()
        if isinstance(self.f, Symmetrizer) and not self.draws[path]:
            near = torch.maximum(near, self._single(path))
        return near

    def scale(self, path: Any) -> Tensor:
        """Size of an output about the centroid, and of rounding where that is far; one where it vanishes."""
        far, near = torch.stack(self.far[path]).amax(), self.size(path)
        size = near + 16 * torch.finfo(self.x.dtype).eps / self.tolerance[path] * far
        return torch.where(size > 0, size, 1.0)

    def _single(self, path: Any) -> Tensor:
        """Size of one sample: what rounding is relative to where an average cancels."""
        rep, home = self.reps[path], centering_element(self.group, self.x)
        return _size(rep.act(expand_samples(home, 4), precise(self._draw(self.x, 4)[path])))

    def slack(self, path: Any) -> Tensor:
        """Absolute error that counts as rounding; per g and input where rounding was measured so."""
        tolerance = self.tolerance[path] * self.scale(path)
        return tolerance + self.rounding[path] if path in self.rounding else tolerance

    def report(self, alpha: float, elements: int, projections: int) -> EquivarianceReport:
        worst: tuple[float, float, float, str, float] = (-1.0, 0.0, 0.0, "", 0.0)
        p_exact = 1.0
        rough: list[Tensor] = []
        sharp: list[Tensor] = []
        for path, rep in self.reps.items():
            slack, tolerance, name = self.slack(path), self.tolerance[path], dotted(path, "the output")
            if self.gaps[path]:
                excess = (self._exact_error(path, rep) / slack)[:, self.exact]
                share = float(excess.amax()) if bool(excess.isfinite().all()) else math.inf
                p_exact = p_exact if share <= 1 else 0.0
                worst = max(worst, (share, share * tolerance, 0.0, name, tolerance))
            if self.draws[path]:
                allowed = slack.amax()
                d, bias, spread = self._random_error(path, rep)
                near = torch.stack(self.near[path]).amax().clamp_min(torch.finfo(torch.float64).tiny)
                near = torch.maximum(near, allowed / tolerance) if path in self.rounding else near
                relative = float(bias / near)
                relative = relative if math.isfinite(relative) else math.inf
                worst = max(worst, (relative / tolerance, relative, float(spread / near), name, tolerance))
                rough.append(self._projected(d, allowed, projections))
                sharp.append(self._learned(d, allowed))
        p = p_exact
        if rough:
            p = min(p, 2 * family_wise(torch.cat(rough)), 2 * family_wise(torch.stack(sharp)))
        used = self.samples if rough else 0
        _, error, noise, name, tolerance = worst
        return EquivarianceReport(error, noise, min(p, 1.0), alpha, used, elements, tolerance, repr(self.group), name)

    def _exact_error(self, path: Any, rep: Rep) -> Tensor:
        """Root-mean-square difference of each g and input, (elements, B)."""
        return self._by_input(rep, torch.cat(self.gaps[path]).square()).sqrt()

    def _by_input(self, rep: Rep, square: Tensor) -> Tensor:
        """Means (J, B) over the entries of each input of squares (J, rows, ...)."""
        rows = self.rows(rep, square.shape[1])
        if square.numel():
            square = square.reshape(len(square), len(rows), -1).mean(-1)
        else:
            square = square.new_zeros(len(square), len(rows))
        total = square.new_zeros(len(square), self.x.count).index_add(1, rows, square)
        count = square.new_zeros(self.x.count).index_add(0, rows, torch.ones_like(square[0])).clamp_min(1)
        return total / count

    def _random_error(self, path: Any, rep: Rep) -> tuple[Tensor, Tensor, Tensor]:
        """Differences (samples, elements, rows, F) of the random inputs, size of their mean, and its noise."""
        d = torch.cat(self.draws[path])
        keep = ~self.exact[self.rows(rep, d.shape[1])]
        d = d.unflatten(0, (-1, self.samples)).movedim(0, 1)[:, :, keep]
        d = d.reshape(*d.shape[:3], -1) if d.numel() else d.new_zeros(*d.shape[:3], 1)
        return d, d.mean(0).square().mean().sqrt(), (d.var(0) / len(d)).mean().sqrt()

    def _projected(self, d: Tensor, slack: Tensor, projections: int) -> Tensor:
        """p-values of random projections, one a row, g and projection; coordinates weigh alike."""
        size = d.square().mean(0).sqrt().clamp_min(slack)
        options: dict[str, Any] = {"generator": self.generator, "dtype": d.dtype, "device": d.device}
        v = torch.randn(projections, *d.shape[1:], **options) / size
        return symmetric_p_value(torch.einsum("serf,perf->sper", d, v), slack * v.abs().sum(-1)).reshape(-1)

    def _learned(self, d: Tensor, slack: Tensor) -> Tensor:
        """p-value of the second half of the draws along the mean of the first half."""
        half = len(d) // 2
        v = d[:half].mean(0) / d.square().mean(0).clamp_min(slack**2)
        return symmetric_p_value((d[half:] * v).flatten(1).sum(1), slack * v.abs().sum())


def _size(y: Tensor) -> Tensor:
    """Root mean square."""
    return as_real(y).square().mean().sqrt() if y.numel() else torch.zeros((), dtype=torch.float64, device=y.device)
