"""The groups of the polyhedra, against matrices and volumes turned by hand."""

import math

import numpy as np
import pytest
import torch
from torch import nn

import probsym as ps
from cases import seeded
from probsym.estimators import finite
from probsym.testing import assert_equivariant, assert_group, assert_slot, equivariance_error

GROUPS = {
    "tetrahedral": ps.Tetrahedral(),
    "octahedral": ps.Octahedral(),
    "icosahedral": ps.Icosahedral(),
    "pyritohedral": ps.Tetrahedral(reflections=True),
    "full-octahedral": ps.Octahedral(reflections=True),
    "full-icosahedral": ps.Icosahedral(reflections=True),
}


@pytest.mark.parametrize("name", ["tetrahedral", "octahedral", "pyritohedral"])
def test_axioms(name):
    assert_group(GROUPS[name], samples=64)


@pytest.mark.parametrize("name", GROUPS)
def test_elements_are_the_matrices_of_the_cosets(name):
    """The same sets of matrices, found in another way, to the last digits; the identity first."""
    group = GROUPS[name]
    size, known = finite.POLYHEDRAL[name]
    assert group.order() == size
    matrices = ps.Rep(group.vector, None).act(group.elements(), torch.eye(3, dtype=torch.float64), 0)
    assert torch.equal(matrices[0], torch.eye(3, dtype=torch.float64))
    away = np.abs(matrices.numpy()[:, None] - known()).max((2, 3))
    assert away.min(1).max() < 1e-15
    assert away.min(0).max() < 1e-15
    signs = ps.Rep(group.det).act(group.elements(), torch.ones((), dtype=torch.float64), 0)
    assert torch.allclose(signs, torch.linalg.det(matrices))
    assert bool((signs < 0).any()) == group.reflections


@pytest.mark.parametrize("name", ["icosahedral", "full-icosahedral"])
def test_the_icosahedron_is_kept(name):
    golden = (1 + math.sqrt(5)) / 2
    corners = []
    for signs in ((1, 1), (1, -1), (-1, 1), (-1, -1)):
        for place in range(3):
            corners.append(np.roll([0, signs[0] * golden, signs[1]], place))
    corners = torch.tensor(np.array(corners))
    group = GROUPS[name]
    moved = ps.Rep(None, group).act(group.elements(), corners, 0)
    assert (moved[:, :, None] - corners).norm(dim=-1).amin(-1).max() < 1e-14
    assert_slot(group.vector)


@pytest.mark.parametrize("name", ["tetrahedral", "octahedral", "full-octahedral"])
def test_voxels_move_as_their_centres_do(name):
    """The field of places is a fixed point: a voxel at c goes to R c, and with it the vector c becomes R c."""
    group = GROUPS[name]
    place = torch.arange(3.0) - 1
    centres = torch.stack(torch.meshgrid(place, place, place, indexing="ij"), -1)
    rep = ps.Rep(group.voxels, group.vector)
    assert torch.equal(rep.act(group.elements(), centres, 0), centres.expand(group.order(), 3, 3, 3, 3))
    assert_slot(group.voxels)


def test_voxels_by_hand():
    """All 48 symmetries of a cube of voxels are compositions of rot90 and flip, and each is found once."""
    group = GROUPS["full-octahedral"]
    volume = torch.randn(4, 4, 4, generator=seeded())
    poses = ps.Rep(group.voxels).act(group.elements(), volume, 0)
    by_hand = []
    for first in (
        volume,
        torch.rot90(volume, 1, (0, 1)),
        torch.rot90(volume, 2, (0, 1)),
        torch.rot90(volume, 3, (0, 1)),
    ):
        by_hand.append(first)
        by_hand.append(first.flip(0))
    cube = []
    for pose in by_hand:
        cube += [pose, torch.rot90(pose, 1, (1, 2)), torch.rot90(pose, 2, (1, 2)), torch.rot90(pose, 3, (1, 2))]
        cube += [torch.rot90(pose, 1, (0, 2)), torch.rot90(pose, 3, (0, 2))]
    found = {tuple(pose.flatten().tolist()) for pose in poses}
    assert len(found) == 48
    assert found == {tuple(pose.flatten().tolist()) for pose in cube}


def test_a_quarter_turn_by_hand():
    """About z, from x to y: voxels and vectors, gradients included."""
    cube = ps.Octahedral()
    quarter = cube.numbered(cube.generator_elements.number[1:].expand(2))
    volume = torch.randn(2, 3, 3, 3, 2, generator=seeded(), requires_grad=True)
    turned = ps.Rep(cube.voxels).act(quarter, volume)
    assert torch.equal(turned, torch.rot90(volume, 1, (1, 2)))
    weight = torch.randn(2, 3, 3, 3, 2, generator=seeded(1))
    (slope,) = torch.autograd.grad((turned * weight).sum(), volume)
    assert torch.equal(slope, torch.rot90(weight, -1, (1, 2)))
    assert ps.Rep(cube).act(quarter, torch.tensor([[1.0, 0, 0], [0, 1.0, 0]])).tolist() == [[0, 1, 0], [-1, 0, 0]]


def test_a_volume_model_is_equivariant():
    cube = ps.Octahedral(reflections=True, name="cube")
    torch.manual_seed(0)
    model = nn.Conv3d(1, 3, 3, padding=1).double()
    volume = torch.randn(2, 1, 3, 3, 3, dtype=torch.float64, generator=seeded())
    inputs = ps.Rep(None, cube.voxels)
    output = ps.Rep(cube.vector, cube.voxels)  # a field of vectors, channels first
    phi = ps.symmetrize(model, inputs, output, "haar", eval_samples=ps.Exact()).eval()
    assert_equivariant(phi, volume)
    assert not equivariance_error(model, volume, reps=inputs, output=output).passed
    pseudo = ps.Rep(cube.vector, cube.det, cube.voxels)
    assert not equivariance_error(phi, volume, reps=inputs, output=pseudo).passed
    with pytest.raises(ValueError, match="equal sizes along the grid axes 1 and 2 and 3"):
        phi(torch.randn(2, 1, 3, 3, 4, dtype=torch.float64))


def test_a_product_with_rotations_of_its_own(tmp_path):
    """Sampled turns of one space and all elements of another; saved and loaded."""
    space, crystal = ps.SO(3, "space"), ps.Tetrahedral(name="crystal")

    class Pair(nn.Module):
        def forward(self, v, w):
            return (v * torch.tensor([1.0, 2, 3])).sin().sum(1, keepdim=True) * (w + 0.5).prod(1, keepdim=True)

    inputs = {"v": ps.Rep(space), "w": ps.Rep(crystal)}
    phi = ps.symmetrize(Pair(), inputs, ps.Rep(), "haar", eval_samples=ps.Hybrid(2)).eval()
    call = {"v": torch.randn(2, 3, generator=seeded()), "w": torch.randn(2, 3, generator=seeded(1))}
    assert phi.estimate(**call, generator=seeded()).samples.tolist() == [24, 24]
    assert_equivariant(phi, call, generator=seeded())
    ps.save(phi, tmp_path)
    again = ps.load(tmp_path, model=Pair()).eval()
    assert torch.equal(again(**call, generator=seeded()), phi(**call, generator=seeded()))


def test_the_full_group_of_the_tetrahedron():
    """T_d, as the docstring of Tetrahedral makes it: 24 elements, half of them improper, without the inversion."""
    full = ps.Finite([[[0, 1, 0], [-1, 0, 0], [0, 0, -1]], [[0, 0, 1], [1, 0, 0], [0, 1, 0]]])
    assert full.order() == 24
    assert ps.Rep(full.det).act(full.elements(), torch.ones(()), 0).sum() == 0
    corners = torch.tensor([[1.0, 1, 1], [1, -1, -1], [-1, 1, -1], [-1, -1, 1]])
    moved = ps.Rep(None, full).act(full.elements(), corners, 0)
    assert torch.equal((moved[:, :, None] == corners).all(-1).sum(-1), torch.ones(24, 4, dtype=torch.long))


def test_refused():
    for bad in (1, "yes", None):
        with pytest.raises(TypeError, match="reflections: expected True or False"):
            ps.Octahedral(bad)
    with pytest.raises(ValueError, match="no frames are known for Octahedral"):
        ps.Frame(ps.Octahedral())
    with pytest.raises(AttributeError):
        _ = ps.Icosahedral().voxels  # a fifth of a turn keeps no grid
