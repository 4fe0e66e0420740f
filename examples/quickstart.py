"""Wrap a plain network, train it for a moment, predict with error bars, and test the equivariance."""

import torch

import probsym as ps

torch.manual_seed(0)


class Plain(torch.nn.Module):
    """A perceptron on the coordinates of five points, (B, 5, 3) to (B, 5, 3)."""

    def __init__(self):
        super().__init__()
        self.net = torch.nn.Sequential(
            torch.nn.Linear(15, 128),
            torch.nn.Tanh(),
            torch.nn.Linear(128, 128),
            torch.nn.Tanh(),
            torch.nn.Linear(128, 15),
        )

    def forward(self, pos: torch.Tensor) -> torch.Tensor:
        return self.net(pos.flatten(1)).view_as(pos)


def data(batch: int) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
    """Five points; the target turns and moves with them: each point is pulled to the others, nearer ones harder."""
    pos = torch.randn(batch, 5, 3)
    gap = pos[:, None] - pos[:, :, None]
    pull = gap / (1 + gap.square().sum(-1, keepdim=True))
    return {"pos": pos}, pos + pull.sum(2)


nodes, space = ps.S("nodes"), ps.E(3, "space")
model = Plain()  # how far each point moves: a vector, added to `pos` outside
phi = ps.symmetrize(model, inputs={"pos": ps.Rep(nodes, space)}, output=ps.Rep(nodes, space.vector), example=data(2)[0])
optimizer = torch.optim.Adam(phi.parameters(), lr=2e-3)

losses = []
for _ in range(300):
    x, y = data(128)
    loss = (x["pos"] + phi(**x) - y).square().mean()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    losses.append(loss.item())
print(f"training error {losses[0]:.3f} -> {sum(losses[-20:]) / 20:.3f}")
assert sum(losses[-20:]) / 20 < 0.7 * losses[0]

phi.eval()
x, y = data(4)
estimate = phi.estimate(**x, samples=100)
predicted = x["pos"] + estimate.mean
print(f"one coordinate: {predicted[0, 0, 0]:.3f} +- {estimate.stderr[0, 0, 0]:.3f}, truth {y[0, 0, 0]:.3f}")

print("symmetrized:", ps.testing.equivariance_error(phi, x, generator=torch.Generator().manual_seed(1)))
bare = ps.testing.equivariance_error(model, x, reps=phi.inputs, output=phi.output)
print("bare model: ", bare)
assert not bare.passed
