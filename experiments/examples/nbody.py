"""From data to a model that is trained, checked, saved and loaded again: charged particles, under a minute on one core.

It needs probsym-experiments (see README); the full experiment is `probsym run nbody --preset gnn-ps`.
"""

import tempfile

import torch

import probsym as ps
from probsym_experiments.models import ParticleGNN
from probsym_experiments.nbody.data import System, generate, tensors

STEPS, BATCH = 600, 100

# Where are five charged particles one time unit later? Simulated, as in the benchmark.
arrays = generate(System(train=1_000, valid=2, test=300))
train, test = tensors(arrays, "train"), tensors(arrays, "test")


def inputs(batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """What the model is called with: positions, velocities and products of charges."""
    return {name: batch[name] for name in ("pos", "vel", "edge")}


def rows(batch: dict[str, torch.Tensor], index: torch.Tensor) -> dict[str, torch.Tensor]:
    return {name: values[index] for name, values in batch.items()}


# A plain network: it treats particles alike, but knows nothing of rotations. Declare what acts on which axis, and wrap.
# It tells how far each particle moves, which is a vector; the positions are added outside the average.
torch.manual_seed(0)
particles, space = ps.Axis("particles"), ps.E(3, "space")
phi = ps.symmetrize(
    ParticleGNN(),
    inputs={
        "pos": ps.Rep(particles, space),
        "vel": ps.Rep(particles, space.vector),
        "edge": ps.Rep(particles, particles),
    },
    output=ps.Rep(particles, space.vector),
    example=inputs(rows(train, torch.arange(2))),
)

# Train it like any module: one sample of the group a step.
optimizer = torch.optim.AdamW(phi.parameters(), lr=2e-3, weight_decay=0.0)
schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, STEPS)
for _ in range(STEPS):
    batch = rows(train, torch.randint(len(train["pos"]), (BATCH,)))
    loss = (batch["pos"] + phi(**inputs(batch)) - batch["target"]).square().mean()
    optimizer.zero_grad()
    loss.backward()
    torch.nn.utils.clip_grad_norm_(phi.parameters(), 1.0)
    optimizer.step()
    schedule.step()

# Test it: error bars come with the estimate.
phi.eval()
still = (test["pos"] - test["target"]).square().mean()
with torch.no_grad():
    estimate = phi.estimate(**inputs(test), samples=20)
error = (test["pos"] + estimate.mean - test["target"]).square().mean()
print(f"test MSE {error:.4f} (at rest: {still:.4f}); standard error of a coordinate {estimate.stderr.mean():.4f}")
assert error < 0.2 * still

# Check it: the wrapped model is equivariant, the network inside is not.
few = inputs(rows(test, torch.arange(16)))
print("symmetrized:", ps.testing.assert_equivariant(phi, few))
print("bare:       ", ps.testing.equivariance_error(phi.model, few, reps=phi.inputs, output=phi.output))

# Save it (safetensors and JSON, no pickle) and load it around a fresh network: the same outputs, bit by bit.
with tempfile.TemporaryDirectory() as folder:
    ps.save(phi, folder)
    again = ps.load(folder, model=ParticleGNN()).eval()
one, other = (model(**few, samples=10, generator=torch.Generator().manual_seed(1)) for model in (phi, again))
assert torch.equal(one, other)
print("loaded model: bit-equal outputs")
