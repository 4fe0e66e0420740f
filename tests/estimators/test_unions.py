"""Unions of icosahedral cosets: the Wigner matrices say up to which degree they are exact."""

import pytest
import torch
from torch import nn

import probsym as ps
from probsym import designs

POINTS = torch.nn.functional.normalize(
    torch.randn(40, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64), dim=-1
)

DIRECTIONS = torch.nn.functional.normalize(
    torch.randn(20_000, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64), dim=-1
)


def legendre(degree: int, t: torch.Tensor) -> torch.Tensor:
    """P_l(t), by Bonnet's recursion."""
    below, value = torch.ones_like(t), t
    for l in range(1, degree):  # noqa: E741
        below, value = value, ((2 * l + 1) * t * value - l * below) / (l + 1)
    return value


def remainder(matrices: torch.Tensor, weights: torch.Tensor, degree: int) -> float:
    """The largest entry of the weighted mean of the Wigner matrices D^l, in a basis of zonal functions.

    By the addition theorem P_l(x . h y) is the matrix element of D^l(h) between the zonal functions about x and y, and
    those about 40 generic points span all 2 l + 1 dimensions.
    """
    total = torch.zeros(len(POINTS), len(POINTS), dtype=torch.float64)
    for matrix, weight in zip(matrices, weights, strict=True):
        total += weight * legendre(degree, POINTS @ matrix @ POINTS.T)
    return float(total.abs().max() / len(matrices))


def listed(design: designs.Coset, group: ps.Group) -> tuple[torch.Tensor, torch.Tensor]:
    """Matrices (M, 3, 3) and weights (M,), as an estimator gets them."""
    phi = ps.symmetrize(nn.Identity(), ps.Rep(group), ps.Rep(group), "haar")
    x = phi.bind((torch.randn(1, 3, dtype=torch.float64),), {})
    like = group.identity((1,), dtype=torch.float64)
    matrices = design.translations(group, x, like).matrix[:, 0]
    shares = design.weights(phi.distribution, x)
    weights = torch.ones(len(matrices), dtype=torch.float64) if shares is None else shares[:, 0]
    return matrices, weights


@pytest.mark.parametrize(
    ("name", "group", "size", "degree"),
    [
        ("icosahedral", ps.SO(3), 60, 5),  # the control: one coset leaves degree 6
        ("icosahedral-5", ps.SO(3), 300, 9),
        ("icosahedral-6", ps.SO(3), 360, 9),
        ("full-icosahedral-5", ps.O(3), 600, 9),
        ("full-icosahedral-6", ps.O(3), 720, 9),
    ],
)
def test_exact_up_to_its_degree_and_no_further(name, group, size, degree):
    matrices, weights = listed(designs.DESIGNS[name], group)
    assert len(matrices) == size
    assert (weights > 0).all()
    assert abs(float(weights.mean()) - 1) < 1e-14
    assert float(group.violation(group.identity((), dtype=torch.float64).map(lambda *_: matrices)).max()) < 1e-14
    for l in range(1, degree + 1):  # noqa: E741
        assert remainder(matrices, weights, l) < 1e-13
    # The next degree in which the icosahedral group has an invariant is 6 for one coset, 10 for a union. Of the full
    # sets the odd degrees vanish by the inversion, these do not.
    assert remainder(matrices, weights, 6 if degree == 5 else 10) > 1e-2


@pytest.mark.parametrize(("cosets", "left"), [(5, 0.63), (6, 0.50)])
def test_what_is_left_of_degree_ten(cosets, left):
    """Next to what one coset leaves, as the docstring states, to a twentieth.

    The mean of D^10 is u v^T with one v, so that the zonal function about any fixed point shows the length of u: the
    root mean square of its image over 20,000 directions.
    """
    point = POINTS[0]
    sizes = []
    for design in (designs.IcosahedralUnion(cosets), designs.Polyhedral("icosahedral")):
        matrices, weights = listed(design, ps.SO(3))
        values = legendre(10, (matrices @ point) @ DIRECTIONS.T)
        sizes.append(float((weights[:, None] * values).mean(0).square().mean().sqrt()))
    assert abs(sizes[0] / sizes[1] - left) < 0.05 * left


def test_without_the_weights_five_cosets_are_not_exact():
    matrices, weights = listed(designs.IcosahedralUnion(5), ps.SO(3))
    assert remainder(matrices, weights, 6) < 1e-13
    assert remainder(matrices, torch.ones_like(weights), 6) > 1e-3


class Powers(nn.Module):
    """A sum of products of eight coordinates of two vectors, and the determinant of three times a square."""

    def forward(self, v):
        product = v[:, 0, 0] ** 5 * v[:, 1, 1] ** 3 + v[:, 0, 0] ** 4 * v[:, 1, 1] ** 2 * v[:, 0, 2] ** 2
        handed = torch.linalg.det(v) * v[:, 2, 0] ** 2 * v[:, 0, 1]
        return product + handed


@pytest.mark.parametrize(("name", "group"), [("icosahedral-5", ps.SO(3)), ("full-icosahedral-6", ps.O(3))])
def test_averages_of_polynomials_do_not_depend_on_the_pose(name, group):
    v = torch.randn(4, 3, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    phi = ps.symmetrize(Powers(), {"v": ps.Rep(None, group)}, ps.Rep(), "haar").eval()
    k = designs.DESIGNS[name].size
    first, second = (phi(v=v, estimator=ps.MonteCarlo(k, design=name)) for _ in range(2))
    assert torch.allclose(first, second, atol=1e-11)
    one = [phi(v=v, estimator=ps.MonteCarlo(120, design="icosahedral")) for _ in range(2)]
    assert not torch.allclose(*one, atol=1e-4)  # the control


def test_refusals():
    with pytest.raises(ValueError, match="cosets: expected 5 or 6, got 4"):
        designs.IcosahedralUnion(4)
    phi = ps.symmetrize(nn.Linear(3, 1), ps.Rep(ps.SO(3)), ps.Rep(), "haar")
    with pytest.raises(ValueError, match=r"it needs O\(3\) or E\(3\)"):
        phi(torch.randn(2, 3), estimator=ps.MonteCarlo(600, design="full-icosahedral-5"))
    with pytest.raises(ValueError, match="expected a multiple of 360"):
        ps.MonteCarlo(300, design="icosahedral-6")
