"""Nets over groups whose elements carry no gradient are refused in training; features must fit the group exactly."""

import copy
import warnings

import pytest
import torch
from torch import nn

import probsym as ps
from cases import NODES, SETTINGS, randn, seeded
from probsym.distributions import DefaultNet
from probsym.learning import identity_distance


class Linear(nn.Module):
    """Any features of the right shape, from parameters."""

    def __init__(self, *shape):
        super().__init__()
        self.shape, self.weight = shape, nn.Parameter(randn(*shape))

    def forward(self, x):
        return x.flatten(1).sum(1).reshape(-1, *[1] * len(self.shape)) * self.weight


class Total(nn.Module):
    def __init__(self, scale=1.0):
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(scale).double())

    def forward(self, x):
        return self.scale * (x * torch.arange(x[0].numel()).view(x[0].shape)).flatten(1).sum(1, keepdim=True)


SILENT = {
    repr(group): (group, rep, shape, x)
    for group, rep, shape, x in [
        (ps.C(4), ps.Rep(None, ps.C(4)), (4,), randn(3, 2, 4, 4)),
        (ps.C(1), ps.Rep(None, ps.C(1)), (1,), randn(3, 2, 4, 4)),
        (ps.C(3), ps.Rep(None, ps.C(3)), (3,), randn(3, 2, 4, 4)),
        (ps.D(4), ps.Rep(None, ps.D(4)), (8,), randn(3, 2, 4, 4)),
        (ps.D(1), ps.Rep(None, ps.D(1)), (2,), randn(3, 2, 4, 4)),
        (ps.Shift((3, 4)), ps.Rep(None, ps.Shift((3, 4))), (3, 4), randn(3, 2, 3, 4)),
        (ps.Signs(4), ps.Rep(None, ps.Signs(4)), (4,), randn(3, 2, 4)),
        (ps.O(1), ps.Rep(None, ps.O(1)), (1, 2), randn(3, 4, 1)),
    ]
}
LOUD = {
    repr(group): (group, rep, shape, x)
    for group, rep, shape, x in [
        (ps.S("n"), ps.Rep(ps.S("n")), (4,), randn(3, 4)),
        (ps.O(2), ps.Rep(None, ps.O(2)), (2, 2), randn(3, 4, 2)),
        (ps.SO(3), ps.Rep(None, ps.SO(3)), (3, 3), randn(3, 4, 3)),
        (ps.E(3), ps.Rep(None, ps.E(3)), (3, 3), randn(3, 4, 3)),
        (ps.SE(2), ps.Rep(None, ps.SE(2)), (2, 3), randn(3, 4, 2)),
    ]
}
MAKE = {"learned": ps.Learned, "canonical": ps.Canonical}


def made(kind, name):
    group, rep, shape, x = (SILENT | LOUD)[name]
    p = MAKE[kind](Linear(*shape), group)
    return ps.symmetrize(Total(), rep, ps.Rep(), p).double(), x


@pytest.mark.parametrize("b", [1, 3])
@pytest.mark.parametrize("kind", MAKE)
@pytest.mark.parametrize("name", SILENT)
def test_training_is_refused(name, kind, b):
    phi, x = made(kind, name)
    group, x = phi.group, x[:b]
    noise = phi.eval().draw_noise(x, samples=2)
    phi.train()
    calls = {
        "call": lambda: phi(x), "samples": lambda: phi(x, samples=3), "estimate": lambda: phi.estimate(x, samples=2),
        "chunks": lambda: phi(x, estimator=ps.MonteCarlo(4, chunk=2)), "sample": lambda: phi.sample(x),
        "hybrid": lambda: phi(x, estimator=ps.MonteCarlo(1)),
        "identity_distance": lambda: identity_distance(phi, (x,), noise),
    }  # fmt: skip
    for call in calls.values():
        with pytest.raises(ValueError, match="carry no gradient") as caught:
            call()
        assert repr(group) in str(caught.value)
        assert all(remedy in str(caught.value) for remedy in ("haar", "requires_grad_(False)", "evaluation"))


@pytest.mark.parametrize("kind", MAKE)
@pytest.mark.parametrize("name", SILENT)
def test_what_needs_no_gradient_is_not_refused(name, kind):
    phi, x = made(kind, name)
    fresh = copy.deepcopy(phi)
    with torch.no_grad():  # Lightning's sanity check, validation in training mode
        assert phi.train()(x).isfinite().all()
    with torch.inference_mode():
        assert phi(x).isfinite().all()
    phi.eval()(x).sum().backward()
    assert phi.model.scale.grad is not None
    leaf = x.clone().requires_grad_()
    phi(leaf).sum().backward()
    assert leaf.grad.isfinite().all()
    fresh.distribution.net.requires_grad_(False)
    fresh.train()(x).sum().backward()
    assert fresh.model.scale.grad is not None
    fresh.train()(x.clone().requires_grad_()).sum().backward()  # a frozen net, forces in training
    phi.train().distribution.eval()  # the trained p of a model that goes on training
    phi(x).sum().backward()


@pytest.mark.parametrize("kind", MAKE)
@pytest.mark.parametrize("name", LOUD)
def test_groups_that_learn_are_trained(name, kind):
    phi, x = made(kind, name)
    phi.train()(x, samples=4, generator=seeded()).square().sum().backward()
    grad = phi.distribution.net.weight.grad
    assert grad is not None
    assert grad.isfinite().all()


class Joint(nn.Module):
    """Scores of nodes and of quarter turns from one trunk."""

    def __init__(self, nodes, turns, detach):
        super().__init__()
        self.nodes, self.turns, self.detach = nodes, turns, detach
        self.trunk, self.head = nn.Linear(4, 4).double(), nn.Linear(4, 4).double()

    def forward(self, x):
        h = self.trunk(x.flatten(2)).tanh()
        turns = self.head(h.sum(1))
        return {self.nodes: h.sum(-1), self.turns: turns.detach() if self.detach else turns}


@pytest.mark.parametrize("detach", [False, True])
@pytest.mark.parametrize("kind", MAKE)
def test_one_net_for_nodes_and_turns(kind, detach):
    """Refused for the factor that does not learn, unless the net says that it is not to."""
    nodes, turns = ps.S("images"), ps.C(4)
    rep, x = ps.Rep(nodes, turns), randn(3, 4, 2, 2)
    net = Joint(nodes, turns, detach)
    phi = ps.symmetrize(Total(), rep, ps.Rep(), MAKE[kind](net, nodes * turns)).double().train()
    if detach:
        phi(x, samples=4).square().sum().backward()
        assert net.trunk.weight.grad.abs().sum() > 0
        return
    with pytest.raises(ValueError, match=r"C\(4\) carry no gradient.*detach its features of C\(4\)"):
        phi(x)


@pytest.mark.parametrize("detach", [False, True])
def test_products_name_the_part(detach):
    nodes, turns = ps.S("images"), ps.C(4)
    rep, x = ps.Rep(nodes, turns), randn(3, 4, 2, 2)

    class Scores(nn.Linear):
        def forward(self, x):
            return super().forward(x.flatten(2)).squeeze(-1)

    learned = ps.Learned(Scores(4, 1), nodes)
    good = ps.symmetrize(Total(), rep, ps.Rep(), learned * ps.Haar(turns)).double().train()
    good(x, samples=2).square().sum().backward()
    assert learned.net.weight.grad.abs().sum() > 0
    bad = ps.symmetrize(Total(), rep, ps.Rep(), learned * ps.Learned(Linear(4), turns)).double().train()
    with pytest.raises(ValueError, match=r"elements of C\(4\) carry no gradient"):
        bad(x)
    bad.distribution.parts[1].net.requires_grad_(False)
    bad(x).sum().backward()


def test_ddp_says_so_at_the_first_step():
    phi, x = made("canonical", "C(4)")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.distributed.init_process_group("gloo", store=torch.distributed.HashStore(), rank=0, world_size=1)
    try:
        with pytest.raises(ValueError, match="carry no gradient"):
            nn.parallel.DistributedDataParallel(phi)(x)
        phi.distribution.net.requires_grad_(False)
        model = nn.parallel.DistributedDataParallel(phi)
        for _ in range(2):
            model(x).sum().backward()
    finally:
        torch.distributed.destroy_process_group()


# ---------------------------------------------------------------- shapes of features


class Fixed(nn.Module):
    def __init__(self, value):
        super().__init__()
        self.value = value

    def forward(self, *args, **kwargs):
        return self.value


def wrong(shape):
    """Shapes that are not it, all of which would broadcast or be cut somewhere."""
    found = [shape[:-1], (*shape, 1), (*shape[:-1], shape[-1] + 1), (1, *shape[1:]), (*shape[:-1], 1), (shape[0],), ()]
    return [s for s in dict.fromkeys(found) if s != shape]


@pytest.mark.parametrize("kind", MAKE)
@pytest.mark.parametrize("name", SILENT | LOUD)
def test_features_of_another_shape_are_refused(name, kind):
    group, rep, shape, x = (SILENT | LOUD)[name]
    columns = group.isometric
    for bad in wrong((len(x), *shape)):
        if columns and len(bad) == 3 and bad[:2] == (len(x), shape[0]):
            continue  # any number of columns will do
        phi = ps.symmetrize(Total(), rep, ps.Rep(), MAKE[kind](Fixed(torch.zeros(bad)), group)).double().eval()
        with pytest.raises(ValueError, match="net: expected features of") as caught:
            phi(x)
        want = (len(x), *shape)
        told = f"({want[0]}, {want[1]}, M)" if columns else str(want)
        assert f"{group!r} of shape {told}, got {bad}" in str(caught.value)
    phi = ps.symmetrize(Total(), rep, ps.Rep(), MAKE[kind](Fixed(randn(len(x), *shape)), group)).double().eval()
    assert phi(x).isfinite().all()


@pytest.mark.parametrize("setting", ["S x E(3)", "padded S x E(3)", "ragged S x E(3)"])
def test_features_of_nodes_and_space(setting):
    """Each storage has its own shape of scores; origins and vectors are both looked at."""
    s = SETTINGS[setting]()
    nodes, space = (next(f for f in s.group.factors if isinstance(f, kind)) for kind in (ps.S, ps.E))
    p = ps.Canonical(DefaultNet(s.inputs, s.group), s.group)
    good = s.symmetrized(p).distribution.net(**s.call)
    origin, frame = good[space] if isinstance(good[space], tuple) else (frame_origin(s), good[space])
    bad = {
        "scores": {**good, nodes: good[nodes][..., None]}, "cut": {**good, nodes: good[nodes][..., :1]},
        "origin": {**good, space: (origin[:1], frame)}, "flat": {**good, space: (origin, frame[..., 0])},
        "frame": {**good, space: frame[:, :2]},
    }  # fmt: skip
    for value in bad.values():
        phi = ps.symmetrize(s.model, s.inputs, s.output, ps.Canonical(Fixed(value), s.group)).eval()
        with pytest.raises(ValueError, match="net: expected features of"):
            phi(**s.call)
    for value, says in (
        ({**good, space: (origin, frame, frame)}, r"vectors of E.*origin"),
        ({**good, nodes: [1.0]}, "tensor of features"),
        ({**good, nodes: good[nodes] * 1j}, "real features"),
    ):  # fmt: skip
        phi = ps.symmetrize(s.model, s.inputs, s.output, ps.Canonical(Fixed(value), s.group)).eval()
        with pytest.raises(TypeError, match=says):
            phi(**s.call)


def frame_origin(s):
    return torch.zeros(3, 3).double()


# ---------------------------------------------------------------- what can be listed


@pytest.mark.parametrize("name", SILENT | LOUD)
def test_exact_of_a_learned_p_says_why_not(name):
    phi, x = made("learned", name)
    with pytest.raises(TypeError, match=r"law of a net and noise.*MonteCarlo"):
        phi.eval()(x, estimator=ps.Exact())
    with pytest.raises(TypeError, match="no finite factor to enumerate"):
        phi(x, estimator=ps.Hybrid(2))


def test_what_haar_cannot_list():
    for group, says in ((ps.O(3), "infinite or too large support"), (ps.S(9), "too large support, 362880 elements")):
        phi = ps.symmetrize(Total(), ps.Rep(None, group) if group == ps.O(3) else ps.Rep(group), ps.Rep(), "haar")
        with pytest.raises(TypeError, match=says):
            phi.double()(randn(2, 4, 3) if group == ps.O(3) else randn(2, 9), estimator=ps.Exact())


def test_the_default_net_is_refused_too():
    phi = ps.symmetrize(Total(), ps.Rep(None, ps.O(1)), ps.Rep(), "learned").double()
    with pytest.raises(ValueError, match=r"O\(1\) carry no gradient"):
        phi.train()(randn(3, 4, 1))
    assert NODES not in phi.group.factors
