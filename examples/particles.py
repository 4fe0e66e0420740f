"""Jets of particles: a transformer, called as weaver calls its taggers, made invariant to boosts and rotations."""

import torch
from torch import Tensor, nn

import probsym as ps
from probsym.groups.lorentz import boost_to, four_velocity

torch.manual_seed(0)
torch.set_default_dtype(torch.float64)  # exactness shows best in double precision


class Tagger(nn.Module):
    """A plain transformer; it treats all particles alike, and knows nothing of relativity."""

    def __init__(self, width: int = 24) -> None:
        super().__init__()
        self.embed = nn.Linear(9, width)
        self.block = nn.TransformerEncoderLayer(width, 4, 2 * width, 0.0, batch_first=True)
        self.head = nn.Linear(width, 1)

    def forward(self, points: Tensor, features: Tensor, lorentz_vectors: Tensor, mask: Tensor) -> Tensor:
        h = self.embed(torch.cat([points, features, lorentz_vectors], -1))
        h = self.block(h, src_key_padding_mask=~mask) * mask[..., None]
        return self.head(h.sum(1) / mask.sum(1, keepdim=True))


def measured(p: Tensor, charge: Tensor) -> tuple[Tensor, Tensor]:
    """Points (eta, phi) and features (log E, log pT, charge); all but the charge depend on the frame of reference."""
    transverse = p[..., 1:3].norm(dim=-1) + 1e-6
    points = torch.stack([torch.asinh(p[..., 3] / transverse), torch.atan2(p[..., 2], p[..., 1] + 1e-9)], -1)
    return points, torch.cat([(p[..., :1] + 1e-6).log(), transverse[..., None].log(), charge], -1)


class FromMomenta(nn.Module):
    """Derives points and features from the momenta, in whichever frame of reference it is given them."""

    def __init__(self, tagger: nn.Module) -> None:
        super().__init__()
        self.tagger = tagger

    def forward(self, charge: Tensor, lorentz_vectors: Tensor, mask: Tensor) -> Tensor:
        return self.tagger(*measured(lorentz_vectors, charge), lorentz_vectors, mask)


def jets(count: int, rapidity: float) -> tuple[dict[str, Tensor], Tensor]:
    """Toy decays into two prongs or three, turned and boosted at random; label 1 for three."""
    prongs = torch.randint(2, 4, (count, 1))
    angle = 2 * torch.pi * (torch.arange(6) % prongs) / prongs
    momentum = torch.stack([angle.cos(), angle.sin(), 0 * angle], -1) + 0.15 * torch.randn(count, 6, 3)
    momentum = momentum @ ps.SO(3).haar((count,), dtype=torch.float64).matrix.mT
    p = 0.1 * four_velocity(10 * momentum) @ boost_to(four_velocity(rapidity * torch.randn(count, 3))).mT
    mask = torch.arange(6) < torch.randint(4, 7, (count, 1))
    charge = torch.randint(-1, 2, (count, 6, 1)).double()
    return {"charge": charge * mask[..., None], "lorentz_vectors": p * mask[..., None], "mask": mask}, prongs - 2.0


particles, spacetime = ps.Axis("particles", mask="mask"), ps.Lorentz()
inputs = {"charge": ps.Rep(particles), "lorentz_vectors": ps.Rep(particles, spacetime)}
(train, labels), (test, truth) = jets(512, 0.5), jets(2000, 1.0)  # faster jets than those of the training
few = {key: value[:4] for key, value in train.items()}
for name in ("bare", "canonical", "learned"):
    f: nn.Module = FromMomenta(Tagger())
    if name != "bare":
        f = ps.symmetrize(f, inputs, ps.Rep(), name, example=few)
    optimizer = torch.optim.Adam(f.parameters(), 3e-3)
    for _ in range(60):
        optimizer.zero_grad()
        nn.functional.binary_cross_entropy_with_logits(f(**train), labels).backward()
        optimizer.step()
    accuracy = ((f.eval()(**test) > 0) == truth).double().mean()
    error = ps.testing.equivariance_error(f, few, inputs, ps.Rep())
    print(f"{name:10} accuracy on faster jets {accuracy:.3f}; {error}")
    assert error.passed == (name != "bare")
# The other way round is wrong: points and features that were measured outside carry their frame with them.
invariant = {"points": ps.Rep(particles), "features": ps.Rep(particles), **inputs}
del invariant["charge"]
outside = FromMomenta(ps.symmetrize(Tagger(), invariant, ps.Rep(), "canonical")).eval()
assert not ps.testing.equivariance_error(outside, few, inputs, ps.Rep()).passed
