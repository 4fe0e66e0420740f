"""The net that `Scored` takes by name: a score of the pose in which an input stands."""

from __future__ import annotations

import math
import threading
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import silu

from probsym.groups import Group
from probsym.kernels.values import readable
from probsym.members import register
from probsym.nets.masking import Segments, Where, mean
from probsym.reps import Inputs, Leaf, NodeAxis, Rep, Signature

BUILDING = threading.RLock()
WIDTHS = (16, 32, 32)  # channels of the strided convolutions
CORNERS = 2  # places along each axis of a grid that are told apart at the end: where something is matters to shifts
GRIDS: dict[int, tuple[Any, Any]] = {
    2: (nn.LazyConv2d, nn.AdaptiveAvgPool2d),
    3: (nn.LazyConv3d, nn.AdaptiveAvgPool3d),
}


@dataclass(frozen=True)
class _Seen:
    """How an input is seen.

    Args:
        grid: axes behind the batch that are a grid (image, volume), none for a plain list of numbers.
        nodes: the axis of nodes, which another group permutes, over which is averaged; None where there is none.
        place: of this axis behind the batch.
    """

    grid: tuple[int, ...]
    nodes: NodeAxis | None
    place: int


@register
class ScoreNet(nn.Module):
    """One score per input, from the inputs on which a finite group acts; the default net of `Scored`.

    Images and volumes pass three strided convolutions, other inputs one layer on all their numbers. An axis of nodes
    that another group permutes is averaged over, so that the score does not depend on their order. Inputs on which
    further groups act (rotations) are not looked at. Every input is divided by its largest entry. Channel counts are
    fixed by the first call.

    Args:
        spec: Reps of the inputs. group: finite, the factors whose pose is scored.

    Raises:
        ValueError: no input tells the pose.

    >>> import probsym as ps
    >>> turns = ps.C(4)
    >>> ScoreNet({"image": ps.Rep(None, turns)}, turns)(image=torch.randn(5, 3, 8, 8)).shape
    torch.Size([5])
    """

    def __init__(self, spec: Any, group: Group, hidden: int = 32) -> None:
        super().__init__()
        self.spec = spec
        self.group = group
        self.hidden = hidden
        self.signature = Signature(spec)
        self.seen: dict[Any, _Seen] = {}
        self.nets = nn.ModuleList()
        for entry in self.signature.entries:
            seen = _seen(entry.rep, group)
            if seen is not None:
                self.seen[entry.path] = seen
                self.nets.append(_net(len(seen.grid), hidden))
        known = {f for path in self.seen for f in self._rep(path).group.factors}
        for f in group.factors:
            if f not in known and not f.trivial:
                raise ValueError(
                    f"no default net orients by {f!r}: on every input that it acts on other groups act as well; give "
                    "Scored a net of your own that these leave alone, or use Haar"
                )
        self.head = nn.Linear(hidden, 1)
        self.built = False

    def _rep(self, path: Any) -> Rep:
        for entry in self.signature.entries:
            if entry.path == path:
                return entry.rep
        raise KeyError(path)

    def forward(self, *args: Any, **kwargs: Any) -> Tensor:
        """The arguments of the model -> scores (B,)."""
        x = Inputs.bind(self.signature, args, kwargs)
        views: list[tuple[Tensor, Where]] = []
        for path, seen in self.seen.items():
            views.append(_view(x, x.leaves[path], seen, self.head.weight.dtype))
        if not self.built:
            self._build(views)
        total: Any = 0
        for net, (view, where) in zip(self.nets, views, strict=True):
            nodes = view.shape[:2]
            features = net(view.flatten(0, 1))
            total = total + mean(features.unflatten(0, nodes), where)
        return self.head(silu(total)).squeeze(-1)

    def _build(self, views: list[tuple[Tensor, Where]]) -> None:
        """Fix the channel counts of lazy layers, by a call with zeros of one node.

        Parameters that are made in inference mode could not be trained later.
        """
        lazy = any(isinstance(p, nn.UninitializedParameter) for p in self.parameters())
        if lazy and not readable(*[view for view, _ in views], torch.empty(0)):
            raise ValueError(
                "the default net of p is not built yet, which cannot be compiled: pass example= to symmetrize, a "
                "sample input that fixes its channel counts, or call the model once before"
            )
        with BUILDING, torch.inference_mode(False), torch.no_grad():
            if lazy:
                for net, (view, _) in zip(self.nets, views, strict=True):
                    net(torch.zeros(1, *view.shape[2:], dtype=view.dtype, device=view.device))
            self.built = True


def _seen(rep: Rep, group: Group) -> _Seen | None:
    """How an input with this Rep is seen; None where it is not."""
    grid: tuple[int, ...] = ()
    nodes: list[tuple[NodeAxis, int]] = []
    own = False
    if rep.labelled is not None:
        return None
    for slot, place in rep.axes:
        if slot.group in group.factors:
            own = True
            if slot.num_axes in GRIDS and not grid:
                grid = tuple(range(place, place + slot.num_axes))
        elif slot.role == "nodes":
            nodes.append((slot.group, place))  # type: ignore[arg-type]
        else:
            return None
    if not own or len(nodes) > 1:
        return None
    if not nodes:
        return _Seen(grid, None, 0)
    return _Seen(grid, *nodes[0])


def _net(dims: int, hidden: int) -> nn.Module:
    """Features (rows, hidden) of rows of numbers, or of grids (rows, channels, *grid)."""
    if dims == 0:
        return nn.Sequential(nn.Flatten(), nn.LazyLinear(hidden))
    convolution, pool = GRIDS[dims]
    layers: list[nn.Module] = []
    for width in WIDTHS:
        layers.append(convolution(width, kernel_size=3, stride=2, padding=1))
        layers.append(nn.SiLU())
    return nn.Sequential(*layers, pool(CORNERS), nn.Flatten(), nn.Linear(WIDTHS[-1] * CORNERS**dims, hidden))


def _view(x: Inputs, leaf: Leaf, seen: _Seen, dtype: torch.dtype) -> tuple[Tensor, Where]:
    """An input as rows (B, N, channels, *grid), and which nodes exist; (1, sum N, ...) in a ragged batch."""
    value = leaf.value
    if value.is_complex():
        value = torch.view_as_real(value)
    value = value.to(dtype)

    # 1. the nodes come second, and the grid last; all else is channels
    layout = None if seen.nodes is None else x.layouts[seen.nodes]
    if layout is not None and layout.ragged:
        value = value.unsqueeze(0)
        grid = [2 + place - 1 for place in seen.grid]
        where: Where = Segments(layout.batch, layout.sizes)  # type: ignore[arg-type]
    elif layout is not None:
        value = value.movedim(1 + seen.place, 1)
        # axes in front of the nodes have moved back by one
        grid = [1 + place + int(place < seen.place) for place in seen.grid]
        where = layout.mask
    else:
        value = value.unsqueeze(1)
        grid = [2 + place for place in seen.grid]
        where = None
    value = value.movedim(grid, list(range(-len(grid), 0))) if grid else value
    shape = value.shape[value.ndim - len(grid) :]
    value = value.reshape(*value.shape[:2], math.prod(value.shape[2 : value.ndim - len(grid)]), *shape)

    # 2. of moderate size, whatever the unit; the scores depend on it, so that it has a derivative
    largest = value.abs().flatten(2).amax(2)
    if isinstance(where, Segments):
        size = largest.new_zeros(x.count).scatter_reduce(0, where.index, largest[0], "amax")[where.index].unsqueeze(0)
    else:
        size = largest.amax(1, keepdim=True)
    size = torch.where(size > 0, size, 1)
    return value / size.reshape(*size.shape, *[1] * (value.ndim - 2)), where
