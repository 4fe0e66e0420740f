"""Positions are added outside the average: every preset, README and the examples, and what that changes.

Inside, they send a wrong gradient to a learned order: P P^T x is x for every permutation, not for the soft matrix.
"""

from __future__ import annotations

import ast
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import probsym as ps
from probsym.groups.euclidean import Point
from probsym.reps import leaves
from probsym_experiments.config import parse
from probsym_experiments.models import EGNN
from probsym_experiments.models.dynamics import Integrator
from probsym_experiments.models.particles import GivenPairs, ParticleModel
from probsym_experiments.nbody import Config
from probsym_experiments.nbody.data import Arrays, System, generate
from probsym_experiments.nbody.loss import Loss
from probsym_experiments.nbody.models import GROUPS, METHODS, build, group_name, inputs, motion, prepared
from probsym_experiments.nbody.motion import Motion, displacement
from probsym_experiments.registry import experiment

ROOT = Path(__file__).parents[2]
PRESETS = sorted(experiment("nbody").presets)
ROWS = 4


def preset(name: str) -> Config:
    return parse(experiment("nbody"), ["--preset", str(experiment("nbody").presets[name])])


LEARNED = [name for name in PRESETS if METHODS[preset(name).symmetrizer].net]


def orders_are_learned(config: Config) -> bool:
    return METHODS[config.symmetrizer].net and GROUPS[group_name(config)].permutes


def batch() -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)
    names = ("pos", "vel", "target", "target_vel")
    found = {name: torch.randn(ROWS, 5, 3, generator=generator, dtype=torch.float64) for name in names}
    charges = torch.randn(ROWS, 5, generator=generator, dtype=torch.float64).sign()
    return found | {"edge": (charges[:, :, None] * charges[:, None, :]).unsqueeze(-1)}


def model(config: Config) -> ps.Symmetrizer:
    torch.manual_seed(0)
    few = {name: value.float() for name, value in prepared(config, batch()).items()}
    phi = build(config, few).double().train()
    for module in phi.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0  # what is compared has the same noise
    return phi


class Inside(nn.Module):
    """A base as it was before: it adds positions and velocities itself."""

    def __init__(self, base: nn.Module, motion: Motion) -> None:
        super().__init__()
        self.base, self.motion = base, motion

    def forward(self, **x: Tensor) -> Any:
        change = self.base(**x)
        if not isinstance(change, dict):
            return self.motion.positions(change, x)
        return {"pos": self.motion.positions(change, x), "vel": self.motion.velocities(change, x)}


def inside(phi: ps.Symmetrizer, motion: Motion) -> ps.Symmetrizer:
    """The same base, averaged over the same p with the positions in it."""
    points, vectors = phi.inputs["pos"], phi.inputs["vel"]
    output = {"pos": points, "vel": vectors} if isinstance(phi.output, dict) else points
    return ps.symmetrize(Inside(phi.model, motion), phi.inputs, output, phi.distribution).train()


def silence(base: nn.Module) -> None:
    """Zero weights in the last layers, so that a base says that nothing changes."""
    last: list[Any]
    if isinstance(base, ParticleModel | GivenPairs):
        last = [(base.net.decode if hasattr(base.net, "decode") else base.net.head)[-1]]
    elif isinstance(base, Integrator):
        last = [force[-1] if isinstance(force, nn.Sequential) else force for force in base.forces]
        nn.init.zeros_(base.times)
        nn.init.constant_(base.times[-1:], base.time)  # without rounding
    elif isinstance(base, EGNN):
        last = [net[-1] for layer in base.layers for net in (layer.along_pairs, layer.along_velocity)]
    else:
        last = [[layer for layer in base.modules() if isinstance(layer, nn.Linear)][-1]]
    for layer in last:
        nn.init.zeros_(layer.weight)
        if layer.bias is not None:
            nn.init.zeros_(layer.bias)


def to_p(phi: ps.Symmetrizer, loss: Tensor) -> Tensor:
    """The gradient of a loss to all parameters of p (P,)."""
    weights = list(phi.distribution.parameters())
    found = torch.autograd.grad(loss, weights, materialize_grads=True)
    return torch.cat([g.reshape(-1) for g in found])


@pytest.mark.parametrize("name", LEARNED)
def test_a_base_that_says_nothing_sends_p_no_gradient(name: str) -> None:
    """Its average does not depend on p; with the positions inside a learned order heard of them."""
    config = preset(name)
    x = prepared(config, batch())
    moved = motion(config)
    loss = Loss(moved, velocity_weight=config.velocity_weight)
    phi = model(config)
    assert to_p(phi, loss(phi, x)).abs().max() > 1e-9
    silence(phi.model)
    known = moved.positions(torch.zeros_like(x["pos"]), x)
    torch.testing.assert_close(loss.errors(phi, x), (known - x["target"]).square().mean((1, 2)))
    assert torch.equal(to_p(phi, loss(phi, x)), torch.zeros_like(to_p(phi, loss(phi, x))))
    before = inside(phi, moved)
    wrong = to_p(before, (displacement(before(**inputs(x))) - x["target"]).square().mean())
    assert (wrong.norm() > 1e-3) == orders_are_learned(config)


@pytest.mark.parametrize("name", PRESETS)
def test_the_average_is_what_it_was(name: str) -> None:
    """pos + phi is the average of pos + net, sample by sample; without a learned order its gradient is, too."""
    config = preset(name)
    x = prepared(config, batch())
    moved = motion(config)
    phi = model(config)
    before = inside(phi, moved)
    noise = phi.draw_noise(**inputs(x), samples=3, generator=torch.Generator().manual_seed(0))
    change, old = (f.sample(**inputs(x), noise=noise) for f in (phi, before))
    new = moved.positions(change, x)
    torch.testing.assert_close(new, displacement(old), rtol=0, atol=1e-12)
    if isinstance(change, dict):
        torch.testing.assert_close(moved.velocities(change, x), old["vel"], rtol=0, atol=1e-12)
    if METHODS[config.symmetrizer].net:
        one, other = (to_p(f, (y - x["target"]).square().mean()) for f, y in ((phi, new), (before, displacement(old))))
        assert torch.allclose(one, other, rtol=1e-9, atol=1e-12) != orders_are_learned(config)


class Flying(nn.Module):
    """A base that adds free flight itself, and leaves the positions outside."""

    def __init__(self, base: nn.Module) -> None:
        super().__init__()
        self.base = base

    def forward(self, pos: Tensor, vel: Tensor, edge: Tensor) -> Tensor:
        return vel + self.base(pos, vel, edge)


def test_free_flight_belongs_outside_too() -> None:
    """At the start of training, forces being weak, most of the gradient came of it: P P^T v."""
    phi, x = model(preset("dynamics-transformer-ps")), batch()
    x = x | {"target": x["pos"] + x["vel"] + 0.3 * x["target"]}
    flying = ps.symmetrize(Flying(phi.model), phi.inputs, phi.output, phi.distribution).train()
    before = inside(phi, Motion(free_flight=True))
    noise = phi.draw_noise(**inputs(x), samples=50, generator=torch.Generator().manual_seed(0))
    outside = {phi: x["pos"] + x["vel"], flying: x["pos"], before: torch.zeros(())}
    sizes = []
    for f, known in outside.items():
        y = known + f.sample(**inputs(x), noise=noise)
        sizes.append(to_p(f, (y - x["target"]).square().mean()).norm().item())
    print("gradient to p; all outside, velocities inside, all inside:", sizes)
    assert sizes[1] > 3 * sizes[0]
    assert sizes[2] > 3 * sizes[0]


@pytest.mark.parametrize("name", PRESETS)
def test_no_preset_averages_points(name: str) -> None:
    """Its outputs are vectors. A bare base has no group of space to declare."""
    config = preset(name)
    reps = leaves(model(config).output).values()
    assert not any(isinstance(slot, Point) for rep in reps for slot in rep.slots)
    if config.symmetrizer != "none":
        assert all(rep.slots[-1] == rep.slots[-1].group.vector for rep in reps)


def test_translations_leave_the_outputs_alone() -> None:
    """They act on the inputs, so E(3) is the group, though no output feels them."""
    phi, x = model(preset("gnn-fa")), inputs(batch())
    far = x | {"pos": x["pos"] + 100}
    assert any(factor.anchored for factor in phi.group.factors)
    torch.testing.assert_close(phi.eval()(**far), phi(**x), rtol=0, atol=1e-9)


def described(source: str) -> dict[str, Any]:
    """The names that a script knows once it has made its model `phi`."""
    found: dict[str, Any] = {"__name__": "described"}
    for statement in ast.parse(source).body:
        exec(compile(ast.Module([statement], []), "script", "exec"), found)
        if "phi" in found:
            return found
    raise AssertionError("no phi is made")


def scripts() -> dict[str, str]:
    """README's first example, and the examples that predict positions."""
    readme = (ROOT / "README.md").read_text().split("```python\n")[1].split("```")[0]
    folders = {"quickstart": "examples", "nbody": "experiments/examples", "own_distribution": "examples"}
    return {"README": readme} | {name: (ROOT / f"{folder}/{name}.py").read_text() for name, folder in folders.items()}


@pytest.mark.parametrize("name", scripts())
def test_readme_and_examples_add_positions_outside(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    tiny: Arrays = generate(System(3, 3, train=4, valid=2, test=2))  # the number of particles is not the base's
    monkeypatch.setattr("probsym_experiments.nbody.data.generate", lambda system: tiny)
    phi: ps.Symmetrizer = described(scripts()[name])["phi"].train()
    assert not any(isinstance(slot, Point) for rep in leaves(phi.output).values() for slot in rep.slots)
    weight = next(phi.model.parameters())
    x = {key: value.to(weight) for key, value in inputs(batch()).items() if key in phi.inputs}
    if name == "own_distribution":
        x["pos"] = torch.cat([x["pos"], x["pos"][:, :1] + 1], 1)  # six points
    phi(**x)  # fixes the sizes of the default net
    if not any(p.requires_grad for p in phi.distribution.parameters()):
        return
    target = batch()["target"].to(weight)
    assert to_p(phi, (x["pos"] + phi(**x) - target).square().mean()).norm() > 1e-9
    silence(phi.model)
    assert not to_p(phi, (x["pos"] + phi(**x) - target).square().mean()).any()
