"""One class, three methods: the score of a pose comes from the trained model itself, from an energy, or from a net.

A classifier was trained on upright images of four letters. It meets images in any quarter turn.
"""

import torch
from torch import Tensor, nn

import probsym as ps

torch.manual_seed(0)
LETTERS = ("####...##...#....#..", "...#...#...##..#.##.", "#...#...#...#...####", "#..##..####.#..##..#")  # F J L h
STROKES = torch.tensor([[float(mark == "#") for mark in letter] for letter in LETTERS]).reshape(-1, 5, 4)


def letters(count: int) -> tuple[Tensor, Tensor]:
    """Upright letters on 8 x 8 pixels, with noise, and lit from above."""
    label = torch.randint(len(LETTERS), (count,))
    image = 0.4 * torch.randn(count, 1, 8, 8) + torch.linspace(0.3, -0.3, 8)[:, None]
    for i, (down, right) in enumerate(torch.randint(1, 3, (count, 2)).tolist()):
        image[i, 0, down : down + 5, right : right + 4] += STROKES[label[i]]
    return image, label


def turned(image: Tensor) -> Tensor:
    """Every image in a quarter turn of its own."""
    return torch.stack([picture.rot90(int(torch.randint(4, ())), (1, 2)) for picture in image])


def trained(model: nn.Module, in_any_pose: bool, steps: int = 200) -> nn.Module:
    optimizer = torch.optim.Adam(model.parameters(), 3e-3)
    for _ in range(steps):
        image, label = letters(64)
        if in_any_pose:
            image = turned(image)
        loss = nn.functional.cross_entropy(model.train()(image), label)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return model.eval()


class Confidence(nn.Module):
    """log max_c p(c | pose): how sure the classifier is (test-time canonicalization, equizero)."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, image: Tensor) -> Tensor:
        return self.model(image).log_softmax(-1).amax(-1)


class LitFromAbove(nn.Module):
    """Minus an energy that knows nothing of letters: light comes from above (optimisation-based canonicalization)."""

    def forward(self, image: Tensor) -> Tensor:
        return (image * torch.linspace(1, -1, 8)[:, None]).mean((1, 2, 3))


turns = ps.C(4)
declared = {"inputs": ps.Rep(None, turns), "output": ps.Rep()}
model = nn.Sequential(nn.Flatten(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, len(LETTERS)))
trained(model, in_any_pose=False)
best = ps.symmetrize(model, **declared, distribution=ps.Scored(Confidence(model), turns, temperature=0)).eval()
lit = ps.symmetrize(model, **declared, distribution=ps.Scored(LitFromAbove(), turns, temperature=0)).eval()

# A net of p that is trained with a model of its own, on images in any pose.
base = nn.Sequential(nn.Flatten(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, len(LETTERS)))
learned = trained(ps.symmetrize(base, **declared, distribution="learned", example=letters(2)[0]), in_any_pose=True)

with torch.no_grad():
    image, label = letters(1000)
    image = turned(image)
    accuracy = {}
    for name, phi in {"alone": model, "confidence": best, "light": lit, "learned": learned}.items():
        accuracy[name] = (phi(image).argmax(-1) == label).float().mean().item()
    print(", ".join(f"{name} {share:.2f}" for name, share in accuracy.items()))
    print(ps.testing.assert_equivariant(learned, image[:4]))
assert min(accuracy["confidence"], accuracy["light"], accuracy["learned"]) > accuracy["alone"] + 0.2
