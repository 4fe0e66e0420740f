"""The published presets of graph separation are the published code: its formulas, written anew, on the same noise.

The formulas are those of github.com/jw9730/lps (c03c9a4), src_synthetic/graph_separation, with dense matrices. Weights,
noise and graphs are the same, in float64, so orders are equal and outputs, entropies and gradients agree to 1e-10.
"""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits, linear

import probsym as ps
from probsym.distributions.diagnostics import Diagnostics
from probsym_experiments.as_published import AsPublished
from probsym_experiments.config import load_config
from probsym_experiments.evaluation import parameters
from probsym_experiments.fixed_noise import FixedNoise
from probsym_experiments.graphs import exp_data, published_spread
from probsym_experiments.graphs.dense import published_features
from probsym_experiments.graphs.exp_classify import Loss
from probsym_experiments.graphs.identifiers import estimate
from probsym_experiments.graphs.models import inputs
from probsym_experiments.graphs.soft import Soft
from probsym_experiments.registry import experiment
from published_orders import entropy, score_net, soft_and_hard
from wl_pairs import cfi, complete, csl, dataset

CLASSIFY = experiment("exp-classify")
EXACT = 1e-10
SAMPLES = 3


def graphs() -> dict[str, Tensor]:
    """Two pairs of different sizes with node types, in float64."""
    arrays = dataset(2, kinds=[cfi(complete(4)), (csl(13, 2), csl(13, 3))], seed=3)
    arrays["x"] = torch.randint(2, arrays["x"].shape, generator=torch.Generator().manual_seed(1)).numpy()
    data = exp_data.tensors(arrays)
    few = {}
    for name, values in data.items():
        few[name] = values.double() if values.is_floating_point() else values
    width = int(few["mask"].sum(1).max()) + 3  # what is left of 64 is padding, of which three nodes are enough
    few["mask"] = few["mask"][:, :width]
    few["nodes"] = few["nodes"][:, :width]
    few["adjacency"] = few["adjacency"][:, :width, :width]
    return few


def built(preset: str, *flags: str) -> tuple[Any, dict[str, Tensor], Any]:
    """The model of a preset with a narrow base, in training mode and float64; graphs with its features; the config."""
    config = load_config(CLASSIFY, preset, list(flags))
    data = config.graphs(graphs())
    torch.manual_seed(5)
    phi = config.model(data).double().train()
    return phi, data, config


# ---------------------------------------------------------------- the published code, written anew


def mlp(net: nn.Module, x: Tensor, adjacency: Tensor) -> Tensor:
    """The base on [features, adjacency]."""
    h = torch.cat([x.flatten(2), adjacency.flatten(2)], -1)
    layers = [module for module in net.modules() if isinstance(module, nn.Linear)]
    for layer in layers[:-1]:
        h = linear(h, layer.weight, layer.bias).relu()
    return linear(h, layers[-1].weight, layers[-1].bias)


def gin_id(net: nn.Module, x: Tensor, identifiers: Tensor, adjacency: Tensor, mask: Tensor) -> Tensor:
    """The base on the graph as it is, with [features, identifiers]."""
    samples = identifiers.shape[1]
    h = torch.cat([x[:, None].expand(-1, samples, -1, -1), identifiers], -1)
    for eps, layer in zip(net.eps, net.layers, strict=True):
        received = torch.einsum("bij,bkjd->bkid", adjacency, h) + (1 + eps) * h
        h = linear(received, layer.weight, layer.bias).relu()
    h = torch.where(mask[:, None, :, None], h, 0.0).sum(2)
    first, last = [module for module in net.head.modules() if isinstance(module, nn.Linear)]
    return linear(linear(h, first.weight, first.bias).relu(), last.weight, last.bias)


def theirs(phi: Any, data: dict[str, Tensor], noise: Any, config: Any, soft_only: bool) -> dict[str, Tensor]:
    """Orders, the mean output (B, 1) and the entropy, from noise as ours is laid out: samples first."""
    distribution = phi.distribution
    z = noise["features"]["inputs"]["nodes"].movedim(0, 1)  # (B, K, N, 2)
    (ties,) = noise["features"]["features"].values()
    scale = distribution.scale
    mask = data["mask"]
    scores = score_net(distribution.net, data["nodes"][:, None] + scale * z, data["adjacency"], mask)
    scores = scores + 1e-6 * ties.movedim(0, 1)
    soft, hard = soft_and_hard(scores, mask, config.temperature, config.sinkhorn)
    p = (hard - soft).detach() + soft
    if soft_only:
        p = soft
    if config.base == "mlp":
        x = torch.einsum("bkji,bjd->bkid", p, data["nodes"])
        adjacency = torch.einsum("bkji,bjl,bklm->bkim", p, data["adjacency"], p)
        y = mlp(phi.model.net, x, adjacency)
    else:
        y = gin_id(phi.model, data["nodes"], p, data["adjacency"], mask)
    return {"hard": hard, "mean": y.mean(1), "entropy": entropy(soft, mask)}


# ---------------------------------------------------------------- ours against it


NARROW = {"mlp": ["--hidden=[16,8]"], "gin-id": ["--width=8"]}


@pytest.mark.parametrize("preset", ["mlp-ps", "mlp-canonical", "mlp-ps-soft", "gin-id-ps", "gin-id-canonical"])
def test_orders_outputs_and_gradients_are_those_of_the_published_code(
    preset: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = "mlp" if preset.startswith("mlp") else "gin-id"
    phi, data, config = built(f"{preset}-published", *NARROW[base])
    if base == "gin-id":
        # Identifiers are as wide as the largest graph of the data.
        assert phi.model.num_nodes_max == data["mask"].shape[1]
    samples = config.train_samples or 1
    batch = inputs(data)
    plain = phi.phi if isinstance(phi, Soft) else phi
    noise = plain.draw_noise(**batch, samples=samples)

    # Ours, with this noise: the loss that the preset trains, and its gradient.
    monkeypatch.setattr(AsPublished, "noise", lambda self, x, shape=(), generator=None: noise)
    loss = Loss(config.entropy)
    if config.through_identifiers:
        loss.identified = samples
    batch_with_target = data | {"target": data["target"].double()}
    ours = loss(phi, batch_with_target)
    weights = dict(phi.named_parameters())
    own = torch.autograd.grad(ours, list(weights.values()), allow_unused=True)

    # Theirs.
    found = theirs(phi, data, noise, config, isinstance(phi, Soft))
    entropies = found["entropy"]
    theirs_loss = binary_cross_entropy_with_logits(found["mean"], batch_with_target["target"][:, None])
    theirs_loss = theirs_loss + config.entropy_weight * entropies
    expected = torch.autograd.grad(theirs_loss, list(weights.values()), allow_unused=True)

    # Elements, outputs and entropy.
    x = plain.bind((), batch)
    diagnostics = Diagnostics()
    order = plain.distribution.transport(x, noise, diagnostics)
    for b in range(len(data["mask"])):
        real = int(data["mask"][b].sum())
        matrix = torch.nn.functional.one_hot(order.index[:, b, :real], real).double()
        assert torch.equal(matrix, found["hard"][b, :, :real, :real])
    torch.testing.assert_close(diagnostics["entropy"], entropies, atol=1e-8, rtol=0)  # they clamp weights at 1e-12
    torch.testing.assert_close(ours, theirs_loss, atol=1e-9, rtol=0)
    if not isinstance(phi, Soft):
        outputs = phi(**batch, noise=noise)
        torch.testing.assert_close(outputs, found["mean"], atol=EXACT, rtol=0)

    # Gradients, of the base and of the net of p.
    # The tolerance is relative to the largest entry: nodes that are alike have scores 1e-6 apart, and their slopes,
    # each 1 / temperature, cancel.
    of_net = 0.0
    largest = max(float(other.abs().max()) for other in expected if other is not None)
    tolerance = EXACT * max(1.0, largest)
    for name, mine, other in zip(weights, own, expected, strict=True):
        if other is None:
            assert mine is None
            assert "spare" in name
            continue
        torch.testing.assert_close(
            mine, other, atol=tolerance, rtol=1e-8, msg=lambda text, name=name: f"{name}: {text}"
        )
        if "distribution" in name:
            of_net += float(mine.abs().sum())
    assert of_net > 1e-6


def test_the_gradient_through_the_graph_is_another() -> None:
    """A negative control: GIN-ID trained the usual way has equal outputs and another gradient to the net of p."""
    phi, data, _ = built("gin-id-ps-published", *NARROW["gin-id"])
    batch = inputs(data)
    noise = phi.draw_noise(**batch, samples=SAMPLES)
    weights = list(phi.distribution.net.head.parameters())
    phi.distribution.draw = lambda x, k, generator=None: noise
    ours = estimate(phi, batch, SAMPLES).mean
    usual = phi(**batch, noise=noise)
    torch.testing.assert_close(ours, usual, atol=EXACT, rtol=0)
    mine = torch.autograd.grad(ours.sum(), weights)[0]
    other = torch.autograd.grad(usual.sum(), weights)[0]
    assert not torch.allclose(mine, other, rtol=1e-2)


def test_their_noise_is_uniform_and_their_features_are_type_and_degree() -> None:
    phi, data, _ = built("mlp-ps-published", *NARROW["mlp"])
    noise = phi.draw_noise(**inputs(data), samples=200)["features"]["inputs"]["nodes"]
    assert 0 <= noise.min() < 1e-3
    assert 1 - 1e-3 < noise.max() <= 1
    assert abs(noise.var().item() - 1 / 12) < 1e-3  # 200 * 4 * 27 * 2 draws: ten standard errors
    kinds = graphs()["nodes"][..., 1]
    torch.testing.assert_close(data["nodes"][..., 0], kinds, rtol=0, atol=0)
    torch.testing.assert_close(data["nodes"][..., 1], data["adjacency"].sum(2), rtol=0, atol=0)


def test_it_moves_with_the_graph() -> None:
    """The public checker: the noise moves along. In training statistics of the batch would be shared."""
    phi, data, _ = built("mlp-ps-published", *NARROW["mlp"])
    phi.eval()
    ps.testing.assert_distribution(phi.distribution, inputs(data), phi.inputs)


def test_fixed_noise_is_that_of_each_graph() -> None:
    """A graph keeps its noise in every batch, another one has another, and k samples begin those of any larger k."""
    phi, data, _ = built("mlp-ps-fixed-noise-published", *NARROW["mlp"])
    assert isinstance(phi.distribution, FixedNoise)
    drawn = phi.draw_noise(**inputs(data), samples=4)["features"]["inputs"]["nodes"]
    turned = inputs(data, torch.tensor([2, 0]))
    again = phi.draw_noise(**turned, samples=2)["features"]["inputs"]["nodes"]
    assert torch.equal(again, drawn[:2, [2, 0]])
    assert (drawn[:, 0] != drawn[:, 1]).all()
    phi.eval()
    with torch.no_grad():
        whole = phi(**inputs(data))
        torch.testing.assert_close(phi(**turned), whole[[2, 0]], atol=EXACT, rtol=0)


def test_sizes_are_the_published_ones() -> None:
    """22,022 parameters of the net of p, and a base of the published size."""
    config = load_config(CLASSIFY, "mlp-ps-published")
    phi = config.model(config.graphs(exp_data.tensors(dataset(2))))
    counts = parameters(phi)
    assert counts["distribution"] == 22_022
    assert counts["base"] == 4225 * 2048 + 2049 * 4096 + 4097 * 2048 + 2049 * 10 + 11


@pytest.mark.parametrize("name", ["exp", "graph8c"])
@pytest.mark.parametrize("method", ["ps", "canonical"])
def test_untrained_models_are_those_of_the_published_code(name: str, method: str) -> None:
    """In evaluation BatchNorm of an untrained net does nothing but divide by sqrt(1 + 1e-5)."""
    config = load_config(experiment(name), f"mlp-{method}-published", ["--hidden=[8]"])
    data = graphs()
    del data["target"]
    if name == "graph8c":
        data = {"adjacency": data["adjacency"]}
    data = published_features(data)
    phi = config.model(data, 0).double()
    numbers = data["adjacency"].shape[1] * (data["adjacency"].shape[1] + 2 * (name == "exp"))
    first = next(module for module in phi.model.modules() if isinstance(module, nn.Linear))
    assert first.in_features == numbers
    assert parameters(phi)["distribution"] == 22_022
    assert (phi.distribution.scale, phi.distribution.law) == ({"ps": 1.0, "canonical": 0.0}[method], "uniform")
    noise = phi.draw_noise(**inputs(data), samples=2)
    one = phi(**inputs(data), noise=noise)
    assert one.abs().max() <= 1  # a tanh ends it


# ---------------------------------------------------------------- how much an average varies


@pytest.mark.parametrize("method", ["ps", "ga"])
def test_the_spread_is_measured_as_in_the_published_code(method: str) -> None:
    """Its formulas, written anew, on the same draws: squares of mean deviations of probabilities."""
    config = load_config(experiment("sample-size"), "mlp-ps-published", ["--hidden=[8]"])
    data = config_features(graphs())
    phi = config.model(method, data, 0).double()
    torch._foreach_mul_([weight.data for weight in phi.model.parameters()], 3.0)  # else a sigmoid is all but linear
    counts = [1, 4]
    trials = 5
    torch.manual_seed(7)
    before = copy.deepcopy(phi.state_dict())
    found = published_spread.measure(phi, data, data, counts, trials, 1)
    assert all(torch.equal(value, before[name]) for name, value in phi.state_dict().items())

    torch.manual_seed(7)
    phi.eval()
    expected = []
    for k in counts:
        # 1. Deviations over trials, of the probability and of the loss of each graph.
        with torch.no_grad():
            logits = torch.cat([phi.sample(**inputs(data), samples=k).mean(0) for _ in range(trials)], 1)  # (B, T)
        target = data["target"][:, None].expand(-1, trials)
        losses = binary_cross_entropy_with_logits(logits, target, reduction="none")
        output = torch.std_mean(logits.sigmoid(), 1)[0].mean() ** 2
        loss = torch.std_mean(losses, 1)[0].mean() ** 2
        other = logits.std(1).mean() ** 2
        assert not torch.isclose(other, output, rtol=0.1)  # a negative control: logits

        # 2. Entropies of the rows and the columns of the mean of k orders.
        order = phi.distribution.transport(phi.bind((), inputs(data)), phi.draw_noise(**inputs(data), samples=k))
        entropies = []
        for b in range(len(data["mask"])):
            own = int(data["mask"][b].sum())
            p = torch.nn.functional.one_hot(order.index[:, b, :own], own).double().mean(0).clamp(min=1e-12)
            rows = p / p.sum(1, keepdim=True)
            columns = p / p.sum(0, keepdim=True)
            entropies.append((-(rows * rows.log()).sum() - (columns * columns.log()).sum()) / own)
        expected.append([output.item(), loss.item(), torch.stack(entropies).mean().item()])

    # 3. The norm of the mean gradient, of k = 1 alone, in training mode, graph by graph.
    phi.train()
    gradients = []
    for b in range(len(data["mask"])):
        one = {name: values[b : b + 1] for name, values in data.items()}
        y = phi.sample(**inputs(one), samples=1).mean(0)
        value = binary_cross_entropy_with_logits(y, one["target"][:, None])
        parts = torch.autograd.grad(value, list(phi.model.parameters()))
        gradients.append(torch.cat([part.flatten() for part in parts]))
    norm = torch.stack(gradients).mean(0).norm()
    torch.testing.assert_close(found[:3].T, torch.tensor(expected, dtype=torch.float64), atol=1e-9, rtol=1e-9)
    assert abs(found[3, 0].item() - norm.item()) < EXACT
    assert found[3, 1].isnan()


def config_features(data: dict[str, Tensor]) -> dict[str, Tensor]:
    """Graphs with the published features, labels in float64."""
    return published_features(data) | {"target": data["target"].double()}


def test_the_published_spread_is_of_one_model_and_all_validation_graphs() -> None:
    config = load_config(experiment("sample-size"), "mlp-ps-published")
    assert (config.initialisations, config.graphs, config.repeats) == (1, 200, 100)
    assert config.eval_samples == [1, 2, 5, 10, 20, 50, 100, 200]
    assert config.samples == 10  # of training there, at which gradients are measured
