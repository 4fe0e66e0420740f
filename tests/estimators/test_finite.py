"""Finite groups of matrices: closed, and designs of the strength that algebra says."""

import numpy as np
import pytest
import torch

import probsym as ps
from probsym.estimators import finite

POLYHEDRA = {"tetrahedral": 2, "octahedral": 3, "icosahedral": 5}


def polyhedral(name: str) -> torch.Tensor:
    return torch.from_numpy(finite.POLYHEDRAL[name][1]())


def legendre(degree: int, t: torch.Tensor) -> torch.Tensor:
    p, q = torch.ones_like(t), t
    for n in range(1, degree + 1):
        p, q = q, ((2 * n + 1) * t * q - n * p) / (n + 1)
    return p


@pytest.mark.parametrize(("name", "strength"), POLYHEDRA.items())
def test_wigner_matrices_vanish(name, strength):
    """P_l(u . g h v) for all u and v spans the entries of D^l(g h)."""
    h = polyhedral(name)
    g = ps.SO(3).haar((5,), dtype=torch.float64).matrix[:, None]
    u, v = torch.nn.functional.normalize(torch.randn(2, 20, 3, dtype=torch.float64), dim=-1)
    mean = lambda degree: legendre(degree, torch.einsum("ni,gmij,nj->gmn", u, g @ h, v)).mean(1).abs().max()  # noqa: E731
    for degree in range(1, strength + 1):
        assert mean(degree) < 1e-14
    assert mean(strength + 1) > 1e-2


def orthogonal() -> tuple[torch.Tensor, torch.Tensor]:
    """Matrices and weights of a rule for O(3) that is exact up to degree 7: even angles, Gauss-Legendre heights."""
    heights, weights = map(torch.from_numpy, np.polynomial.legendre.leggauss(4))
    flat, even = torch.eye(3, dtype=torch.float64).repeat(8, 1, 1), torch.from_numpy(finite.rotations(8))
    flat[:, :2, :2] = even
    slope = (1 - heights**2).sqrt()
    tilt = torch.eye(3, dtype=torch.float64).repeat(4, 1, 1)
    tilt[:, 1, 1], tilt[:, 1, 2], tilt[:, 2, 1], tilt[:, 2, 2] = heights, -slope, slope, heights
    matrices = (flat[:, None, None] @ tilt[:, None] @ flat).movedim(1, 0).flatten(1, 2)
    matrices = torch.cat([matrices, -matrices], 1).flatten(0, 1)
    return matrices, (weights / weights.sum() / 128).repeat_interleave(128)


@pytest.mark.parametrize(
    ("name", "strength"), [("pyritohedral", 3), ("full-octahedral", 3), ("full-icosahedral", 5), ("octahedral", 2)]
)
def test_strength_on_o3(name, strength):
    """Powers of linear forms of the entries of g H have their Haar means up to degree t, and not beyond.

    Powers of linear forms span all polynomials; handedness spoils the pure rotations.
    """
    g = ps.O(3).haar((2, 1), dtype=torch.float64).matrix
    forms = torch.nn.functional.normalize(torch.randn(20, 3, 3, dtype=torch.float64), dim=(1, 2))
    every, weights = orthogonal()
    values = lambda matrices: torch.einsum("fij,...ij->...f", forms, matrices)  # noqa: E731
    rows, reference = values(g @ polyhedral(name)), values(every)

    def gap(degree: int) -> torch.Tensor:
        return ((rows**degree).mean(1) - weights @ reference**degree).abs().max()

    for degree in range(1, strength + 1):
        assert gap(degree) < 1e-14
    assert gap(strength + 1) > 1e-3


def test_rotations_of_the_plane():
    for n in (3, 8):
        m = torch.from_numpy(finite.rotations(n))
        angle = torch.atan2(m[:, 1, 0], m[:, 0, 0])
        for degree in range(1, n):
            assert torch.polar(torch.ones_like(angle), degree * angle).mean().abs() < 1e-14
        assert len(finite.reflections(n)) == 2 * n


FINITE = {
    "T": finite.tetrahedral, "O": finite.octahedral, "I": finite.icosahedral,
    "cube": lambda: finite.signed_permutations(3), "signs": lambda: finite.signs(4),
    "C(5)": lambda: finite.rotations(5), "D(4)": lambda: finite.reflections(4),
}  # fmt: skip


@pytest.mark.parametrize("name", FINITE)
def test_finite_groups_are_closed(name):
    m = torch.from_numpy(FINITE[name]())
    table = (m[:, None] @ m)[:, :, None].sub(m).abs().amax((-2, -1))
    assert (table.amin(-1) < 1e-14).all()
    assert torch.equal(table.argmin(-1).sort(-1).values, torch.arange(len(m)).expand(len(m), -1))
