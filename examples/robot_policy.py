"""A grasp policy where gravity tells up from down: equivariant to yaw and translations, free to use heights and tilts.

Demonstrations show hammers that point east. The plain policy knows no other direction; the symmetrized one knows all.
"""

import math

import torch
from torch import nn

import probsym as ps

space = ps.SE(3, "space", about="z")
observation = {
    "points": ps.Rep(None, space),  # (B, N, 3), the hammer
    "hand": ps.Rep(space + space.rotation6d),  # (B, 9), where the gripper is and how it is turned
    "opening": ps.Rep(),  # (B, 1)
}
action = ps.Rep(space.vector + space.rotation6d + 1)  # (B, 10): step of the gripper, its orientation, its opening


class Policy(nn.Module):
    """Any network. It sees points relative to the hand, since it returns a step."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(34, 128), nn.SiLU(), nn.Linear(128, 128), nn.SiLU(), nn.Linear(128, 10))

    def forward(self, points, hand, opening):
        relative = points - hand[:, None, :3]
        return self.net(torch.cat([relative.flatten(1), hand[:, 3:], opening], 1))


def turned(angle, generator=((0.0, -1.0, 0.0), (1.0, 0.0, 0.0), (0.0, 0.0, 0.0))):
    """Rotations (B, 3, 3) by angles (B,), about z unless told otherwise."""
    return torch.linalg.matrix_exp(angle[:, None, None] * torch.tensor(generator))


def demonstrations(count, yaw):
    """Hammers within `yaw` of east; the expert grasps the handle from above, with the thumb towards the head."""
    handle = torch.tensor([[0.1 * i, 0.0, 0.0] for i in range(6)])
    head = torch.tensor([[0.55, -0.1, 0.0], [0.55, 0.1, 0.0], [0.6, 0.0, 0.1]])
    facing = turned(yaw * (2 * torch.rand(count) - 1))
    points = torch.cat([handle, head]) @ facing.mT + torch.randn(count, 1, 3)
    goal = points[:, 2] + torch.tensor([0.0, 0.0, 0.05])
    hand = goal + 0.3 * torch.randn(count, 3)
    pose = ps.rotations.matrix_to_rotation6d(facing @ turned(0.3 * torch.randn(count)))
    down = ps.rotations.matrix_to_rotation6d(facing @ torch.diag(torch.tensor([1.0, -1.0, -1.0])))
    far = ((goal - hand).norm(dim=-1, keepdim=True) > 0.5).float()
    x = {"points": points, "hand": torch.cat([hand, pose], 1), "opening": torch.rand(count, 1)}
    return x, torch.cat([goal - hand, down, far], 1)


torch.manual_seed(0)
symmetrized = ps.symmetrize(Policy(), observation, action, "canonical", example=demonstrations(8, 0.1)[0])
for name, policy in [("plain", Policy()), ("symmetrized", symmetrized)]:
    optimizer = torch.optim.Adam(policy.parameters(), lr=3e-3)
    for _ in range(400):
        x, target = demonstrations(128, yaw=0.1)
        optimizer.zero_grad()
        (policy(**x) - target).square().mean().backward()
        optimizer.step()
    x, target = demonstrations(500, yaw=math.pi)
    y = policy.eval()(**x).detach()
    # an average of rotations is no rotation: take the nearest one
    found, wanted = ps.rotations.rotation6d_to_matrix(torch.stack([y, target])[..., 3:9])
    cosine = ((found * wanted).sum((-2, -1)) - 1) / 2
    angle = cosine.clamp(-1, 1).acos().mean() * 180 / math.pi
    print(f"{name}, all directions: {(y - target)[:, :3].norm(dim=-1).mean():.3f} m, {angle:.1f} degrees off")

# Yaw and translations are symmetries, exactly. A tilt is none: gravity does not tilt with the scene.
x = {key: value[:64].double() for key, value in x.items()}
ps.testing.assert_equivariant(symmetrized.double(), x)
about_x = ((0.0, 0.0, 0.0), (0.0, 0.0, -1.0), (0.0, 1.0, 0.0))
tilt = space.identity((64,)).map(lambda *_: turned(torch.ones(64), about_x).double())
y, tilted = symmetrized(**x), symmetrized(**{key: rep.act(tilt, x[key]) for key, rep in observation.items()})
gap = (tilted - action.act(tilt, y)).norm() / y.norm()
print(f"a tilt by one radian is no symmetry: relative gap {gap:.2f}")
assert gap > 0.1
