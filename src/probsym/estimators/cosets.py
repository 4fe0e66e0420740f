"""Random cosets g H of finite groups H: rotations of polyhedra and polygons, signs, cyclic shifts of nodes."""

from __future__ import annotations

import math
from abc import abstractmethod
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from probsym.distributions import Noise
from probsym.estimators import finite
from probsym.estimators.base import Integrand, positive
from probsym.estimators.design import (
    Design,
    Drawn,
    exchange,
    is_other,
    map_noise,
    paths,
    repeat,
)
from probsym.groups import Element, Group, IsometryGroup, Layout, Permutation, S, product
from probsym.members import register
from probsym.reps import Rep


class Coset(Design):
    """Random cosets: g_j h for all h of a finite group H, with g_1, g_2, ... drawn from p.

    H acts on one factor of the group. The noise of the other factors stays independent from sample to sample, so that
    nothing else loses by the design.
    """

    needs: ClassVar[str]

    @abstractmethod
    def fits(self, factor: Group) -> bool:
        """Whether H is a subgroup of the factor."""

    @abstractmethod
    def translations(self, factor: Any, layout: Any, like: Element) -> Element:
        """The elements of H, batch shape (M, 1) or (M, B); `like` tells dtype and device."""

    @property
    def size(self) -> int | None:
        return None

    def factor(self, group: Group) -> Group:
        """The factor that H acts on: the first that fits."""
        found = next((f for f in group.factors if self.fits(f)), None)
        if found is None:
            raise ValueError(f"design: {self!r} fits no factor of {group!r}: it needs {self.needs}")
        return found

    def count(self, factor: Any, layout: Any) -> int:
        """Number of elements of H."""
        return int(self.size)  # type: ignore[arg-type]

    def shares(self, factor: Any, layout: Any) -> Tensor | None:
        """Weights (M, B) of the elements of H, of mean one; None where none is listed more often than another."""
        return None

    def chosen(self, group: Group) -> dict[Group, Coset]:
        """What acts on which factor."""
        return {self.factor(group): self}

    def length(self, integrand: Integrand) -> int:
        return math.prod(list(self._counts(integrand).values()))

    def sharing(self, integrand: Integrand) -> int:
        return 1 if self._has_others(integrand) else self.length(integrand)

    def push(self, integrand: Integrand, noise: Noise) -> Drawn:
        chosen = self.chosen(integrand.p.group)
        g, aux = self._shared(integrand, noise, chosen, self.length(integrand))
        layouts: dict[Any, Any] = {**integrand.x.layouts}
        for f, number in self._numbers(integrand, g.shape[0]).items():
            h = chosen[f].translations(f, layouts.get(f), g[f]).select(number)
            g = exchange(g, f, f.compose(g[f], h))
        return g, aux

    def weights(self, integrand: Integrand) -> Tensor | None:
        chosen, weights = self.chosen(integrand.p.group), None
        layouts: dict[Any, Any] = {**integrand.x.layouts}
        for f, number in self._numbers(integrand, self.length(integrand)).items():
            shares = chosen[f].shares(f, layouts.get(f))
            if shares is not None:
                weights = shares[number] if weights is None else weights * shares[number]
        return weights

    def _shared(self, integrand: Integrand, noise: Noise, chosen: dict[Group, Coset], block: int) -> Drawn:
        """Elements (K, B) whose chosen factors are the same within each block; p is asked once a block if it can be."""
        if not self._has_others(integrand):
            g, aux = integrand.push(noise)
            return g.map(lambda t, _: repeat(t, block)), aux

        def shared(path: tuple[Any, ...], rep: Rep, eps: Tensor) -> Tensor:
            return eps if is_other(path, chosen) else repeat(eps[::block], block)

        return integrand.push(map_noise(integrand, noise, shared))

    def _counts(self, integrand: Integrand) -> dict[Group, int]:
        """Number of translations of each chosen factor."""
        layouts: dict[Any, Any] = {**integrand.x.layouts}
        return {f: coset.count(f, layouts.get(f)) for f, coset in self.chosen(integrand.p.group).items()}

    def _numbers(self, integrand: Integrand, k: int) -> dict[Group, Tensor]:
        """Number (K,) of the translation of each chosen factor in k samples: all pairs in every block."""
        numbers, found = torch.arange(k, device=integrand.x.device), {}
        for f, count in self._counts(integrand).items():
            found[f], numbers = numbers % count, numbers // count
        return found

    def _has_others(self, integrand: Integrand) -> bool:
        """Whether other factors draw noise of their own, a fresh one for each sample."""
        chosen = self.chosen(integrand.p.group)
        return any(is_other(path, chosen) for path in paths(integrand.p.noise_rep(integrand.x)))


class _Matrices(Coset):
    """Finite groups of orthogonal matrices."""

    needs: ClassVar[str] = "O, SO, E or SE"

    @abstractmethod
    def matrices(self, factor: IsometryGroup) -> np.ndarray:
        """(M, D, D) in float64."""

    def fits(self, factor: Group) -> bool:
        return isinstance(factor, IsometryGroup)

    def count(self, factor: Any, layout: Any) -> int:
        return len(self.matrices(factor)) if self.size is None else self.size

    def translations(self, factor: Any, layout: Any, like: Element) -> Element:
        return _matrix_elements(factor, self.matrices(factor), like)


@register
@dataclass(frozen=True)
class Polyhedral(_Matrices):
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
    def needs(self) -> str:  # type: ignore[override]
        return "O(3) or E(3)" if self._improper else "SO(3), O(3), SE(3) or E(3)"

    @property
    def _improper(self) -> bool:
        return self.name not in ("tetrahedral", "octahedral", "icosahedral")

    def fits(self, factor: Group) -> bool:
        return isinstance(factor, IsometryGroup) and factor.dim == 3 and not (self._improper and factor.special)

    def matrices(self, factor: IsometryGroup) -> np.ndarray:
        return finite.POLYHEDRAL[self.name][1]()


@register
@dataclass(frozen=True)
class SignCosets(_Matrices):
    """Cosets of the diagonal sign matrices in d dimensions: 2^d on O and E, 2^(d-1) of determinant one on SO and SE.

    Exact for every function that is linear in the entries of the matrix.
    """

    def matrices(self, factor: IsometryGroup) -> np.ndarray:
        if 2**factor.dim > finite.LARGEST:
            raise ValueError(f"design: {self!r} of {factor!r} has more than {finite.LARGEST} elements")
        return finite.proper(finite.signs(factor.dim)) if factor.special else finite.signs(factor.dim)


@register
@dataclass(frozen=True)
class SignedPermutations(_Matrices):
    """Cosets of the symmetries of the d-cube: 2^d d! on O and E, half of them, of determinant one, on SO and SE.

    Exact up to degree 3 for d > 2 (on SO, for d = 3, the octahedral design).
    """

    def matrices(self, factor: IsometryGroup) -> np.ndarray:
        if factor.dim > 5:
            raise ValueError(f"design: {self!r} of {factor!r} has more than {finite.LARGEST} elements")
        found = finite.signed_permutations(factor.dim)
        return finite.proper(found) if factor.special else found


@register
@dataclass(frozen=True)
class Cyclic(Coset):
    """Cosets of a cyclic group: n rotations of the plane, or the shifts of the nodes of S_n.

    In the plane exact up to degree n - 1. Over S_n every node stands once in every place of a block: exact for every
    sum over nodes of functions of a node and its place. Inputs with fewer nodes than the largest go round more than
    once; weights let each of their shifts count the same, so that the mean of a block does not depend on the batch. If
    the group has both, the plane is meant; `Shifts` takes the nodes.

    Args:
        order: n; 8 in the plane unless given, over S_n always the number of nodes of the largest input.
    """

    order: int | None = None
    needs: ClassVar[str] = "O(2), SO(2), E(2), SE(2) or S(n)"
    nodes: ClassVar[bool] = True
    plane: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if self.order is not None:
            object.__setattr__(self, "order", positive("order", self.order))

    def fits(self, factor: Group) -> bool:
        flat = isinstance(factor, IsometryGroup) and factor.dim == 2
        return (self.plane and flat) or (self.nodes and isinstance(factor, S))

    def factor(self, group: Group) -> Group:
        flat = [f for f in group.factors if isinstance(f, IsometryGroup) and f.dim == 2]
        return flat[0] if flat and self.plane else super().factor(group)

    def count(self, factor: Any, layout: Any) -> int:
        return max(layout.padded_size, 1) if isinstance(factor, S) else self.order or 8

    def translations(self, factor: Any, layout: Any, like: Element) -> Element:
        if isinstance(factor, S):
            return Permutation(factor, layout, shifts(layout, self.count(factor, layout), like.index))  # type: ignore[attr-defined]
        return _matrix_elements(factor, self.matrices(self.count(factor, layout)), like)

    def shares(self, factor: Any, layout: Any) -> Tensor | None:
        if not (isinstance(factor, S) and layout.uneven):
            return None
        count, sizes = self.count(factor, layout), layout.sizes.clamp_min(1)
        step = torch.arange(count, device=sizes.device)[:, None] % sizes
        times = count // sizes + (step < count % sizes)
        return count / (sizes * times).double()

    def matrices(self, order: int) -> np.ndarray:
        return finite.rotations(order)


@register
@dataclass(frozen=True)
class Shifts(Cyclic):
    """`Cyclic` over the nodes of S_n, also where the group has a plane."""

    needs: ClassVar[str] = "S(n)"
    plane: ClassVar[bool] = False


@register
@dataclass(frozen=True)
class Dihedral(Cyclic):
    """Cosets of the n rotations and n reflections of a regular polygon, 2 n in a block: O(2) and E(2).

    Args:
        order: n, the corners; 4 unless given.
    """

    needs: ClassVar[str] = "O(2) or E(2)"
    nodes: ClassVar[bool] = False

    @property
    def size(self) -> int:
        return 2 * (self.order or 4)

    def fits(self, factor: Group) -> bool:
        return isinstance(factor, IsometryGroup) and factor.dim == 2 and not factor.special

    def factor(self, group: Group) -> Group:
        return Coset.factor(self, group)

    def count(self, factor: Any, layout: Any) -> int:
        return self.size

    def matrices(self, order: int) -> np.ndarray:
        return finite.reflections(order // 2)


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
    needs: ClassVar[str] = "a factor for each part"

    @property
    def size(self) -> int | None:
        sizes = [part.size for part in self.parts]
        return None if None in sizes else math.prod(sizes)  # type: ignore[arg-type]

    def fits(self, factor: Group) -> bool:
        return any(part.fits(factor) for part in self.parts)

    def translations(self, factor: Any, layout: Any, like: Element) -> Element:
        raise NotImplementedError("the parts have the translations")

    def chosen(self, group: Group) -> dict[Group, Coset]:
        found: dict[Group, Coset] = {}
        for part in self.parts:
            left = [f for f in group.factors if f not in found and part.fits(f)]
            if not left:
                raise ValueError(f"design: {part!r} fits no factor of {group!r} that is left: it needs {part.needs}")
            found[part.factor(product(left))] = part
        return found


def _matrix_elements(factor: Any, matrices: np.ndarray, like: Any) -> Element:
    """Elements (M, 1) of the matrices (M, D, D), of the dtype and on the device of `like`."""
    options: dict[str, Any] = {"dtype": like.matrix.dtype, "device": like.matrix.device}
    h = torch.from_numpy(matrices).to(**options)[:, None]
    return replace(factor.identity((len(h), 1), **options), matrix=h)


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
    rank, count = layout.position % max(layout.padded_size, 1), layout.sizes[layout.batch]
    first = (layout.sizes.cumsum(0) - layout.sizes)[layout.batch]
    return torch.argsort(layout.position)[first + (rank + step[:, None]) % count]
