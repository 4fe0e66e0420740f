"""Frame averaging: the uniform distribution over a finite set of frames that moves with the input."""

from __future__ import annotations

import copy
import math
import warnings
from typing import Any

import torch
from torch import Tensor

from probsym.distributions.base import EquivariantDistribution, Noise, Support
from probsym.distributions.frames.directions import orient
from probsym.distributions.frames.distinct_axes import distinct_axes
from probsym.distributions.frames.noise import draw_noise, noise_reps, noise_tables, sample_shape
from probsym.distributions.frames.orders import arrange
from probsym.distributions.frames.search import FrameNoise, FrameTable, Listing, Paths, Sampling
from probsym.distributions.frames.signs import signed
from probsym.distributions.frames.views import Views, view_inputs
from probsym.distributions.geometry import pieces, spatial
from probsym.groups import Element, Group, IsometryGroup, Motion, OrthogonalElement
from probsym.groups.orthogonal import embedded, turned_axes
from probsym.groups.whole import positive
from probsym.kernels.values import vmapped
from probsym.members import register
from probsym.reps import Inputs, NodeAxis, Rep, leaves

# What a support says about degenerate inputs, each a number of inputs.
COUNTERS = ("continuous_stabilizer", "degenerate", "unsure", "sampled")

# A slot of a user's own may feel a space in any way: it counts as a tensor of this degree.
DEGREE_OF_UNKNOWN_SLOT = 3


@register
class Frame(EquivariantDistribution):
    """The frame average of Puny et al. (arXiv 2110.03336), exact wherever a finite set of frames exists.

        phi(x) = 1/|F(x)| sum_{g in F(x)} g f(g^-1 x),        F(hx) = h F(x)

    **O, SO, E, SE**: all signs of the principal axes about the origin (the centroid for E and SE), in ascending order
    of their eigenvalues; for SO and SE the right-handed ones. Repeated eigenvalues are resolved first by vector inputs,
    then by points in a fixed order, and otherwise by enumerating all equally extreme data directions.

    Where a space keeps an axis (`about="z"`), the axes are those of the points as seen along it: in the plane that is
    turned.

    **S_n**: the order of the diagonal of a function of the graph Laplacian. Equal nodes are distinguished by their
    coordinates in the frame of space, and otherwise by enumerating all choices. Where one number per node is all there
    is, nodes are sorted by it in ascending order.

    **Both**: every frame of space has its own order of the nodes.

    `frames/reference.py` has the generic case in a few lines; `frames/directions.py` and `frames/orders.py` have tables
    of the degenerate cases.

    **Continuous stabilizers.** Rotations about their line leave collinear points alone, and all rotations coincident
    points. Such an input gets a random basis of the directions without data. Listed with all signs (and cyclic
    exchanges), any basis gives the same average for outputs with up to two axes of a space: it is finite and exact. For
    outputs with three or more axes whole frames are sampled, as they are for inputs with more than `max_support`
    frames. `diagnostics["sampled"]` of an estimate counts these inputs, and there is one warning.

    **Rounding.** What is nearly equal counts as equal: eigenvalues closer than 1e-3 of their sum, nodes whose keys are
    closer than 1e-3. Next to such a border the rounding of an input may decide on which side it is, and the frames may
    change when it is turned. Near equal eigenvalues rounding turns the axes by its relative size over the gap; more
    than 5e-3 radians is too much. Both kinds of inputs are counted in `diagnostics["unsure"]`, their standard error is
    infinite, and there is one warning. `frames/tolerances.py` has all of these numbers.

    **Not continuous.** The average jumps where an input passes such a border: next to symmetric shapes a small change
    exchanges axes or the order of nodes. It is exactly equivariant there, but energies have steps, and forces next to
    them may be hundreds of times too large. Where that matters use `Haar` or `Learned`.

    Args:
        group: a product of S, Axis, O, SO, E and SE.
        max_support: most frames of one input that are listed.
        samples: frames that are drawn for an input that cannot be listed.

    Raises:
        ValueError: max_support or samples below one; for E and SE at the call, no points.

    >>> from probsym.groups import O
    >>> x = Inputs.bind(Rep(None, O(3)), (torch.randn(2, 5, 3),), {})
    >>> support = Frame(O(3)).support(x)
    >>> support.element.shape, support.exact.tolist()
    ((8, 2), [True, True])
    """

    default_samples = (None, None)
    has_enumerate_support = True

    def __init__(self, group: Group, max_support: int = 64, samples: int = 16) -> None:
        super().__init__(group)
        self.max_support = positive("max_support", max_support)
        self.samples = positive("samples", samples)
        spaces: list[IsometryGroup] = []
        nodes: list[NodeAxis] = []
        fixed: list[NodeAxis] = []
        factors: tuple[Any, ...] = group.factors
        for factor in factors:
            if factor.isometric:
                spaces.append(factor)
            elif factor.on_nodes and factor.feature_kind == "scores":
                nodes.append(factor)
            elif factor.on_nodes and factor.trivial:
                fixed.append(factor)
            else:
                raise ValueError(f"Frame: no frames are known for {factor!r}; take 'canonical' or 'learned' instead")
        self.spaces = tuple(spaces)
        self.nodes = tuple(nodes)
        self.fixed = tuple(fixed)  # node axes on which nothing acts
        self.degree = 1
        self._warned = False
        self._warned_unsure = False

    def for_output(self, spec: Any) -> Frame:
        """The same frames for outputs of the given Reps: what a continuous stabilizer does depends on their degree."""
        frame = copy.copy(self)
        frame.degree = 0
        for rep in leaves(spec).values():
            for space in self.spaces:
                frame.degree = max(frame.degree, _degree(rep, space))
        return frame

    def noise(self, x: Inputs, shape: tuple[int, ...] = (), generator: torch.Generator | None = None) -> Noise:
        return draw_noise(x, self.group, self.spaces, shape, generator)

    def noise_rep(self, x: Inputs) -> Any:
        return noise_reps(x, self.group, self.spaces)

    def transport(self, x: Inputs, noise: Noise, diagnostics: dict[str, Tensor] | None = None) -> Element:
        """One frame per sample, uniform over the frames; of a continuous stabilizer one basis each."""
        self._refuse_vmap(x)
        views = self._views(x)

        # One path per sample k and input b, in this order; each reads its own row k B + b of the noise.
        shape = sample_shape(self.group, noise)
        times = math.prod(shape)
        inputs = torch.arange(x.count, device=x.device).repeat(times)
        draws = torch.arange(times * x.count, device=x.device)
        paths = self._sampling(x, noise, times, inputs, draws)
        self._walk(paths, views)

        if diagnostics is not None:
            diagnostics.update(self._counters(views))
        return self._element(x, views, paths.found().as_samples((*shape, x.count)))

    def support(self, x: Inputs, generator: torch.Generator | None = None) -> Support:
        """All frames; a sample of `samples` for inputs that have too many or feel a continuous stabilizer."""
        self._refuse_vmap(x)

        # 1. The usual case: the signs of the axes of one space, first by a fast test, then by the general way.
        space = self._only_space(x)
        if space is not None:
            settled = distinct_axes(x, space)
            if settled is not None:
                vectors, origin = settled
                return self._signed_support(x, space, vectors, origin)
        views = self._views(x)
        counters = self._counters(views)
        degenerate = bool(counters["degenerate"])
        if space is not None and not degenerate and not bool(counters["unsure"]):
            view = views.spaces[space]
            return self._signed_support(x, space, view.axes.vectors, view.origin)

        # 2. List all frames. Axes without data take one basis from the noise.
        noise: FrameNoise | None = None
        if degenerate:
            noise = noise_tables(x, self.noise(x, (1,), generator), 1, self.spaces, self.nodes)
        listing = Listing(x.count, self.max_support, noise, x.device)
        if degenerate:
            listing.give_up(self._felt(x, views))
        self._walk(listing, views)
        found = listing.found()

        # 3. Draw frames of the inputs that were given up.
        left = listing.overflow.nonzero().squeeze(-1)
        if len(left):
            drawn_noise = self.noise(x, (self.samples,), generator)
            first_draw = torch.arange(self.samples, device=x.device)[:, None] * x.count
            draws = (first_draw + left).reshape(-1)
            drawn = self._sampling(x, drawn_noise, self.samples, left.repeat(self.samples), draws)
            self._walk(drawn, views)
            found = found + drawn.found()
            self._warn(len(left))

        # 4. Say which inputs rounding decided.
        unsure = listing.unsure | views.unsure
        if bool(unsure.any()):
            self._warn_unsure(int(unsure.sum()))
        counters["unsure"] = unsure.sum()
        counters["sampled"] = listing.overflow.sum()
        exact = ~listing.overflow & ~unsure
        table = found.as_table(x.count)
        return Support(self._element(x, views, table), table.weight.to(x.dtype), exact, counters, unsure)

    def _refuse_vmap(self, x: Inputs) -> None:
        """The number of frames depends on values, and under `torch.vmap` there is no one value."""
        if any(vmapped(leaf.value) for leaf in x.leaves.values()):
            raise ValueError(
                f"{self.brief} lists frames by the values of the inputs, which torch.vmap hides: give the inputs as "
                "one batch instead"
            )

    def _only_space(self, x: Inputs) -> IsometryGroup | None:
        """The space, if it is all there is to orient and the signs of its axes can be listed."""
        if len(self.spaces) != 1 or self.nodes or not x.count:
            return None
        space = self.spaces[0]
        if 2 ** len(turned_axes(space)) > self.max_support:
            return None
        return space

    def _views(self, x: Inputs) -> Views:
        return view_inputs(x, self.spaces, self.nodes, spread=self.degree == 2)

    def _sampling(self, x: Inputs, noise: Noise, times: int, owner: Tensor, draws: Tensor) -> Sampling:
        """One path for each of the given draws k B + b of the noise, of which there are K = `times` per input."""
        weight = torch.ones(len(owner), dtype=torch.float64, device=x.device) / self.samples
        tables = noise_tables(x, noise, times, self.spaces, self.nodes)
        return Sampling(owner, weight, self.max_support, tables, draws)

    def _walk(self, paths: Paths, views: Views) -> None:
        """Apply every rule: spaces first, because their frames help to sort."""
        for space_view in views.spaces.values():
            orient(paths, space_view)
        for node_view in views.nodes.values():
            arrange(paths, node_view)

    def _felt(self, x: Inputs, views: Views) -> Tensor:
        """Inputs with a continuous stabilizer that shows in the output (B,)."""
        felt = views.none
        for space in self.spaces:
            known = {leaf.name for leaf in spatial(x, space)}
            parts = [piece for leaf in x.leaves.values() for piece in pieces(leaf)]
            hidden = any(_degree(piece.rep, space) and piece.name not in known for piece in parts)
            if hidden or self.degree > 2:
                felt = felt | (views.spaces[space].axes.null > 1)
        return felt

    def _counters(self, views: Views) -> dict[str, Tensor]:
        return {
            "continuous_stabilizer": views.continuous_stabilizer.sum(),
            "degenerate": views.degenerate.sum(),
            "unsure": views.unsure.sum(),
        }

    def _signed_support(self, x: Inputs, space: IsometryGroup, vectors: Tensor, origin: Tensor) -> Support:
        """All signs of the axes (B, m, m) of one space, which every input has settled."""
        matrix = signed(vectors.to(x.dtype, memory_format=torch.contiguous_format), space.special)
        count = len(matrix)
        parts = self._fixed_elements(x, (count, x.count))
        parts[space] = _pose(space, matrix, origin)
        weight = torch.full((), 1 / count, dtype=x.dtype, device=x.device).expand(count, x.count)
        exact = torch.ones(x.count, dtype=torch.bool, device=x.device)
        zeros = torch.zeros(len(COUNTERS), dtype=torch.long, device=x.device)
        counters = dict(zip(COUNTERS, zeros.unbind(), strict=True))
        return Support(self.group.join(*parts.values()), weight, exact, counters, uniform=True)

    def _element(self, x: Inputs, views: Views, table: FrameTable) -> Element:
        """The frames as elements of the group."""
        parts = self._fixed_elements(x, tuple(table.weight.shape))
        for space in self.spaces:
            parts[space] = _pose(space, table.matrices[space].to(x.dtype), views.spaces[space].origin)
        for axis in self.nodes:
            order = table.orders[axis]
            layout = x.layouts[axis]
            nodes: Any = x.stored(axis)
            if layout.ragged:
                # the order of the nodes of each graph becomes an order of all nodes, one graph after the other
                score = layout.unpad(order, order.ndim - 2).double()
                parts[axis] = nodes.project(score, torch.zeros_like(score))
            else:
                parts[axis] = nodes.permutation(order)
        return self.group.join(*parts.values())

    def _fixed_elements(self, x: Inputs, shape: tuple[int, ...]) -> dict[Group, Element]:
        """The identity on the node axes on which nothing acts."""
        return {axis: x.stored(axis).identity(shape) for axis in self.fixed}

    def _warn(self, count: int) -> None:
        if self._warned or torch.compiler.is_compiling():
            return
        self._warned = True
        warnings.warn(
            f"{count} input(s) have more than max_support={self.max_support} frames, or a continuous symmetry that "
            f"the output feels: {self.samples} frames are drawn at random for each, their standard error is not "
            'zero, and diagnostics["sampled"] counts them',
            UserWarning,
            stacklevel=3,
        )

    def _warn_unsure(self, count: int) -> None:
        if self._warned_unsure or torch.compiler.is_compiling():
            return
        self._warned_unsure = True
        warnings.warn(
            f"{count} input(s) are so close to a border (of equal eigenvalues, equal nodes, flat or straight "
            "shapes) that the rounding of their coordinates decides which frames they have, so that another pose "
            'of them may get another result: their standard error is infinite, and diagnostics["unsure"] counts them; '
            "coordinates in float64 make them rarer",
            UserWarning,
            stacklevel=3,
        )

    def extra_repr(self) -> str:
        return f"{self.group!r}, max_support={self.max_support}, samples={self.samples}"


def _pose(space: IsometryGroup, matrix: Tensor, origin: Tensor) -> Element:
    """Matrices (..., B, m, m) of the turned axes about the origins (B, D), which only E and SE have."""
    matrix = embedded(matrix, space)
    if not space.anchored:
        return OrthogonalElement(space, matrix)
    return Motion.to_origin(space, matrix, origin)


def _degree(rep: Rep, space: IsometryGroup) -> int:
    """How many axes of a space the axes of a Rep stand for."""
    degree = 0
    for slot, _ in rep.axes:
        if slot.group != space or slot.num_axes == 0:
            continue  # what takes no axis feels at most the sign of the determinant
        known = slot.degree
        degree += DEGREE_OF_UNKNOWN_SLOT if known is None else known
    return degree
