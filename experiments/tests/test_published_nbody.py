"""The published presets of n-body are the published code: its formulas, written anew, on the same noise.

The formulas are those of github.com/jw9730/lps (c03c9a4), src_synthetic/nbody, with matrices instead of indices.
Weights, noise and systems are the same, in float64: orders are equal, and poses, predictions, entropies and gradients
agree to 1e-10 of the largest.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import batch_norm, gelu, layer_norm, linear, one_hot, silu

import probsym as ps
from probsym_experiments.as_published import AsPublished
from probsym_experiments.config import load_config
from probsym_experiments.errors import UserError
from probsym_experiments.evaluation import parameters
from probsym_experiments.models import VectorDGCNN
from probsym_experiments.nbody.loss import Loss
from probsym_experiments.nbody.models import base_of, build, claimed, inputs, prepared
from probsym_experiments.registry import experiment

NBODY = experiment("nbody")
EXACT = 1e-10
SYSTEMS = 4
N = 5


def systems() -> dict[str, Tensor]:
    """As the data come: positions far from zero, velocities, charges, targets near the positions."""
    generator = torch.Generator().manual_seed(0)
    normal = {"generator": generator, "dtype": torch.float64}
    charges = torch.randn(SYSTEMS, N, **normal).sign()
    pos = 2 + torch.randn(SYSTEMS, N, 3, **normal)
    return {
        "pos": pos,
        "vel": torch.randn(SYSTEMS, N, 3, **normal),
        "edge": (charges[:, :, None] * charges[:, None, :]).unsqueeze(-1),
        "target": pos + torch.randn(SYSTEMS, N, 3, **normal),
    }


def built(preset: str, *flags: str) -> tuple[ps.Symmetrizer, dict[str, Tensor], Any]:
    """The model of a preset in training mode and float64, the data as it gets them, and the config."""
    config = load_config(NBODY, preset, list(flags))
    data = prepared(config, systems())
    torch.manual_seed(2)
    phi = build(config, {name: value.float() for name, value in data.items()}).double().train()
    for module in phi.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0  # their draws and ours come in another order; the place of dropout is tested by itself
    return phi, data, config


# ---------------------------------------------------------------- the published code, written anew


def vector_layer(layer: nn.Module, x: Tensor) -> Tensor:
    """x (R, C, 3, ...) as there: channels second, space third."""
    p = torch.einsum("oc,rcs...->ros...", layer.linear.linear.weight, x)
    length = (p * p).sum(2).sqrt() + 1e-6  # (R, C, ...)
    normed = batch_norm(length, None, None, layer.norm.weight, layer.norm.bias, training=True)
    p = p / length.unsqueeze(2) * normed.unsqueeze(2)
    d = torch.einsum("oc,rcs...->ros...", layer.direction.linear.weight, x)
    dot = (p * d).sum(2, keepdim=True)
    positive = (dot >= 0).double()
    other = p - dot / ((d * d).sum(2, keepdim=True) + 1e-6) * d
    return 0.2 * p + 0.8 * (positive * p + (1 - positive) * other)


def vector_pool(pool: nn.Module, x: Tensor) -> Tensor:
    """Over the last axis of x (R, C, 3, ..., M)."""
    d = torch.einsum("oc,rcs...->ros...", pool.direction.linear.weight, x)
    chosen = one_hot((x * d).sum(2).argmax(-1), x.shape[-1]).double()
    return (x * chosen.unsqueeze(2)).sum(-1)


def neighbours(x: Tensor, k: int) -> Tensor:
    """x (R, C, 3, N) to (R, 2 C, 3, N, k)."""
    distance = (x[:, :, :, :, None] - x[:, :, :, None, :]).square().sum((1, 2))
    nearest = distance.argsort(-1)[..., :k]
    chosen = one_hot(nearest, N).double()  # (R, N, k, N)
    others = torch.einsum("rikj,rcsj->rcsik", chosen, x)
    own = x.unsqueeze(-1).expand_as(others)
    return torch.cat([others - own, own], 1)


def vector_net(net: Any, x: Tensor) -> tuple[Tensor, Tensor]:
    """Scores (R, N) and columns (R, 3, 3) of x (R, 2, 3, N)."""
    x1 = vector_pool(net.pool_first, vector_layer(net.first, neighbours(x, 4)))
    x2 = vector_pool(net.pool_second, vector_layer(net.second, neighbours(x1, 4)))
    x12 = torch.cat([x1, x2], 1)
    y = vector_layer(net.third, x12)
    y = torch.cat([y, y.mean(-1, keepdim=True).expand_as(y)], 1)
    z = vector_layer(net.frame[1], vector_layer(net.frame[0], y))
    z = torch.einsum("oc,rcsn->rosn", net.frame[2].linear.weight, z)
    numbers = torch.einsum("rcsn,rksn->rckn", y, z).flatten(1, 2)
    numbers = numbers.max(-1, keepdim=True).values.expand_as(numbers)
    own = torch.einsum("rcsn,rksn->rckn", x12, z).flatten(1, 2)
    scores = linear(torch.cat([numbers, own], 1).transpose(1, 2), net.score.weight, net.score.bias).squeeze(-1)
    columns = torch.einsum("oc,rcs->rso", net.columns.linear.weight, vector_pool(net.pool_all, x1))
    return scores, columns


def gram_schmidt(v: Tensor) -> Tensor:
    """Columns of v (..., 3, 3), in turn."""
    columns: list[Tensor] = []
    for i in range(3):
        u = v[..., i]
        for before in columns:
            u = u - (v[..., i] * before).sum(-1, keepdim=True) / before.square().sum(-1, keepdim=True) * before
        columns.append(u)
    q = torch.stack(columns, -1)
    return q / q.norm(dim=-2, keepdim=True)


def soft_and_hard(scores: Tensor, tau: float) -> tuple[Tensor, Tensor]:
    s = scores / scores.norm(dim=-1, keepdim=True)
    downwards, order = s.sort(-1, descending=True)
    log_p = -(s[..., :, None] - downwards[..., None, :]).abs() / tau
    for _ in range(20):
        log_p = log_p - log_p.logsumexp(-1, keepdim=True)
        log_p = log_p - log_p.logsumexp(-2, keepdim=True)
    return log_p.exp(), one_hot(order, N).mT.double()


def entropy(soft: Tensor) -> Tensor:
    p = soft.clamp(min=1e-12)
    rows = p / p.sum(-1, keepdim=True)
    columns = p / p.sum(-2, keepdim=True)
    return (-(rows * rows.log()).sum(-1) - (columns * columns.log()).sum(-2)).mean()


def gnn(net: Any, nodes: Tensor, pairs: Tensor) -> Tensor:
    """(R, N, 6) and (R, N, N, 2); edges join each node to the four others."""
    h = linear(nodes, net.embed.weight, net.embed.bias)
    others = 1 - torch.eye(N, dtype=torch.float64)
    for layer in net.layers:
        both = torch.cat([h[:, :, None].expand(-1, -1, N, -1), h[:, None].expand(-1, N, -1, -1), pairs], -1)
        m = silu(linear(both, layer.edge_in.weight, layer.edge_in.bias))
        m = silu(linear(m, layer.edge_out.weight, layer.edge_out.bias)) * others[..., None]
        h = layer.node(torch.cat([h, m.sum(2)], -1))
    return net.decode(h)


def transformer(net: Any, nodes: Tensor, pairs: Tensor) -> Tensor:
    """25 tokens; nodes on the diagonal."""
    together = torch.cat([torch.diag_embed(nodes.mT).movedim(1, 3), pairs], -1).flatten(1, 2)
    t = linear(together, torch.cat([net.nodes.weight, net.pairs.weight], 1), net.pairs.bias)
    t = t + net.position.flatten(0, 1)
    width = t.shape[-1]
    for block in net.blocks:
        y = layer_norm(t, (width,), block.before_attention.weight, block.before_attention.bias)
        q, k, v = linear(y, block.qkv.weight, block.qkv.bias).chunk(3, -1)
        read = []
        for i in range(4):
            part = slice(i * width // 4, (i + 1) * width // 4)
            weights = (q[..., part] @ k[..., part].mT / (width // 4) ** 0.5).softmax(-1)
            read.append(weights @ v[..., part])
        t = t + linear(torch.cat(read, -1), block.out.weight, block.out.bias)
        y = layer_norm(t, (width,), block.before_mlp.weight, block.before_mlp.bias)
        y = gelu(linear(y, block.mlp[0].weight, block.mlp[0].bias))
        t = t + linear(y, block.mlp[2].weight, block.mlp[2].bias)
    norm, _, first, _, last = net.head
    y = layer_norm(t, (width,), norm.weight, norm.bias).relu()
    y = linear(linear(y, first.weight, first.bias).relu(), last.weight, last.bias)
    return y.unflatten(1, (N, N)).diagonal(dim1=1, dim2=2).mT


def theirs(phi: ps.Symmetrizer, raw: dict[str, Tensor], noise: Any, config: Any) -> dict[str, Tensor]:
    """From the data as they come, and noise as ours is laid out: samples first."""
    p = phi.distribution
    assert isinstance(p, AsPublished)
    given = noise["features"]["inputs"]
    samples = given["pos"].shape[0]

    # 1. Clean inputs about their centroid; distances.
    centre = raw["pos"].mean(1, keepdim=True)
    pos = raw["pos"] - centre
    distance = (raw["pos"][:, :, None] - raw["pos"][:, None]).square().sum(-1, keepdim=True)
    pairs = torch.cat([raw["edge"], distance], -1) * (1 - torch.eye(N, dtype=torch.float64))[..., None]

    # 2. p, from inputs with noise of absolute size.
    x = torch.stack([pos + p.scale * given["pos"], raw["vel"] + p.scale * given["vel"]], -1)  # (K, B, N, 3, 2)
    scores, columns = vector_net(p.net, x.permute(0, 1, 4, 3, 2).flatten(0, 1))
    ties = noise["features"]["features"]
    found = {}
    pose = columns.unflatten(0, (samples, SYSTEMS))
    order = torch.eye(N, dtype=torch.float64).expand(samples, SYSTEMS, N, N)
    for factor, added in ties.items():
        if factor.feature_kind == "columns":
            pose = gram_schmidt(pose + 1e-6 * added)
            if isinstance(factor, ps.SO):
                signs = torch.ones_like(pose[..., 0, :])
                signs[..., 0] = torch.linalg.det(pose)
                pose = pose * signs.unsqueeze(-2)
        elif factor.feature_kind == "scores":
            soft, hard = soft_and_hard(scores.unflatten(0, (samples, SYSTEMS)) + 1e-6 * added, config.temperature)
            order = (hard - soft).detach() + soft
            found |= {"order": hard, "entropy": entropy(soft)}

    # 3. The base on g^-1 of all inputs, and g on what it says.
    moved = torch.einsum("kbji,bjs,kbst->kbit", order, pos, pose)
    flown = torch.einsum("kbji,bjs,kbst->kbit", order, raw["vel"], pose)
    permuted = torch.einsum("kbji,bjlp,kblm->kbimp", order, pairs, order)
    network = {"gnn": gnn, "transformer": transformer}[config.base]
    y = network(phi.model.net, torch.cat([moved, flown], -1).flatten(0, 1), permuted.flatten(0, 1))
    y = torch.einsum("kbij,kbjs,kbts->kbit", order, y.unflatten(0, (samples, SYSTEMS)), pose).mean(0)
    known = centre if config.base == "gnn" else raw["pos"]
    return found | {"pose": pose, "prediction": known + y}


# ---------------------------------------------------------------- ours against it


@pytest.mark.parametrize(
    ("preset", "group"),
    [
        ("gnn-ps", "O"),
        ("gnn-ps", "SO"),
        ("gnn-canonical", "O"),
        ("transformer-ps", "SxO"),
        ("transformer-ps", "SxSO"),
        ("transformer-canonical", "SxO"),
    ],
)
def test_poses_predictions_and_gradients_are_those_of_the_published_code(
    preset: str, group: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    depth = ["--layers=2"] if preset.startswith("transformer") else []
    phi, data, config = built(f"{preset}-published", f"--group={group}", *depth)
    samples = config.train_samples or 1
    batch = inputs(data)
    noise = phi.draw_noise(**batch, samples=samples)
    monkeypatch.setattr(AsPublished, "noise", lambda self, x, shape=(), generator=None: noise)

    # Ours: the loss that the preset trains, and its gradient.
    motion = base_of(config).motion
    loss = Loss(motion=motion, entropy_weight=config.entropy)
    weights = dict(phi.named_parameters())
    ours = loss(phi, data)
    own = torch.autograd.grad(ours, list(weights.values()), allow_unused=True)

    # Theirs.
    raw = systems()
    found = theirs(phi, raw, noise, config)
    expected_loss = (found["prediction"] - raw["target"]).square().mean()
    if config.entropy:
        expected_loss = expected_loss + config.entropy_weight * found["entropy"]
    expected = torch.autograd.grad(expected_loss, list(weights.values()), allow_unused=True)

    # Elements and predictions.
    x = phi.bind((), batch)
    g = phi.distribution.transport(x, noise)
    for factor in x.group.factors:
        if factor.feature_kind == "scores":
            assert torch.equal(one_hot(g[factor].index, N).double(), found["order"])
        elif factor.feature_kind == "columns":
            torch.testing.assert_close(g[factor].matrix, found["pose"], atol=EXACT, rtol=0)
    prediction = motion.positions(phi(**batch, noise=noise), data) + raw["pos"].mean(1, keepdim=True)
    torch.testing.assert_close(prediction, found["prediction"], atol=EXACT, rtol=0)
    torch.testing.assert_close(ours, expected_loss, atol=EXACT, rtol=0)

    # Gradients, of the base and of the net of p. The half of the net that makes orders is idle where none are made.
    of_net = 0.0
    largest = max(float(other.abs().max()) for other in expected if other is not None)
    for name, mine, other in zip(weights, own, expected, strict=True):
        if mine is None:
            assert other is None or not other.any()
            continue
        torch.testing.assert_close(
            mine, other, atol=EXACT * max(1, largest), rtol=1e-8, msg=lambda text, name=name: f"{name}: {text}"
        )
        if "distribution" in name:
            of_net += float(mine.abs().sum())
    assert of_net > 1e-6


def test_sizes_are_the_published_ones() -> None:
    counts = {}
    for preset in ("gnn-ps-published", "transformer-ps-published"):
        phi, _, _ = built(preset)
        counts[preset] = parameters(phi)
    assert counts == {
        "gnn-ps-published": {"base": 92_103, "distribution": 6_897},
        "transformer-ps-published": {"base": 208_387, "distribution": 6_897},
    }


def test_p_is_blind_to_charges_and_moves_with_the_system() -> None:
    phi, data, config = built("transformer-ps-published", "--layers=1")
    phi.eval()
    batch = inputs(data)
    ps.testing.assert_distribution(phi.distribution, batch, claimed(config)[0])
    x = phi.bind((), batch)
    noise = phi.draw_noise(**batch, samples=2)
    z = phi.distribution.features(x, noise["features"])
    other = phi.bind((), batch | {"edge": -batch["edge"]})
    for factor, value in phi.distribution.features(other, noise["features"]).items():
        assert torch.equal(value, z[factor])


def test_dropout_is_that_of_single_coordinates_of_the_second_round() -> None:
    """In training alone: about one coordinate in twelve is zero where the rest is 1 / 0.92 times what it was."""
    net = VectorDGCNN(ps.O(3)).double()
    seen = {}
    net.dropout.register_forward_hook(lambda module, given, out: seen.update(before=given[0], after=out))
    pos, vel = torch.randn(2, 200, N, 3, dtype=torch.float64)
    net(pos, vel)
    dropped = seen["after"] == 0
    assert seen["before"].shape == (200, N, 21, 3)
    assert abs(dropped.double().mean().item() - 0.08) < 0.01  # 63,000 coordinates: nine standard errors
    torch.testing.assert_close(seen["after"][~dropped], seen["before"][~dropped] / 0.92)
    assert (dropped.sum(-1) == 1).any()  # vectors lose one coordinate and keep the others


def test_noise_has_absolute_size_and_the_centroid_is_clean() -> None:
    """The same noise on systems a hundred times as large; poses turn about the centroid of the clean points."""
    phi, data, _ = built("gnn-ps-published")
    batch = inputs(data)
    large = {name: 100 * value for name, value in batch.items()}
    one, other = (phi.draw_noise(**x, samples=500)["features"]["inputs"]["pos"] for x in (batch, large))
    assert abs(one.std().item() - 1) < 0.05  # 30,000 draws: twelve standard errors
    assert abs(other.std().item() - 1) < 0.05
    torch.testing.assert_close(data["pos"].mean(1), torch.zeros(SYSTEMS, 3, dtype=torch.float64), atol=EXACT, rtol=0)


# ---------------------------------------------------------------- the bare networks, of the code of the EGNN


def bare_gnn(net: Any, raw: dict[str, Tensor]) -> Tensor:
    """Positions: nodes know where they are, pairs the product of their charges alone; layers add to what was."""
    h = linear(torch.cat([raw["pos"], raw["vel"]], -1), net.embed.weight, net.embed.bias)
    for layer in net.layers:
        sums = []
        for i in range(N):
            received = torch.zeros_like(h[:, 0])
            for j in range(N):
                if i != j:
                    pair = torch.cat([h[:, i], h[:, j], raw["edge"][:, i, j]], -1)
                    inner = silu(linear(pair, layer.edge_in.weight, layer.edge_in.bias))
                    received = received + silu(linear(inner, layer.edge_out.weight, layer.edge_out.bias))
            sums.append(received)
        h = h + layer.node(torch.cat([h, torch.stack(sums, 1)], -1))
    return net.decode(h)


def bare_egnn(net: Any, raw: dict[str, Tensor]) -> Tensor:
    """Positions that move in each layer: by the mean of what others push, and along the first velocities."""
    start = raw["pos"]
    x = start
    h = linear(raw["vel"].norm(dim=-1, keepdim=True), net.embed.weight, net.embed.bias)
    for layer in net.layers:
        sums = []
        pushes = []
        for i in range(N):
            received = torch.zeros_like(h[:, 0])
            push = torch.zeros_like(x[:, 0])
            for j in range(N):
                if i != j:
                    apart = x[:, i] - x[:, j]
                    first = start[:, i] - start[:, j]
                    known = [h[:, i], h[:, j], apart.square().sum(-1, keepdim=True), raw["edge"][:, i, j]]
                    known.append(first.square().sum(-1, keepdim=True))
                    inner = silu(linear(torch.cat(known, -1), layer.edge_in.weight, layer.edge_in.bias))
                    message = silu(linear(inner, layer.edge_out.weight, layer.edge_out.bias))
                    received = received + message
                    push = push + (apart * layer.along_pairs(message)).clamp(-100, 100)
            sums.append(received)
            pushes.append(push / (N - 1))
        x = x + torch.stack(pushes, 1) + layer.along_velocity(h) * raw["vel"]
        if layer.node is not None:
            h = h + layer.node(torch.cat([h, torch.stack(sums, 1)], -1))
    return x


@pytest.mark.parametrize(("base", "idle"), [("gnn", 0), ("egnn", 12_416)])
def test_bare_networks_are_those_of_the_code_of_the_egnn(base: str, idle: int) -> None:
    """Its sizes, from which a layer that nothing reads is left out here; predictions and the loss."""
    phi, data, config = built(f"{base}-none-published")
    raw = systems()
    assert all(torch.equal(data[name], raw[name]) for name in raw)  # neither centred nor with distances
    assert parameters(phi)["base"] + idle == {"gnn": 104_387, "egnn": 134_020}[base]
    motion = base_of(config).motion
    if base == "egnn":
        expected = bare_egnn(phi.model, raw)
    else:
        expected = bare_gnn(phi.model.net, raw)
    change = phi(**inputs(data))
    torch.testing.assert_close(motion.positions(change, data), expected, atol=EXACT, rtol=0)
    wanted = (expected - raw["target"]).square().mean()
    torch.testing.assert_close(Loss(motion=motion)(phi, data), wanted, atol=EXACT, rtol=0)


def test_what_the_bare_gnn_predicts_is_translated_with_its_inputs() -> None:
    """The symmetry by which it is judged: its outputs are positions, those of the others are changes."""
    for flags, name in (([], "pos"), (["--published=false"], "vel"), (["--base=egnn"], "vel")):
        given, output = claimed(load_config(NBODY, "gnn-none-published", flags))
        assert repr(output) == repr(given[name])
        assert repr(given["pos"]) != repr(given["vel"])


def test_bare_recipes_are_those_of_the_readme() -> None:
    for base, rate in (("egnn", 5e-4), ("gnn", 1e-3)):
        config = load_config(NBODY, f"{base}-none-published")
        assert (config.lr, config.lr_end, config.warmup, config.clip, config.ema) == (rate, 1.0, 0, 0.0, 0.0)
        assert (config.batch_size, config.weight_decay, config.l2) == (100, 1e-12, True)
        # Validation after passes 1, 6, ..., 9,996 of 10,000, each of 30 steps.
        passes = range(1, 10_001, 5)
        assert config.steps == 30 * passes[-1]
        assert config.validations == len(passes)
        after = 0
        for last in passes:
            after = config.validation_after(after)
            assert after == 30 * last


@pytest.mark.parametrize(("base", "symmetrizer"), [("egnn", "ps"), ("transformer", "none"), ("dynamics", "none")])
def test_what_neither_code_has_is_refused(base: str, symmetrizer: str) -> None:
    with pytest.raises(UserError, match=f"published: expected base .* with symmetrizer {symmetrizer}; got '{base}'"):
        load_config(NBODY, "gnn-none-published", [f"--base={base}", f"--symmetrizer={symmetrizer}"])
