"""The unitary groups U(n) and SU(n), which act on complex vectors: quantum states, spinors, beams of light."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from probsym.groups.base import Element, Group, Slot
from probsym.groups.orthogonal import rotate
from probsym.groups.whole import positive
from probsym.kernels.orthonormal import lacks_columns, orthonormalise
from probsym.kernels.precision import complex_dtype, matmul, wide
from probsym.members import register


@dataclass(frozen=True, eq=False)
class UnitaryElement(Element):
    """A unitary matrix.

    Args:
        matrix: U (*shape, D, D), complex.
    """

    matrix: Tensor
    trailing_dims: ClassVar[dict[str, int]] = {"matrix": 2}


@dataclass(frozen=True, repr=False)
class UnitaryGroup(Group[UnitaryElement]):
    """Shared by U and SU: unitary matrices, of determinant one where `special`.

    Args:
        dim: n, the number of complex entries, at least one.
        name: tells this group from others, such as the parts of a composite system.

    Raises:
        ValueError: dim below one.
    """

    dim: int
    name: str | None = None

    feature_kind: ClassVar[str] = "complex columns"

    def __post_init__(self) -> None:
        object.__setattr__(self, "dim", positive(f"{type(self).__name__}(n)", self.dim))

    # ------------------------------------------------------------ how it acts

    @property
    def defining(self) -> Slot:
        return ComplexVector(self)

    @property
    def vector(self) -> Slot:
        """x -> U x: states, which is what the group itself stands for in a `Rep`."""
        return ComplexVector(self)

    @property
    def conjugate(self) -> Slot:
        """x -> conj(U) x: the second axis of a density matrix, `Rep(G, G.conjugate)`, moves so."""
        return ConjugateVector(self)

    @property
    def det(self) -> Slot:
        """x -> det(U) x: one number with the phase of the determinant; takes no axis."""
        return DetPhase(self)

    # ------------------------------------------------------------ as a group

    def identity(
        self,
        shape: tuple[int, ...] = (),
        *,
        n: Any = None,
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
    ) -> UnitaryElement:
        if dtype is None:
            dtype = torch.get_default_dtype()
        one = torch.eye(self.dim, dtype=complex_dtype(dtype), device=device)
        return UnitaryElement(self, one.expand(*shape, self.dim, self.dim))

    def compose(self, g: UnitaryElement, h: UnitaryElement) -> UnitaryElement:
        return UnitaryElement(self, matmul(g.matrix, h.matrix))

    def inverse(self, g: UnitaryElement) -> UnitaryElement:
        return UnitaryElement(self, g.matrix.mH)

    def project(self, z: Tensor, fallback: Tensor) -> UnitaryElement:
        """Orthonormalise the complex columns of z (*shape, D, M); `fallback` (*shape, D, D) fills what is missing.

        Gram-Schmidt of a complex Gaussian matrix is uniform: its QR decomposition with a positive diagonal of R. That
        of LAPACK has phases of its own there (arXiv math-ph/0609050).
        """
        return UnitaryElement(self, orthonormalise(z, fallback, self.special))

    def degenerate(self, z: Tensor) -> Tensor:
        return lacks_columns(z, self.special)

    # ------------------------------------------------------------ noise

    @property
    def noise_slots(self) -> tuple[Slot | None, ...]:
        return (self.defining, None)

    def draw_noise(
        self,
        shape: tuple[int, ...],
        *,
        generator: torch.Generator | None = None,
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
    ) -> Tensor:
        """D complex vectors (*shape, D, D), one per column, of standard normal entries: E |eps|^2 = 1."""
        if dtype is None:
            dtype = torch.get_default_dtype()
        options: dict[str, Any] = {} if generator is None else {"generator": generator}
        return torch.randn(*shape, self.dim, self.dim, dtype=complex_dtype(dtype), device=device, **options)

    def add_noise(self, z: Tensor, eps: Tensor, scale: float) -> Tensor:
        """The columns z at unit size (root mean square length), plus the noise; the first ones of both are used."""
        largest = _modulus(z).detach().amax((-2, -1), keepdim=True)
        z = z / torch.where(largest > 0, largest, 1.0)
        square = (z.real.square() + z.imag.square()).sum((-2, -1), keepdim=True) / max(z.shape[-1], 1)
        size = torch.where(square > 0, torch.where(square > 0, square, 1.0).sqrt(), 1.0)
        used = min(z.shape[-1], eps.shape[-1])
        return torch.add((z / size)[..., :used], eps[..., :used], alpha=scale)

    # ------------------------------------------------------------ what callers ask

    @property
    def trivial(self) -> bool:
        return self.special and self.dim == 1

    def order(self) -> int | None:
        return 1 if self.trivial else None

    def distance_to_identity(self, g: UnitaryElement) -> Tensor:
        """|U - 1|^2 / (4 n)."""
        trace = g.matrix.diagonal(dim1=-2, dim2=-1).real.sum(-1)
        return (self.dim - trace) / (2 * self.dim)

    def violation(self, g: UnitaryElement) -> Tensor:
        """|U^H U - 1|, and |det U - 1| where `special`: the largest of each matrix."""
        matrix = g.matrix.detach()
        one = torch.eye(self.dim, dtype=matrix.dtype, device=matrix.device)
        away = (matmul(matrix.mH, matrix) - one).abs().amax((-2, -1))
        if self.special:
            away = torch.maximum(away, (torch.linalg.det(wide(matrix)) - 1).abs())
        return away

    def __repr__(self) -> str:
        name = "" if self.name is None else f", {self.name!r}"
        return f"{type(self).__name__}({self.dim}{name})"


@register
@dataclass(frozen=True, repr=False)
class U(UnitaryGroup):
    """Unitary changes of basis of n complex numbers, phases included; U(1) are the phases alone.

    >>> from probsym.reps import Rep
    >>> spin = U(2, "spin")
    >>> state = torch.tensor([[1.0, 0.0], [0.6, 0.8j]])                                 # (B, n), complex
    >>> g = spin.haar((2,), generator=torch.Generator().manual_seed(0))
    >>> Rep(spin).act(g, state).abs().square().sum(-1)                                  # lengths stay
    tensor([1.0000, 1.0000])
    """


@register
@dataclass(frozen=True, repr=False)
class SU(UnitaryGroup):
    """Unitary matrices of determinant one; SU(2) are the rotations of spins.

    Local changes of basis of two qubits: `Rep(SU(2, "first"), SU(2, "second"))` on states (B, 2, 2).

    >>> SU(2).haar((3,)).matrix.det().allclose(torch.ones((), dtype=torch.complex64))
    True
    """

    special = True


# ---------------------------------------------------------------- slots


@dataclass(frozen=True, repr=False)
class UnitarySlot(Slot):
    """Shared by the slots of U and SU: complex numbers, whose lengths stay."""

    group: UnitaryGroup
    guards_precision: ClassVar[bool] = True
    is_complex: ClassVar[bool] = True

    @property
    def isometric(self) -> bool:
        return True

    @property
    def requires_float(self) -> bool:
        return True


@register
@dataclass(frozen=True, repr=False)
class ComplexVector(UnitarySlot):
    """x -> U x along one axis of n complex numbers."""

    @property
    def sizes(self) -> tuple[int | None, ...]:
        return (self.group.dim,)

    def act(self, g: UnitaryElement, x: Tensor, axis: int, shared_dims: int) -> Tensor:
        check_complex(x, self)
        return rotate(g.matrix, x, axis, shared_dims)


@register
@dataclass(frozen=True, repr=False)
class ConjugateVector(UnitarySlot):
    """x -> conj(U) x along one axis of n complex numbers."""

    suffix: ClassVar[str] = ".conjugate"

    @property
    def sizes(self) -> tuple[int | None, ...]:
        return (self.group.dim,)

    def act(self, g: UnitaryElement, x: Tensor, axis: int, shared_dims: int) -> Tensor:
        check_complex(x, self)
        return rotate(g.matrix.conj(), x, axis, shared_dims)


@register
@dataclass(frozen=True, repr=False)
class DetPhase(UnitarySlot):
    """x -> det(U) x; takes no axis."""

    num_axes: ClassVar[int] = 0
    suffix: ClassVar[str] = ".det"

    def act(self, g: UnitaryElement, x: Tensor, axis: int, shared_dims: int) -> Tensor:
        check_complex(x, self)
        phase = torch.linalg.det(wide(g.matrix))
        return (x * phase.reshape((*phase.shape, *[1] * (x.ndim - shared_dims)))).to(x.dtype)


def check_complex(x: Tensor, slot: Slot) -> None:
    """Refuse real numbers, of which a unitary matrix would keep the real part alone.

    Raises:
        TypeError: names the slot and what came.
    """
    if not x.is_complex():
        raise TypeError(f"expected complex numbers for {slot!r}, got {x.dtype}")


def _modulus(z: Tensor) -> Tensor:
    """The larger of |re| and |im|, which does not overflow."""
    return torch.maximum(z.real.abs(), z.imag.abs())
