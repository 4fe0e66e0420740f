"""Forces, gradients of an averaged energy with respect to its inputs: where they are exact, and where they are not."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

import probsym as ps


class Energy(nn.Module):
    """A smooth function of four points without any symmetry."""

    def __init__(self, dim: int = 3, scale: float = 1.0) -> None:
        super().__init__()
        first = nn.Linear(4 * dim, 32)
        with torch.no_grad():
            first.weight.mul_(scale)
        self.layers = nn.Sequential(nn.Flatten(), first, nn.Tanh(), nn.Linear(32, 1)).double()

    def forward(self, pos: Tensor) -> Tensor:
        return self.layers(pos)


CLOUDS = {
    "generic": torch.tensor([[0.3, 1.1, -0.2], [1.0, -0.7, 0.4], [-0.9, 0.2, 0.8], [0.1, -0.3, -1.3]]),
    "collinear": torch.tensor([[0.0, 0, 0], [1, 0, 0], [2, 0, 0], [4, 0, 0]]),
    "square": torch.tensor([[1.0, 0, 0], [0, 1, 0], [-1, 0, 0], [0, -1, 0]]),
    "tetrahedron": torch.tensor([[1.0, 1, 1], [1, -1, -1], [-1, 1, -1], [-1, -1, 1]]),
    "coincident": torch.ones(4, 3),
}


def slope(energy: Callable[[Tensor], Tensor], x: Tensor, h: Tensor, step: float) -> Tensor:
    """The derivative along h, by central differences."""
    with torch.no_grad():
        return (energy(x + step * h) - energy(x - step * h)).sum() / (2 * step)


@pytest.mark.parametrize("cloud", CLOUDS)
@pytest.mark.parametrize("group", [ps.E(3), ps.SE(3)], ids=repr)
def test_forces_through_frames(cloud: str, group: ps.Group) -> None:
    """Exact and equivariant, also where axes are settled by nothing; and they can be trained on."""
    phi = ps.symmetrize(Energy(), {"pos": ps.Rep(None, group)}, ps.Rep(), "frame").eval()

    def force(pos: Tensor) -> Tensor:
        pos = pos.detach().requires_grad_()
        return -torch.autograd.grad(phi(pos=pos).sum(), pos, create_graph=True)[0]

    x = CLOUDS[cloud].double()[None]
    found = force(x)
    found.square().sum().backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in phi.parameters())
    for h in torch.randn(3, *x.shape, dtype=x.dtype):
        assert torch.allclose(slope(lambda pos: phi(pos=pos), x, h, 1e-6), -(found * h).sum(), atol=1e-7)
        along = torch.func.jvp(lambda pos: phi(pos=pos), (x,), (h,))[1]  # forward mode
        assert torch.allclose(along.sum(), -(found * h).sum(), atol=1e-9)
    turn = ps.SO(3).haar((), generator=torch.Generator().manual_seed(1), dtype=torch.float64).matrix
    assert torch.allclose(force(x @ turn.T + 5), found @ turn.T, atol=1e-9)


def test_energies_of_frames_jump_next_to_a_square() -> None:
    """Equal eigenvalues give all frames of its symmetry; a half per cent longer one way, its diagonals or its sides."""
    phi = ps.symmetrize(Energy(), {"pos": ps.Rep(None, ps.E(3))}, ps.Rep(), "frame").eval()
    x, stretch = CLOUDS["square"].double(), torch.diag(torch.tensor([1.005, 1, 1]).double())
    eighth = torch.tensor([[1.0, -1, 0], [1, 1, 0], [0, 0, 2**0.5]]).double() / 2**0.5
    clouds = torch.stack([x, x @ stretch, x @ eighth @ stretch @ eighth.mT])
    assert torch.pdist(phi(pos=clouds).detach()).min() > 0.005


def error(rep: ps.Rep, distribution: str, dim: int) -> tuple[float, float]:
    """Force less the derivative of the mean energy along a direction, of the same noise, and its standard error."""
    x, h = torch.randn(2, 1, 4, dim, dtype=torch.float64)
    phi = ps.symmetrize(Energy(dim, 3.0), {"pos": rep}, ps.Rep(), distribution, example={"pos": x}).double().eval()
    found = []
    for seed in range(10):
        noise = phi.draw_noise(pos=x, samples=20_000, generator=torch.Generator().manual_seed(seed))
        pos = x.clone().requires_grad_()
        (gradient,) = torch.autograd.grad(phi(pos=pos, noise=noise).sum(), pos)
        found.append((gradient * h).sum() - slope(lambda pos, noise=noise: phi(pos=pos, noise=noise), x, h, 0.02))
    errors = torch.stack(found)
    return float(errors.mean()), float(errors.std()) / len(errors) ** 0.5


@pytest.mark.parametrize(
    ("rep", "distribution", "dim"),
    [
        (ps.Rep(None, ps.SO(2)), "learned", 2),
        (ps.Rep(None, ps.SE(3)), "learned", 3),
        (ps.Rep(None, ps.O(2)), "haar", 2),
        (ps.Rep(ps.S("nodes")), "haar", 3),
    ],
)
def test_forces_are_gradients_of_the_mean(rep: ps.Rep, distribution: str, dim: int) -> None:
    """Where no element jumps as the input moves."""
    mean, stderr = error(rep, distribution, dim)
    assert abs(mean) < 4 * stderr + 1e-3


@pytest.mark.parametrize(("rep", "dim"), [(ps.Rep(ps.S("nodes")), 3), (ps.Rep(None, ps.O(2)), 2)])
def test_forces_leave_out_jumps(rep: ps.Rep, dim: int) -> None:
    """How likely a learned order, or a handedness, is depends on the input; samples alone do not show it."""
    mean, stderr = error(rep, "learned", dim)
    assert abs(mean) > 10 * stderr


@pytest.mark.parametrize("distribution", ["learned", "canonical"])
@pytest.mark.parametrize("cloud", ["pair", "square", "line", "coincident", "one"])
def test_forces_can_be_trained_on_at_symmetric_clouds(distribution, cloud):
    """Second derivatives are finite where the frame of the net vanishes, beside generic inputs in the batch."""
    torch.manual_seed(0)
    clouds = {
        "pair": torch.randn(2, 3),
        "square": torch.tensor([[1.0, 0, 0], [0, 1, 0], [-1, 0, 0], [0, -1, 0]]),
        "line": torch.tensor([[-1.0, 0, 0], [0, 0, 0], [1, 0, 0]]),
        "coincident": torch.ones(3, 3),
        "one": torch.randn(1, 3),
    }
    pos = torch.stack([clouds[cloud], torch.randn_like(clouds[cloud])]).double().requires_grad_()
    nodes, space = ps.S("nodes"), ps.E(3, "space")
    energy = nn.Sequential(nn.Flatten(), nn.Linear(pos[0].numel(), 16), nn.Tanh(), nn.Linear(16, 1))
    phi = ps.symmetrize(Keyword(energy), {"pos": ps.Rep(nodes, space)}, ps.Rep(), distribution).double()
    (force,) = torch.autograd.grad(phi(pos=pos).sum(), pos, create_graph=True)
    force.square().sum().backward()
    assert pos.grad.isfinite().all()
    assert all(p.grad.isfinite().all() for p in phi.parameters() if p.grad is not None)


class Keyword(nn.Module):
    def __init__(self, net):
        super().__init__()
        self.net = net

    def forward(self, pos):
        return self.net(pos)
