"""A policy for a legged robot that walks to the left as it walks to the right: signed permutations of its joints."""

import torch
from torch import nn

import probsym as ps

torch.manual_seed(0)

# The mirror image of the robot, x ahead, y to the left, z up. Legs: front left, front right, rear left, rear right;
# of each the hip (which moves the leg sideways, so that its angle changes sign), the thigh and the knee.
mirror = ps.Finite(generators=1, name="mirror")
joints = mirror.signed([[-4, 5, 6, -1, 2, 3, -10, 11, 12, -7, 8, 9]])
feet = mirror.permutation([[1, 0, 3, 2]])
velocity = mirror.signed([[1, -2, 3]])  # a vector: sideways changes sign
spin = mirror.signed([[-1, 2, -3]])  # an axial vector: roll and yaw change sign

observation = {
    "angles": ps.Rep(joints),
    "velocity": ps.Rep(velocity),
    "spin": ps.Rep(spin),
    "contacts": ps.Rep(feet),
    "history": ps.Rep(None, joints),  # the last three actions
    "battery": ps.Rep(),  # a number that the mirror leaves alone
}
action = {"targets": ps.Rep(joints), "value": ps.Rep()}


class Policy(nn.Module):
    """A perceptron on everything, which knows of no mirror."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(12 + 3 + 3 + 4 + 36 + 1, 64), nn.Tanh())
        self.targets = nn.Linear(64, 12)
        self.value = nn.Linear(64, 1)

    def forward(self, **observed: torch.Tensor) -> dict[str, torch.Tensor]:
        rows = torch.cat([part.flatten(1) for part in observed.values()], 1)
        seen = self.body(rows)
        return {"targets": self.targets(seen), "value": self.value(seen)}


def observe(batch: int) -> dict[str, torch.Tensor]:
    return {
        "angles": torch.randn(batch, 12),
        "velocity": torch.randn(batch, 3),
        "spin": torch.randn(batch, 3),
        "contacts": torch.rand(batch, 4).round(),
        "history": torch.randn(batch, 3, 12),
        "battery": torch.rand(batch, 1),
    }


# Two elements: the average over both is exact, in training too, for two calls of the policy.
policy = Policy()
phi = ps.symmetrize(policy, observation, action, "haar", train_samples=ps.Exact(), eval_samples=ps.Exact()).eval()
seen = observe(5)
print("with the mirror:", ps.testing.assert_equivariant(phi, seen))
bare = ps.testing.equivariance_error(policy, seen, reps=observation, output=action)
print("bare policy:    ", bare)
assert not bare.passed

# Where the spin is declared as if it were a velocity, the checker finds it.
careless = ps.symmetrize(policy, {**observation, "spin": ps.Rep(velocity)}, action, "haar", eval_samples=ps.Exact())
report = ps.testing.equivariance_error(careless.eval(), seen, reps=observation, output=action)
print("spin as velocity:", report)
assert not report.passed

# By hand: what the robot does about the mirrored observation is the mirrored action.
leg = seen["angles"].unflatten(1, (4, 3))[:, [1, 0, 3, 2]] * torch.tensor([-1.0, 1, 1])
mirrored = phi.bind((), seen).act(mirror.elements().select(torch.ones(5, dtype=torch.long))).kwargs
assert torch.equal(mirrored["angles"], leg.flatten(1))
assert torch.equal(mirrored["battery"], seen["battery"])
there = phi(**mirrored)["targets"].unflatten(1, (4, 3))
here = phi(**seen)["targets"].unflatten(1, (4, 3))
assert torch.allclose(there, here[:, [1, 0, 3, 2]] * torch.tensor([-1.0, 1, 1]), atol=1e-6)
