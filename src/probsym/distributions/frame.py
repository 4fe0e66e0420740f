"""Frame averaging: the uniform distribution over a finite set of frames that moves with the input."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from probsym.distributions.base import EquivariantDistribution, Noise, Support, draw_options
from probsym.distributions.frame_axes import distinct_axes, is_ordered, oriented, principal_axes, read_columns
from probsym.distributions.frame_orthogonal import SpaceView, orient, signed
from probsym.distributions.frame_paths import Listing, Paths, Sampling, slots
from probsym.distributions.frame_permutation import NodeView, arrange, view_nodes
from probsym.distributions.geometry import spatial
from probsym.groups import Axis, E, Element, Group, IsometryGroup, Motion, OrthogonalElement, Permutation, S
from probsym.groups.axis import TrivialElement
from probsym.groups.base import ProductElement
from probsym.groups.euclidean import Point
from probsym.groups.orthogonal import Det, Vector
from probsym.groups.whole import positive
from probsym.kernels.values import vmapped
from probsym.members import register
from probsym.reps import Inputs, Leaf, Rep, leaves

COUNTERS = "continuous_stabilizer", "degenerate", "unsure", "sampled"


@register
class Frame(EquivariantDistribution):
    """The frame average of Puny et al. (arXiv 2110.03336), exact wherever a finite set of frames exists.

        phi(x) = 1/|F(x)| sum_{g in F(x)} g f(g^-1 x),        F(hx) = h F(x)

    O, SO, E, SE: all signs of the principal axes about the origin (the centroid for E and SE), in ascending order of
    their eigenvalues; for SO and SE the right-handed ones. Equal eigenvalues are told apart by further vectors, by
    ordered points, else by all directions of the data that stand out equally.
    S_n: the order of the diagonal of a function of the graph Laplacian; equal nodes are told apart by their coordinates
    in the frame, else by branching over all choices. Where one number a node is all there is, ascending order of it.
    The two together: every frame of space has its order of the nodes.

    An input may be left alone by a continuous group: collinear or coincident points. Its frames are finite and exact
    for outputs with up to two axes of a space, for any basis of the directions without data: with all signs (and
    cyclic exchanges) of it, such outputs do not feel it. With three or more axes the basis is sampled. So are sets
    larger than `max_support`. `aux["sampled"]` counts such inputs, and there is one warning.

    What is nearly equal counts as equal, whatever rounding makes of it: eigenvalues closer than 1e-3 of their sum,
    nodes whose keys are closer than 1e-3. An input whose rounding decides on which side of such a border it is may get
    other frames when it is turned. It is counted in `aux["unsure"]`, its standard error is infinite, and there is one
    warning. Near equal eigenvalues rounding turns the axes by its relative size over the gap; an input of which that
    may be more than 5e-3 is counted, too.

    The average jumps where an input passes such a border: next to symmetric shapes a small change of it exchanges axes
    or the order of nodes. At equal inputs it is exact, but it is no continuous function of them: energies have steps
    there, and forces next to them may be hundreds of times too large. Where that matters use `Haar` or `Learned`.

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
        self.max_support, self.samples = positive("max_support", max_support), positive("samples", samples)
        unknown = [f for f in group.factors if not isinstance(f, S | Axis | IsometryGroup)]
        if unknown:
            raise ValueError(f"Frame: no frames are known for {unknown[0]!r}")
        self.spaces = tuple(f for f in group.factors if isinstance(f, IsometryGroup))
        self.nodes = tuple(f for f in group.factors if isinstance(f, S))
        self._still = tuple(f for f in group.factors if isinstance(f, Axis))  # node axes on which nothing acts
        self.degree = 1
        self._warned = False
        self._warned_unsure = False

    def for_output(self, spec: Any) -> Frame:
        """The same frames for outputs of the given Reps: what a continuous stabilizer does depends on their degree."""
        reps = leaves(spec).values()
        degrees = [_degree(rep, space) for rep in reps for space in self.spaces]
        frame = copy.copy(self)
        frame.degree = max(degrees, default=0)
        return frame

    def noise(self, x: Inputs, shape: tuple[int, ...] = (), generator: torch.Generator | None = None) -> Noise:
        options = draw_options(x, generator)
        batch = (*shape, x.count)
        ties: dict[Group, Tensor] = {}
        for f in self.group.factors:
            if isinstance(f, IsometryGroup):
                ties[f] = torch.randn(*batch, f.dim, f.dim + 1, **options)
            else:
                ties[f] = f.draw_noise(batch, x.layouts[f], **options)  # type: ignore[index]
        picks = {
            space: {leaf.name: torch.randn(*shape, *_pick_shape(leaf, space), **options) for leaf in found}
            for space, found in self._unordered(x).items()
        }
        return {"ties": ties, "picks": picks}

    def noise_rep(self, x: Inputs) -> Any:
        picks = {
            space: {leaf.name: _pick_rep(leaf, space) for leaf in found} for space, found in self._unordered(x).items()
        }
        return {"ties": {f: Rep(*f.noise_slots) for f in self.group.factors}, "picks": picks}

    def transport(self, x: Inputs, noise: Noise, diagnostics: dict[str, Tensor] | None = None) -> Element:
        """One frame a sample, uniform over the frames; of a continuous stabilizer one basis each."""
        self._refuse_vmap(x)
        views = self._views(x)
        rep = Rep(*self.group.factors[0].noise_slots)
        first = noise["ties"][self.group.factors[0]]
        shape = tuple(first.shape[: first.ndim - rep.batch_dims() - rep.ndim])
        times = torch.Size(shape).numel()
        inputs = torch.arange(x.count, device=x.device)
        paths = self._drawn(x, noise, times, inputs.repeat(times), torch.arange(times * x.count, device=x.device))
        self._walk(paths, views)
        parts = {
            f: self._element(x, f, views, lambda value, _: value.reshape(*shape, x.count, *value.shape[1:]), paths)
            for f in self.group.factors
        }
        parts |= {f: TrivialElement(f, x.layouts[f], (*shape, x.count)) for f in self._still}
        if diagnostics is not None:
            diagnostics.update(self._counters(x, views))
        return self._join(parts)

    def support(self, x: Inputs, generator: torch.Generator | None = None) -> Support:
        """All frames; a sample of `samples` for inputs that have too many or feel a continuous stabilizer."""
        self._refuse_vmap(x)
        space = self._alone(x)
        if space is not None and (settled := distinct_axes(x, space)) is not None:
            return self._signed(x, space, *settled)
        views = self._views(x)
        counters = self._counters(x, views)
        if space is not None and not bool(counters["degenerate"]) and not bool(counters["unsure"]):
            return self._signed(x, space, views[space].axes.vectors, views[space].origin)
        listing = Listing(x.count, self.max_support, x.device)
        if bool(counters["degenerate"]):
            every = torch.arange(x.count, device=x.device)
            listing.held.update(self._drawn(x, self.noise(x, (1,), generator), 1, every, every).held)
            listing.give_up(self._felt(x, views))
        self._walk(listing, views)
        paths: Paths = listing
        left = listing.overflow.nonzero().squeeze(-1)
        if len(left):
            rows = (torch.arange(self.samples, device=x.device)[:, None] * x.count + left).reshape(-1)
            noise = self.noise(x, (self.samples,), generator)
            drawn = self._drawn(x, noise, self.samples, left.repeat(self.samples), rows)
            self._walk(drawn, views)
            paths = _merged(listing, drawn, tuple(self.spaces) + tuple(self.nodes))
            self._warn(len(left))
        unsure = listing.unsure | _unsure(x, views)
        if bool(unsure.any()):
            self._warn_unsure(int(unsure.sum()))
        counters = {**counters, "unsure": unsure.sum(), "sampled": listing.overflow.sum()}
        return self._support(x, views, paths, ~listing.overflow, counters, unsure)

    def _refuse_vmap(self, x: Inputs) -> None:
        """The number of frames depends on values, and under `torch.vmap` there is no one value."""
        if any(vmapped(leaf.value) for leaf in x.leaves.values()):
            raise ValueError(
                f"{self.brief} lists frames by the values of the inputs, which torch.vmap hides: give the inputs as "
                "one batch instead"
            )

    def _alone(self, x: Inputs) -> IsometryGroup | None:
        """The space, if it is all there is to orient and the signs of its axes can be listed."""
        if len(self.spaces) != 1 or self.nodes or not x.count or 2 ** self.spaces[0].dim > self.max_support:
            return None
        return self.spaces[0]

    def _signed(self, x: Inputs, space: IsometryGroup, vectors: Tensor, origin: Tensor) -> Support:
        """All signs of the axes (B, D, D) of one space, which every input has settled."""
        frame = signed(vectors.to(x.dtype, memory_format=torch.contiguous_format), space.special)
        count = len(frame)
        parts: dict[Group, Any] = {f: TrivialElement(f, x.layouts[f], (count, x.count)) for f in self._still}
        parts[space] = _pose(space, frame, origin)
        weight = torch.full((), 1 / count, dtype=x.dtype, device=x.device).expand(count, x.count)
        exact = torch.ones(x.count, dtype=torch.bool, device=x.device)
        none = torch.zeros(len(COUNTERS), dtype=torch.long, device=x.device)
        counters = dict(zip(COUNTERS, none.unbind(), strict=True))
        return Support(self._join(parts), weight, exact, counters, uniform=True)

    def _support(
        self,
        x: Inputs,
        views: Mapping[Group, Any],
        paths: Paths,
        exact: Tensor,
        counters: dict[str, Tensor],
        unsure: Tensor,
    ) -> Support:
        """The paths as a padded table (M, B); slots that an input does not fill have weight zero."""
        slot, most = slots(paths.owner, x.count)

        def place(value: Tensor, blank: Tensor) -> Tensor:
            table = blank.to(value).expand(most, x.count, *value.shape[1:])
            return table.index_put((slot, paths.owner), value)

        parts = {f: self._element(x, f, views, place, paths) for f in self.group.factors}
        parts |= {f: TrivialElement(f, x.layouts[f], (most, x.count)) for f in self._still}
        weight = place(paths.weight, torch.zeros(())).to(x.dtype)
        return Support(self._join(parts), weight, exact & ~unsure, counters, unsure)

    def _views(self, x: Inputs) -> dict[Group, Any]:
        """What the frames need to know of the inputs, in float64: spaces first, since their frames help to sort.

        NaN and infinity are read as zero: they spoil the output of their own input, not the frames of others.
        """
        eps = {leaf.name: torch.finfo(leaf.value.dtype).eps for leaf in x.leaves.values() if _floating(leaf)}
        wide = x.map(lambda leaf: leaf.value.double().nan_to_num(0.0, 0.0, 0.0) if _floating(leaf) else leaf.value)
        views: dict[Group, Any] = {}
        for space in self.spaces:
            data, origin = read_columns(wide, space, eps)
            views[space] = SpaceView(space, data, principal_axes(data), origin, self.degree == 2)
        for axis in self.nodes:
            views[axis] = view_nodes(wide, axis, eps)
        return views

    def _walk(self, paths: Paths, views: Mapping[Group, Any]) -> None:
        for view in views.values():
            orient(paths, view) if isinstance(view, SpaceView) else arrange(paths, view)

    def _drawn(self, x: Inputs, noise: Noise, times: int, owner: Tensor, rows: Tensor) -> Sampling:
        """One path for each of the given rows k B + b of noise of sample shape K = `times`."""
        paths = Sampling(owner, torch.ones(len(owner), dtype=torch.float64, device=x.device), self.max_support)
        paths.weight = paths.weight / self.samples
        for f in self.spaces:
            fallback = noise["ties"][f].double()
            paths.held["noise", f] = fallback.reshape(times * x.count, f.dim, f.dim + 1)[rows]
            parts = [self._pick_rows(x, leaf, f, noise["picks"], times) for leaf in oriented(x, f)]
            joined = torch.cat(parts, 1) if parts else fallback.new_zeros(times * x.count, 0, f.dim)
            paths.held["picks", f] = (joined if joined.shape[1] else fallback.new_zeros(len(joined), 1, f.dim))[rows]
        for axis in self.nodes:
            layout = x.layouts[axis]
            fallback = noise["ties"][axis].double().reshape(times, *noise["ties"][axis].shape[-rank_of(layout) :])
            paths.held["noise", axis] = layout.pad(fallback, 1).reshape(times * x.count, layout.padded_size)[rows]
        return paths

    def _pick_rows(self, x: Inputs, leaf: Leaf, space: IsometryGroup, picks: Any, times: int) -> Tensor:
        """The preference of each column (K B, M, D), zero where the order of the columns decides."""
        ragged = leaf.rep.ragged
        if is_ordered(leaf, space):
            width = leaf.value[0].numel() // space.dim if len(leaf.value) else 0
            return torch.zeros(times * x.count, width, space.dim, dtype=torch.float64, device=x.device)
        value = picks[space][leaf.name].double()
        value = value.reshape(times, *_pick_shape(leaf, space))
        value = value if ragged is None else x.layouts[ragged].pad(value, 1)
        return (
            value.reshape(times * x.count, -1, space.dim)
            if value.numel()
            else value.new_zeros(times * x.count, 0, space.dim)
        )

    def _unordered(self, x: Inputs) -> dict[IsometryGroup, list[Leaf]]:
        return {s: [leaf for leaf in oriented(x, s) if not is_ordered(leaf, s)] for s in self.spaces}

    def _element(self, x: Inputs, factor: Group, views: Mapping[Group, Any], place: Any, paths: Paths) -> Any:
        """The part of one factor; place(rows, blank) puts the rows of the paths where they belong."""
        if isinstance(factor, IsometryGroup):
            blank = torch.eye(factor.dim, dtype=torch.float64, device=x.device)
            return _pose(factor, place(paths.held[factor], blank).to(x.dtype), views[factor].origin)
        if isinstance(factor, S):
            layout = x.layouts[factor]
            rank = place(paths.held[factor], torch.arange(layout.padded_size, device=x.device))
            if layout.ragged:
                score = layout.unpad(rank, rank.ndim - 2).double()
                return factor.project(score, torch.zeros_like(score), layout)
            return Permutation(factor, layout, rank)
        return None

    def _join(self, parts: dict[Group, Any]) -> Element:
        return next(iter(parts.values())) if len(parts) == 1 else ProductElement(self.group, parts)

    def _felt(self, x: Inputs, views: Mapping[Group, Any]) -> Tensor:
        """Inputs with a continuous stabilizer that shows in the output (B,)."""
        felt = torch.zeros(x.count, dtype=torch.bool, device=x.device)
        for space in self.spaces:
            known = {leaf.name for leaf in spatial(x, space)}
            hidden = any(_degree(leaf.rep, space) and leaf.name not in known for leaf in x.leaves.values())
            if hidden or self.degree > 2:
                felt = felt | (views[space].axes.null > 1)
        return felt

    def _counters(self, x: Inputs, views: Mapping[Group, Any]) -> dict[str, Tensor]:
        none = torch.zeros(x.count, dtype=torch.bool, device=x.device)
        loose, degenerate = none, none
        for view in views.values():
            if isinstance(view, SpaceView):
                loose = loose | (view.axes.null > 1)
                degenerate = degenerate | view.axes.degenerate
            elif isinstance(view, NodeView):
                degenerate = degenerate | view.tied
        unsure = _unsure(x, views)
        return {"continuous_stabilizer": loose.sum(), "degenerate": degenerate.sum(), "unsure": unsure.sum()}

    def _warn(self, count: int) -> None:
        if not self._warned and not torch.compiler.is_compiling():
            self._warned = True
            warnings.warn(
                f"{count} input(s) have more than max_support={self.max_support} frames, or a continuous symmetry that "
                f"the output feels: {self.samples} frames are drawn at random for each, their standard error is not "
                'zero, and aux["sampled"] counts them',
                UserWarning,
                stacklevel=3,
            )

    def _warn_unsure(self, count: int) -> None:
        if not self._warned_unsure and not torch.compiler.is_compiling():
            self._warned_unsure = True
            warnings.warn(
                f"{count} input(s) are so close to a border (of equal eigenvalues, equal nodes, flat or straight "
                "shapes) that the rounding of their coordinates decides which frames they have, so that another pose "
                'of them may get another result: their standard error is infinite, and aux["unsure"] counts them; '
                "coordinates in float64 make them rarer",
                UserWarning,
                stacklevel=3,
            )

    def extra_repr(self) -> str:
        return f"{self.group!r}, max_support={self.max_support}, samples={self.samples}"


def _unsure(x: Inputs, views: Mapping[Group, Any]) -> Tensor:
    """Inputs of which rounding decides the axes of a space or the equal nodes (B,)."""
    unsure = torch.zeros(x.count, dtype=torch.bool, device=x.device)
    for view in views.values():
        unsure = unsure | (view.axes.unsure if isinstance(view, SpaceView) else view.unsure)
    return unsure


def _pose(space: IsometryGroup, matrix: Tensor, origin: Tensor) -> Element:
    """Matrices (..., B, D, D) about the origins (B, D), which only E and SE have."""
    if not isinstance(space, E):
        return OrthogonalElement(space, matrix)
    origin = origin.to(matrix.dtype).expand(matrix.shape[:-1])
    return Motion(space, matrix, target=origin)


def rank_of(layout: Any) -> int:
    """Axes of node noise after the samples: (B, N), or (sum N,)."""
    return 1 if layout.ragged else 2


def _floating(leaf: Leaf) -> bool:
    return leaf.value.is_floating_point()


def _degree(rep: Rep, space: IsometryGroup) -> int:
    """How many axes turn with the space; a slot of one's own may feel it in any way, and counts as three."""
    degrees = {Point: 1, Vector: 1, Det: 0}
    return sum(degrees.get(type(slot), 3) for slot, _ in rep.axes if slot.group == space)


def _pick_rep(leaf: Leaf, space: IsometryGroup) -> Rep:
    """One number a column of the leaf and axis of the space: its Rep without the space, channels spelt out."""
    kept = [slot for slot in leaf.rep.slots if slot is None or slot.group != space]
    return Rep(*kept, *[None] * (len(leaf.channels) + 1))


def _pick_shape(leaf: Leaf, space: IsometryGroup) -> tuple[int, ...]:
    place = leaf.rep.batch_dims() + next(p for slot, p in leaf.rep.axes if slot.group == space)
    shape = leaf.value.shape
    return (*shape[:place], *shape[place + 1 :], space.dim)


def _merged(listed: Paths, drawn: Paths, names: tuple[Group, ...]) -> Paths:
    """The paths of both, which belong to different inputs."""
    owner, weight = torch.cat([listed.owner, drawn.owner]), torch.cat([listed.weight, drawn.weight])
    both = Sampling(owner, weight, listed.limit)
    both.held = {name: torch.cat([listed.held[name], drawn.held[name]]) for name in names}
    return both
