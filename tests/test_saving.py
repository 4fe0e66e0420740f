"""Saving and loading: safetensors and JSON, bit-equal outputs, nothing overwritten unasked."""

from __future__ import annotations

import hashlib
import json
import random
from dataclasses import dataclass

import pytest
import torch
from safetensors.torch import save as to_bytes
from torch import nn

import probsym as ps
from probsym.distributions import DefaultNet
from probsym.groups import Slot
from probsym.members import describe, rebuild
from probsym.nets import InvariantWeights

NODES, SPACE = ps.S("nodes"), ps.E(3, "space")
REPS = {"pos": ps.Rep(NODES, SPACE), "vel": ps.Rep(NODES, SPACE.vector)}


class Flat(nn.Module):
    """A perceptron on all coordinates of five points and their velocities."""

    def __init__(self, hidden: int = 16) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(30, hidden), nn.Tanh(), nn.Linear(hidden, 15))

    def forward(self, pos: torch.Tensor, vel: torch.Tensor) -> torch.Tensor:
        return self.net(torch.cat([pos, vel], -1).flatten(1)).view_as(pos)


def model() -> nn.Module:
    return Flat()


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


@pytest.mark.parametrize("name", ["learned", "canonical"])
def test_models_saved_with_the_net_of_all_pairs_are_rebuilt_with_it(name, tmp_path):
    """Those without a number of the net are folders of the first format: `learned-all-pairs` is one."""
    kind = ps.Learned if name == "learned" else ps.Canonical
    net = DefaultNet(REPS, NODES * SPACE, version=1)
    phi = ps.symmetrize(model(), REPS, ps.Rep(NODES, SPACE), kind(net, NODES * SPACE), example=inputs()).eval()
    ps.save(phi, tmp_path / "saved")
    config = json.loads((tmp_path / "saved" / "probsym.json").read_text())
    net_arguments = config["distribution"]["arguments"]["net"]["arguments"]
    assert net_arguments["version"] == 1
    again = ps.load(tmp_path / "saved", model()).eval()
    call, seeds = inputs(), [torch.Generator().manual_seed(3) for _ in range(2)]
    assert torch.equal(phi(**call, generator=seeds[0]), again(**call, generator=seeds[1]))
    assert isinstance(again.distribution.net.nets[0], InvariantWeights)
    net_arguments["version"] = 4
    (tmp_path / "saved" / "probsym.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match="version"):
        ps.load(tmp_path / "saved", model())


def test_models_saved_with_a_virtual_node_are_rebuilt_with_it(tmp_path):
    """As all default nets of graphs were before version 3."""
    adjacency = torch.rand(2, 5, 5)
    base = nn.Sequential(nn.Flatten(), nn.Linear(25, 1))
    calls = {}
    for version in (2, 3):
        net = DefaultNet(ps.Rep(NODES, NODES), NODES, version=version)
        phi = ps.symmetrize(base, ps.Rep(NODES, NODES), ps.Rep(), ps.Learned(net, NODES), example=(adjacency,)).eval()
        folder = tmp_path / f"version-{version}"
        ps.save(phi, folder)
        again = ps.load(folder, nn.Sequential(nn.Flatten(), nn.Linear(25, 1))).eval()
        first, second = (m(adjacency, generator=torch.Generator().manual_seed(1)) for m in (phi, again))
        assert torch.equal(first, second)
        calls[version] = sorted(name for name, _ in again.named_parameters())
    assert any("virtual" in name for name in calls[2])
    assert not any("virtual" in name for name in calls[3])


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
        ps.load(tmp_path, model=Flat(17))


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
    assert rebuild(json.loads(json.dumps(describe(spec)))) == spec


CLOUD = ps.Rep(None, ps.O(3, "space"))


def cloud_model(dtype: torch.dtype = torch.float32) -> nn.Module:
    return nn.Linear(3, 3).to(dtype)


class WithBuffer(nn.Linear):
    def __init__(self, buffer: torch.Tensor) -> None:
        super().__init__(3, 3)
        self.register_buffer("held", buffer)


class WithExtraState(nn.Linear):
    def get_extra_state(self):
        return {"step": 7}


def refused(phi: ps.Symmetrizer, folder, named: str) -> None:
    """`save` names what it cannot keep, and leaves nothing behind."""
    with pytest.raises(ValueError, match=named):
        ps.save(phi, folder)
    assert not folder.exists()


@dataclass(frozen=True)
class OwnSlot(Slot):
    def act(self, g, x, axis, shared_dims):
        return x.expand(*g.shape, *x.shape[shared_dims:])


@dataclass(frozen=True, repr=False)
class OwnGroup(ps.O):
    pass


@dataclass(frozen=True)
class OwnEstimator(ps.MonteCarlo):
    pass


@dataclass(frozen=True)
class OwnDesign(type(ps.designs.DESIGNS["antithetic"])):
    pass


OWN = {
    "OwnSlot": lambda: ps.symmetrize(cloud_model(), CLOUD, ps.Rep(OwnSlot(ps.O(3, "space"))), "haar"),
    "OwnGroup": lambda: ps.symmetrize(cloud_model(), ps.Rep(None, OwnGroup(3)), ps.Rep(None, OwnGroup(3)), "haar"),
    "OwnEstimator": lambda: ps.symmetrize(cloud_model(), CLOUD, CLOUD, "haar", eval_samples=OwnEstimator(4)),
    "OwnDesign": lambda: ps.symmetrize(
        cloud_model(), CLOUD, CLOUD, "haar", train_samples=ps.MonteCarlo(4, design=OwnDesign())
    ),
    "1: expected names": lambda: ps.symmetrize(cloud_model(), ({1: CLOUD},), CLOUD, "haar"),
}


@pytest.mark.parametrize("named", OWN)
def test_members_of_the_users_own_are_refused_by_save(named, tmp_path):
    refused(OWN[named](), tmp_path / "model", named)


@pytest.mark.parametrize(
    ("base", "named"),
    [
        (WithExtraState(3, 3), r"model\._extra_state: .*get_extra_state"),
        (WithBuffer(torch.eye(3).to_sparse()), r"model\.held: expected a dense tensor"),
        (WithBuffer(torch.eye(3, device="meta")), r"model\.held: .*meta"),
        (WithBuffer(torch.tensor([1.0, torch.nan])), r"model\.held: .*NaN"),
        (nn.LazyLinear(3), r"model\.weight: .*first call"),
    ],
)
def test_entries_that_cannot_be_kept_are_refused_by_name(base, named, tmp_path):
    refused(ps.symmetrize(base, CLOUD, CLOUD, "haar"), tmp_path / "model", named)


def test_a_net_of_p_that_no_call_has_built_is_refused(tmp_path):
    refused(ps.symmetrize(cloud_model(), CLOUD, CLOUD, "learned"), tmp_path / "model", r"distribution.* example=")


@pytest.mark.parametrize("distribution", ["haar", "learned", "canonical"])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_weights_keep_their_dtype(dtype, distribution, tmp_path):
    x = torch.randn(4, 5, 3, dtype=dtype)
    phi = ps.symmetrize(cloud_model(dtype), CLOUD, CLOUD, distribution, eval_samples=3, example=x)
    phi = phi.to(dtype) if dtype == torch.float64 else phi
    ps.save(phi, tmp_path)
    again = ps.load(tmp_path, model=cloud_model())
    expected = {name: tensor.dtype for name, tensor in phi.state_dict().items()}
    assert {name: tensor.dtype for name, tensor in again.state_dict().items()} == expected
    first, second = (m.eval()(x, generator=torch.Generator().manual_seed(1)) for m in (phi, again))
    assert torch.equal(first, second)


@pytest.mark.parametrize("dtype", [torch.complex64, torch.complex128])
@pytest.mark.parametrize("shape", [(), (2,), (3, 2)])
def test_complex_numbers_come_back(dtype, shape, tmp_path):
    buffer = torch.randn(shape, dtype=dtype).conj()
    ps.save(ps.symmetrize(WithBuffer(buffer), CLOUD, CLOUD, "haar"), tmp_path)
    again = ps.load(tmp_path, model=WithBuffer(torch.zeros(shape, dtype=dtype)))
    assert again.model.held.dtype == dtype
    assert torch.equal(again.model.held, buffer)


@pytest.mark.parametrize("before", [False, True])
@pytest.mark.parametrize("after", [False, True])
def test_a_compiled_model_has_the_names_of_the_plain_one(before, after, tmp_path):
    def made(compiled: bool) -> nn.Module:
        model = nn.Sequential(nn.Linear(3, 3))
        return torch.compile(model, backend="eager") if compiled else model

    phi = ps.symmetrize(made(before), CLOUD, CLOUD, "haar")
    ps.save(phi, tmp_path)
    again = ps.load(tmp_path, model=made(after))
    for ours, theirs in zip(phi.parameters(), again.parameters(), strict=True):
        assert torch.equal(ours, theirs)


def test_files_of_the_first_release_still_load(tmp_path):
    """They know neither digest nor complex entries."""
    phi = ps.symmetrize(cloud_model(), CLOUD, CLOUD, "haar")
    ps.save(phi, tmp_path)
    config = json.loads((tmp_path / "probsym.json").read_text())
    del config["sha256"], config["complex"]
    (tmp_path / "probsym.json").write_text(json.dumps(config))
    assert torch.equal(ps.load(tmp_path, model=cloud_model()).model.weight, phi.model.weight)


def test_weights_that_are_not_those_of_the_declaration_are_refused(tmp_path):
    """One flipped bit, and the weights of another save."""
    ps.save(ps.symmetrize(cloud_model(), CLOUD, CLOUD, "haar"), tmp_path)
    weights = bytearray((tmp_path / "model.safetensors").read_bytes())
    weights[-1] ^= 1
    (tmp_path / "model.safetensors").write_bytes(bytes(weights))
    with pytest.raises(ValueError, match=r"model\.safetensors: damaged"):
        ps.load(tmp_path, model=cloud_model())


def test_another_format_and_nan_are_refused(tmp_path):
    ps.save(ps.symmetrize(cloud_model(), CLOUD, CLOUD, "haar"), tmp_path)
    config = json.loads((tmp_path / "probsym.json").read_text())
    (tmp_path / "probsym.json").write_text(json.dumps({**config, "format": 99}))
    with pytest.raises(ValueError, match="expected format 1 or 2, got 99"):
        ps.load(tmp_path, model=cloud_model())
    content = to_bytes({"model.weight": torch.full((3, 3), torch.nan), "model.bias": torch.zeros(3)})
    (tmp_path / "model.safetensors").write_bytes(content)
    digest = hashlib.sha256(content).hexdigest()
    (tmp_path / "probsym.json").write_text(json.dumps({**config, "sha256": digest}))
    with pytest.raises(ValueError, match=r"model\.weight: expected numbers, got NaN"):
        ps.load(tmp_path, model=cloud_model())


def test_damaged_declarations_are_one_clear_error(tmp_path):
    """Seeded changes of the JSON: each loads the same model, or is a ValueError that names the file or an argument."""
    phi = ps.symmetrize(cloud_model(), CLOUD, CLOUD, "learned", example=torch.randn(2, 4, 3))
    ps.save(phi, tmp_path)
    file = tmp_path / "probsym.json"
    whole = file.read_text()
    random_numbers = random.Random(0)
    deep = "[" * 100_000
    changes = [deep, "", "null", "[]", "{}", '{"format": 1}', whole[:100], whole.replace('"Learned"', '"Own"')]
    for _ in range(300):
        place = random_numbers.randrange(len(whole))
        piece = random_numbers.choice(["", "x", "9", '"', "}", "null", "[]", "-1", "1e999", "true"])
        changes.append(whole[:place] + piece + whole[place + random_numbers.randrange(4) :])
    refused = 0
    for change in changes:
        file.write_text(change)
        try:
            ps.load(tmp_path, model=cloud_model())
        except ValueError:
            refused += 1
    assert refused > len(changes) / 2


def test_damaged_weights_are_one_clear_error(tmp_path):
    """Without a digest, as in older folders: seeded changes of the bytes."""
    phi = ps.symmetrize(cloud_model(), CLOUD, CLOUD, "haar")
    ps.save(phi, tmp_path)
    config = json.loads((tmp_path / "probsym.json").read_text())
    del config["sha256"]
    (tmp_path / "probsym.json").write_text(json.dumps(config))
    file = tmp_path / "model.safetensors"
    whole = file.read_bytes()
    random_numbers = random.Random(0)
    changes = [b"", whole[:7], whole[:40], b"\xff" * 64, whole + b"more"]
    for _ in range(300):
        changed = bytearray(whole)
        changed[random_numbers.randrange(len(whole))] = random_numbers.randrange(256)
        changes.append(bytes(changed))
    refused = 0
    for change in changes:
        file.write_bytes(change)
        try:
            ps.load(tmp_path, model=cloud_model())
        except ValueError as error:
            refused += "model.safetensors" in str(error)
    assert refused > len(changes) / 2


def test_saves_symmetrizers_alone(tmp_path):
    space = ps.SO(3)
    phi = ps.symmetrize(nn.Identity(), ps.Rep(None, space), ps.Rep(None, space), "haar")
    with pytest.raises(TypeError, match="phi: expected a Symmetrizer, got Frozen"):
        ps.save(phi.frozen(0), tmp_path / "frozen")
    ps.save(torch.compile(phi, backend="eager"), tmp_path / "compiled")
    assert ps.load(tmp_path / "compiled", model=nn.Identity()).group == phi.group
