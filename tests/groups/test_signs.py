"""Signs of the entries of a vector: what eigenvectors leave open."""

from itertools import product

import pytest
import torch
from torch import nn

import probsym as ps
from cases import NODES, seeded
from probsym.testing import assert_distribution, assert_equivariant, assert_group

FLIPS = ps.Signs(3, "eigenvectors")


def eigenvectors(b: int = 3, n: int = 5) -> tuple[torch.Tensor, torch.Tensor]:
    """Graph Laplacians and their eigenvectors of the three smallest positive eigenvalues."""
    weight = torch.rand(b, n, n, dtype=torch.float64, generator=seeded())
    weight = weight + weight.mT
    laplacian = weight.sum(-1).diag_embed() - weight
    return laplacian, torch.linalg.eigh(laplacian).eigenvectors[:, :, 1:4]


def net(n: int = 5, out: int = 2) -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(3 * n, 16), nn.Tanh(), nn.Linear(16, out)).double()


@pytest.mark.parametrize("d", [1, 2, 5])
def test_axioms(d):
    assert_group(ps.Signs(d))
    assert_group(ps.Signs(d, "other") * ps.S("nodes"))


def test_exact_is_the_mean_over_all_signs():
    """The choice of signs by the solver does not matter; that of a plain net does."""
    _, vectors = eigenvectors()
    model = net()
    phi = ps.symmetrize(model, ps.Rep(None, FLIPS), ps.Rep(), "haar", eval_samples=ps.Exact()).eval()
    every = torch.tensor(list(product((1.0, -1.0), repeat=3)), dtype=torch.float64)
    estimate = phi.estimate(vectors)
    assert torch.allclose(estimate.mean, torch.stack([model(vectors * s) for s in every]).mean(0), atol=1e-12)
    assert estimate.samples.tolist() == [8] * 3
    assert (estimate.stderr == 0).all()
    for s in every[1:]:
        assert torch.allclose(phi(vectors * s), estimate.mean, atol=1e-12)
        assert not torch.allclose(model(vectors * s), model(vectors), atol=1e-3)


def test_hybrid_lists_signs_and_samples_the_rest():
    """Eigenvectors move with the nodes and change signs apart from that."""
    _, vectors = eigenvectors(n=9)
    dense = nn.Sequential(net(9, 27), nn.Unflatten(1, (9, 3)))
    phi = ps.symmetrize(dense, ps.Rep(NODES, FLIPS), ps.Rep(NODES, FLIPS), "haar", eval_samples=ps.Hybrid(4)).eval()
    estimate = phi.estimate(vectors, generator=seeded())
    assert estimate.samples.tolist() == [32] * 3
    flip = torch.tensor([1.0, -1, -1], dtype=torch.float64)
    assert torch.allclose(phi(vectors * flip, generator=seeded()), estimate.mean * flip, atol=1e-12)
    assert_equivariant(phi, vectors, generator=seeded())


@pytest.mark.parametrize("kind", ["haar", "learned", "canonical"])
def test_distributions(kind):
    """The canonical sign of a column is that of its third moment; where it vanishes the fallback decides."""

    class Skewness(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x.pow(3).sum(1)

    _, vectors = eigenvectors()
    vectors[0, :, 1] = torch.tensor([1.0, -1, 2, -2, 0])
    p = {"haar": ps.Haar(FLIPS), "learned": ps.Learned(Skewness(), FLIPS), "canonical": ps.Canonical(Skewness(), FLIPS)}
    assert_distribution(p[kind], (vectors,), (ps.Rep(None, FLIPS),))
    phi = ps.symmetrize(net(), ps.Rep(None, FLIPS), ps.Rep(), p[kind]).eval()
    estimate = phi.estimate(vectors)
    assert estimate.mean.isfinite().all()
    if kind == "canonical":
        assert estimate.aux["degenerate"] == 1
        oriented = vectors * vectors.pow(3).sum(1, keepdim=True).sign()
        assert torch.allclose(estimate.mean[1:], phi.model(oriented)[1:], atol=1e-12)


def test_saved_and_loaded(tmp_path):
    _, vectors = eigenvectors()
    phi = ps.symmetrize(net(), ps.Rep(None, FLIPS), ps.Rep(), "haar", eval_samples=ps.Exact()).eval()
    ps.save(phi, tmp_path)
    again = ps.load(tmp_path, model=net()).eval()
    assert torch.equal(again(vectors), phi(vectors))
    assert again.inputs == phi.inputs


def test_what_is_refused():
    for bad in (0, 2.0, True):
        with pytest.raises(ValueError, match="integer of at least 1"):
            ps.Signs(bad)
    with pytest.raises(ValueError, match="3 entries on axis 1"):
        ps.Rep(FLIPS).act(FLIPS.haar((2,)), torch.ones(2, 4))
    with pytest.raises(TypeError, match="cannot be listed: more than 40320"):
        ps.Signs(16).elements()
