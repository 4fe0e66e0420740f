"""The Lorentz group: boosts and rotations of four-vectors, and those that keep a beam."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor

from probsym.groups.base import Element, Group, Slot
from probsym.groups.orthogonal import rotate
from probsym.kernels.minkowski import boost_to, four_velocity, minkowski, reflected
from probsym.kernels.orthonormal import lacks_columns, orthonormalise
from probsym.kernels.precision import matmul
from probsym.members import register

# A mass below this share of the energy, squared and in units of rounding, is no mass: E^2 and |p|^2 are as uncertain.
LIGHTLIKE_IN_EPS = 16
# In a rest frame seen at gamma, what is smaller than this share of a vector, in eps gamma^2, may be rounding.
RESTING_IN_EPS = 32


@dataclass(frozen=True, eq=False)
class LorentzElement(Element):
    """A Lorentz transformation x -> L x.

    Args:
        matrix: L (*shape, 4, 4), with L^T eta L = eta = diag(1, -1, -1, -1), L_00 >= 1 and determinant one.
    """

    matrix: Tensor
    trailing_dims: ClassVar[dict[str, int]] = {"matrix": 2}


class RestFrame(NamedTuple):
    """What features say about a frame of reference.

    Args:
        massive: where they have one (*shape).
        velocity: its four-velocity (*shape, 4); (1, 0, 0, 0) where they have none.
        boost: the boost (*shape, 4, 4) from rest to it.
        others: the space parts (*shape, 3, M) of the features as seen from it, the one that says the frame behind the
            others; zero where that is rounding.
    """

    massive: Tensor
    velocity: Tensor
    boost: Tensor
    others: Tensor


@register
@dataclass(frozen=True, repr=False)
class Lorentz(Group[LorentzElement]):
    """SO+(1, 3) on four-vectors (E, px, py, pz): it keeps E^2 - p^2 and the sign of E. Not compact.

    `Rep(particles, Lorentz())` are momenta, `Rep(G, G)` tensors such as the electromagnetic field. `about="beam"` keeps
    the z axis: rotations about it and boosts along it, SO(2) x SO+(1, 1), the symmetry of what two beams produce.

    There is no uniform distribution. `"canonical"` and `"learned"` take the rest frame of a weighted total momentum, in
    which only rotations are left, and turn there by what other sums of the momenta say. Noise lives in this rest frame.

    **Features** are four-vectors, columns (*shape, 4, M). The first time-like one gives the boost to its rest frame
    (of momentum -p if its energy is negative), further ones the rotation there. What they leave open comes from the
    noise: all of the rotation where all momenta are parallel, and the boost where no column is time-like. The elements
    that keep a single light-like momentum are not compact, so that no law of g moves with such an input. It gets a
    random boost, counts as `degenerate`, and has an infinite standard error.

    **Precision.** Elements are float64 whatever their features are. Rounding of a momentum at gamma = E / m still
    changes what is seen in its rest frame, by eps gamma^2. In float32 an output of the canonical pose is off by 4e-4 at
    gamma = 10; at 100 the directions of most inputs count as rounding, and from 724 on so does the mass, E^2 - p^2. In
    float64 it is off by 2e-10 at gamma = 100 and 2e-6 at 1e4 (medians of 200 events of five particles). A product loses
    as much where boosts cancel; an inverse is exact.

    Args:
        about: None, or "beam".
        name: tells this group from others.

    Raises:
        ValueError: another `about`.

    >>> from probsym.reps import Rep
    >>> frame = Lorentz()
    >>> momentum = torch.tensor([[5.0, 0.0, 0.0, 4.0]])                                 # mass 3, gamma = 5 / 3
    >>> g = frame.project(momentum.unsqueeze(-1), frame.draw_noise((1,)))
    >>> at_rest = Rep(frame).act(g.inverse(), momentum)
    >>> torch.allclose(at_rest, torch.tensor([3.0, 0.0, 0.0, 0.0]), atol=1e-5)
    True
    """

    about: str | None = None
    name: str | None = None

    feature_kind: ClassVar[str] = "four-vectors"
    compact = False
    takes_noise = True
    moves_noise_with_features = True

    def __post_init__(self) -> None:
        if self.about not in (None, "beam"):
            raise ValueError(f"about: expected None or 'beam', got {self.about!r}; names are given as name=")

    # ------------------------------------------------------------ as a group

    @property
    def defining(self) -> Slot:
        return FourVector(self)

    @property
    def vector(self) -> Slot:
        """Four-vectors: momenta, differences of events. The same as the group itself in a `Rep`."""
        return FourVector(self)

    def identity(
        self,
        shape: tuple[int, ...] = (),
        *,
        n: Any = None,
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
    ) -> LorentzElement:
        return LorentzElement(self, torch.eye(4, dtype=dtype, device=device).expand(*shape, 4, 4))

    def compose(self, g: LorentzElement, h: LorentzElement) -> LorentzElement:
        return LorentzElement(self, matmul(g.matrix, h.matrix))

    def inverse(self, g: LorentzElement) -> LorentzElement:
        """eta L^T eta: entries and signs change places, so that nothing is lost."""
        return LorentzElement(self, reflected(g.matrix))

    # ------------------------------------------------------------ from features

    @property
    def feature_slots(self) -> tuple[Slot | None, ...]:
        return (self.defining, None)

    @property
    def noise_slots(self) -> tuple[Slot | None, ...]:
        return (None, None)

    def draw_noise(self, shape: tuple[int, ...], **options: Any) -> Tensor:
        """Four vectors of space (*shape, 3, 4): a velocity, for where there is none, and three that turn."""
        return torch.randn(*shape, 3, 4, **options)

    def draw_features(self, shape: tuple[int, ...], **options: Any) -> Tensor:
        """For the checkers: a time-like column and two others, (*shape, 4, 3)."""
        velocity = four_velocity(torch.randn(*shape, 3, **options))
        others = torch.randn(*shape, 4, 2, **options)
        return torch.cat([velocity.unsqueeze(-1), others], -1)

    def project(self, z: Tensor, fallback: Tensor) -> LorentzElement:
        """The boost to the rest frame of z (*shape, 4, M), after the rotation that z says there; float64.

        `fallback` (*shape, 3, 4) has the velocity and the directions that z does not determine.
        """
        frame = self.rest_frame(z)
        fallback = fallback.double()

        # 1. The boost; where no column is time-like, that of the noise.
        random_velocity = four_velocity(self._along(fallback[..., 0]))
        massive = frame.massive[..., None, None]
        boost = torch.where(massive, frame.boost, boost_to(random_velocity))

        # 2. The rotation in the rest frame.
        turn = self._turn(frame.others, fallback[..., 1:])

        # 3. First it turns, then it boosts.
        turned = matmul(boost[..., 1:], turn)
        first = boost[..., :1].expand(*turned.shape[:-1], 1)
        return LorentzElement(self, torch.cat([first, turned], -1))

    def degenerate(self, z: Tensor) -> Tensor:
        frame = self.rest_frame(z)
        if self.about is None:
            open_turn = lacks_columns(frame.others, True)
        else:
            open_turn = lacks_columns(frame.others[..., :2, :], True)
        return ~frame.massive | open_turn

    def rest_frame(self, z: Tensor) -> RestFrame:
        """The rest frame of the first time-like column of z (*shape, 4, M), and all columns as seen from it."""
        eps = torch.finfo(z.dtype).eps
        z = z.double()
        if not z.shape[-1]:
            z = z.new_zeros(*z.shape[:-1], 1)
        # The unit of energy does not matter, but squares of it may leave the range of a dtype.
        size = z.detach().abs().amax((-2, -1), keepdim=True)
        z = z / torch.where(size > 0, size, 1.0)

        # 1. Which columns are time-like. About a beam the transverse momentum counts as mass.
        moving = z
        if self.about == "beam":
            moving = z * z.new_tensor([1.0, 0.0, 0.0, 1.0]).unsqueeze(-1)
        energy = z[..., 0, :]
        mass_square = minkowski(moving.mT, moving.mT)
        timelike = mass_square.detach() > LIGHTLIKE_IN_EPS * eps * energy.detach().square()
        massive = timelike.any(-1)
        first = timelike.to(torch.uint8).argmax(-1, keepdim=True)

        # 2. The four-velocity of the first of them. Where there is none, that of rest, without gradient.
        momentum = _column(moving, first).squeeze(-1)
        square = mass_square.gather(-1, first)
        mass = torch.where(massive.unsqueeze(-1), square, 1.0).sqrt() * momentum[..., :1].detach().sign()
        rest = z.new_tensor([1.0, 0.0, 0.0, 0.0])
        velocity = torch.where(massive.unsqueeze(-1), momentum / torch.where(mass == 0, 1.0, mass), rest)
        boost = boost_to(velocity)

        # 3. All columns as seen from there, that one last. It is at rest, up to what is transverse to a beam.
        number = torch.arange(z.shape[-1], device=z.device)
        order = (number == first).to(torch.uint8).argsort(dim=-1, stable=True)
        seen = matmul(reflected(boost), z.gather(-1, order.unsqueeze(-2).expand_as(z)))
        others = seen[..., 1:, :]
        if self.about is None:
            others = others * (number + 1 < z.shape[-1])
        else:
            others = others * z.new_tensor([1.0, 1.0, 0.0]).unsqueeze(-1)
        others = torch.where(massive[..., None, None], others, 0.0)

        # 4. Without what is rounding: of each column, and of it beyond the direction of the first that is left.
        with torch.no_grad():
            gamma = velocity[..., :1]
            error = RESTING_IN_EPS * eps * gamma.square() * torch.linalg.vector_norm(seen, dim=-2)
            keeps, direction, within = _certain(others, error)
        others = torch.where(keeps.unsqueeze(-2), others, 0.0)
        # The derivative stays that of the column: the direction, a constant here, turns with the momenta.
        along = (direction * (direction * others).sum(-2, keepdim=True)).detach() + (others - others.detach())
        return RestFrame(massive, velocity, boost, torch.where(within.unsqueeze(-2), along, others))

    def _along(self, velocity: Tensor) -> Tensor:
        """A velocity (*shape, 3) that a boost of this group can have."""
        if self.about is None:
            return velocity
        return velocity * velocity.new_tensor([0.0, 0.0, 1.0])

    def _turn(self, others: Tensor, fallback: Tensor) -> Tensor:
        """The rotation (*shape, 3, 3) that vectors in the rest frame say."""
        if self.about is None:
            return orthonormalise(others, fallback, special=True)
        plane = orthonormalise(others[..., :2, :], fallback[..., :2, :2], special=True)
        turn = torch.nn.functional.pad(plane, (0, 1, 0, 1))
        return turn + torch.diag(turn.new_tensor([0.0, 0.0, 1.0]))

    # ------------------------------------------------------------ noise in the rest frame

    def add_noise(self, z: Tensor, eps: Tensor, scale: float) -> Tensor:
        """Columns (*shape, 4, 1 + 3): the velocity that z says, and directions of unit size in its rest frame plus eps.

        All three directions turn with the features, and the law of the noise is that of any turn of it: so the law of
        the result moves with z, also where z leaves directions open.
        """
        frame = self.rest_frame(z)
        eps = eps.double()

        # 1. The directions at unit size (root mean square length), as many as there is noise for.
        directions = frame.others
        square = directions.square().sum((-2, -1), keepdim=True) / max(directions.shape[-1] - 1, 1)
        directions = directions / torch.where(square > 0, torch.where(square > 0, square, 1.0).sqrt(), 1.0)
        noise = eps[..., 1:]
        used = min(directions.shape[-1], noise.shape[-1])
        missing = noise.shape[-1] - used
        directions = torch.nn.functional.pad(directions[..., :used], (0, missing))
        random = torch.add(directions, noise, alpha=scale)

        # 2. As seen from where z was measured. Where it has no rest frame, nothing is left of it.
        four = torch.nn.functional.pad(random, (0, 0, 1, 0))  # no energy in the rest frame
        moved = matmul(frame.boost, four)
        velocity = frame.velocity.unsqueeze(-1).expand(*moved.shape[:-1], 1)
        columns = torch.cat([velocity, moved], -1)
        return torch.where(frame.massive[..., None, None], columns, 0.0)

    def move_noise(self, h: LorentzElement, z: Tensor, eps: Tensor) -> Tensor:
        """The noise eps (*sample shape, *shape, 3, 4) of features z, turned as h turns their rest frame.

        A boost to the rest frame of h z differs from h times that of z by a rotation, Wigner's W: h B(z) = B(h z) W.
        Gaussian vectors have the same law after it. Where z has no rest frame they stay.
        """
        frame = self.rest_frame(z)
        moved = self.rest_frame(matmul(h.matrix, z.double()).to(z.dtype))
        little = matmul(reflected(moved.boost), matmul(h.matrix.double(), frame.boost))[..., 1:, 1:]
        one = torch.eye(3, dtype=little.dtype, device=little.device)
        little = torch.where((frame.massive & moved.massive)[..., None, None], little, one)
        return matmul(little, eps.double()).to(eps.dtype)

    # ------------------------------------------------------------ what callers ask

    def distance_to_identity(self, g: LorentzElement) -> Tensor:
        """|L - 1|^2 / (2 |L|^2 + 8), Frobenius norms: in [0, 1)."""
        one = torch.eye(4, dtype=g.matrix.dtype, device=g.matrix.device)
        away = (g.matrix - one).square().sum((-2, -1))
        return away / (2 * g.matrix.square().sum((-2, -1)) + 8)

    def violation(self, g: LorentzElement) -> Tensor:
        """|eta L^T eta L - 1| / L_00^2, next to which it is rounding; large where L reverses time or mirrors space."""
        matrix = g.matrix.detach().double()
        one = torch.eye(4, dtype=matrix.dtype, device=matrix.device)
        gamma = matrix[..., 0, 0]
        away = (matmul(reflected(matrix), matrix) - one).abs().amax((-2, -1)) / gamma.square().clamp_min(1.0)

        # Reversed time, mirrors, and about a beam whatever mixes it with the plane across.
        away = away + torch.nn.functional.relu(1 - gamma - away)
        turn = matmul(reflected(boost_to(matrix[..., :, 0])), matrix)[..., 1:, 1:]
        away = torch.where(torch.linalg.det(turn) < 0, away + 1, away)
        if self.about == "beam":
            mixing = torch.cat([matrix[..., [0, 3], 1:3].flatten(-2), matrix[..., 1:3, [0, 3]].flatten(-2)], -1)
            away = torch.maximum(away, mixing.abs().amax(-1))
        return away

    def __repr__(self) -> str:
        arguments: list[str] = []
        if self.about is not None:
            arguments.append(repr(self.about))
        if self.name is not None:
            arguments.append(f"name={self.name!r}")
        return f"Lorentz({', '.join(arguments)})"


@register
@dataclass(frozen=True, repr=False)
class FourVector(Slot):
    """x -> L x along one axis (E, px, py, pz)."""

    group: Lorentz
    guards_precision: ClassVar[bool] = True

    @property
    def sizes(self) -> tuple[int | None, ...]:
        return (4,)

    def act(self, g: LorentzElement, x: Tensor, axis: int, shared_dims: int) -> Tensor:
        return rotate(g.matrix, x, axis, shared_dims)


# ---------------------------------------------------------------- what is rounding


def _certain(vectors: Tensor, error: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """What is certain of vectors (*shape, 3, M) whose lengths have errors (*shape, M).

    Returns: which are more than rounding (*shape, M); the direction (*shape, 3, 1) of the first of these; and which
    others lie along it up to rounding (*shape, M).
    """
    length = torch.linalg.vector_norm(vectors, dim=-2)
    keeps = length > error
    first = keeps.to(torch.uint8).argmax(-1, keepdim=True)
    exists = keeps.any(-1, keepdim=True)
    chosen = _column(vectors, first)
    chosen_length = torch.where(exists, length.gather(-1, first), 1.0)
    direction = chosen / chosen_length.unsqueeze(-2)

    # The direction is as uncertain as that vector, and so is what it leaves of the others.
    angle = torch.where(exists, error.gather(-1, first), 0.0) / chosen_length
    along = (direction * vectors).sum(-2)
    across = torch.linalg.vector_norm(vectors - direction * along.unsqueeze(-2), dim=-2)
    number = torch.arange(vectors.shape[-1], device=vectors.device)
    return keeps, direction, (across <= error + along.abs() * angle) & (number != first)


def _column(columns: Tensor, place: Tensor) -> Tensor:
    """The column (*shape, D, 1) at a place (*shape, 1) of columns (*shape, D, M)."""
    return columns.gather(-1, place.unsqueeze(-2).expand(*columns.shape[:-1], 1))


__all__ = ["FourVector", "Lorentz", "LorentzElement", "RestFrame", "boost_to", "four_velocity", "minkowski"]
