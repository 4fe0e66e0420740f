"""Nearest rotations, quaternions and six numbers: values, derivatives, and what has no answer."""

import pytest
import torch

import probsym as ps
from probsym import rotations


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def draws(*shape, dim=3):
    return ps.SO(dim).haar(shape, generator=seeded(), dtype=torch.float64).matrix


@pytest.mark.parametrize("dim", [2, 3, 4])
def test_the_nearest_rotation_is_the_nearest(dim):
    m = torch.randn(5, dim, dim, dtype=torch.float64, generator=seeded())
    r = ps.nearest_rotation(m)
    assert ps.SO(dim).violation(ps.SO(dim).identity((5,), dtype=torch.float64).map(lambda t, _: r)).max() < 1e-13
    others = ps.SO(dim).haar((500, 5), generator=seeded(1), dtype=torch.float64).matrix
    assert ((others - m).square().sum((-2, -1)) > (r - m).square().sum((-2, -1))).all()
    # the polar factor: R^T M is symmetric
    assert ((r.mT @ m) - (r.mT @ m).mT).abs().max() < 1e-13
    # it moves with the matrix from both sides
    g, h = draws(2, dim=dim)
    assert torch.allclose(ps.nearest_rotation(g @ m @ h), g @ r @ h)
    # with reflections the determinant is that of the matrix
    free = ps.nearest_rotation(m, reflections=True)
    assert torch.equal(torch.linalg.det(free).sign(), torch.linalg.det(m).sign())


def test_the_nearest_rotation_has_derivatives_where_svd_has_none():
    for m in (torch.randn(1, 3, 3, dtype=torch.float64, generator=seeded()), torch.eye(3).double()[None]):
        m.requires_grad_()
        assert torch.autograd.gradcheck(ps.nearest_rotation, (m,))
        assert torch.autograd.gradgradcheck(ps.nearest_rotation, (m,))

        # In forward mode too, along any direction.
        direction = torch.randn(m.shape, dtype=m.dtype, generator=seeded(1))
        weight = torch.randn(m.shape, dtype=m.dtype, generator=seeded(2))
        _, forward = torch.func.jvp(ps.nearest_rotation, (m.detach(),), (direction,))
        (reverse,) = torch.autograd.grad((ps.nearest_rotation(m) * weight).sum(), m)
        torch.testing.assert_close((forward * weight).sum(), (reverse * direction).sum())


def test_means_that_point_everywhere_are_refused_or_flagged():
    half_turns = torch.stack([torch.eye(3), torch.diag(torch.tensor([-1.0, -1.0, 1.0]))])
    both = torch.stack([half_turns.mean(0), torch.eye(3)])
    with pytest.raises(ValueError, match=r"1 of 2 have no nearest rotation, the first at \(0,\)"):
        ps.nearest_rotation(both)
    both.requires_grad_()
    r, certain = ps.nearest_rotation(both, return_certain=True)
    assert certain.tolist() == [False, True]
    r.sum().backward()
    assert both.grad.isfinite().all()
    assert (both.grad[0] == 0).all()


def test_a_bad_row_spoils_itself_only():
    m = torch.eye(3).repeat(2, 1, 1)
    m[0, 0, 0] = torch.nan
    r = ps.nearest_rotation(m)
    assert r[0].isnan().all()
    assert torch.equal(r[1], torch.eye(3))


def test_quaternions_and_matrices():
    one = torch.eye(3, dtype=torch.float64)
    half_turns = 2 * torch.diag_embed(one) - one
    r = torch.cat([draws(50), one[None], half_turns])
    q = rotations.matrix_to_quaternion(r)
    assert torch.allclose(rotations.quaternion_to_matrix(q), r, atol=1e-14)
    assert torch.equal(q, rotations.canonical_quaternion(-q))
    g, h = draws(2)
    product = rotations.quaternion_product(rotations.matrix_to_quaternion(g), rotations.matrix_to_quaternion(h))
    assert torch.allclose(rotations.quaternion_to_matrix(product), g @ h)
    r = r[-4:].requires_grad_()  # the identity and half turns, where a formula by the trace alone divides by zero
    slopes = torch.autograd.grad(rotations.matrix_to_quaternion(r).sum(), r)[0]
    assert slopes.isfinite().all()


def test_the_mean_of_quaternions_is_that_of_rotations_whatever_the_signs():
    near = ps.rotations.quaternion_product(
        rotations.matrix_to_quaternion(draws()),
        torch.nn.functional.normalize(
            torch.tensor([1.0, 0, 0, 0]).double() + 0.3 * torch.randn(20, 4, generator=seeded()).double(), dim=-1
        ),
    )
    mean = rotations.mean_quaternion(near)
    signs = torch.where(torch.rand(20, 1, generator=seeded()) < 0.5, -1.0, 1.0)
    assert torch.allclose(rotations.mean_quaternion(signs * near), mean, atol=1e-14)
    # the largest eigenvector of the mean of q q^T (Markley et al.)
    vector = torch.linalg.eigh(near.mT @ near).eigenvectors[:, -1]
    assert torch.allclose(rotations.canonical_quaternion(vector), mean, atol=1e-12)
    weights = torch.zeros(20).double()
    weights[3] = 2.0
    assert torch.allclose(rotations.mean_quaternion(near, weights), rotations.canonical_quaternion(near[3]), atol=1e-12)
    # averaged as numbers, quaternions of both signs cancel
    assert (signs * near).mean(0).norm() < 0.8 < near.mean(0).norm()


def test_six_numbers():
    r = draws(4)
    six = rotations.matrix_to_rotation6d(r)
    assert torch.equal(six[:, :3], r[..., 0])
    assert torch.allclose(rotations.rotation6d_to_matrix(six), r)
    scaled = torch.cat([2 * six[:, :3], six[:, 3:]], -1).requires_grad_()
    assert torch.allclose(rotations.rotation6d_to_matrix(scaled), r)
    rotations.rotation6d_to_matrix(scaled).sum().backward()
    assert scaled.grad.isfinite().all()
    with pytest.raises(ValueError, match="no nearest rotation"):
        rotations.rotation6d_to_matrix(torch.tensor([1.0, 0.0, 0.0, 2.0, 0.0, 0.0]))
    # an average of rotations as six numbers and as matrices
    near = r[:1] @ ps.nearest_rotation(torch.eye(3) + 0.2 * torch.randn(30, 3, 3, generator=seeded()).double())
    by_numbers = rotations.rotation6d_to_matrix(rotations.matrix_to_rotation6d(near).mean(0))
    by_matrices = ps.nearest_rotation(near.mean(0))
    assert (by_numbers - by_matrices).abs().max() < 0.1


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: ps.nearest_rotation(torch.zeros(3, 2)), ValueError, "square"),
        (lambda: ps.nearest_rotation(torch.zeros(3, 3, dtype=torch.long)), TypeError, "floating"),
        (lambda: rotations.quaternion_to_matrix(torch.zeros(3)), ValueError, r"\(\*shape, 4\)"),
        (lambda: rotations.rotation6d_to_matrix(torch.zeros(5)), ValueError, r"\(\*shape, 6\)"),
        (lambda: rotations.matrix_to_quaternion(torch.zeros(2, 2)), ValueError, "3, 3"),
        (lambda: rotations.matrix_to_rotation6d(torch.zeros(2, 2)), ValueError, "3, 3"),
    ],
)
def test_what_does_not_fit_is_refused_by_name(call, error, message):
    with pytest.raises(error, match=message):
        call()


def test_half_precision_and_compilers():
    r = draws(3).float()
    assert ps.nearest_rotation(r.to(torch.bfloat16)).dtype == torch.bfloat16
    assert torch.allclose(torch.vmap(ps.nearest_rotation)(r), r, atol=1e-6)
