"""Random cosets g H of finite groups H: rotations of polyhedra and polygons, signs, cyclic shifts of nodes."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from probsym.distributions import EquivariantDistribution, Noise
from probsym.estimators import finite
from probsym.estimators.design import Design, belongs_to_another, map_noise, noise_paths, repeat
from probsym.groups import Element, Group, IsometryGroup, product
from probsym.groups.orthogonal import embedded, turned_axes
from probsym.groups.whole import positive
from probsym.members import register
from probsym.reps import Inputs, Layout, Rep
from probsym.reps.containers import Path


class Coset(Design):
    """Random cosets: g_j h for all h of a finite group H, with g_1, g_2, ... drawn from p.

    H may also be any finite set with weights (`shares`): a block is then exact wherever the weighted mean over H is. H
    acts on one factor of the group. The noise of the other factors stays independent from sample to sample, so that
    nothing else loses by the design. A coset of one's own says which factors have H as a subgroup (`fits`, `needs`),
    how many elements H has (`size`, or `count` if the inputs tell it), and lists them (`translations`).
    """

    @property
    @abstractmethod
    def needs(self) -> str:
        """Which factors fit, for messages."""

    @abstractmethod
    def fits(self, factor: Group) -> bool:
        """Whether H is a subgroup of the factor."""

    @abstractmethod
    def translations(self, factor: Group, x: Inputs, like: Element) -> Element:
        """The elements of H, batch shape (M, 1) or (M, B); `like` tells dtype and device."""

    @property
    def size(self) -> int | None:
        return None

    def count(self, factor: Group, x: Inputs) -> int:
        """Number of elements of H, for these inputs."""
        if self.size is None:
            raise NotImplementedError(f"{type(self).__name__}: where size is None, count tells it")
        return self.size

    def shares(self, factor: Group, x: Inputs) -> Tensor | None:
        """Weights (M, B) of the elements of H, of mean one; None if every element of H appears equally often."""
        return None

    def factor(self, group: Group) -> Group:
        """The factor that H acts on: the first that fits."""
        for factor in group.factors:
            if self.fits(factor):
                return factor
        raise ValueError(f"design: {self!r} fits no factor of {group!r}: it needs {self.needs}")

    def chosen(self, group: Group) -> dict[Group, Coset]:
        """What acts on which factor."""
        return {self.factor(group): self}

    # ---------------------------------------------------------------- what a design is asked

    def block_size(self, p: EquivariantDistribution, x: Inputs) -> int:
        block = 1
        for count in self._counts(p, x).values():
            block *= count
        return block

    def samples_per_draw(self, p: EquivariantDistribution, x: Inputs) -> int:
        return 1 if self._has_others(p, x) else self.block_size(p, x)

    def transport(
        self, p: EquivariantDistribution, x: Inputs, noise: Noise, diagnostics: dict[str, Tensor] | None = None
    ) -> Element:
        chosen = self.chosen(p.group)
        block = self.block_size(p, x)

        # 1. Elements (K, B) whose chosen factors are the same within each block.
        if self._has_others(p, x):
            # Other factors have fresh noise for each sample, so that p has to be asked for each.
            def same_within_block(path: Path, rep: Rep, eps: Tensor) -> Tensor:
                if belongs_to_another(path, chosen):
                    return eps
                return repeat(eps[::block], block)

            g = p.transport(x, map_noise(p, x, noise, same_within_block), diagnostics)
        else:
            g = p.transport(x, noise, diagnostics).map(lambda tensor, _: repeat(tensor, block))

        # 2. Each sample of a block is moved from the right by another element of H.
        for factor, number in self._numbers(p, x, g.shape[0]).items():
            part = g[factor]
            h = chosen[factor].translations(factor, x, part).select(number)
            g = g.group.join(g, factor.compose(part, h))
        return g

    def weights(self, p: EquivariantDistribution, x: Inputs) -> Tensor | None:
        chosen = self.chosen(p.group)
        weights = None
        for factor, number in self._numbers(p, x, self.block_size(p, x)).items():
            shares = chosen[factor].shares(factor, x)
            if shares is None:
                continue
            weights = shares[number] if weights is None else weights * shares[number]
        return weights

    def _counts(self, p: EquivariantDistribution, x: Inputs) -> dict[Group, int]:
        """Number of translations of each chosen factor."""
        return {factor: coset.count(factor, x) for factor, coset in self.chosen(p.group).items()}

    def _numbers(self, p: EquivariantDistribution, x: Inputs, k: int) -> dict[Group, Tensor]:
        """Number (K,) of the translation of each chosen factor in k samples: all combinations in every block."""
        rest = torch.arange(k, device=x.device)
        numbers = {}
        for factor, count in self._counts(p, x).items():
            numbers[factor] = rest % count
            rest = rest // count
        return numbers

    def _has_others(self, p: EquivariantDistribution, x: Inputs) -> bool:
        """Whether other factors draw noise of their own, a fresh one for each sample."""
        chosen = self.chosen(p.group)
        return any(belongs_to_another(path, chosen) for path in noise_paths(p, x))


# ---------------------------------------------------------------- matrices


class MatrixCoset(Coset):
    """Finite groups of orthogonal matrices, on a factor O, SO, E or SE; of one's own by `matrices` alone.

    On a group that keeps an axis of space (`about="z"`) the matrices are those of the plane that it turns, (M, 2, 2),
    or keep the axis as well.
    """

    @property
    def needs(self) -> str:
        return "O, SO, E or SE"

    @abstractmethod
    def matrices(self, factor: IsometryGroup) -> np.ndarray:
        """(M, D, D) in float64."""

    def fits(self, factor: Group) -> bool:
        return factor.isometric

    def count(self, factor: Any, x: Inputs) -> int:
        return len(self.matrices(factor)) if self.size is None else self.size

    def translations(self, factor: Any, x: Inputs, like: Element) -> Element:
        return _matrix_elements(factor, self.matrices(factor), like)


@register
@dataclass(frozen=True)
class Polyhedral(MatrixCoset):
    """Cosets of the rotations of a polyhedron, in 3-d.

    The mean of a coset has no error in polynomials of the rotation matrix up to degree t, for all g: the mean of the
    Wigner matrices D^l vanishes for 1 <= l <= t.

        tetrahedral 12 (t = 2), octahedral 24 (t = 3), icosahedral 60 (t = 5)

    On O(3) and E(3) these leave the handedness to g: what depends on the determinant, a polynomial of degree 3, is
    averaged over the k / m draws of g only, and t falls to 2. Independent random signs within the coset would be worse:
    they would spoil the odd degrees, the linear part first. The groups times {1, -1} are right there; they need
    reflections:

        pyritohedral 24 (tetrahedral times inversion, t = 3), full-octahedral 48 (t = 3), full-icosahedral 120 (t = 5)

    Args:
        name: one of the names above.
    """

    name: str

    def __post_init__(self) -> None:
        if self.name not in finite.POLYHEDRAL:
            raise ValueError(f"name: expected one of {', '.join(finite.POLYHEDRAL)}, got {self.name!r}")

    @property
    def size(self) -> int:
        return finite.POLYHEDRAL[self.name][0]

    @property
    def needs(self) -> str:
        return "O(3) or E(3)" if self._improper else "SO(3), O(3), SE(3) or E(3)"

    @property
    def _improper(self) -> bool:
        return self.name not in ("tetrahedral", "octahedral", "icosahedral")

    def fits(self, factor: Any) -> bool:
        if not factor.isometric or factor.dim != 3 or factor.kept_axes:
            return False
        return not (self._improper and factor.special)

    def matrices(self, factor: IsometryGroup) -> np.ndarray:
        return finite.POLYHEDRAL[self.name][1]()


@register
@dataclass(frozen=True)
class SignCosets(MatrixCoset):
    """Cosets of the diagonal sign matrices in d dimensions: 2^d on O and E, 2^(d-1) of determinant one on SO and SE.

    Exact for every function that is linear in the entries of the matrix.
    """

    def matrices(self, factor: IsometryGroup) -> np.ndarray:
        dim = len(turned_axes(factor))
        if 2**dim > finite.LARGEST:
            raise ValueError(f"design: {self!r} of {factor!r} has more than {finite.LARGEST} elements")
        return finite.proper(finite.signs(dim)) if factor.special else finite.signs(dim)


@register
@dataclass(frozen=True)
class SignedPermutations(MatrixCoset):
    """Cosets of the symmetries of the d-cube: 2^d d! on O and E, half of them, of determinant one, on SO and SE.

    Exact up to degree 3 for d > 2 (on SO, for d = 3, the octahedral design).
    """

    def matrices(self, factor: IsometryGroup) -> np.ndarray:
        dim = len(turned_axes(factor))
        if dim > 5:
            raise ValueError(f"design: {self!r} of {factor!r} has more than {finite.LARGEST} elements")
        matrices = finite.signed_permutations(dim)
        return finite.proper(matrices) if factor.special else matrices


# ---------------------------------------------------------------- polygons and shifts


@dataclass(frozen=True)
class OrderedCoset(Coset):
    """Cosets of a group that has one member for each order n.

    Args:
        order: n; None for the default.
    """

    order: int | None = None

    def __post_init__(self) -> None:
        if self.order is not None:
            object.__setattr__(self, "order", positive("order", self.order))


@register
@dataclass(frozen=True)
class Cyclic(OrderedCoset):
    """Cosets of a cyclic group: n rotations of the plane, or the shifts of the nodes of S_n.

    In the plane exact up to degree n - 1. Over S_n every node stands once in every place of a block: exact for every
    sum over nodes of functions of a node and its place. Inputs with fewer nodes than the largest go round more than
    once; weights let each of their shifts count the same, so that the mean of a block does not depend on the batch. If
    the group has both, the plane is meant; `Shifts` takes the nodes.

    Args:
        order: n; 8 in the plane unless given, over S_n always the number of nodes of the largest input.
    """

    @property
    def needs(self) -> str:
        return "O(2), SO(2), E(2), SE(2), the same about an axis of space, or S(n)"

    def fits(self, factor: Group) -> bool:
        return _is_plane(factor) or _has_nodes(factor)

    def factor(self, group: Group) -> Group:
        for factor in group.factors:
            if _is_plane(factor):
                return factor
        return super().factor(group)

    def count(self, factor: Group, x: Inputs) -> int:
        if _has_nodes(factor):
            return _number_of_shifts(factor, x)
        return self.order or 8

    def translations(self, factor: Group, x: Inputs, like: Element) -> Element:
        if _has_nodes(factor):
            return _shift_elements(factor, x, like)
        return _matrix_elements(factor, finite.rotations(self.order or 8), like)

    def shares(self, factor: Group, x: Inputs) -> Tensor | None:
        return _shift_shares(factor, x) if _has_nodes(factor) else None


@register
@dataclass(frozen=True)
class Shifts(OrderedCoset):
    """Cosets of the cyclic shifts of the nodes of S_n, as `Cyclic` has them, also where the group has a plane.

    Args:
        order: always the number of nodes of the largest input, whatever is given.
    """

    @property
    def needs(self) -> str:
        return "S(n)"

    def fits(self, factor: Group) -> bool:
        return _has_nodes(factor)

    def count(self, factor: Group, x: Inputs) -> int:
        return _number_of_shifts(factor, x)

    def translations(self, factor: Group, x: Inputs, like: Element) -> Element:
        return _shift_elements(factor, x, like)

    def shares(self, factor: Group, x: Inputs) -> Tensor | None:
        return _shift_shares(factor, x)


@register
@dataclass(frozen=True)
class Dihedral(OrderedCoset):
    """Cosets of the n rotations and n reflections of a regular polygon, 2 n in a block: O(2) and E(2).

    Args:
        order: n, the corners; 4 unless given.
    """

    @property
    def needs(self) -> str:
        return "O(2) or E(2)"

    @property
    def size(self) -> int:
        return 2 * (self.order or 4)

    def fits(self, factor: Group) -> bool:
        return _is_plane(factor) and not factor.special

    def translations(self, factor: Group, x: Inputs, like: Element) -> Element:
        return _matrix_elements(factor, finite.reflections(self.order or 4), like)


# ---------------------------------------------------------------- several factors


@register
@dataclass(frozen=True)
class Joint(Coset):
    """Cosets of a product H_1 x H_2 x ... of groups on different factors; the block is the product of theirs.

    Where several factors matter, the interplay of their noise dominates the error, and a coset of one of them alone
    gains little. Written as a tuple: `design=("octahedral", "shifts")`.

    Args:
        parts: designs by cosets.
    """

    parts: tuple[Coset, ...]

    @property
    def needs(self) -> str:
        return "a factor for each part"

    @property
    def size(self) -> int | None:
        total = 1
        for part in self.parts:
            if part.size is None:
                return None
            total *= part.size
        return total

    def fits(self, factor: Group) -> bool:
        return any(part.fits(factor) for part in self.parts)

    def translations(self, factor: Group, x: Inputs, like: Element) -> Element:
        raise NotImplementedError("the parts have the translations")

    def chosen(self, group: Group) -> dict[Group, Coset]:
        coset_of: dict[Group, Coset] = {}
        for part in self.parts:
            left = [factor for factor in group.factors if factor not in coset_of and part.fits(factor)]
            if not left:
                raise ValueError(f"design: {part!r} fits no factor of {group!r} that is left: it needs {part.needs}")
            coset_of[part.factor(product(left))] = part
        return coset_of


# ---------------------------------------------------------------- elements


def _is_plane(factor: Any) -> bool:
    """Whether a factor turns a plane."""
    return factor.isometric and len(turned_axes(factor)) == 2


def _has_nodes(factor: Group) -> bool:
    """Whether a factor permutes nodes."""
    return factor.on_nodes and not factor.trivial


def _matrix_elements(factor: Any, matrices: np.ndarray, like: Any) -> Element:
    """Elements (M, 1) of the matrices (M, D, D), of the dtype and on the device of `like`.

    Raises:
        ValueError: they move an axis of space that the factor keeps.
    """
    options: dict[str, Any] = {"dtype": like.matrix.dtype, "device": like.matrix.device}
    h = torch.from_numpy(matrices).to(**options)[:, None]
    if factor.kept_axes and h.shape[-1] == len(turned_axes(factor)):
        h = embedded(h, factor)
    for axis in factor.kept_axes:
        tilt = (h[:, 0, axis, axis] - 1).abs()
        if float(tilt.max()) > 1e-3:
            raise ValueError(
                f"design: matrix {int(tilt.argmax())} moves axis {axis} of space, which {factor!r} keeps: expected "
                "elements of the group"
            )
    return replace(factor.identity((len(h), 1), **options), matrix=h)


def _number_of_shifts(factor: Any, x: Inputs) -> int:
    """Nodes of the largest input; one for none."""
    return max(x.layouts[factor].padded_size, 1)


def _shift_elements(factor: Any, x: Inputs, like: Any) -> Element:
    """The cyclic shifts of the nodes, (M, 1) or (M, B)."""
    layout = x.layouts[factor]
    return factor.stored(layout).permutation(shifts(layout, _number_of_shifts(factor, x), like.index))


def _shift_shares(factor: Any, x: Inputs) -> Tensor | None:
    """Weights (M, B) of the shifts, since inputs of n < M nodes have only n different ones; None if all have M."""
    layout = x.layouts[factor]
    if not layout.uneven:
        return None
    count = _number_of_shifts(factor, x)
    sizes = layout.sizes.clamp_min(1)
    step = torch.arange(count, device=sizes.device)[:, None] % sizes
    times = count // sizes + (step < count % sizes)  # how often each shift of an input is listed
    return count / (sizes * times).double()


def shifts(layout: Layout, order: int, like: Tensor) -> Tensor:
    """Gather indices of cyclic shifts within each input: (M, 1, N), padded (M, B, N), ragged (M, sum N)."""
    step = torch.arange(order, device=like.device)
    if layout.batch is None:
        place = torch.arange(layout.size, device=like.device)
        if layout.mask is None:
            return ((place + step[:, None]) % max(layout.size, 1))[:, None]
        count = layout.sizes[:, None]
        moved = (place + step[:, None, None]) % count.clamp_min(1)
        return torch.where(place < count, moved, place)
    rank = layout.position % max(layout.padded_size, 1)
    count = layout.sizes[layout.batch]
    first = (layout.sizes.cumsum(0) - layout.sizes)[layout.batch]
    return torch.argsort(layout.position)[first + (rank + step[:, None]) % count]
