"""U(n) and SU(n): axioms, the uniform law, complex numbers through every estimator, and what is refused."""

import math
from dataclasses import dataclass

import pytest
import torch
from tests.stranger.unitary import TwoSums
from torch import nn

import probsym as ps
from probsym.groups.orthogonal import rotate
from probsym.groups.unitary import ComplexVector, UnitaryElement
from probsym.testing import (
    assert_design,
    assert_distribution,
    assert_equivariant,
    assert_estimator,
    assert_group,
    assert_slot,
    equivariance_error,
)


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def normal(*shape, seed=1, kind=torch.complex128):
    return torch.randn(*shape, generator=seeded(seed), dtype=torch.complex128).to(kind)


class Net(nn.Module):
    """(B, ...) to (B, *shape): a function of both parts that knows no symmetry."""

    def __init__(self, entries, *shape):
        super().__init__()
        self.shape = (*shape, 2)
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.net = nn.Sequential(nn.Linear(2 * entries, 24), nn.Tanh(), nn.Linear(24, math.prod(self.shape)))

    def forward(self, *args, **named):
        (x,) = [*args, *named.values()]
        rows = torch.view_as_real(x).flatten(1).to(self.net[0].weight.dtype)
        return torch.view_as_complex(self.net(rows).unflatten(1, self.shape).contiguous())


class Modulus(nn.Module):
    """A model that forgets the phase."""

    def forward(self, x):
        return x[:, 0].abs()


# ---------------------------------------------------------------- the groups


@pytest.mark.parametrize("group", [ps.U(1), ps.U(3), ps.SU(1), ps.SU(2, "spin"), ps.SU(4)], ids=repr)
def test_axioms(group):
    assert_group(group)


@dataclass(frozen=True, repr=False)
class Transposed(ps.U):
    """Inverts by the transpose, which is the inverse of real matrices alone."""

    def inverse(self, g):
        return UnitaryElement(self, g.matrix.mT)


@dataclass(frozen=True, repr=False)
class OtherSide(ComplexVector):
    """Acts by the transpose."""

    def act(self, g, x, axis, shared_dims):
        return rotate(g.matrix.mT, x, axis, shared_dims)


def test_transposes_are_no_conjugate_transposes():
    with pytest.raises(AssertionError, match="inverse"):
        assert_group(Transposed(2))
    with pytest.raises(AssertionError, match=r"action .ab.x"):
        assert_slot(OtherSide(ps.U(2)))


def moments(matrices):
    """Sums over a sample: |U_11|^2, |U_11|^4, and both parts of tr U, (tr U)^2 and (det U)^2."""
    corner = matrices[:, 0, 0].abs().square()
    trace = matrices.diagonal(dim1=-2, dim2=-1).sum(-1)
    det = torch.linalg.det(matrices)
    parts = [corner, corner.square()]
    for number in (trace, trace.square(), det.square()):
        parts += [number.real, number.imag]
    return torch.stack(parts, -1)


def off_by(matrices, expected):
    """Standard deviations between the means of a sample and what is expected."""
    seen = moments(matrices)
    error = seen.std(0) / math.sqrt(len(seen))
    return ((seen.mean(0) - torch.tensor(expected)).abs() / error.clamp_min(1e-9)).max()


def test_uniform_elements():
    """E |U_11|^2 = 1/n, E |U_11|^4 = 2/(n(n + 1)); the trace of SU(2) has E t^2 = 1. Six standard deviations: 1e-8."""
    u = ps.U(2).haar((20000,), generator=seeded(), dtype=torch.float64).matrix
    su = ps.SU(2).haar((20000,), generator=seeded(), dtype=torch.float64).matrix
    of_u = [1 / 2, 1 / 3, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0]
    assert off_by(u, of_u) < 6
    assert off_by(su, [1 / 2, 1 / 3, 0.0, 0.0, 1.0, 0.0, 1.0, 0.0]) < 6
    # the QR decomposition as LAPACK has it, whose diagonal of R is real but of either sign: not uniform
    q, _ = torch.linalg.qr(normal(20000, 2, 2))
    assert off_by(q, of_u) > 20


def test_distance_to_identity():
    group = ps.U(3)
    e = group.identity((2,))
    assert (group.distance_to_identity(e) == 0).all()
    assert torch.allclose(group.distance_to_identity(UnitaryElement(group, -e.matrix)), torch.ones(2))


@pytest.mark.parametrize("special", [False, True])
def test_rank_deficient_columns_have_finite_gradients(special):
    """Zero, one column and repeated ones: unitary, finite slopes, and the given columns are kept."""
    group = ps.SU(3) if special else ps.U(3)
    column = normal(3, 1)
    for z in (torch.zeros(3, 3, dtype=torch.complex128), column.expand(3, 3), 1e-30 * column, column * torch.ones(2)):
        z = z.clone().requires_grad_()
        assert group.degenerate(z)
        g = group.project(z, normal(3, 3, seed=2))
        assert group.violation(g) < 1e-12
        (slope,) = torch.autograd.grad(torch.view_as_real(g.matrix).sum(), z)
        assert torch.view_as_real(slope).isfinite().all()
        if z.abs().max() > 0:
            assert torch.allclose(g.matrix[:, 0].detach(), z.detach()[:, 0] / z.detach()[:, 0].norm(), atol=1e-12)


# ---------------------------------------------------------------- through the library


def spins():
    spin = ps.U(2, "spin")
    return spin, ps.symmetrize(Net(6, 3, 2).double(), ps.Rep(None, spin), ps.Rep(None, spin), "haar").eval()


@pytest.mark.parametrize("estimator", [ps.MonteCarlo(6, chunk=4), ps.Adaptive(0.2, max_samples=64)], ids=repr)
def test_estimators(estimator):
    assert_estimator(estimator, spins()[1], normal(2, 3, 2), repeats=32)


def test_designs_of_the_noise():
    """Both parts of complex noise are exchanged; real noise alone would give other elements than those of p."""
    assert_design(ps.designs.Stratified(4), spins()[1], normal(2, 3, 2), repeats=64)


def test_what_an_infinite_group_refuses():
    spin, phi = spins()
    x = normal(2, 3, 2)
    with pytest.raises(TypeError, match=r"U\(2, 'spin'\).* infinite.*MonteCarlo"):
        phi.estimate(x, estimator=ps.Exact())
    for design in ("octahedral", "dihedral", "shifts", "signs"):
        with pytest.raises(ValueError, match="design: "):
            phi.estimate(x, estimator=ps.MonteCarlo(240, design=design))
    with pytest.raises(ValueError, match=r"no frames are known for U\(2, 'spin'\)"):
        ps.Frame(spin)
    with pytest.raises(TypeError, match=r"expected a complex dtype for Rep\(None, U\(2, 'spin'\)\), got torch.float64"):
        phi(x.real)
    real = ps.symmetrize(Modulus(), ps.Rep(None, spin), ps.Rep(spin), "haar").eval()
    with pytest.raises(TypeError, match=r"output: expected a complex dtype for .*got torch.float64"):
        real(x)
    with pytest.raises(TypeError, match="expected complex numbers for"):
        ps.Rep(spin).act(spin.identity(()), torch.ones(2), 0)
    with pytest.raises(ValueError, match="integer of at least 1"):
        ps.SU(0)
    with pytest.raises(TypeError, match="slot of U and SU"):
        _ = ps.SO(3).conjugate


def test_the_checker_rejects_the_bare_model_and_passes_the_average():
    spin, phi = spins()
    x = normal(3, 3, 2)
    assert assert_equivariant(phi, x).samples > 0
    assert not equivariance_error(phi.model, x, phi.inputs, phi.output).passed
    # conj(x) moves by the conjugate matrix: the slot tells them apart
    conjugate = lambda x: x.conj().resolve_conj()  # noqa: E731
    assert assert_equivariant(conjugate, x, ps.Rep(None, spin), ps.Rep(None, spin.conjugate)).passed
    assert not equivariance_error(conjugate, x, ps.Rep(None, spin), ps.Rep(None, spin)).passed


def test_standard_errors_are_real_and_shrink():
    _, phi = spins()
    x = normal(2, 3, 2)
    few, many = (phi.estimate(x, samples=k, generator=seeded()) for k in (50, 5000))
    assert few.mean.is_complex()
    assert few.stderr.dtype == torch.float64
    assert 5 < (few.stderr.mean() / many.stderr.mean()) < 20
    assert (many.mean - few.mean).abs().max() < 6 * few.stderr.max()


def test_a_compiler_follows_complex_numbers():
    """One graph without breaks; the noise is given, so that both draw the same."""
    _, phi = spins()
    x = normal(2, 3, 2)
    noise = phi.draw_noise(x, samples=2, generator=seeded())
    torch._dynamo.reset()
    compiled = torch.compile(lambda x: phi(x, noise=noise), fullgraph=True, backend="eager")
    assert torch.allclose(compiled(x), phi(x, noise=noise), rtol=1e-10, atol=1e-12)


def test_density_matrices_and_determinants():
    """rho -> U rho U^H: the trace stays and the purity too; det(x, y) has the phase of det U."""
    spin = ps.U(2, "spin")
    rho = normal(3, 2, 2)
    as_matrix = ps.Rep(spin, spin.conjugate)
    trace = lambda rho: rho.diagonal(dim1=-2, dim2=-1).sum(-1)  # noqa: E731
    assert assert_equivariant(trace, rho, as_matrix, ps.Rep()).samples == 0
    assert not equivariance_error(trace, rho, ps.Rep(spin, spin), ps.Rep()).passed
    assert assert_equivariant(torch.linalg.det, normal(3, 2, 2), ps.Rep(spin, None), ps.Rep(spin.det)).samples == 0
    assert not equivariance_error(torch.linalg.det, normal(3, 2, 2), ps.Rep(spin, None), ps.Rep()).passed
    su = ps.SU(2, "spin")
    assert assert_equivariant(torch.linalg.det, normal(3, 2, 2), ps.Rep(su, None), ps.Rep()).samples == 0


def test_local_changes_of_basis_of_two_qubits():
    """SU(2) x SU(2): the concurrence |psi_00 psi_11 - psi_01 psi_10| is invariant, the weight of psi_00 is not."""
    first, second = ps.SU(2, "first"), ps.SU(2, "second")
    rep, psi = ps.Rep(first, second), normal(3, 2, 2)
    assert assert_equivariant(lambda psi: torch.linalg.det(psi).abs(), psi, rep, ps.Rep()).samples == 0
    assert not equivariance_error(lambda psi: psi[:, 0, 0].abs(), psi, rep, ps.Rep()).passed
    phi = ps.symmetrize(Net(4, 1).double(), rep, ps.Rep(None), "haar", eval_samples=8).eval()
    assert_equivariant(phi, psi)
    assert_distribution(phi, psi)


def learned():
    spin = ps.U(2, "spin")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        p = ps.Learned(TwoSums().double(), spin, scale=0.5)
    inputs = {"spinors": ps.Rep(None, spin)}
    return p, ps.symmetrize(Net(6, 2).double(), inputs, ps.Rep(spin), p), {"spinors": normal(3, 3, 2)}


def test_a_learned_distribution_moves_trains_and_comes_back(tmp_path):
    p, phi, x = learned()
    assert_distribution(p, x, phi.inputs)
    assert_distribution(p, {"spinors": torch.zeros_like(x["spinors"])}, phi.inputs)
    assert_equivariant(phi.eval(), x)
    phi.train()(**x, generator=seeded()).abs().square().sum().backward()
    for name, parameter in phi.named_parameters():
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.abs().max() > 0, name
    ps.save(phi, tmp_path)
    again = ps.load(tmp_path, model=Net(6, 2).double()).eval()
    assert torch.equal(again(**x, generator=seeded()), phi.eval()(**x, generator=seeded()))


def test_the_scale_of_late_noise_is_relative_to_the_columns():
    spin = ps.U(2)
    z, eps = normal(4, 2, 2), normal(4, 2, 2, seed=2)
    for size in (1e-30, 1.0, 1e30):
        found = spin.add_noise(size * z, eps, 0.5)
        unit = found - 0.5 * eps
        assert torch.allclose(unit.abs().square().sum((-2, -1)) / 2, torch.ones(4, dtype=torch.float64))
        assert torch.allclose(unit / unit[..., :1, :1], z / z[..., :1, :1])


@pytest.mark.parametrize("kind", [torch.complex32, torch.complex64, torch.complex128])
def test_precision_and_autocast(kind):
    spin = ps.U(2, "spin")
    x = normal(64, 2, kind=kind)
    g = spin.haar((64,), generator=seeded(), dtype=torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        moved = ps.Rep(spin).act(g, x)
        twice = g @ g
    assert moved.dtype == kind
    lengths = [y.to(torch.complex128).norm(dim=-1) for y in (moved, x)]
    assert torch.allclose(*lengths, rtol=4e-3 if kind == torch.complex32 else 1e-6)
    assert spin.violation(twice).max() < 1e-6
    assert spin.haar((2,)).matrix.dtype == torch.complex64
    # one input, one sample
    phi = ps.symmetrize(Net(2, 2), ps.Rep(spin), ps.Rep(spin), "haar", eval_samples=1).eval()
    assert phi(x[:1].to(torch.complex64)).shape == (1, 2)
