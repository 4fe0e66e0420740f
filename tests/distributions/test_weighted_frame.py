"""Weighted frames: exact, continuous, with right gradients; symmetric inputs drawn and said to be."""

import pytest
import torch
from torch import nn

import probsym as ps
from probsym.reps import Inputs
from probsym.testing import assert_distribution, equivariance_error

GROUPS = [ps.SO(2), ps.O(2), ps.SE(2), ps.SO(3), ps.O(3), ps.SE(3), ps.E(3)]


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def cloud(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=seeded(seed), dtype=torch.float64)


def energy(points: int, dim: int) -> nn.Module:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Flatten(), nn.Linear(points * dim, 32), nn.Tanh(), nn.Linear(32, 1))
    return net.double()


@pytest.mark.parametrize("group", GROUPS, ids=repr)
def test_conformance(group):
    assert_distribution(ps.WeightedFrame(group), (cloud(3, 5, group.dim),), (ps.Rep(None, group),))


def test_four_dimensions_and_few_points():
    assert_distribution(ps.WeightedFrame(ps.SO(4)), (cloud(2, 5, 4),), (ps.Rep(None, ps.SO(4)),))
    group = ps.SO(3)
    x = Inputs.bind((ps.Rep(None, group),), (cloud(2, 1, 3),), {})
    support = ps.WeightedFrame(group).support(x, seeded())  # one point: rotations about it are drawn
    assert not support.exact.any()


def storages():
    """The same clouds of five, three and four points: padded beside a permuted axis, and ragged."""
    sizes = [5, 3, 4]
    graphs = [cloud(n, 3, seed=n) for n in sizes]
    mask = torch.arange(5) < torch.tensor(sizes)[:, None]
    padded = nn.utils.rnn.pad_sequence(graphs, batch_first=True)
    nodes = ps.S("nodes", mask="mask")
    yield nodes, {"pos": padded, "mask": mask}
    batch = torch.arange(3).repeat_interleave(torch.tensor(sizes))
    yield ps.S("nodes", batch="batch"), {"pos": torch.cat(graphs), "batch": batch}


@pytest.mark.parametrize("place", [0, 1], ids=["padded", "ragged"])
def test_storages_beside_permutations(place):
    nodes, call = list(storages())[place]
    space = ps.E(3)
    p = ps.WeightedFrame(space)
    assert_distribution(p, call, {"pos": ps.Rep(nodes, space)})


def test_storage_does_not_matter():
    """The same average for dense clouds one by one, padded ones and a ragged batch."""

    class Mean(nn.Module):
        def forward(self, pos, mask=None, batch=None):
            feature = (pos * torch.tensor([1.0, 2.0, -1.0])).sum(-1).sin()
            if batch is not None:
                return feature.new_zeros(int(batch.max()) + 1).index_add(0, batch, feature)[:, None]
            if mask is not None:
                feature = feature * mask
            return feature.sum(1, keepdim=True)

    space = ps.E(3)
    means = []
    for nodes, call in storages():
        axis = ps.Axis("nodes", mask=nodes.mask, batch=nodes.batch)
        phi = ps.symmetrize(Mean(), {"pos": ps.Rep(axis, space)}, ps.Rep(), ps.WeightedFrame(space)).eval()
        estimate = phi.estimate(**call)
        assert (estimate.stderr == 0).all()
        means.append(estimate.mean)
    assert torch.allclose(means[0], means[1], atol=1e-12)
    single = ps.symmetrize(Mean(), {"pos": ps.Rep(ps.Axis("nodes"), space)}, ps.Rep(), ps.WeightedFrame(space)).eval()
    for place, n in enumerate([5, 3, 4]):
        assert torch.allclose(single(pos=cloud(1, n, 3, seed=n)), means[0][place : place + 1], atol=1e-12)


# ---------------------------------------------------------------- continuity


def along(phi, start, move, steps):
    """Energies and forces along start + s move."""
    energies, forces = [], []
    for s in steps:
        x = (start + s * move).requires_grad_()
        y = phi(x)
        energies.append(y.detach().squeeze())
        forces.append(-torch.autograd.grad(y.sum(), x)[0])
    return torch.stack(energies), torch.cat(forces)


def capped_tetrahedron():
    t = torch.tensor([[1, 1, 1], [1, -1, -1], [-1, 1, -1], [-1, -1, 1.0]], dtype=torch.float64)
    return torch.cat([t, -1.7 * t])[None], 0.3 * cloud(1, 8, 3)


@pytest.mark.parametrize("group", [ps.SE(3), ps.E(3)], ids=repr)
def test_energies_are_continuous_next_to_a_symmetric_shape(group):
    """Through the capped tetrahedron, where frames of principal axes jump: the control."""
    start, move = capped_tetrahedron()
    steps = torch.linspace(-0.05, 0.05, 61, dtype=torch.float64)
    largest = {}
    for p in (ps.WeightedFrame(group), ps.Frame(group)):
        phi = ps.symmetrize(energy(8, 3), ps.Rep(ps.Axis("a"), group), ps.Rep(), p).eval()
        energies = torch.stack([phi(start + s * move).detach().squeeze() for s in steps])
        change = energies.diff().abs()
        largest[type(p)] = float(change.max() / change.median())
    assert largest[ps.WeightedFrame] < 10
    assert largest[ps.Frame] > 100


def test_forces_are_the_gradient_of_the_energy():
    start, move = capped_tetrahedron()
    group = ps.SE(3)
    phi = ps.symmetrize(energy(8, 3), ps.Rep(ps.Axis("a"), group), ps.Rep(), ps.WeightedFrame(group)).eval()
    step = 1e-5
    for s in (0.0, 0.01, 0.3):  # at the symmetric shape, next to it, and far away
        _, forces = along(phi, start, move, [s])
        ahead, behind = (phi(start + (s + d) * move).detach() for d in (step, -step))
        slope = float(ahead - behind) / (2 * step)
        assert abs(float(-(forces * move).sum()) - slope) < 1e-6 * (1 + abs(slope))


def test_second_derivatives_are_finite():
    """Training on forces needs them, symmetric shapes included."""
    start, _ = capped_tetrahedron()
    group = ps.E(3)
    phi = ps.symmetrize(energy(8, 3), ps.Rep(ps.Axis("a"), group), ps.Rep(), ps.WeightedFrame(group))
    for x in (start, cloud(1, 8, 3), torch.zeros(1, 8, 3, dtype=torch.float64)):
        x = x.clone().requires_grad_()
        (force,) = torch.autograd.grad(phi(x).sum(), x, create_graph=True)
        force.square().sum().backward()
        assert x.grad.isfinite().all()
        assert all(w.grad.isfinite().all() for w in phi.parameters())


# ---------------------------------------------------------------- symmetric inputs


def test_collinear_points_are_drawn_and_planar_ones_are_not():
    group = ps.O(3)
    line = cloud(1, 4, 1) * torch.tensor([1.0, 2.0, -1.0])
    plane = cloud(1, 4, 3) * torch.tensor([1.0, 1.0, 0.0])
    far = cloud(1, 4, 3) * 1e-15 + torch.tensor([1.0, 2.0, 3.0]) * torch.tensor([[-2.0], [1.0], [0.5], [3.0]])
    x = torch.cat([line, plane, far, torch.zeros(1, 4, 3, dtype=torch.float64), cloud(1, 4, 3)])
    phi = ps.symmetrize(energy(4, 3), ps.Rep(None, group), ps.Rep(), ps.WeightedFrame(group)).eval()
    estimate = phi.estimate(x, generator=seeded())
    drawn = estimate.stderr.squeeze() > 0
    assert drawn.tolist() == [True, False, True, False, False]  # all poses of the empty cloud give one energy
    assert int(estimate.diagnostics["degenerate"]) == 3
    assert estimate.mean.isfinite().all()
    assert int(estimate.samples[0]) <= 32


def test_rounding_of_far_points_is_no_direction():
    """A line far from the origin, in single precision: what rounding adds across it does not orient."""
    group = ps.SE(3)
    line = torch.randn(1, 6, 1, generator=seeded()) * torch.tensor([1.0, 2.0, -1.0]) + 1e4
    phi = ps.symmetrize(energy(6, 3).float(), ps.Rep(None, group), ps.Rep(), ps.WeightedFrame(group)).eval()
    assert phi.estimate(line, generator=seeded()).stderr > 0


def test_a_nan_spoils_its_own_row_only():
    group = ps.SO(3)
    x = Inputs.bind((ps.Rep(None, group),), (cloud(3, 4, 3),), {})
    bad = cloud(3, 4, 3)
    bad[1] = torch.nan
    y = Inputs.bind((ps.Rep(None, group),), (bad,), {})
    p = ps.WeightedFrame(group)
    phi = ps.symmetrize(energy(4, 3), ps.Rep(None, group), ps.Rep(), p).eval()
    noise = p.noise(x, (4,), seeded())
    good, spoiled = (phi.orbit(z, p.transport(z, noise)).tensors[0] for z in (x, y))
    assert torch.equal(good[:, [0, 2]], spoiled[:, [0, 2]])


# ---------------------------------------------------------------- the rest


def test_saved_and_loaded(tmp_path):
    group = ps.E(3, "space")
    net = energy(5, 3)
    phi = ps.symmetrize(net, ps.Rep(ps.Axis("a"), group), ps.Rep(), ps.WeightedFrame(group, 0.2, samples=5)).eval()
    ps.save(phi, tmp_path / "phi")
    again = ps.load(tmp_path / "phi", model=energy(5, 3))
    assert torch.equal(again(cloud(2, 5, 3)), phi(cloud(2, 5, 3)))


@pytest.mark.parametrize(("points", "pairs"), [(8, 10), (20, 31), (50, 87)])
def test_few_pairs_count(points, pairs):
    """The cost that the docstring states: the mean over 64 random clouds, within a fifth."""
    group = ps.SE(3)
    x = Inputs.bind((ps.Rep(None, group),), (cloud(64, points, 3),), {})
    count = ps.WeightedFrame(group).support(x, seeded()).count.double().mean()
    assert abs(float(count) - pairs) < 0.2 * pairs


def test_checker():
    group = ps.E(3)
    phi = ps.symmetrize(energy(5, 3), ps.Rep(ps.Axis("a"), group), ps.Rep(), ps.WeightedFrame(group)).eval()
    assert equivariance_error(phi, cloud(4, 5, 3)).passed


class Unweighted(ps.WeightedFrame):
    """The control: the first pair of points in the order of a coordinate, which does not move with the input."""

    def _tuples(self, x):
        tuples = super()._tuples(x)
        first = torch.zeros_like(tuples.weight)
        first[:, tuples.columns[:, 0].argmax(-1)] = 1.0
        object.__setattr__(tuples, "weight", first)
        return tuples


def test_weights_that_do_not_move_are_found():
    group = ps.SO(2)
    with pytest.raises(AssertionError):
        assert_distribution(Unweighted(group), (cloud(3, 5, 2),), (ps.Rep(None, group),))


def test_refusals():
    with pytest.raises(ValueError, match=r"group: expected one of O\(d\)"):
        ps.WeightedFrame(ps.S("nodes"))
    with pytest.raises(ValueError, match="multiply distributions"):
        ps.WeightedFrame(ps.S("nodes") * ps.O(3))
    with pytest.raises(ValueError, match="threshold: expected a number of at least 0 and less than 1, got 1"):
        ps.WeightedFrame(ps.O(3), threshold=1)
    with pytest.raises(ValueError, match="samples"):
        ps.WeightedFrame(ps.O(3), samples=0)
    group = ps.SO(3)
    phi = ps.symmetrize(nn.Flatten(), ps.Rep(None, group), ps.Rep(None), ps.WeightedFrame(group)).eval()
    with pytest.raises(ValueError, match="201 points in 3 dimensions make 40401 tuples"):
        phi(cloud(1, 201, 3))
    scalars = ps.symmetrize(nn.Identity(), ps.Rep(group.det), ps.Rep(group.det), ps.WeightedFrame(group)).eval()
    with pytest.raises(ValueError, match="nothing to orient by"):
        scalars(cloud(3))
