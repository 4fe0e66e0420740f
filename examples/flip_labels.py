"""Segmentation with a left and a right: who flips a volume has to exchange the two classes."""

import torch
from torch import nn

import probsym as ps

torch.manual_seed(0)
SIDE = 12  # voxels along each axis; the last one goes from left to right


class SmallUNet(nn.Module):
    """Convolutions at two resolutions, with a skip: volumes (B, 2, D, H, W) to logits (B, 3, D, H, W)."""

    def __init__(self, width: int = 6) -> None:
        super().__init__()
        self.fine = nn.Conv3d(2, width, 3, padding=1)
        self.coarse = nn.Conv3d(width, width, 3, padding=1, stride=2)
        self.joined = nn.Conv3d(2 * width, 3, 3, padding=1)

    def forward(self, scan: torch.Tensor) -> torch.Tensor:
        fine = self.fine(scan).relu()
        coarse = self.coarse(fine).relu()
        return self.joined(torch.cat([fine, nn.functional.interpolate(coarse, scale_factor=2.0)], 1))


def scans(count: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Two bright kidneys, class 1 in the left half and 2 in the right one; the second channel is the place across."""
    place = torch.arange(SIDE) - (SIDE - 1) / 2
    z, y, x = torch.meshgrid(place, place, place, indexing="ij")
    labels = torch.zeros(count, SIDE, SIDE, SIDE, dtype=torch.long)
    for organ, side in ((1, -1), (2, 1)):
        centre = torch.rand(count, 3, 1, 1, 1) * 4 - 2
        distance = (z - centre[:, 0]) ** 2 + (y - centre[:, 1]) ** 2 + (x - centre[:, 2] - 3 * side) ** 2
        labels[(distance < 5) & (x * side > 0)] = organ
    scan = (labels > 0) + 0.3 * torch.randn(labels.shape)
    return torch.stack([scan, x.expand_as(scan) / SIDE], 1), labels


mirror = ps.Finite(generators=1, name="mirror")
flip = mirror.grid([[1, 2, -3]])  # the third of the three axes is read backwards
channels = mirror.signed([[1, -2]])  # the scan, and a place, which is what it was after a flip and a change of sign
classes = mirror.permutation([[0, 2, 1]])  # background stays, left and right are exchanged

inputs = ps.Rep(channels, flip)
correct = ps.Rep(classes, flip)
careless = ps.Rep(None, flip)  # as if left were left after a flip

model = SmallUNet()
optimizer = torch.optim.Adam(model.parameters(), lr=2e-2)
for _ in range(60):
    scan, labels = scans(4)
    loss = nn.functional.cross_entropy(model(scan), labels)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()

share: dict[str, float] = {}
scan, labels = scans(16)
organs = labels > 0
with_swap = ps.symmetrize(model, inputs, correct, "haar", eval_samples=ps.Exact()).eval()
without_swap = ps.symmetrize(model, inputs, careless, "haar", eval_samples=ps.Exact()).eval()
for name, predict in (("bare model", model), ("flips alone", without_swap), ("flips and the swap", with_swap)):
    with torch.no_grad():
        found = predict(scan).argmax(1)
    share[name] = (found == labels)[organs].float().mean().item()
    report = ps.testing.equivariance_error(predict, scan[:4], reps=inputs, output=correct)
    print(f"{name:18} of the voxels of kidneys it names {share[name]:.2f};  {report}")
    assert report.passed == (predict is with_swap)
assert share["flips alone"] < 0.5 < share["flips and the swap"]
