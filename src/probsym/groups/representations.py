"""Further representations of O, SO, E and SE on one axis: irreps, rotations as numbers, products, sums, your own.

All act by the linear part R of an element; only points, which may be part of a sum, feel its translation. Groups have
them as `space.irrep(l)`, `space.rotation6d`, `space.quaternion` and `space.linear(dim, matrix_of)`; slots multiply
(`space.vector * space.vector`) and add up (`space.irrep(0) + space.irrep(2)`).
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, ClassVar, TypeAlias

import numpy as np
import torch
from torch import Tensor

from probsym.groups.base import Group, Piece, Slot
from probsym.groups.orthogonal import IsometryGroup, check_coordinates, rotate
from probsym.groups.rotations import canonical_quaternion, matrix_to_quaternion, quaternion_product
from probsym.groups.whole import whole_number
from probsym.kernels.precision import matmul, wide
from probsym.members import register

MatrixOf: TypeAlias = Callable[[Tensor], Tensor]

CHECKED_ELEMENTS = 8  # random elements on which a matrix representation is tried
CHECK_TOLERANCE = 1e-8  # in float64


@dataclass(frozen=True, repr=False)
class MatrixSlot(Slot):
    """x -> D(R) x along one axis, for a matrix representation D of the linear part R of an element."""

    group: IsometryGroup
    guards_precision: ClassVar[bool] = True

    @abstractmethod
    def matrix(self, r: Tensor) -> Tensor:
        """D(R), (*shape, M, M), of orthogonal matrices R (*shape, D, D) in float32 or wider."""

    @property
    def requires_float(self) -> bool:
        return True

    def act(self, g: Any, x: Tensor, axis: int, shared_dims: int) -> Tensor:
        return rotate(self.matrix(wide(g.matrix)), x, axis, shared_dims)


# ---------------------------------------------------------------- irreps


@register
@dataclass(frozen=True, repr=False)
class Irrep(MatrixSlot):
    """The irreducible representation of degree l on one axis; made by `space.irrep(l)`.

    **d = 3**: 2l + 1 entries, transformed by the real Wigner matrix D^l(R) in the basis of e3nn, that of
    `o3.Irrep.D_from_matrix`: real spherical harmonics Y_(l,m), m = -l ... l, whose polar axis is y, so that those of
    degree one are (x, y, z) and D^1(R) = R. Those of degree two are, up to one factor for all,

        sqrt(3) xz,  sqrt(3) xy,  y^2 - (x^2 + z^2) / 2,  sqrt(3) yz,  sqrt(3) / 2 (z^2 - x^2)

    D^l is orthogonal, so that e3nn's normalisations ("component", "integral", "norm") differ by one factor for all
    entries and have the same D^l. Order and signs are what has to agree. Harmonics of the usual kind, with z as polar
    axis and without the phase of Condon and Shortley, are those at (y, z, x): Y_e3nn(x, y, z) = Y_usual(z, x, y).

        D^l(R) = C (D^(l-1)(R) x R) C^T             C: the isometry from degrees l-1 and 1 to l (Clebsch-Gordan)

    A polynomial in R: no Euler angles, smooth at all rotations, exact to rounding.

    **d = 2**: the entries (cos l phi, sin l phi) of angular frequency l; one entry for l = 0.

    About an axis of space (`about=`) these are the restrictions of D^l, which are no longer irreducible.

    Args:
        l: degree (d = 3) or angular frequency (d = 2), not negative.
        parity: "even" or "odd": what the inversion -1 does in three dimensions, e3nn's "e" and "o". None is the natural
            one, (-1)^l; groups without reflections have no other. In the plane "odd" is for l = 0 alone, the sign of
            the determinant.

    Raises:
        ValueError: another dimension, a negative l, a parity where there is none to choose.
    """

    l: int  # noqa: E741
    parity: str | None = None

    def __post_init__(self) -> None:
        of = f"{self.group!r}.irrep"
        object.__setattr__(self, "l", whole_number(f"{of}: l", self.l, 0))
        if self.group.dim not in (2, 3):
            raise ValueError(
                f"{of}: irreps are known in two and three dimensions, got {self.group.dim}: give the matrices to "
                "space.linear(dim, matrix_of)"
            )
        if self.group.dim == 3:
            # made here, so that compilers find tables and need not follow how they are made
            tables = tuple([coupling(degree) for degree in range(2, self.l + 1)])
            object.__setattr__(self, "_couplings", tables)
        if self.parity is None:
            return
        if self.parity not in ("even", "odd"):
            raise ValueError(f"{of}: parity: expected 'even', 'odd' or None, got {self.parity!r}")
        if self.group.special:
            raise ValueError(f"{of}: {self.group!r} has no reflections, so that parity means nothing: leave it out")
        if self.group.dim == 2 and self.l > 0:
            raise ValueError(f"{of}: parity: in the plane only l = 0 has one, got l = {self.l}")
        if self.parity == self._natural:
            object.__setattr__(self, "parity", None)  # equal by value

    @property
    def _natural(self) -> str:
        return "odd" if self.l % 2 else "even"

    @property
    def sizes(self) -> tuple[int | None, ...]:
        if self.group.dim == 2:
            return (2 if self.l else 1,)
        return (2 * self.l + 1,)

    @property
    def isometric(self) -> bool:
        return True

    @property
    def degree(self) -> int:
        return self.l + (self.group.dim if self.parity is not None else 0)

    @property
    def pieces(self) -> tuple[Piece, ...]:
        if self.l == 1 and self.parity is None:
            return (Piece((self.group.vector,), (self.group.dim,)),)
        return ()

    def matrix(self, r: Tensor) -> Tensor:
        if self.group.dim == 2:
            d = planar_harmonics(r, self.l)
        else:
            d = wigner(r, self.l, self._couplings)  # type: ignore[attr-defined]
        if self.parity is not None:
            d = d * torch.linalg.det(r.detach()).sign()[..., None, None]
        return d

    def __repr__(self) -> str:
        parity = "" if self.parity is None else f", {self.parity!r}"
        return f"{self.group!r}.irrep({self.l}{parity})"


def wigner(r: Tensor, l: int, couplings: Sequence[np.ndarray] | None = None) -> Tensor:  # noqa: E741
    """D^l(R), (*shape, 2l + 1, 2l + 1), of orthogonal matrices R (*shape, 3, 3); with the natural parity, see `Irrep`.

    Args:
        couplings: the matrices C of degrees 2 ... l, where they are made already.

    >>> quarter = torch.tensor([[0.0, -1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 1.0]])
    >>> torch.equal(wigner(quarter, 1), quarter), wigner(-quarter, 0).item()
    (True, 1.0)
    """
    d = r.new_ones(*r.shape[:-2], 1, 1)
    for degree in range(1, l + 1):
        if degree == 1:
            d = r
            continue
        # (D x R) of all pairs of entries, (a, i) and (b, j)
        pairs = d[..., :, None, :, None] * r[..., None, :, None, :]
        size = 3 * d.shape[-1]
        pairs = pairs.reshape(*r.shape[:-2], size, size)
        # C (D x R) C^T, each product with a matrix on the right that all rows share, which is one large product
        table = coupling(degree) if couplings is None else couplings[degree - 2]
        c = torch.from_numpy(table).to(r)
        right = matmul(pairs, c.mT)
        d = matmul(right.mT, c.mT).mT
    return d


@cache
def coupling(l: int) -> np.ndarray:  # noqa: E741
    """C (2l + 1, 3 (2l - 1)): orthonormal rows, entry (m, (a, i)) the share of Y_(l,m) in Y_(l-1,a) x_i.

    From the recurrences of associated Legendre functions, normalised and without the phase of Condon and Shortley:

        cos t P_(l-1)^m  =  sqrt((l^2 - m^2) / (4 l^2 - 1)) P_l^m  + ...
        sin t P_(l-1)^m  =  a P_l^(m+1) + ...  =  -b P_l^(m-1) + ...
        a^2 = (l + m) (l + m + 1) / (4 l^2 - 1),      b^2 = (l - m) (l - m + 1) / (4 l^2 - 1)

    where "..." are of degree l - 2. The axes (X, Y, Z) of these formulas are e3nn's (z, x, y).
    """
    share = np.zeros((2 * l + 1, 2 * l - 1, 3))
    z, x, y = 1, 2, 0  # places of the polar axis Z and of X and Y among (x, y, z)
    norm = 4 * l * l - 1

    def put(m: int, a: int, axis: int, value: float) -> None:
        share[m + l, a + l - 1, axis] += value

    for m in range(l):
        up = 0.5 * math.sqrt((l + m) * (l + m + 1) / norm)
        down = -0.5 * math.sqrt((l - m) * (l - m + 1) / norm)
        along = math.sqrt((l * l - m * m) / norm)
        # Real harmonics with m > 0 carry a factor sqrt(2) that the one with m = 0 has not.
        to_cos = up * (math.sqrt(2) if m == 0 else 1)
        from_one = down * (math.sqrt(2) if m == 1 else 1)

        # 1. cos(m phi) P^m
        put(m, m, z, along)
        put(m + 1, m, x, to_cos)
        put(-(m + 1), m, y, to_cos)
        if m > 0:
            put(m - 1, m, x, from_one)
        if m > 1:
            put(-(m - 1), m, y, -down)

        # 2. sin(m phi) P^m
        if m == 0:
            continue
        put(-m, -m, z, along)
        put(-(m + 1), -m, x, up)
        put(m + 1, -m, y, -up)
        put(m - 1, -m, y, from_one)
        if m > 1:
            put(-(m - 1), -m, x, down)

    flat = share.reshape(2 * l + 1, 3 * (2 * l - 1))
    return flat / np.linalg.norm(flat, axis=1, keepdims=True)


def planar_harmonics(r: Tensor, l: int) -> Tensor:  # noqa: E741
    """The rotation by l times the angle of R (*shape, 2, 2), reflected if R is; ones (*shape, 1, 1) for l = 0."""
    if l == 0:
        return r.new_ones(*r.shape[:-2], 1, 1)
    # powers of the complex number c + i s
    c, s = r[..., 0, 0], r[..., 1, 0]
    real, imaginary = c, s
    for _ in range(l - 1):
        real, imaginary = real * c - imaginary * s, real * s + imaginary * c
    sign = torch.linalg.det(r.detach()).sign()
    rows = [real, -sign * imaginary, imaginary, sign * real]
    return torch.stack(rows, -1).unflatten(-1, (2, 2))


# ---------------------------------------------------------------- rotations as numbers


@register
@dataclass(frozen=True, repr=False)
class Rotation6d(MatrixSlot):
    """A rotation as the first two columns of its matrix, one after the other (arXiv 1812.07035); `space.rotation6d`.

    Both are vectors, so that the action is linear and an average means something: `rotations.rotation6d_to_matrix`
    takes it to the nearest rotation. pytorch3d writes the first two rows, on which rotations from the left do not act:
    give it `matrix.mT`, or rearrange with `numbers.unflatten(-1, (3, 2)).mT.flatten(-2)` where its numbers are those of
    R^T. See `rotations.matrix_to_rotation6d`.
    """

    suffix: ClassVar[str] = ".rotation6d"

    def __post_init__(self) -> None:
        _check_three(self.group, "rotation6d")

    @property
    def sizes(self) -> tuple[int | None, ...]:
        return (6,)

    @property
    def isometric(self) -> bool:
        return True

    @property
    def degree(self) -> int:
        return 1

    @property
    def pieces(self) -> tuple[Piece, ...]:
        return (Piece((None, self.group.vector), (2, 3)),)

    def matrix(self, r: Tensor) -> Tensor:
        zero = torch.zeros_like(r)
        return torch.cat([torch.cat([r, zero], -1), torch.cat([zero, r], -1)], -2)


@register(name="QuaternionSlot")
@dataclass(frozen=True, repr=False)
class Quaternion(Slot):
    """A rotation as a quaternion (w, x, y, z) that is multiplied from the left by that of R; `space.quaternion`.

    q and -q are the same rotation, and no choice between them is continuous: a quaternion is not quite a vector. So

    - what comes out is canonical: the first entry that is not zero is positive. A model sees one quaternion for each
      rotation, whatever sign the input has; `g x` is an action on canonical quaternions.
    - an average over p is refused, since the signs are arbitrary. Let the model return `space.rotation6d` instead, or
      average what `phi.sample` returns with `rotations.mean_quaternion`.

    For groups without reflections in three dimensions.
    """

    group: IsometryGroup
    suffix: ClassVar[str] = ".quaternion"
    guards_precision: ClassVar[bool] = True

    def __post_init__(self) -> None:
        _check_three(self.group, "quaternion")
        if not self.group.special:
            raise ValueError(
                f"{self.group!r}.quaternion: quaternions are rotations, and {self.group!r} has reflections: use SO(3), "
                "SE(3), or .rotation6d"
            )

    @property
    def sizes(self) -> tuple[int | None, ...]:
        return (4,)

    @property
    def isometric(self) -> bool:
        return True

    @property
    def requires_float(self) -> bool:
        return True

    @property
    def no_average(self) -> str | None:
        return (
            "q and -q are the same rotation: let the model return space.rotation6d, or average what phi.sample returns "
            "with probsym.rotations.mean_quaternion"
        )

    def representative(self, x: Tensor, axis: int) -> Tensor:
        return canonical_quaternion(x, axis)

    def act(self, g: Any, x: Tensor, axis: int, shared_dims: int) -> Tensor:
        check_coordinates(x, axis, 4)
        q = matrix_to_quaternion(wide(g.matrix))
        last = wide(x).movedim(axis, -1)
        q = q.reshape(*q.shape[:-1], *[1] * (last.ndim - 1 - shared_dims), 4)
        kind = torch.promote_types(q.dtype, last.dtype)
        moved = canonical_quaternion(quaternion_product(q.to(kind), last.to(kind)))
        return moved.to(x.dtype).movedim(-1, axis + len(g.shape) - shared_dims)


def _check_three(group: IsometryGroup, name: str) -> None:
    if group.dim != 3:
        raise ValueError(f"{group!r}.{name}: expected three dimensions, got {group.dim}")


# ---------------------------------------------------------------- a representation of one's own


@register(name="MatrixRepresentation")
@dataclass(frozen=True, repr=False)
class Linear(MatrixSlot):
    """x -> D(R) x for matrices that a function gives; made by `space.linear(dim, matrix_of)`.

    It is tried on random elements when it is made: D(1) = 1, D(R S) = D(R) D(S), matrices (*shape, M, M) in the dtype
    of R for any batch shape, finite.

    Args:
        dim: M, the number of entries.
        matrix_of: orthogonal matrices (*shape, D, D) to matrices (*shape, M, M), in the same dtype. `save` needs it
            registered under a name (`probsym.saving.register`), as a function or an object that is called.

    Raises:
        TypeError: matrix_of is not called with matrices, or returns no tensor.
        ValueError: it returns other shapes, or matrices that are no representation.

    >>> from probsym.groups import SO
    >>> def on_planes(r):                                            # how a pseudovector turns
    ...     return torch.linalg.det(r)[..., None, None] * r
    >>> SO(3).linear(3, on_planes)
    SO(3).linear(3, on_planes)
    """

    dim: int
    matrix_of: MatrixOf

    def __post_init__(self) -> None:
        of = f"{self.group!r}.linear"
        object.__setattr__(self, "dim", whole_number(f"{of}: dim", self.dim, 1))
        if not callable(self.matrix_of):
            raise TypeError(f"{of}: matrix_of: expected a function of matrices, got {self.matrix_of!r}")
        object.__setattr__(self, "_isometric", _checked_representation(self))

    @property
    def sizes(self) -> tuple[int | None, ...]:
        return (self.dim,)

    @property
    def isometric(self) -> bool:
        return self._isometric  # type: ignore[attr-defined, no-any-return]

    def matrix(self, r: Tensor) -> Tensor:
        return self.matrix_of(r)

    def __repr__(self) -> str:
        return f"{self.group!r}.linear({self.dim}, {_called(self.matrix_of)})"


def _called(function: MatrixOf) -> str:
    """What a function is called; objects tell themselves."""
    return str(getattr(function, "__name__", repr(function)))


def _checked_representation(slot: Linear) -> bool:
    """Whether the matrices are orthogonal; refuses those that are no representation of the group."""
    group = slot.group
    name = f"{group!r}.linear: matrix_of ({_called(slot.matrix_of)})"

    def of(r: Tensor) -> Tensor:
        d = slot.matrix_of(r)
        expected = (*r.shape[:-2], slot.dim, slot.dim)
        if not isinstance(d, Tensor):
            raise TypeError(f"{name}: expected a tensor, got {type(d).__name__}")
        if tuple(d.shape) != expected:
            raise ValueError(f"{name}: expected shape {expected} for R of shape {tuple(r.shape)}, got {tuple(d.shape)}")
        if d.dtype != r.dtype:
            raise ValueError(f"{name}: expected the dtype of R, {r.dtype}, got {d.dtype}")
        if not bool(d.isfinite().all()):
            raise ValueError(f"{name}: expected finite matrices, got NaN or infinity")
        return d

    def differs(left: Tensor, right: Tensor) -> bool:
        scale = max(1.0, float(right.abs().max()))
        return float((left - right).abs().max()) > CHECK_TOLERANCE * scale

    # 1. Two draws of random elements; pairs have one of each.
    generator = torch.Generator().manual_seed(0)
    shape = (2, CHECKED_ELEMENTS, group.dim, group.dim)
    with torch.no_grad():
        noise = torch.randn(shape, dtype=torch.float64, generator=generator)
        r, s = group.oriented(noise, noise).unbind(0)
        one = torch.eye(group.dim, dtype=torch.float64)

        # 2. Shapes and dtypes: no batch, one batch dim, two; float32.
        alone = of(r[0])
        many = of(r)
        of(r.float())
        if differs(of(r.unflatten(0, (2, -1))).flatten(0, 1), many) or differs(many[0], alone):
            raise ValueError(f"{name}: expected every matrix by itself, but it depends on the others of its batch")

        # 3. The laws.
        unit = torch.eye(slot.dim, dtype=torch.float64)
        if differs(of(one), unit):
            raise ValueError(f"{name} is no representation: expected D(1) = 1, got {of(one).tolist()}")
        if differs(of(r @ s), many @ of(s)):
            hint = ""
            if not differs(of(r @ s), of(s) @ many):
                hint = "; it is one from the right, D(R S) = D(S) D(R): transpose it"
            raise ValueError(f"{name} is no representation: D(R S) = D(R) D(S) fails for random elements{hint}")
        return not differs(many.mT @ many, unit.expand_as(many))


# ---------------------------------------------------------------- products and sums


@register
@dataclass(frozen=True, repr=False)
class TensorProduct(Slot):
    """The tensor product of slots, flattened on one axis, the last running fastest; written `a * b`.

    A matrix with two axes of space may stand on two axes, `Rep(space.vector, space.vector)`, or flattened on one,
    `Rep(space.vector * space.vector)`. `space.det` takes no axis and adds its sign.

    Args:
        parts: slots of one group with one axis of known size each, or none, that act linearly.

    Raises:
        ValueError, TypeError: a part is none of these; names it.

    >>> from probsym.groups import O
    >>> (O(3).vector * O(3).vector).sizes, (O(3).det * O(3).vector).sizes
    ((9,), (3,))
    """

    parts: tuple[Slot, ...]

    def __init__(self, group: Group, parts: tuple[Slot, ...]) -> None:
        flat: list[Slot] = []
        for part in parts:
            if isinstance(part, Group):
                part = part.defining
            if isinstance(part, TensorProduct):
                flat += part.parts
            else:
                flat.append(part)
        object.__setattr__(self, "group", group)
        object.__setattr__(self, "parts", tuple(flat))
        for part in flat:
            _check_part(part, group, "a product", most_axes=1)
            if part.differences != part:
                raise ValueError(f"{self!r}: points have no products: use {part.differences!r} instead of {part!r}")
            if part.no_average is not None:
                raise ValueError(f"{self!r}: {part!r} has no products: {part.no_average}")

    @property
    def guards_precision(self) -> bool:  # type: ignore[override]
        return all(part.guards_precision for part in self.parts)

    @property
    def sizes(self) -> tuple[int | None, ...]:
        return (math.prod(self._own_sizes()),)

    def _own_sizes(self) -> list[int]:
        return [size for part in self.parts for size in part.sizes]  # type: ignore[misc]  # known, as checked

    @property
    def isometric(self) -> bool:
        return all(part.isometric for part in self.parts)

    @property
    def degree(self) -> int | None:
        return _sum_of_degrees(self.parts)

    def act(self, g: Any, x: Tensor, axis: int, shared_dims: int) -> Tensor:
        # As a tensor with one axis for each part, which acts on its own.
        place = axis
        y = wide(x).unflatten(axis, self._own_sizes() or [1])
        for part in self.parts:
            before = y.ndim
            y = part.act(g, y, place, shared_dims)
            place += y.ndim - before + part.num_axes
            shared_dims += y.ndim - before
        first = place - len(self._own_sizes())
        return y.flatten(first, max(place - 1, first)).to(x.dtype)

    def __repr__(self) -> str:
        return " * ".join(_in_brackets(part) for part in self.parts)


@register
@dataclass(frozen=True, repr=False)
class DirectSum(Slot):
    """The direct sum of slots: their entries one after the other on one axis; written `a + b`.

    A whole number stands for as many invariant entries. With points of E and SE as a part, that part moves with the
    translation too. An action of a robot, its position, orientation and gripper:

    >>> from probsym.groups import SE
    >>> space = SE(3, about="z")
    >>> (space.vector + space.rotation6d + 1).sizes
    (10,)

    Args:
        parts: slots of one group with one axis of known size each, or whole numbers.

    Raises:
        ValueError, TypeError: a part is none of these; names it.
    """

    parts: tuple[Slot | int, ...]

    def __init__(self, group: Group, parts: tuple[Slot | Group | int, ...]) -> None:
        flat: list[Slot | int] = []
        for part in parts:
            if isinstance(part, Group):
                part = part.defining
            if isinstance(part, DirectSum):
                flat += part.parts
            else:
                flat.append(part)
        object.__setattr__(self, "group", group)
        object.__setattr__(self, "parts", tuple(flat))
        for part in flat:
            if isinstance(part, int) and not isinstance(part, bool):
                if part < 1:
                    raise ValueError(f"a sum: expected at least one invariant entry, got {part}")
                continue
            _check_part(part, group, "a sum", least_axes=1, most_axes=1)

    @property
    def lengths(self) -> list[int]:
        """The number of entries of each part."""
        lengths: list[int] = []
        for part in self.parts:
            if isinstance(part, int):
                lengths.append(part)
            else:
                lengths.append(part.sizes[0])  # type: ignore[arg-type]  # known, as checked
        return lengths

    @property
    def sizes(self) -> tuple[int | None, ...]:
        return (sum(self.lengths),)

    @property
    def guards_precision(self) -> bool:  # type: ignore[override]
        return all(part.guards_precision for part in self.slots)

    @property
    def pieces(self) -> tuple[Piece, ...]:
        pieces: list[Piece] = []
        for part, length in zip(self.parts, self.lengths, strict=True):
            if isinstance(part, int):
                pieces.append(Piece((None,), (length,)))
            else:
                pieces += part.pieces or [Piece((part,), (length,))]
        return tuple(pieces)

    @property
    def slots(self) -> list[Slot]:
        return [part for part in self.parts if not isinstance(part, int)]

    @property
    def isometric(self) -> bool:
        return all(part.isometric for part in self.slots)

    @property
    def requires_float(self) -> bool:
        return any(part.requires_float for part in self.slots)

    @property
    def degree(self) -> int | None:
        degrees = [part.degree for part in self.slots]
        if None in degrees:
            return None
        return max(degrees, default=0)  # type: ignore[type-var]

    @property
    def no_average(self) -> str | None:
        for part in self.slots:
            if part.no_average is not None:
                return part.no_average
        return None

    @property
    def differences(self) -> Slot:
        moved: list[Slot | int] = []
        for part in self.parts:
            if isinstance(part, int):
                moved.append(part)
            else:
                moved.append(part.differences)
        return DirectSum(self.group, tuple(moved))

    def representative(self, x: Tensor, axis: int) -> Tensor:
        pieces = []
        for part, piece in zip(self.parts, x.split(self.lengths, axis), strict=True):
            if not isinstance(part, int):
                piece = part.representative(piece, axis)
            pieces.append(piece)
        return torch.cat(pieces, axis)

    def act(self, g: Any, x: Tensor, axis: int, shared_dims: int) -> Tensor:
        new = g.shape[: len(g.shape) - shared_dims]  # batch dims of g that x has not
        moved = []
        for part, piece in zip(self.parts, wide(x).split(self.lengths, axis), strict=True):
            if isinstance(part, int):
                moved.append(piece.expand(*new, *piece.shape))
            else:
                moved.append(part.act(g, piece, axis, shared_dims))
        return torch.cat(moved, axis + len(new)).to(x.dtype)

    def __repr__(self) -> str:
        return " + ".join(repr(part) for part in self.parts)  # a number is written as it is


def _in_brackets(part: Slot) -> str:
    return f"({part!r})" if isinstance(part, DirectSum) else repr(part)


def _sum_of_degrees(parts: tuple[Slot, ...]) -> int | None:
    total = 0
    for part in parts:
        degree = part.degree if part.num_axes else 0
        if degree is None:
            return None
        total += degree
    return total


def _check_part(part: Any, group: Group, of: str, least_axes: int = 0, most_axes: int = 1) -> None:
    """Refuse what cannot be a part of a product or a sum."""
    if not isinstance(part, Slot):
        raise TypeError(f"{of}: expected slots such as space.vector, got {part!r}")
    if part.group != group:
        raise ValueError(
            f"{of}: expected slots of one group, got {part!r} beside one of {group!r}: different groups act on "
            "different axes, Rep(a, b)"
        )
    if not least_axes <= part.num_axes <= most_axes or None in part.sizes:
        raise ValueError(f"{of}: expected slots with one axis of known size, got {part!r} with sizes {part.sizes}")
