"""Keypoints and their image turn in the same call: a net that corrects keypoints, averaged over turns and flips."""

import torch
from torch import Tensor, nn

import probsym as ps

torch.manual_seed(0)
SIZE, POINTS = 24, 3
CENTRES = (torch.arange(SIZE) + 0.5) / SIZE  # of the pixels, as fractions of the image


def spots(points: Tensor, width: float) -> Tensor:
    """An image (B, N, H, W) for each point (B, N, 2) (x right, y down): a spot there."""
    right = CENTRES - points[..., 0, None]
    down = CENTRES - points[..., 1, None]
    return (-(down[..., :, None] ** 2 + right[..., None, :] ** 2) / (2 * width**2)).exp()


def examples(count: int) -> tuple[dict[str, Tensor], Tensor]:
    """Noisy images with three spots, where somebody thinks that they are, and how far that is off."""
    points = 0.15 + 0.7 * torch.rand(count, POINTS, 2)
    image = spots(points, 0.05).sum(1, keepdim=True) + 0.1 * torch.randn(count, 1, SIZE, SIZE)
    off = 0.05 * torch.randn(count, POINTS, 2)
    return {"image": image, "guess": points - off}, off


class Correction(nn.Module):
    """How far each keypoint is off, by a CNN that sees the image and a spot at the guess."""

    def __init__(self) -> None:
        super().__init__()
        self.see = nn.Sequential(nn.Conv2d(2, 16, 5, padding=2), nn.GELU(), nn.Conv2d(16, 16, 5, padding=2), nn.GELU())
        self.tell = nn.Linear(16, 2)

    def forward(self, image: Tensor, guess: Tensor) -> Tensor:
        near = spots(guess, 0.08).flatten(0, 1).unsqueeze(1)  # (B N, 1, H, W)
        seen = self.see(torch.cat([image.repeat_interleave(POINTS, 0), near], 1))
        return self.tell((seen * near).mean((2, 3))).unflatten(0, (-1, POINTS))


x, off = examples(48)
model = Correction()
optimizer = torch.optim.Adam(model.parameters(), 5e-3)
for _ in range(200):
    batch = torch.randperm(len(off))[:16]
    loss = (model(x["image"][batch], x["guess"][batch]) - off[batch]).square().mean()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()

turns = ps.D(4)
inputs = {"image": ps.Rep(None, turns), "guess": ps.Rep(None, turns.point)}  # a flip takes x to 1 - x
output = ps.Rep(None, turns.vector)  # a displacement: a flip takes it to -x
phi = ps.symmetrize(model, inputs, output, "haar", eval_samples=ps.Exact()).eval()

x, off = examples(200)
with torch.no_grad():
    left = {"as guessed": off, "one call": off - model(**x), "mean over D(4)": off - phi(**x)}
pixels = {name: SIZE * gap.norm(dim=-1).mean(1) for name, gap in left.items()}
for name, gap in pixels.items():
    print(f"{name:15} {gap.mean():.3f} +- {gap.std() / len(gap) ** 0.5:.3f} pixels off (over {len(gap)} images)")
gain = pixels["one call"] - pixels["mean over D(4)"]
print(f"averaging gains {gain.mean():.3f} +- {gain.std() / len(gain) ** 0.5:.3f} pixels")
assert gain.mean() > 4 * gain.std() / len(gain) ** 0.5

few = {name: tensor[:4] for name, tensor in x.items()}
print(ps.testing.assert_equivariant(phi, few))
still = {"image": ps.Rep(None, turns), "guess": ps.Rep()}  # keypoints that stay while their image turns
print(ps.testing.equivariance_error(ps.symmetrize(model, still, output, "haar", None, ps.Exact()).eval(), few, inputs))
