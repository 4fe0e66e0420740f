"""Chunks are evaluated again in backward: only the first evaluation may change the model, and both are the same."""

import pytest
import torch
from torch import nn

import probsym as ps
from cases import randn, seeded
from probsym.estimators import recomputation

TURNS, NODES = ps.C(4), ps.S("nodes")


class Average(nn.Module):
    """A momentum average that is assigned, not written in place, and that the output depends on."""

    def __init__(self):
        super().__init__()
        self.register_buffer("mean", torch.zeros(3).double())

    def forward(self, x):
        self.mean = 0.9 * self.mean + 0.1 * x.detach().mean((0, 2, 3))
        return x * (1 + self.mean[:, None, None])


def without_checkpoint(function, *args, **options):
    """In place of torch's: everything is kept until backward."""
    return function(*args)


def flat(features):
    return nn.Sequential(nn.Flatten(1), features, nn.Unflatten(1, (3, 2, 2))).double()


MODELS = {
    "batch norm": lambda: nn.BatchNorm2d(3).double(),
    "cumulative": lambda: nn.BatchNorm2d(3, momentum=None).double(),
    "no statistics": lambda: nn.BatchNorm2d(3, track_running_stats=False).double(),
    "flat": lambda: flat(nn.Sequential(nn.Linear(12, 12), nn.BatchNorm1d(12, affine=False), nn.Linear(12, 12))),
    "instance norm": lambda: nn.InstanceNorm2d(3, affine=True, track_running_stats=True).double(),
    "spectral norm": lambda: flat(nn.utils.parametrizations.spectral_norm(nn.Linear(12, 12))),
    "dropout": lambda: nn.Sequential(nn.Conv2d(3, 3, 1), nn.Dropout(0.5), nn.BatchNorm2d(3)).double(),
    "average": Average,
    "frozen": lambda: nn.Sequential(nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3).eval()).double(),
}
ESTIMATORS = {
    "samples": (ps.MonteCarlo(6, chunk=2), 3), "uneven": (ps.MonteCarlo(5, chunk=2), 3),
    "one by one": (ps.MonteCarlo(3, chunk=1), 3), "exact": (ps.Exact(chunk=3), 2),
}  # fmt: skip


def trained(name, estimator, steps=2, backward=True):
    """Buffers, outputs and gradients after training steps."""
    torch.manual_seed(0)
    model = MODELS[name]()
    phi = ps.symmetrize(model, ps.Rep(None, TURNS), ps.Rep(None, TURNS), "haar", train_samples=estimator)
    phi.train()
    if name == "frozen":
        model[1].eval()
    x, outputs = 5 * randn(2, 3, 2, 2) + 3, []
    x.requires_grad_()
    for _ in range(steps):
        y = phi(x, generator=seeded())
        outputs.append(y.detach())
        if backward:
            (y * randn(*y.shape, seed=3)).sum().backward()
    grads = [t.grad for t in (x, *model.parameters()) if t.grad is not None]
    return {k: v.clone() for k, v in model.named_buffers()}, outputs, grads


@pytest.mark.parametrize("estimator", ESTIMATORS)
@pytest.mark.parametrize("name", MODELS)
def test_the_second_evaluation_changes_nothing(name, estimator, monkeypatch):
    """As without activation checkpointing: the same outputs, buffers and gradients, step after step."""
    found = trained(name, ESTIMATORS[estimator][0])
    monkeypatch.setattr(recomputation, "checkpoint", without_checkpoint)
    expected = trained(name, ESTIMATORS[estimator][0])
    assert found[0].keys() == expected[0].keys()
    assert all(torch.equal(value, expected[0][key]) for key, value in found[0].items())
    for a, b in zip(found[1] + found[2], expected[1] + expected[2], strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_statistics_are_updated_once_a_chunk(estimator):
    estimator, chunks = ESTIMATORS[estimator]
    assert trained("batch norm", estimator)[0]["num_batches_tracked"] == 2 * chunks
    assert trained("batch norm", estimator, backward=False)[0]["num_batches_tracked"] == 2 * chunks
    assert trained("frozen", estimator)[0]["1.num_batches_tracked"] == 0


@pytest.mark.parametrize("name", ["batch norm", "cumulative", "flat", "spectral norm", "average"])
def test_the_control(name, monkeypatch):
    """Without the context the second evaluation counts as well."""
    found = trained(name, ps.MonteCarlo(6, chunk=2))
    monkeypatch.setattr(recomputation.Recomputation, "__enter__", lambda self: None)
    monkeypatch.setattr(recomputation.Recomputation, "__exit__", lambda self, *error: None)
    other = trained(name, ps.MonteCarlo(6, chunk=2))
    assert any(not torch.equal(value, other[0][key]) for key, value in found[0].items())


@pytest.mark.parametrize("estimator", [ps.MonteCarlo(6, chunk=4), ps.Hybrid(3, chunk=1)])
def test_with_a_learned_order(estimator):
    """The gradient of p goes through the chunks as well; of Hybrid each element is one."""

    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.norm, self.head = nn.BatchNorm1d(8).double(), nn.Linear(8, 1).double()

        def forward(self, x):
            return self.head(self.norm(x.flatten(1)).exp())

    class Scores(nn.Linear):
        def forward(self, x):
            return super().forward(x.flatten(2)).squeeze(-1)

    grads = []
    for recomputed in (True, False):
        torch.manual_seed(0)
        rep = ps.Rep(NODES, None, ps.Signs(1))
        p = ps.Learned(Scores(2, 1), NODES) * ps.Haar(ps.Signs(1))
        phi = ps.symmetrize(Model(), rep, ps.Rep(), p).double().train()
        with pytest.MonkeyPatch.context() as patch:
            if not recomputed:
                patch.setattr(recomputation, "checkpoint", without_checkpoint)
            phi(randn(3, 4, 2, 1), estimator=estimator, generator=seeded()).square().sum().backward()
        grads.append([q.grad for q in phi.parameters()] + list(phi.model.buffers()))
    assert grads[0][-1] > 1
    for a, b in zip(*grads, strict=True):
        torch.testing.assert_close(a, b)
    assert p.parts[0].net.weight.grad.abs().sum() > 0


def test_a_second_backward_changes_nothing_either():
    model = nn.BatchNorm2d(3).double()
    phi = ps.symmetrize(model, ps.Rep(None, TURNS), ps.Rep(None, TURNS), "haar", ps.MonteCarlo(4, chunk=2)).train()
    y = phi(randn(2, 3, 2, 2))
    before = [b.clone() for b in model.buffers()]
    for _ in range(2):
        y.square().sum().backward(retain_graph=True)
    assert all(torch.equal(a, b) for a, b in zip(before, model.buffers(), strict=True))


def test_lazy_layers_are_made_by_the_first_chunk():
    """Their buffers do not exist before."""

    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.norm = nn.LazyConv2d(3, 1), nn.LazyBatchNorm2d()

        def forward(self, x):
            return self.norm(self.first(x)).exp()

    phi = ps.symmetrize(Model(), ps.Rep(None, TURNS), ps.Rep(None, TURNS), "haar", ps.MonteCarlo(6, chunk=2)).train()
    for step in (1, 2):
        y = phi(randn(2, 3, 2, 2).float())
        before = [b.clone() for b in phi.model.buffers()]
        y.square().sum().backward()
        assert phi.model.norm.num_batches_tracked == 3 * step
        assert all(torch.equal(a, b) for a, b in zip(before, phi.model.buffers(), strict=True))
    assert phi.model.first.weight.grad.abs().sum() > 0


def test_large_buffers_that_stay_are_not_held():
    """Tables and masks are as large as ever: of each at most one copy at a time, none until backward."""

    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.ones(3, 2, 2))
            self.register_buffer("table", torch.ones(recomputation.LARGE_BUFFER_ENTRIES))
            self.register_buffer("count", torch.zeros(recomputation.LARGE_BUFFER_ENTRIES))

        def forward(self, x):
            self.count += 1
            return x * self.weight * (self.table[0] + self.count[-1])

    made = []

    class Noted(recomputation.Recomputation):
        def __init__(self, model):
            super().__init__(model)
            made.append(self)

    phi = ps.symmetrize(Model(), ps.Rep(None, TURNS), ps.Rep(None, TURNS), "haar", ps.MonteCarlo(3, chunk=1)).train()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(recomputation, "Recomputation", Noted)
        y = phi(randn(2, 3, 2, 2).float())
    assert [[name for _, name, _ in found.kept] for found in made] == [["count"]] * 3
    y.sum().backward()
    assert phi.model.count[0] == 3
