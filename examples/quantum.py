"""Entangled or not: a plain network on states of two qubits, made invariant to local changes of basis."""

import torch
from torch import Tensor, nn

import probsym as ps

torch.manual_seed(0)
torch.set_default_dtype(torch.float64)
first, second = ps.SU(2, "first"), ps.SU(2, "second")
states = ps.Rep(first, second)  # complex amplitudes (B, 2, 2)


class Classifier(nn.Module):
    """A plain network on the density matrix: it does not see the global phase, but everything else."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(32, 64), nn.SiLU(), nn.Linear(64, 1))

    def forward(self, psi: Tensor) -> Tensor:
        psi = psi.flatten(1)
        rho = psi.unsqueeze(-1) * psi.conj().unsqueeze(-2)
        return self.net(torch.view_as_real(rho).flatten(1))


def samples(count: int) -> tuple[Tensor, Tensor]:
    """Random states, and whether they are more entangled than most: concurrence 2 |det psi| above 0.55."""
    psi = torch.randn(count, 2, 2, dtype=torch.complex128)
    psi = psi / psi.abs().square().sum((1, 2), keepdim=True).sqrt()
    return psi, (2 * torch.linalg.det(psi).abs() > 0.55).double()[:, None]


train, labels = samples(256)
test, truth = samples(2000)
for name in ("bare", "symmetrized"):
    torch.manual_seed(0)
    f: nn.Module = Classifier()
    if name == "symmetrized":
        f = ps.symmetrize(f, states, ps.Rep(), "haar", train_samples=4, eval_samples=64)
    optimizer = torch.optim.Adam(f.parameters(), 5e-3)
    for _ in range(200):
        optimizer.zero_grad()
        nn.functional.binary_cross_entropy_with_logits(f(train), labels).backward()
        optimizer.step()
    accuracy = ((f.eval()(test) > 0) == truth).double().mean()
    error = ps.testing.equivariance_error(f, test[:8], states, ps.Rep())
    print(f"{name:12} accuracy {accuracy:.3f}; {error}")
    assert error.passed == (name != "bare")
