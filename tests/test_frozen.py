"""A frozen phi: the same noise at every call, so a smooth function whose gradient is a force."""

import pytest
import torch
from torch import nn

import probsym as ps

SPACE = ps.SE(3, "space")
ATOMS = ps.Axis("atoms")


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def energy(distribution="haar", nodes=ATOMS, **options):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Flatten(), nn.Linear(15, 16), nn.Tanh(), nn.Linear(16, 1))
    example = torch.randn(2, 5, 3)
    rep = ps.Rep(nodes, SPACE)
    return ps.symmetrize(net, rep, ps.Rep(), distribution, example=example, **options).double().eval()


def positions(batch: int = 2) -> torch.Tensor:
    return torch.randn(batch, 5, 3, generator=seeded(), dtype=torch.float64)


@pytest.mark.parametrize("distribution", ["haar", "learned", "recursive"])
@pytest.mark.parametrize("example", [False, True])
def test_forces_are_the_gradient_of_one_function(distribution, example):
    """Central differences along a random direction, to 1e-7; fresh noise misses them: the control."""
    phi = energy(distribution)
    x = positions()
    smooth = phi.frozen(3, example=x if example else None)
    direction = torch.randn(2, 5, 3, generator=seeded(1), dtype=torch.float64)
    step = 1e-5
    gaps = []
    for call in (smooth, phi):
        moving = x.clone().requires_grad_()
        (slope,) = torch.autograd.grad(call(moving).sum(), moving)
        ahead, behind = (float(call(x + d * direction).detach().sum()) for d in (step, -step))
        gaps.append(abs((ahead - behind) / (2 * step) - float((slope * direction).sum())))
    assert gaps[0] < 1e-7
    assert gaps[1] > 1e-3


def test_it_is_phi_with_a_seed():
    phi = energy()
    x = positions()
    assert torch.equal(phi.frozen(7)(x), phi(x, generator=seeded(7)))
    assert torch.equal(phi.frozen(7)(x, samples=3), phi(x, samples=3, generator=seeded(7)))
    assert torch.equal(phi.frozen(7).estimate(x).stderr, phi.estimate(x, generator=seeded(7)).stderr)
    assert not torch.equal(phi.frozen(7)(x), phi.frozen(8)(x))
    kept = phi.frozen(7, example=x)
    assert torch.equal(kept(x), phi.frozen(7)(x))
    assert len(list(kept.buffers())) == len(list(phi.buffers())) + 4  # features and fallback of two factors


def test_what_has_no_noise_stays_exact():
    phi = energy("frame")
    x = positions()
    for smooth in (phi.frozen(0), phi.frozen(0, example=x)):
        assert torch.equal(smooth(x), phi(x))


def test_samples_of_what_is_exact_by_default_are_frozen_too():
    """With an example nothing is kept of an exact average; a call that asks for samples gets those of the seed."""
    turns = ps.C(4)
    net = nn.Sequential(nn.Flatten(), nn.Linear(16, 3))
    phi = ps.symmetrize(net, ps.Rep(None, turns), ps.Rep(), "haar").eval()
    x = torch.randn(2, 1, 4, 4, generator=seeded())
    smooth = phi.frozen(3, example=x)
    for options in ({}, {"samples": 3}, {"estimator": ps.MonteCarlo(2)}, {"tol": 0.5}):
        assert torch.equal(smooth(x, **options), phi(x, generator=seeded(3), **options))


def test_over_seeds_it_is_equivariant_and_one_seed_is_not():
    """The mean of 400 seeds is phi's: the gap to 20,000 other samples within 5 standard errors of both."""
    phi = energy()
    x = positions(1)
    each = torch.stack([phi.frozen(seed)(x).detach() for seed in range(400)])
    reference = phi.estimate(x, samples=20_000, generator=seeded(99))
    error = (each.var(0) / 400 + reference.stderr.square()).sqrt()
    assert (each.mean(0) - reference.mean).abs().max() < 5 * error.max()
    turned = x @ SPACE.identity((), dtype=torch.float64).matrix.roll(1, 0).mT
    assert not torch.allclose(phi.frozen(0)(turned), phi.frozen(0)(x), atol=1e-3)


def test_exported_with_an_example():
    phi = energy()
    x = positions()
    smooth = phi.frozen(0, example=x)
    program = torch.export.export(smooth, (x,), strict=False)
    assert torch.allclose(program.module()(x), smooth(x), atol=1e-12)
    other = x + 0.1
    assert torch.allclose(program.module()(other), smooth(other), atol=1e-12)


@pytest.mark.parametrize("design", ["octahedral", "antithetic", "sobol", "stratified"])
def test_designs_and_chunks_are_kept(design):
    """With an example the same as without, design and chunks included."""
    phi = energy(eval_samples=ps.MonteCarlo(96, chunk=7, design=design))
    x = positions()
    rows = []
    phi.model.register_forward_pre_hook(lambda _, inputs: rows.append(len(inputs[0])))
    kept = phi.frozen(5, example=x)(x)
    assert max(rows) <= 2 * 7
    assert torch.allclose(kept, phi.frozen(5)(x), atol=1e-12)


def test_saved_with_the_module():
    phi = energy()
    x = positions()
    smooth, other = phi.frozen(0, example=x), phi.frozen(1, example=x)
    other.load_state_dict(smooth.state_dict())
    assert torch.equal(other(x), smooth(x))


def test_refusals():
    phi = energy()
    x = positions()
    with pytest.raises(ValueError, match="seed: expected an integer of at least 0, got -1"):
        phi.frozen(-1)
    with pytest.raises(TypeError, match="generator: a frozen phi has its own noise, of seed 4"):
        phi.frozen(4)(x, generator=seeded())
    with pytest.raises(ValueError, match=r"expected the shape of the example, \(2, 5, 3\)"):
        phi.frozen(0, example=x)(positions(3))
    adaptive = energy(eval_samples=ps.Adaptive(0.1))
    with pytest.raises(ValueError, match="noise can be kept for MonteCarlo"):
        adaptive.frozen(0, example=x)
    assert torch.equal(adaptive.frozen(0)(x), adaptive.frozen(0)(x))


def test_an_accuracy_is_refused_where_noise_is_kept_and_the_advice_works():
    """Its estimator draws as much noise as it needs: a phi that is frozen without an example does what is asked."""
    phi = energy()
    x = positions()
    for options in ({"tol": 0.3}, {"estimator": ps.Adaptive(0.3)}):
        with pytest.raises(ValueError, match=r"noise: Adaptive draws its own; .* freeze phi without an example"):
            phi.frozen(0, example=x)(x, **options)
        assert torch.equal(phi.frozen(0)(x, **options), phi.frozen(0)(x, **options))


def test_its_mode_is_that_of_phi():
    """Also of one that is made in evaluation, whose forces keep no graph."""
    phi = energy()
    x = positions()
    for mode in (True, False):
        smooth = phi.train(mode).frozen(0)
        assert smooth.training == mode
        found = ps.energy_and_forces(smooth, x.detach())
        assert found.energy.requires_grad == mode
        assert found.forces.requires_grad == mode
    assert phi.frozen(0).train().phi.training
    smooth = phi.train().frozen(0)
    phi.eval()
    assert not ps.energy_and_forces(smooth, x.detach()).forces.requires_grad
