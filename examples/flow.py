"""A surrogate of a fluid: a small CNN that predicts a flow, averaged over the eight turns and flips at test time."""

import torch
from torch import Tensor, nn

import probsym as ps

torch.manual_seed(0)
SIZE, STEP, STEPS, VISCOSITY = 32, 0.02, 20, 2e-3
WAVES = torch.fft.fftfreq(SIZE, 1 / SIZE)
KX, KY = WAVES[None, :], WAVES[:, None]  # x right along columns, y down along rows
SQUARE = KX**2 + KY**2
RESOLVED = (KX.abs() < SIZE / 3) & (KY.abs() < SIZE / 3)  # no products of waves that the grid takes for others


def velocity(curl: Tensor) -> Tensor:
    """Velocities (B, 2, H, W), components (x right, y down), of the Fourier modes of their curl."""
    stream = curl / SQUARE.clamp_min(1)
    return torch.stack([torch.fft.ifft2(1j * KY * stream).real, torch.fft.ifft2(-1j * KX * stream).real], 1)


def change(curl: Tensor) -> Tensor:
    """The vorticity equation of a two-dimensional incompressible fluid in a periodic box."""
    flow = velocity(curl)
    slope_x, slope_y = torch.fft.ifft2(1j * KX * curl).real, torch.fft.ifft2(1j * KY * curl).real
    return -torch.fft.fft2(flow[:, 0] * slope_x + flow[:, 1] * slope_y) * RESOLVED - VISCOSITY * SQUARE * curl


def flows(count: int) -> tuple[Tensor, Tensor]:
    """Velocities of random vortices, and the same a short time later."""
    curl = torch.fft.fft2(torch.randn(count, SIZE, SIZE)) * (-((SQUARE.sqrt() - 3) ** 2) / 2).exp()
    curl = curl / velocity(curl).square().mean((1, 2, 3)).sqrt()[:, None, None]
    before = velocity(curl)
    for _ in range(STEPS):
        middle = curl + STEP / 2 * change(curl)
        curl = curl + STEP * change(middle)
    return before, velocity(curl)


class Surrogate(nn.Module):
    """What a flow (B, 2, H, W) becomes: a CNN in a periodic box, which knows nothing of turns."""

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = [nn.Conv2d(2, 24, 5, padding=2, padding_mode="circular"), nn.GELU()]
        layers += [nn.Conv2d(24, 24, 5, padding=2, padding_mode="circular"), nn.GELU()]
        self.net = nn.Sequential(*layers, nn.Conv2d(24, 2, 5, padding=2, padding_mode="circular"))

    def forward(self, flow: Tensor) -> Tensor:
        return flow + self.net(flow)


x, y = flows(32)
model = Surrogate()
optimizer = torch.optim.Adam(model.parameters(), 3e-3)
for _ in range(150):
    batch = torch.randperm(len(x))[:8]
    loss = (model(x[batch]) - y[batch]).square().mean()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()

turns = ps.D(4)
field = ps.Rep(turns.vector, turns)  # the components turn with the pixels
phi = ps.symmetrize(model, field, field, "haar", eval_samples=ps.Exact()).eval()
wrong = ps.symmetrize(model, ps.Rep(None, turns), ps.Rep(None, turns), "haar", eval_samples=ps.Exact()).eval()

x, y = flows(64)
errors = {}
with torch.no_grad():
    for name, f in {"one call": model, "mean over D(4)": phi, "components not turned": wrong}.items():
        errors[name] = (f(x) - y).flatten(1).norm(dim=1) / y.flatten(1).norm(dim=1)
        spread = errors[name].std() / len(y) ** 0.5
        print(f"{name:22} relative error {errors[name].mean():.3f} +- {spread:.3f} (over {len(y)} flows)")
gain = errors["one call"] - errors["mean over D(4)"]
print(f"averaging lowers it by {gain.mean():.4f} +- {gain.std() / len(y) ** 0.5:.4f}")
print(ps.testing.assert_equivariant(phi, x[:4]))
assert gain.mean() > 4 * gain.std() / len(y) ** 0.5
assert errors["components not turned"].mean() > errors["one call"].mean()
