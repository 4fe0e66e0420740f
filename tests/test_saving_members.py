"""Members by name: a user's own are saved once they are registered, and what is not registered is refused."""

from __future__ import annotations

import inspect
import json
import sys
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from torch import nn

import probsym as ps
from probsym.distributions import EquivariantDistribution
from probsym.groups import Slot
from probsym.members import describe, is_registered, rebuild, registered
from probsym.nets import DeepSets, InvariantWeights
from probsym.saving import register

SPACE = ps.O(3, "space")
NODES = ps.S("nodes")
CLOUD = ps.Rep(NODES, SPACE)


@register(name="tests/Twice")
@dataclass(frozen=True, repr=False)
class Twice(Slot):
    """Two vectors, one after the other."""

    group: ps.O
    scale: float = 1.0

    def act(self, g: Any, x: torch.Tensor, axis: int, shared_dims: int) -> torch.Tensor:
        x = x.expand(*g.shape, *x.shape[shared_dims:])
        return (x.unflatten(-1, (2, self.group.dim)) @ g.matrix.mT).flatten(-2)


@register(name="tests/Repeated")
@dataclass(frozen=True)
class Repeated(ps.Estimator):
    """An estimator that calls another one with other noise; only its declaration is tested here."""

    inner: ps.Estimator
    times: int = 2

    def __call__(self, *args: Any) -> ps.Estimate:
        return self.inner(*args)


@register(name="tests/Quarter")
@dataclass(frozen=True)
class Quarter(type(ps.designs.DESIGNS["stratified"])):
    """A design with a block of its own."""

    block: int = 4


@register(name="tests/ScoreNet")
class ScoreNet(nn.Module):
    """A user's net of p that keeps what its constructor takes."""

    def __init__(self, hidden: int) -> None:
        super().__init__()
        self.hidden = hidden
        self.inner = DeepSets(hidden).double()

    def forward(self, x: torch.Tensor) -> dict[ps.Group, torch.Tensor]:
        centred = x - x.mean(1, keepdim=True)
        size = centred.square().sum(-1, keepdim=True)
        scores = self.inner(size).squeeze(-1)
        columns = [(scores.unsqueeze(-1) * size**i * centred).sum(1) for i in range(3)]
        return {NODES: scores, SPACE: torch.stack(columns, -1)}


@register(name="tests/Blend")
class Blend(ps.Learned):
    """A user's distribution, with nets of the library beside its own argument."""

    def __init__(self, group: ps.Group, share: float, net: nn.Module | None = None) -> None:
        super().__init__(ScoreNet(8) if net is None else net, group)
        self.share = share
        self.extra = InvariantWeights(hidden=4, scores=False)
        self.extra(torch.zeros(1, 2, 3, 1))

    def describe(self) -> dict[str, Any]:
        return {"group": self.group, "share": self.share, "net": self.net}


def x() -> torch.Tensor:
    return torch.randn(2, 4, 3, dtype=torch.float64)


class Base(nn.Linear):
    """A function of all nodes."""

    def __init__(self) -> None:
        super().__init__(12, 12, dtype=torch.float64)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x.flatten(1)).tanh().view_as(x)


def symmetrized(distribution: Any, **options: Any) -> ps.Symmetrizer:
    return ps.symmetrize(Base(), CLOUD, CLOUD, distribution, example=x(), **options).double().eval()


def outputs(phi: ps.Symmetrizer, inputs: torch.Tensor) -> torch.Tensor:
    return phi.eval()(inputs, samples=3, generator=torch.Generator().manual_seed(1))


DISTRIBUTIONS = {
    "learned, a net of one's own": lambda: ps.Learned(ScoreNet(6), NODES * SPACE, scale=0.5),
    "canonical, a net of one's own": lambda: ps.Canonical(ScoreNet(6), NODES * SPACE),
    "one's own": lambda: Blend(NODES * SPACE, 0.25),
    "one's own, a net given": lambda: Blend(NODES * SPACE, 0.25, ScoreNet(5)),
    "a product with one's own": lambda: ps.Haar(NODES) * Blend(SPACE, 0.5),
}


@pytest.mark.parametrize("name", DISTRIBUTIONS)
def test_distributions_of_the_users_own_come_back(name, tmp_path):
    phi, inputs = symmetrized(DISTRIBUTIONS[name]()), x()
    ps.save(phi, tmp_path)
    again = ps.load(tmp_path, Base())
    assert torch.equal(outputs(again, inputs), outputs(phi, inputs))
    assert describe(again.distribution) == describe(phi.distribution)
    nn.init.zeros_(next(phi.distribution.parameters()))
    assert not torch.equal(outputs(again, inputs), outputs(phi, inputs)), "the net of p does not matter here"


def test_values_of_the_users_own_come_back(tmp_path):
    rep, out = ps.Rep(None, Twice(SPACE, 2.0)), ps.Rep(None, Twice(SPACE))
    options = {"train_samples": Repeated(ps.MonteCarlo(4, design=Quarter())), "eval_samples": Repeated(ps.Exact(), 3)}
    phi = ps.symmetrize(nn.Linear(6, 6), rep, out, "haar", **options)
    ps.save(phi, tmp_path)
    again = ps.load(tmp_path, nn.Linear(6, 6))
    assert (again.inputs, again.output) == (rep, out)
    assert (again.train_estimator, again.eval_estimator) == tuple(options.values())


def test_a_name_that_is_not_registered_is_told_and_nothing_is_imported(tmp_path, monkeypatch):
    """The file names the module for the message alone."""
    ps.save(symmetrized(DISTRIBUTIONS["one's own"]()), tmp_path)
    file = tmp_path / "probsym.json"
    (tmp_path / "harmful.py").write_text("raise SystemExit('imported')\n")
    monkeypatch.syspath_prepend(tmp_path)
    config = json.loads(file.read_text())
    assert config["distribution"]["from"] == Blend.__module__
    for name in ("harmful.Blend", "os.system", "builtins.eval", "torch.load"):
        config["distribution"] |= {"member": name, "from": "harmful"}
        file.write_text(json.dumps(config))
        with pytest.raises(ValueError, match=f"no class is registered as '{name}': import harmful.*register"):
            ps.load(tmp_path, Base())
    assert "harmful" not in sys.modules


def test_a_member_at_the_place_of_another_kind_is_refused(tmp_path):
    ps.save(symmetrized("haar"), tmp_path)
    file = tmp_path / "probsym.json"
    whole = json.loads(file.read_text())
    for place, wrong in [
        ("distribution", "eval_samples"),
        ("eval_samples", "distribution"),
        ("train_samples", "output"),
        ("output", "eval_samples"),
    ]:
        file.write_text(json.dumps({**whole, place: whole[wrong]}))
        with pytest.raises((ValueError, TypeError), match=place.split("_")[0]):
            ps.load(tmp_path, Base())


def test_a_distribution_that_is_not_registered_is_refused(tmp_path):
    class Unknown(Blend):
        pass

    with pytest.raises(ValueError, match=r"^distribution: Unknown: Unknown is not registered.*register"):
        ps.save(symmetrized(Unknown(NODES * SPACE, 0.5)), tmp_path / "model")
    assert not (tmp_path / "model").exists()


def test_a_class_that_does_not_keep_its_arguments_is_told_what_to_do(tmp_path):
    @register(name="tests/Forgetful")
    class Forgetful(ps.Haar):
        def __init__(self, group: ps.Group, order: int = 2) -> None:
            super().__init__(group)

    with pytest.raises(ValueError, match=r"takes 'order', but it has no attribute.*describe\(\)"):
        ps.save(symmetrized(Forgetful(NODES * SPACE)), tmp_path)

    @register(name="tests/Starred")
    class Starred(ps.Haar):
        def __init__(self, *factors: ps.Group) -> None:
            super().__init__(factors[0] * factors[1])

    with pytest.raises(ValueError, match=r"takes \*factors.*describe\(\)"):
        ps.save(symmetrized(Starred(NODES, SPACE)), tmp_path)


def test_what_would_come_back_as_something_else_is_refused(tmp_path):
    """An attribute that is not the argument of the same name, and a net that depends on more than it tells."""

    @register(name="tests/Doubled")
    class Doubled(ps.Haar):
        def __init__(self, group: ps.Group, scale: float = 1.0) -> None:
            super().__init__(group)
            self.scale = 2 * scale

    with pytest.raises(ValueError, match=r"^distribution: it would be loaded as .*'scale': 4\.0.*'scale': 2\.0"):
        ps.save(symmetrized(Doubled(NODES * SPACE)), tmp_path)

    net = ScoreNet(6)
    net.inner = DeepSets(7).double()
    with pytest.raises(
        ValueError, match=r"^distribution: net\.inner\.head\.weight of shape \(1, 7\) would be .*\(1, 6\)"
    ):
        ps.save(symmetrized(ps.Learned(net, NODES * SPACE)), tmp_path)

    net = ScoreNet(6)
    net.added = nn.Linear(2, 2)
    with pytest.raises(ValueError, match=r"^distribution: net\.added\.bias would be only in the one that is saved"):
        ps.save(symmetrized(ps.Learned(net, NODES * SPACE)), tmp_path)

    @register(name="tests/Unequal")
    @dataclass(frozen=True, repr=False)
    class Unequal(Twice):
        label: object = field(default_factory=lambda: next(numbers), init=False)

    numbers = iter(range(100))
    phi = ps.symmetrize(nn.Linear(6, 6), ps.Rep(None, Unequal(SPACE)), ps.Rep(), "haar")
    with pytest.raises(ValueError, match=r"^inputs: .* would be loaded as"):
        ps.save(phi, tmp_path)
    assert not list(tmp_path.iterdir())


def test_saving_leaves_the_random_state_alone(tmp_path):
    phi = symmetrized("learned")
    before = torch.random.get_rng_state()
    ps.save(phi, tmp_path)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_the_net_of_a_compiled_p_is_that_of_the_plain_one(tmp_path):
    phi, inputs = symmetrized("learned"), x()
    expected = outputs(phi, inputs)
    phi.distribution.net = torch.compile(phi.distribution.net, backend="eager")
    ps.save(phi, tmp_path)
    assert torch.equal(outputs(ps.load(tmp_path, Base()), inputs), expected)


def test_two_classes_do_not_share_a_name():
    with pytest.raises(ValueError, match="'Haar' stands for probsym"):

        @register(name="Haar")
        class Other(EquivariantDistribution):
            pass

    with pytest.raises(TypeError, match="expected a class or a function"):
        register(ps.Haar(SPACE))
    assert registered()["Haar"] is ps.Haar


def test_a_class_that_is_defined_again_takes_the_place_of_the_former():
    """As in a notebook, whose cell runs twice."""

    def cell() -> type:
        @register(name="tests/Cell")
        @dataclass(frozen=True)
        class Cell:
            number: int = 0

        return Cell

    first, second = cell(), cell()
    assert isinstance(rebuild(describe(second(3))), second)
    assert rebuild(describe(first(4))) == second(4)


def test_subclasses_are_not_their_parents():
    class Sub(ps.Haar):
        pass

    assert is_registered(ps.Haar)
    assert not is_registered(Sub)


@pytest.mark.parametrize(
    "value",
    [
        None,
        True,
        3,
        0.5,
        float("inf"),
        "name",
        (1, (2, None)),
        [1, (2,), []],
        {"a": (1,), "b": {"c": torch.bfloat16}},
        SPACE * NODES,
        ps.S("atoms", batch="batch").edges_of(("kwargs", "bonds")),
        ps.Relaxation(0.2, 3),
        ps.Relaxation(0.2, 3, softmax=False),
        ps.MonteCarlo(48, design="octahedral"),
        ps.designs.as_design(("octahedral", "shifts")),
        ps.Adaptive(0.1, design=Quarter()),
    ],
    ids=repr,
)
def test_values_survive_json(value):
    again = rebuild(json.loads(json.dumps(describe(value))))
    assert again == value
    assert type(again) is type(value)


@pytest.mark.parametrize(
    ("value", "named"),
    [
        (torch.zeros(2), "Tensor is not registered"),
        (nn.Linear(2, 2), "Linear: Linear is not registered"),
        (len, "builtin_function_or_method is not registered"),
        ({1: 2}, "1: expected names as strings, got int"),
        (
            ps.MonteCarlo(4, design=ps.designs.Cyclic(object())) if False else {"a": object()},
            "object is not registered",
        ),
    ],
)
def test_values_that_cannot_be_described_are_named(value, named):
    with pytest.raises(ValueError, match=named):
        describe(value)


@pytest.mark.parametrize("data", [{}, {"member": "O"}, {"dtype": "randn"}, {"dtype": "load"}, {"other": 1}])
def test_descriptions_that_are_none_are_refused(data):
    with pytest.raises((ValueError, KeyError)):
        rebuild(data)


def test_every_public_member_of_the_library_is_registered():
    """Groups, slots, distributions, estimators and designs that can be made are known by name."""

    def all_below(base: type) -> set[type]:
        found = set()
        for cls in base.__subclasses__():
            found |= {cls} | all_below(cls)
        return found

    bases = (ps.Group, Slot, EquivariantDistribution, ps.Estimator, ps.designs.Design)
    own = {cls for base in bases for cls in all_below(base) if cls.__module__.startswith("probsym.")}
    parents = {parent for cls in own for parent in cls.__mro__[1:]}  # what members have in common is not a member
    made = {cls for cls in own - parents if not inspect.isabstract(cls)}
    assert {cls.__name__ for cls in made if not is_registered(cls)} == set()
    assert len(made) > 30
