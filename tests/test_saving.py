"""Saving and loading: safetensors and JSON, bit-equal outputs, nothing overwritten unasked."""

from __future__ import annotations

import json

import pytest
import torch
from torch import nn

import probsym as ps
from probsym.nets import MLP
from probsym.saving import decode, encode

NODES, SPACE = ps.S("nodes"), ps.E(3, "space")
REPS = {"pos": ps.Rep(NODES, SPACE), "vel": ps.Rep(NODES, SPACE.vector)}


def model() -> nn.Module:
    return MLP(30, (16,), 15, out_shape=(5, 3))


def inputs() -> dict[str, torch.Tensor]:
    return {"pos": torch.randn(4, 5, 3), "vel": torch.randn(4, 5, 3)}


DISTRIBUTIONS = {
    "haar": lambda: "haar",
    "frame": lambda: "frame",
    "canonical": lambda: "canonical",
    "learned": lambda: "learned",
    "product": lambda: ps.Haar(NODES) * ps.Frame(SPACE, max_support=32),
}


@pytest.mark.parametrize("name", DISTRIBUTIONS)
def test_reloaded_model_gives_bit_equal_outputs(name, tmp_path):
    torch.manual_seed(0)
    phi = ps.symmetrize(
        model(), REPS, ps.Rep(NODES, SPACE), DISTRIBUTIONS[name](), eval_samples=ps.MonteCarlo(6, chunk=2)
    )
    x = inputs()
    phi(**x)
    ps.save(phi, tmp_path / "model")
    again = ps.load(tmp_path / "model", model=model())
    first, second = (m.eval()(**x, generator=torch.Generator().manual_seed(1)) for m in (phi, again))
    assert torch.equal(first, second)
    assert again.inputs == phi.inputs
    assert again.eval_estimator == ps.MonteCarlo(6, chunk=2)
    other = ps.symmetrize(model(), REPS, ps.Rep(NODES, SPACE), DISTRIBUTIONS[name]()).eval()
    assert not torch.equal(first, other(**x, generator=torch.Generator().manual_seed(1), samples=6))


def test_nothing_is_overwritten_unasked(tmp_path):
    phi = ps.symmetrize(model(), REPS, ps.Rep(NODES, SPACE), "haar")
    ps.save(phi, tmp_path)
    before = (tmp_path / "model.safetensors").read_bytes()
    nn.init.zeros_(next(phi.parameters()))
    with pytest.raises(FileExistsError, match="overwrite=True"):
        ps.save(phi, tmp_path)
    assert (tmp_path / "model.safetensors").read_bytes() == before
    ps.save(phi, tmp_path, overwrite=True)
    assert (tmp_path / "model.safetensors").read_bytes() != before


def test_files_that_do_not_fit_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"probsym\.json"):
        ps.load(tmp_path, model=model())
    ps.save(ps.symmetrize(model(), REPS, ps.Rep(NODES, SPACE), "haar"), tmp_path)
    with pytest.raises(ValueError, match="does not fit"):
        ps.load(tmp_path, model=MLP(30, (17,), 15, out_shape=(5, 3)))


def test_a_net_of_the_users_own_has_to_be_given(tmp_path):
    class Net(nn.Module):
        def forward(self, pos, vel):
            return {NODES: pos.square().sum(-1), SPACE: vel.mT @ vel.new_ones(vel.shape[1], 3)}

    phi = ps.symmetrize(model(), REPS, ps.Rep(NODES, SPACE), ps.Learned(Net(), NODES * SPACE))
    ps.save(phi, tmp_path)
    with pytest.raises(ValueError, match="distribution="):
        ps.load(tmp_path, model=model())
    again = ps.load(tmp_path, model=model(), distribution=ps.Learned(Net(), NODES * SPACE))
    x = inputs()
    assert torch.equal(*(m.eval()(**x, generator=torch.Generator().manual_seed(1)) for m in (phi, again)))


def test_reps_survive_json():
    nodes, space = ps.S("atoms", batch="batch"), ps.SO(2)
    spec = (
        {"x": ps.Rep(nodes), "edges": ps.Rep(nodes.labels), "v": ps.Rep(nodes, space.vector, space.det, None)},
        ps.Rep(),
    )
    assert decode(json.loads(json.dumps(encode(spec)))) == spec
