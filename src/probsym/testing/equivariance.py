"""The checker of models: is E[phi(gx)] = g E[phi(x)]?"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor

from probsym.estimators import Exact
from probsym.groups import Element
from probsym.reps import Inputs, Rep, as_spec, group_of, leaves
from probsym.reps.containers import Path, Spec, dotted, lookup
from probsym.symmetrizer import Symmetrizer
from probsym.testing.elements import as_real, bind, centering_element, expand_samples, precise, random_elements, seeded
from probsym.testing.rounding import VANISHED, converted, in_precision, jittered, reach, tolerance_of
from probsym.testing.statistics import family_wise, symmetric_p_value

SAMPLES_AT_ONCE = 64
ROUNDING_SAMPLES = 16  # draws with the same noise, for the answer of a random model to the last digits of its inputs
SIZE_SAMPLES = 4  # draws that tell the size of one sample

# What is measured as rounding scatters: several times as much is allowed.
ROUNDING_MARGIN = 8.0
# What an ill-conditioned model may make of the rounding of its inputs, in tolerances.
LARGEST_ROUNDING_IN_TOLERANCES = 100
# The same relative to the size of the output, for points far from the origin.
LARGEST_RELATIVE_ROUNDING = 0.1


@dataclass(frozen=True)
class EquivarianceReport:
    """What `equivariance_error` measured.

    Args:
        error: root mean square of E[phi(gx)] - g E[phi(x)]. It is relative to the size of the outputs about the
            centroid of the points, and to what rounding makes of them. Of several outputs the worst is reported, and
            of exact ones the worst input.
        stderr: what Monte Carlo noise alone would make of it; zero for exact models.
        p_value: of the hypothesis that the model is equivariant; for exact models 1 within the tolerance, else 0.
        alpha: the false-alarm rate.
        samples: draws on each side, 0 for exact models.
        elements: random group elements per input.
        tolerance: allowed relative error.
        group: the group, as its repr.
        where: the worst output.
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
        if self.samples:
            kind = f"{self.samples} samples"
            noise = f" +- {self.stderr:.2e} (noise)"
        else:
            kind = f"exact, tolerance {self.tolerance:.0e}"
            noise = ""
        return (
            f"{verdict} under {self.group}: relative error {self.error:.2e}{noise} of {self.where}, "
            f"p = {self.p_value:.1e} (alpha {self.alpha:.0e}; {kind}, {self.elements} elements)"
        )


@torch.no_grad()
def equivariance_error(
    f: Callable[..., Any],
    inputs: Any,
    reps: Spec = None,
    output: Spec = None,
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
        samples: draws on each side of a random model.
        alpha: false-alarm rate of the whole test.
        generator: of all draws; one that always starts the same unless given.
        elements: random group elements per input.
        projections: random projections of each output, input and g.
        tolerance: relative error that counts as rounding. By default 1e-10 in float64, 1e-5 in float32, 2 % below,
            whichever is the coarsest of inputs and outputs.

    Where the default tolerance fails, rounding is measured. The answer to a change of the last digits of the inputs, at
    gx and at x, counts as rounding too: up to a hundred times the tolerance, and up to 10 % for points so far from the
    origin that their own digits are lost. Outputs that vanish are all rounding, such as a sum of forces whose size in
    double precision is below a thousandth of that in single.

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
        if reps is None:
            reps = f.inputs
        if output is None:
            output = f.output
    if reps is None or output is None:
        raise TypeError(f"expected reps and output, the Reps to test against, for a {type(f).__name__}")
    if samples < 4 or elements < 1:
        raise ValueError(f"expected samples >= 4 and elements >= 1, got {samples} and {elements}")

    # 1. both sides of the equation, at random group elements
    x = bind(as_spec(reps, "reps", untouched=True), inputs)
    output = as_spec(output, "output", untouched=True)
    test = _Test(f, output, x, samples, seeded(generator, x.device), tolerance)
    test.compare(elements)
    report = test.report(alpha, elements, projections)
    if report.passed:
        return report

    # 2. before it fails: how much of the difference may be rounding?
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


@dataclass(eq=False)
class _Output:
    """One declared output and what was seen of it; every list has one entry per comparison.

    Args:
        path, rep: where it stands and how the group acts on it.
        tolerance: relative error that counts as rounding.
        rounding: absolute error that a closer look adds to it: per g and input (J, B), or one number.
        gaps: differences phi(gx) - g phi(x) of an exact phi, (1, rows, ...).
        draws: the same differences of a random phi, (samples, rows, ...).
        near, far: sizes of the output about the centroid, and about the origin.
    """

    path: Path
    rep: Rep
    tolerance: float = math.nan
    rounding: Tensor | None = None
    gaps: list[Tensor] = field(default_factory=list)
    draws: list[Tensor] = field(default_factory=list)
    near: list[Tensor] = field(default_factory=list)
    far: list[Tensor] = field(default_factory=list)

    @property
    def largest_near(self) -> Tensor:
        return torch.stack(self.near).amax()

    @property
    def largest_far(self) -> Tensor:
        return torch.stack(self.far).amax()


class _Move(NamedTuple):
    """A random h per input, hx, and the element that brings the centroid of hx to the origin."""

    h: Element
    home: Element
    moved: Inputs


class _Worst(NamedTuple):
    """The error of one output; the first field decides which one is the worst."""

    in_tolerances: float
    relative: float
    noise: float
    where: str
    tolerance: float


class _Test:
    """One comparison of phi(gx) with g phi(x), output by output."""

    def __init__(
        self,
        f: Callable[..., Any],
        output: Spec,
        x: Inputs,
        samples: int,
        generator: torch.Generator,
        tolerance: float | None,
    ) -> None:
        self.f = f
        self.x = x
        self.samples = samples
        self.generator = generator
        self.given_tolerance = tolerance
        self.group = group_of(x.signature.spec, output)
        self.outputs = [_Output(path, rep) for path, rep in leaves(output).items()]
        self.moves: list[_Move] = []
        self.exact = self._find_exact()

    def _find_exact(self) -> Tensor:
        """Inputs (B,) at which f is a plain function."""
        all_inputs = torch.ones(self.x.count, dtype=torch.bool, device=self.x.device)

        # 1. a function or module: called twice
        if not isinstance(self.f, Symmetrizer):
            first = self.f(*self.x.args, **self.x.kwargs)
            second = self.f(*self.x.args, **self.x.kwargs)
            for output in self.outputs:
                if not torch.equal(_entry(first, output), _entry(second, output)):
                    return ~all_inputs
            return all_inputs

        # 2. a Symmetrizer: only `Exact` can be trusted, since a few samples may agree by chance at nearly symmetric
        # inputs
        estimator = self.f.train_estimator if self.f.training else self.f.eval_estimator
        if not isinstance(estimator, Exact):
            return ~all_inputs
        stderr = self.f.estimate(*self.x.args, generator=self.generator, **self.x.kwargs).stderr
        noisy = ~all_inputs
        for output in self.outputs:
            random = _entry(stderr, output) != 0
            owner = self.owner(output.rep, len(random))
            noisy = noisy.index_add(0, owner, random.reshape(len(owner), -1).any(-1))
        return ~noisy

    @property
    def any_exact(self) -> bool:
        return bool(self.exact.any())

    @property
    def all_exact(self) -> bool:
        return bool(self.exact.all())

    def owner(self, rep: Rep, count: int) -> Tensor:
        """The input to which each of the rows of an output belongs."""
        if rep.ragged is None:
            return torch.arange(self.x.count, device=self.x.device)
        return self.x.layouts[rep.ragged].owner(rep.slots[0], count)

    # ------------------------------------------------------------ both sides

    def compare(self, elements: int) -> None:
        """Evaluate both sides at `elements` random group elements per input."""
        for _ in range(elements):
            h = random_elements(self.group, self.x, self.generator)
            moved = self.x.act(h)
            move = _Move(h, centering_element(self.group, moved), moved)
            self.moves.append(move)
            if self.any_exact:
                left = self._evaluate(self.f, moved)
                right = self._evaluate(self.f, self.x)
                for output, difference in self._differences(move, left, right):
                    output.gaps.append(difference)
            if not self.all_exact:
                for start in range(0, self.samples, SAMPLES_AT_ONCE):
                    k = min(SAMPLES_AT_ONCE, self.samples - start)
                    left = self._draw(moved, k)
                    right = self._draw(self.x, k)
                    for output, difference in self._differences(move, left, right):
                        output.draws.append(difference)

    def _evaluate(self, f: Callable[..., Any], x: Inputs) -> dict[Path, Tensor]:
        """The outputs of one call, with a sample axis of one in front."""
        if isinstance(self.f, Symmetrizer):
            y = f(*x.args, generator=self.generator, **x.kwargs)
        else:
            y = f(*x.args, **x.kwargs)
        return {output.path: _entry(y, output)[None] for output in self.outputs}

    def _draw(self, x: Inputs, k: int) -> dict[Path, Tensor]:
        """k samples of the outputs, (k, ...)."""
        if isinstance(self.f, Symmetrizer):
            y = self.f.sample(*x.args, samples=k, generator=self.generator, **x.kwargs)
            return {output.path: _entry(y, output) for output in self.outputs}
        calls = [self._evaluate(self.f, x) for _ in range(k)]
        return {output.path: torch.cat([y[output.path] for y in calls]) for output in self.outputs}

    def _draw_coupled(self, phi: Symmetrizer, x: Inputs, noise: Any) -> dict[Path, Tensor]:
        """The samples that belong to the given noise."""
        y = phi.sample(*x.args, noise=noise, **x.kwargs)
        return {output.path: _entry(y, output) for output in self.outputs}

    def _differences(
        self, move: _Move, left: dict[Path, Tensor], right: dict[Path, Tensor]
    ) -> list[tuple[_Output, Tensor]]:
        """phi(gx) - g phi(x) of every output; its sizes are noted."""
        differences: list[tuple[_Output, Tensor]] = []
        for output in self.outputs:
            at_moved, at_x = left[output.path], right[output.path]
            if math.isnan(output.tolerance):
                output.tolerance = self._tolerance_of(at_moved, at_x)
            a, b = _sides(output.rep, move, at_moved, at_x)
            output.far.append(_size(at_moved))
            output.near.append(torch.maximum(_size(a), _size(b)))
            differences.append((output, a - b))
        return differences

    def _tolerance_of(self, at_moved: Tensor, at_x: Tensor) -> float:
        if self.given_tolerance is not None:
            return self.given_tolerance
        return tolerance_of(self.x, [at_moved, at_x])

    # ------------------------------------------------------------ rounding

    def look_closer(self) -> None:
        """Measure what rounding makes of each output; asked for where a comparison fails."""
        # 1. the answer of the model to the last digits of its inputs
        if self.given_tolerance is None:
            farthest = max(reach(move.moved) for move in self.moves)
            for output in self.outputs:
                relative = LARGEST_ROUNDING_IN_TOLERANCES * (1 + farthest) * output.tolerance
                most = min(relative, LARGEST_RELATIVE_ROUNDING) * self._size_of(output)
                output.rounding = (ROUNDING_MARGIN * self._response(output)).clamp_max(most)

        # 2. outputs that vanish are nothing else
        for output in self._vanishing():
            everything = ROUNDING_MARGIN * output.largest_near
            if output.rounding is None:
                output.rounding = everything
            else:
                output.rounding = torch.maximum(output.rounding, everything)

    def _response(self, output: _Output) -> Tensor:
        """Change of an output with the last digits of the inputs, at gx and x: of each g and input if exact."""
        squares: list[Tensor] = []
        for move in self.moves:
            # 1. both sides, as they are and at inputs whose last digits are changed
            if self.all_exact:
                left = self._evaluate(self.f, move.moved)
                right = self._evaluate(self.f, self.x)
                left_changed = self._evaluate(self.f, jittered(move.moved, self.generator))
                right_changed = self._evaluate(self.f, jittered(self.x, self.generator))
            elif isinstance(self.f, Symmetrizer):
                # the same noise throughout: only the change of the inputs is left
                noise = self.f.draw_noise(
                    *self.x.args, samples=ROUNDING_SAMPLES, generator=self.generator, **self.x.kwargs
                )
                left = self._draw_coupled(self.f, move.moved, noise)
                right = self._draw_coupled(self.f, self.x, noise)
                left_changed = self._draw_coupled(self.f, jittered(move.moved, self.generator), noise)
                right_changed = self._draw_coupled(self.f, jittered(self.x, self.generator), noise)
            else:  # a random function, whose noise cannot be held
                return torch.zeros((), dtype=torch.float64, device=self.x.device)

            # 2. the larger of the two changes
            path = output.path
            a, b = _sides(output.rep, move, left[path], right[path])
            a_changed, b_changed = _sides(output.rep, move, left_changed[path], right_changed[path])
            squares.append(torch.maximum((a - a_changed).square(), (b - b_changed).square()))
        square = torch.cat(squares)
        if self.all_exact:
            return self._mean_by_input(output.rep, square).sqrt()
        if not square.numel():
            return square.new_zeros(())
        return square.mean().sqrt()

    def _vanishing(self) -> list[_Output]:
        """Outputs that are rounding alone at x and at every gx: their size shrinks with the precision."""
        try:
            single = self._sizes_in(torch.float32)
            double = self._sizes_in(torch.float64)
        except (RuntimeError, TypeError, ValueError, AttributeError):
            return []  # a function of one precision, or a module that cannot be copied: no second opinion
        vanishing: list[_Output] = []
        for output in self.outputs:
            smallest_single = float(torch.stack(single[output.path]).amin())
            largest_double = float(torch.stack(double[output.path]).amax())
            if largest_double < VANISHED * smallest_single:
                vanishing.append(output)
        return vanishing

    def _sizes_in(self, kind: torch.dtype) -> dict[Path, list[Tensor]]:
        """Sizes about the centroid of the outputs at x and every gx, computed in one precision."""
        f = in_precision(self.f, kind)
        places = [(self.x, centering_element(self.group, self.x))]
        for move in self.moves:
            places.append((move.moved, move.home))
        sizes: dict[Path, list[Tensor]] = {output.path: [] for output in self.outputs}
        for x, home in places:
            y = self._evaluate(f, converted(x, kind))
            for output in self.outputs:
                centred = output.rep.act(expand_samples(home, 1), precise(y[output.path]))
                sizes[output.path].append(_size(centred))
        return sizes

    # ------------------------------------------------------------ sizes

    def _size_of(self, output: _Output) -> Tensor:
        """Size of an output about the centroid, or of one sample of it where that is larger: an average may cancel."""
        near = output.largest_near
        if isinstance(self.f, Symmetrizer) and not output.draws:
            home = centering_element(self.group, self.x)
            samples = precise(self._draw(self.x, SIZE_SAMPLES)[output.path])
            near = torch.maximum(near, _size(output.rep.act(expand_samples(home, SIZE_SAMPLES), samples)))
        return near

    def _allowed(self, output: _Output) -> Tensor:
        """Absolute error that counts as rounding; per g and input where rounding was measured so."""
        # what rounding loses of outputs far from the origin belongs to their size; an output that vanishes has size one
        lost = 16 * torch.finfo(self.x.dtype).eps / output.tolerance * output.largest_far
        scale = self._size_of(output) + lost
        allowed = output.tolerance * torch.where(scale > 0, scale, 1.0)
        if output.rounding is None:
            return allowed
        return allowed + output.rounding

    # ------------------------------------------------------------ the verdict

    def report(self, alpha: float, elements: int, projections: int) -> EquivarianceReport:
        worst = _Worst(-1.0, 0.0, 0.0, "", 0.0)
        p_exact = 1.0
        p_projected: list[Tensor] = []
        p_learned: list[Tensor] = []
        for output in self.outputs:
            allowed = self._allowed(output)
            tolerance = output.tolerance
            name = dotted(output.path, "the output")

            # 1. inputs at which phi is a plain function: the error of each against the tolerance
            if output.gaps:
                error = self._mean_by_input(output.rep, torch.cat(output.gaps).square()).sqrt()
                excess = (error / allowed)[:, self.exact]
                share = float(excess.amax()) if bool(excess.isfinite().all()) else math.inf
                if share > 1:
                    p_exact = 0.0
                worst = max(worst, _Worst(share, share * tolerance, 0.0, name, tolerance))

            # 2. the others: p-values of the differences of the draws
            if output.draws:
                differences = self._random_differences(output)
                bias = differences.mean(0).square().mean().sqrt()
                noise = (differences.var(0) / len(differences)).mean().sqrt()
                near = output.largest_near.clamp_min(torch.finfo(torch.float64).tiny)
                if output.rounding is not None:
                    near = torch.maximum(near, allowed.amax() / tolerance)
                relative = float(bias / near)
                if not math.isfinite(relative):
                    relative = math.inf
                worst = max(worst, _Worst(relative / tolerance, relative, float(noise / near), name, tolerance))
                p_projected.append(self._projected(differences, allowed.amax(), projections))
                p_learned.append(self._learned(differences, allowed.amax()))

        # 3. the worst of all, half of alpha for each of the two statistical tests
        p = p_exact
        samples = 0
        if p_projected:
            p = min(p, 2 * family_wise(torch.cat(p_projected)), 2 * family_wise(torch.stack(p_learned)))
            samples = self.samples
        return EquivarianceReport(
            error=worst.relative,
            stderr=worst.noise,
            p_value=min(p, 1.0),
            alpha=alpha,
            samples=samples,
            elements=elements,
            tolerance=worst.tolerance,
            group=repr(self.group),
            where=worst.where,
        )

    def _mean_by_input(self, rep: Rep, square: Tensor) -> Tensor:
        """Means (J, B) over the entries of each input of squares (J, rows, ...)."""
        owner = self.owner(rep, square.shape[1])
        if square.numel():
            square = square.reshape(len(square), len(owner), -1).mean(-1)
        else:
            square = square.new_zeros(len(square), len(owner))
        total = square.new_zeros(len(square), self.x.count).index_add(1, owner, square)
        count = square.new_zeros(self.x.count).index_add(0, owner, torch.ones_like(square[0])).clamp_min(1)
        return total / count

    def _random_differences(self, output: _Output) -> Tensor:
        """Differences (samples, elements, rows, F) of the inputs at which phi is random."""
        d = torch.cat(output.draws)
        random = ~self.exact[self.owner(output.rep, d.shape[1])]
        d = d.unflatten(0, (-1, self.samples)).movedim(0, 1)[:, :, random]
        if not d.numel():
            return d.new_zeros(*d.shape[:3], 1)
        return d.reshape(*d.shape[:3], -1)

    def _projected(self, d: Tensor, slack: Tensor, projections: int) -> Tensor:
        """p-values of random projections, one per row, g and projection; all coordinates have the same weight."""
        size = d.square().mean(0).sqrt().clamp_min(slack)
        v = torch.randn(projections, *d.shape[1:], generator=self.generator, dtype=d.dtype, device=d.device) / size
        along = torch.einsum("serf,perf->sper", d, v)
        return symmetric_p_value(along, slack * v.abs().sum(-1)).reshape(-1)

    def _learned(self, d: Tensor, slack: Tensor) -> Tensor:
        """p-value of the second half of the draws along the mean of the first half."""
        half = len(d) // 2
        v = d[:half].mean(0) / d.square().mean(0).clamp_min(slack**2)
        along = (d[half:] * v).flatten(1).sum(1)
        return symmetric_p_value(along, slack * v.abs().sum())


def _entry(value: Any, output: _Output) -> Tensor:
    """One output of what a model returned."""
    return lookup(value, output.path, "output ")


def _sides(rep: Rep, move: _Move, at_moved: Tensor, at_x: Tensor) -> tuple[Tensor, Tensor]:
    """phi(gx) and g phi(x), (k, ...), both with the centroid at the origin and padding zero, in float64."""
    k = len(at_moved)
    home = expand_samples(move.home, k)
    left = precise(at_moved)
    right = rep.act(expand_samples(move.h, k), precise(at_x))
    return as_real(rep.act(home, left)), as_real(rep.act(home, right))


def _size(y: Tensor) -> Tensor:
    """Root mean square."""
    if not y.numel():
        return torch.zeros((), dtype=torch.float64, device=y.device)
    return as_real(y).square().mean().sqrt()
