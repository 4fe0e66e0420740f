"""The law of orders with Gumbel noise, and gradients through it."""

import itertools
import math

import pytest
import torch
from torch import nn

import probsym as ps
from probsym.distributions import DefaultNet
from probsym.testing import assert_distribution, equivariance_error


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


class Scores(nn.Module):
    """One score per node (B, N), of any storage."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(2, 4), nn.Tanh(), nn.Linear(4, 1)).double()

    def forward(self, x, mask=None, batch=None):
        return self.net(x).squeeze(-1)


def learned(nodes=None, scale=0.7, gradient=None):
    torch.manual_seed(0)
    return ps.Learned(Scores(), nodes or ps.S("nodes"), "gumbel", scale, gradient or ps.ScoreFunction())


def sets(batch=3, nodes=4, seed=0):
    return torch.randn(batch, nodes, 2, generator=seeded(seed), dtype=torch.float64)


def model(nodes=4, out=1):
    torch.manual_seed(1)
    return nn.Sequential(nn.Flatten(), nn.Linear(2 * nodes, 8), nn.Tanh(), nn.Linear(8, out)).double()


def all_orders(p, x, n):
    """All n! orders of nodes, as elements (n!, B)."""
    orders = torch.tensor(list(itertools.permutations(range(n))), dtype=torch.float64)
    scores = orders[:, None].expand(-1, x.count, -1)
    stored = x.stored(p.group)
    return stored.project(scores, torch.zeros_like(scores))


def bound(p, x):
    return ps.symmetrize(nn.Identity(), ps.Rep(p.group), ps.Rep(p.group), p).bind((x,), {})


@pytest.mark.parametrize("scale", [0.2, 1.0])
def test_probabilities_sum_to_one_and_are_those_of_draws(scale):
    """Frequencies of 24 orders among 20,000 draws: chi-square of each input, false alarm below 1e-6."""
    p = learned(scale=scale)
    x = bound(p, sets())
    every = all_orders(p, x, 4)
    probability = p.log_prob(x, every).exp()
    assert torch.allclose(probability.sum(0), torch.ones(3, dtype=torch.float64), atol=1e-12)

    drawn = p.transport(x, p.noise(x, (20_000,), seeded()))
    same = (drawn[p.group].index[:, None] == every.index[None]).all(-1)
    count = same.sum(0).double()
    expected = 20_000 * probability.detach()
    rare = expected < 10  # together in one cell
    chi_square = torch.where(rare, 0.0, (count - expected).square() / expected).sum(0)
    lumped = (torch.where(rare, expected, 0.0).sum(0), torch.where(rare, count, 0.0).sum(0))
    chi_square += (lumped[1] - lumped[0]).square() / lumped[0].clamp_min(1.0)
    assert chi_square.max() < 85  # 24 degrees of freedom: P(chi^2 > 85) = 1e-8


def test_more_probable_orders_put_small_scores_first():
    p = learned(scale=0.1)
    x = bound(p, sets())
    by_score = x.stored(p.group).project(p.net(x.args[0]), torch.zeros(3, 4, dtype=torch.float64))
    every = p.log_prob(x, all_orders(p, x, 4))
    assert torch.allclose(p.log_prob(x, by_score.map(lambda t, _: t[None]))[0], every.max(0).values)


def storages(sizes=(4, 2, 3)):
    graphs = [sets(1, n, seed=n)[0] for n in sizes]
    lengths = torch.tensor(sizes)
    mask = torch.arange(max(sizes)) < lengths[:, None]
    yield "padded", ps.S("nodes", mask="mask"), {"x": nn.utils.rnn.pad_sequence(graphs, batch_first=True), "mask": mask}
    batch = torch.arange(len(sizes)).repeat_interleave(lengths)
    yield "ragged", ps.S("nodes", batch="batch"), {"x": torch.cat(graphs), "batch": batch}
    scattered = torch.tensor([1, 0, 2, 0, 1, 0, 2, 0, 2])  # graphs that do not lie one after the other
    rows = torch.empty(9, 2, dtype=torch.float64)
    for place, graph in enumerate(graphs):
        rows[scattered == place] = graph
    yield "scattered", ps.S("nodes", batch="batch"), {"x": rows, "batch": scattered}


@pytest.mark.parametrize("kind", ["padded", "ragged", "scattered"])
def test_storages_agree(kind):
    """Conformance; and each graph has the probability that it has alone."""
    nodes, call = next((nodes, call) for name, nodes, call in storages() if name == kind)
    p = learned(nodes)
    assert_distribution(p, call, {"x": ps.Rep(nodes)})
    x = ps.symmetrize(nn.Identity(), {"x": ps.Rep(nodes)}, ps.Rep(nodes), p).bind((), call)
    g = p.transport(x, p.noise(x, (5,), seeded()))
    together = p.log_prob(x, g)
    moved = g[nodes].index
    alone = learned()
    for place, n in enumerate((4, 2, 3)):
        single = bound(alone, sets(1, n, seed=n))
        if kind == "padded":
            index = moved[:, place, :n]
        else:
            rows = (call["batch"] == place).nonzero().squeeze(-1)
            index = torch.searchsorted(rows, moved[:, rows])
        h = single.stored(alone.group).permutation(index[:, None])
        assert torch.allclose(alone.log_prob(single, h)[:, 0], together[:, place], atol=1e-12)


# ---------------------------------------------------------------- gradients


def exact_gradient(p, x, f, wanted):
    """The gradient of sum over orders of p(order|x) f(pose), for a loss that is linear in the average."""
    every = all_orders(p, x, 4)
    phi = ps.symmetrize(f, ps.Rep(p.group), ps.Rep(), p)
    outputs = phi.orbit(x, every).tensors[0].squeeze(-1)
    average = (p.log_prob(x, every).exp() * outputs).sum()
    return torch.autograd.grad(average, wanted)


@pytest.mark.parametrize("k", [1, 4])
def test_gradients_are_unbiased(k):
    """To the net of p, to the model and to the inputs: the mean of 3,000 calls within 6 standard errors of the exact.

    A normal number is beyond 6 with probability 2e-9; there are fewer than 150.
    """
    p = learned()
    f = model()
    values = sets(2).requires_grad_()
    wanted = [*p.net.parameters(), *f.parameters(), values]
    x = bound(p, values)
    exact = exact_gradient(p, x, f, wanted)

    phi = ps.symmetrize(f, ps.Rep(p.group), ps.Rep(), p).train()
    draws: list[list[torch.Tensor]] = []
    for seed in range(150):
        # twenty independent estimates at once: the batch repeated
        many = values.repeat(20, 1, 1)
        y = phi(many, samples=k, generator=seeded(seed))
        draws.append([g / 20 for g in torch.autograd.grad(y.sum(), wanted)])
    for place, truth in enumerate(exact):
        each = torch.stack([gradients[place] for gradients in draws])
        error = each.std(0) / math.sqrt(len(each))
        assert ((each.mean(0) - truth).abs() <= 6 * error + 1e-12).all()


def test_the_baseline_removes_variance():
    """An output that does not depend on the order sends no gradient to p, with two samples or more."""
    p = learned()

    class Total(nn.Module):
        def forward(self, x):
            return x.sum((1, 2))[:, None] + 10

    phi = ps.symmetrize(Total(), ps.Rep(p.group), ps.Rep(), p).train()
    for k, silent in ((2, True), (1, False)):
        p.zero_grad()
        phi(sets(), samples=k, generator=seeded()).sum().backward()
        size = max(float(w.grad.abs().max()) for w in p.net.parameters())
        assert (size < 1e-12) is silent


def test_values_are_those_of_plain_samples():
    p = learned()
    plain = learned(gradient=ps.Relaxation())
    plain.load_state_dict(p.state_dict())
    f = model()
    phis = [ps.symmetrize(f, ps.Rep(q.group), ps.Rep(), q).train() for q in (p, plain)]
    noise = phis[0].draw_noise(sets(), samples=3, generator=seeded())
    a, b = (phi(sets(), noise=noise) for phi in phis)
    assert torch.allclose(a, b, atol=1e-14)
    phis[0].eval()
    assert torch.equal(phis[0](sets(), noise=noise), phis[1].eval()(sets(), noise=noise))


def test_beside_poses_and_in_chunks():
    """E(3) learns through its own gradient beside it; chunks do not change the gradient."""
    torch.manual_seed(0)
    nodes, space = ps.S("nodes"), ps.E(3, "space")
    rep = ps.Rep(nodes, space)
    pos = torch.randn(2, 4, 3, generator=seeded(), dtype=torch.float64)
    p = ps.Learned(DefaultNet({"pos": rep}, nodes * space), nodes * space, "gumbel", 1.0, ps.ScoreFunction())
    net = nn.Sequential(nn.Flatten(), nn.Linear(12, 8), nn.Tanh(), nn.Linear(8, 1))

    class Energy(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = net

        def forward(self, pos):
            return self.net(pos)

    phi = ps.symmetrize(Energy(), {"pos": rep}, ps.Rep(), p, example={"pos": pos}).double().train()
    noise = phi.draw_noise(pos=pos, samples=6, generator=seeded())
    gradients = []
    for chunk in (None, 2):
        phi.zero_grad()
        phi(pos=pos, noise=noise, estimator=ps.MonteCarlo(6, chunk=chunk)).sum().backward()
        gradients.append([w.grad.clone() for w in phi.parameters() if w.grad is not None])
    assert len(gradients[0]) == len(list(phi.parameters()))
    for a, b in zip(*gradients, strict=True):
        assert torch.allclose(a, b, atol=1e-12)
    assert equivariance_error(phi.eval(), {"pos": pos}).passed


# ---------------------------------------------------------------- noise at the input


def at_input(nodes=None, scale=0.5, gumbel=0.7):
    torch.manual_seed(0)
    return ps.Learned(Scores(), nodes or ps.S("nodes"), "input", scale, ps.ScoreFunction(gumbel))


@pytest.mark.parametrize("kind", ["padded", "ragged", "scattered"])
def test_at_the_input_in_every_storage(kind):
    nodes, call = next((nodes, call) for name, nodes, call in storages() if name == kind)
    assert_distribution(at_input(nodes), call, {"x": ps.Rep(nodes)})


class Shifted(nn.Module):
    """A net that sees what is added to its input."""

    def __init__(self, net, eps):
        super().__init__()
        self.net = net
        self.eps = eps

    def forward(self, x):
        return self.net(x + self.eps)


def test_at_the_input_the_law_is_that_given_the_noise():
    """Value and gradients are those of Gumbel noise on the scores of the inputs with noise, exactly."""
    values = sets()
    p = at_input()
    f = model()
    phi = ps.symmetrize(f, ps.Rep(p.group), ps.Rep(), p).train()
    noise = phi.draw_noise(values, samples=4, generator=seeded())
    (path,) = noise["features"]
    eps = noise["features"][path][:1]
    same = {**noise, "features": {path: eps.expand(4, *eps.shape[1:])}}

    given = ps.Learned(Shifted(p.net, 0.5 * eps[0]), p.group, "gumbel", 0.7, ps.ScoreFunction())
    psi = ps.symmetrize(f, ps.Rep(p.group), ps.Rep(), given).train()
    late = {"features": noise["orders"], "fallback": noise["fallback"]}

    y = phi(values, noise=same)
    z = psi(values, noise=late)
    assert torch.allclose(y, z, atol=1e-12)
    wanted = list(p.net.parameters())
    for a, b in zip(torch.autograd.grad(y.sum(), wanted), torch.autograd.grad(z.sum(), wanted), strict=True):
        assert float(a.abs().max()) > 0 or b.numel() == 1  # a constant of the scores, which are centred
        assert torch.allclose(a, b, atol=1e-12)
    # a negative control: other noise at the input is another law
    assert not torch.allclose(phi(values, noise=noise), z)


def test_at_the_input_beside_poses():
    torch.manual_seed(0)
    nodes, space = ps.S("nodes"), ps.E(3, "space")
    rep = ps.Rep(nodes, space)
    pos = torch.randn(2, 4, 3, generator=seeded(), dtype=torch.float64)
    p = ps.Learned(DefaultNet({"pos": rep}, nodes * space), nodes * space, "input", 0.3, ps.ScoreFunction(0.5))
    phi = ps.symmetrize(nn.Identity(), {"pos": rep}, rep, p, example={"pos": pos}).double()
    assert_distribution(phi.distribution, {"pos": pos}, {"pos": rep})


@pytest.mark.parametrize(("place", "gradient"), [("gumbel", ps.ScoreFunction()), ("input", ps.ScoreFunction(0.2))])
def test_saved_and_loaded(tmp_path, place, gradient):
    nodes = ps.S("nodes")
    p = ps.Learned(DefaultNet(ps.Rep(nodes), nodes), nodes, place, 0.7, gradient)
    phi = ps.symmetrize(model(), ps.Rep(nodes), ps.Rep(), p, example=sets()).double().eval()
    noise = phi.draw_noise(sets(), samples=3, generator=seeded())
    ps.save(phi, tmp_path / "phi")
    again = ps.load(tmp_path / "phi", model=model())
    assert again.distribution.relaxation == gradient
    assert torch.equal(again(sets(), noise=noise), phi(sets(), noise=noise))


def test_refusals():
    nodes = ps.S("nodes")
    with pytest.raises(ValueError, match="a ScoreFunction needs the law of the orders"):
        ps.Learned(Scores(), nodes, relaxation=ps.ScoreFunction())
    with pytest.raises(ValueError, match=r"whose size is to be given, as in ScoreFunction\(scale=0.1\)"):
        ps.Learned(Scores(), nodes, "input", relaxation=ps.ScoreFunction())
    with pytest.raises(
        ValueError, match=r"size of the noise is the `scale` of Learned, got ScoreFunction\(scale=0.2\)"
    ):
        ps.Learned(Scores(), nodes, "gumbel", relaxation=ps.ScoreFunction(0.2))
    with pytest.raises(ValueError, match="scale: expected a positive number or None, got -1"):
        ps.ScoreFunction(-1)
    with pytest.raises(ValueError, match="Canonical has no law of orders"):
        ps.Canonical(Scores(), nodes, ps.ScoreFunction())
    p = ps.Learned(Scores(), nodes)
    x = bound(p, sets())
    with pytest.raises(ValueError, match="known with noise='gumbel', got 'late'"):
        p.log_prob(x, all_orders(p, x, 4))
    space = ps.O(2)
    q = ps.Learned(nn.Identity(), space, "gumbel")
    y = ps.symmetrize(nn.Identity(), ps.Rep(None, space), ps.Rep(None, space), q).bind((sets(),), {})
    with pytest.raises(ValueError, match=r"O\(2\) has no permutations of nodes"):
        q.log_prob(y, space.identity((1, 3)))
