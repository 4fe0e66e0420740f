"""The published presets of PATTERN, Peptides and PCQM-Contact are the published code: its formulas, written anew.

The formulas are those of github.com/jw9730/lps (c03c9a4), src. Weights of a tiny transformer, noise and graphs are the
same, in float64: orders are equal, and outputs, losses and gradients agree to 1e-10 of the largest.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy, l1_loss, linear, one_hot
from torchmetrics import MeanMetric

from probsym_experiments.as_published import AsPublished
from probsym_experiments.batches import Pages, Tensors
from probsym_experiments.config import load_config
from probsym_experiments.errors import UserError
from probsym_experiments.models import BatchNormGIN, GraphScores
from probsym_experiments.outcome import Place
from probsym_experiments.recipe import Recipe, TrainerOptions
from probsym_experiments.registry import experiment
from probsym_experiments.tasks import learn, pattern, pcqm_contact, peptides_func, peptides_struct
from probsym_experiments.tasks.block_model import BlockModel, assemble, draw, load
from probsym_experiments.tasks.build import arguments, build
from probsym_experiments.tasks.collate import Channels, Padded
from probsym_experiments.tasks.goals import NodeClasses, Whole
from probsym_experiments.tasks.learn import InSinglePrecision, Loss, Losses
from probsym_experiments.training import Problem, fit
from published_orders import entropy, score_net, soft_and_hard

EXACT = 1e-10
TASKS = {
    "pattern": pattern,
    "peptides-func": peptides_func,
    "peptides-struct": peptides_struct,
    "pcqm-contact": pcqm_contact,
}
# The largest graph of each task, made smaller. The margin of a mirrored row of 196 tokens has to fit twice.
LARGEST = {"pattern": 16, "peptides-func": 100, "peptides-struct": 100, "pcqm-contact": 20}
SIZES = [5, 9, 7]
N = 9


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> str:
    transformers = pytest.importorskip("transformers")
    config = transformers.ViTConfig(
        hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16, image_size=28, patch_size=2
    )
    folder = str(tmp_path_factory.mktemp("vit"))
    transformers.ViTModel(config).save_pretrained(folder)
    return folder


def graphs(task: Any, channels: Channels) -> dict[str, Tensor]:
    """Three random graphs with features and labels, padded, in float64."""
    generator = torch.Generator().manual_seed(0)
    count = len(SIZES)
    mask = torch.arange(N) < torch.tensor(SIZES)[:, None]
    both = mask[:, :, None] & mask[:, None]

    def classes(shape: tuple[int, ...], numbers: tuple[int, ...]) -> Tensor:
        parts = [one_hot(torch.randint(n, shape, generator=generator), n) for n in numbers]
        return torch.cat(parts, -1).double()

    x = classes((count, N), channels.nodes) * mask[..., None]
    adjacency = torch.rand(count, N, N, generator=generator).triu(1) < 0.4
    adjacency = (adjacency | adjacency.mT) & both
    edge = adjacency[..., None].double()
    if channels.edges:
        kinds = classes((count, N, N), channels.edges)
        upper = torch.ones(N, N).triu().bool()[None, :, :, None]
        kinds = torch.where(upper, kinds, kinds.transpose(1, 2))
        edge = torch.cat([edge, kinds * edge], -1)
    if channels.diagonal:
        edge = torch.cat([edge, torch.diag_embed(x.mT).movedim(1, 3)], -1)
    batch = {"x": x, "edge": edge, "mask": mask}
    if task is pattern:
        batch["label"] = torch.randint(2, (count, N), generator=generator) * mask
    elif task is pcqm_contact:
        pairs = both.nonzero()[::5]
        batch["pair"] = pairs
        batch["label"] = torch.randint(2, (len(pairs),), generator=generator)
    elif task is peptides_func:
        batch["target"] = torch.randint(2, (count, 10), generator=generator).double()
    else:
        batch["target"] = torch.randn(count, 11, generator=generator, dtype=torch.float64)
    return batch


def built(name: str, preset: str, tiny: str) -> tuple[Any, dict[str, Tensor], Any, Any]:
    """The model of a preset in training mode and float64, a batch, the config and the goal."""
    config = load_config(experiment(name), preset, [f"--source={tiny}"])
    task = replace(TASKS[name].TASK, max_nodes=LARGEST[name])
    channels = Channels(task.node_classes, task.edge_classes, 0, True, name == "pattern")
    batch = graphs(TASKS[name], channels)
    torch.manual_seed(1)
    phi = build(config, task, channels, {k: v.float() if v.is_floating_point() else v for k, v in batch.items()})
    phi = phi.double().train()
    for module in phi.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    return phi, batch, config, task.goal.of_batches()


# ---------------------------------------------------------------- the published code, written anew


def places(length: int, patches: int, mode: str, centred: bool) -> tuple[Tensor, int]:
    """Which pixel stands at each place of a filled row, -1 for none; and the side of a patch."""
    patch = (length - 1) // patches + 1 if patches <= length else 1
    more = patch * patches - length
    front = more // 2 if centred else 0
    place = torch.arange(patch * patches) - front
    if mode == "reflect":
        place = place.abs()
        place = torch.where(place >= length, 2 * (length - 1) - place, place)
    elif mode == "circular":
        place = place % length
    else:
        place = torch.where((place >= 0) & (place < length), place, -1)
    return place, patch


def picked(values: Tensor, place: Tensor, axis: int) -> Tensor:
    found = values.index_select(axis, place.clamp_min(0))
    shape = [1] * values.ndim
    shape[axis] = len(place)
    return found * (place >= 0).double().view(shape)


def tokens_of(net: Any, x: Tensor, edge: Tensor, config: Any) -> Tensor:
    """(R, L, C) and (R, L, L, C) of graphs of the largest size to 196 tokens."""
    length = x.shape[1]
    place, patch = places(length, 196, config.padding, config.centred)
    row = picked(x, place, 1).unflatten(1, (196, patch))
    tokens = torch.einsum("rtpc,dcp->rtd", row, net.of_nodes.weight) + net.of_nodes.bias
    place, patch = places(length, 14, config.padding, config.centred)
    image = picked(picked(edge, place, 1), place, 2).unflatten(1, (14, patch)).unflatten(3, (14, patch))
    of_image = torch.einsum("ripjqc,dcpq->rijd", image, net.of_edges.weight) + net.of_edges.bias
    return tokens + of_image.flatten(1, 2)


def larger(values: Tensor, length: int, axes: int) -> Tensor:
    """Padding at the end of the node axes, behind the batch axis."""
    for axis in range(1, 1 + axes):
        shape = list(values.shape)
        shape[axis] = length - values.shape[axis]
        values = torch.cat([values, values.new_zeros(shape)], axis)
    return values


def theirs(phi: Any, batch: dict[str, Tensor], noise: Any, config: Any, kept: list[Tensor]) -> dict[str, Tensor]:
    """Orders, the output and the entropy, from noise as ours is laid out: samples first."""
    net = phi.model
    length = net.max_nodes
    p = phi.distribution
    x = larger(batch["x"], length, 1)
    edge = larger(batch["edge"], length, 2)
    mask = larger(batch["mask"].double(), length, 1).bool()

    # 1. Orders.
    z = larger(noise["features"]["inputs"]["x"].movedim(0, 1).movedim(1, 2), length, 1).movedim(2, 1)
    (ties,) = noise["features"]["features"].values()
    ties = larger(ties.movedim(0, 1).mT, length, 1).mT
    scores = score_net(p.net.net, x[:, None] + p.scale * z, edge[..., 0], mask) + 1e-6 * ties
    soft, hard = soft_and_hard(scores, mask, config.temperature, config.sinkhorn)
    order = (hard - soft).detach() + soft
    samples = order.shape[1]

    # 2. The network on permuted graphs.
    nodes = torch.einsum("bkji,bjc->bkic", order, x).flatten(0, 1)
    pairs = torch.einsum("bkji,bjlc,bklm->bkimc", order, edge, order).flatten(0, 1)
    if net.hides_nodes:
        nodes = 0 * nodes.detach()
    tokens = tokens_of(net, nodes, pairs, config)
    counting = None
    if kept:
        # Rows are graph by graph there, sample by sample here.
        counting = kept[0].unflatten(0, (samples, len(x))).transpose(0, 1).flatten(0, 1)
    prefix, tokens = net.encoder(tokens, counting)
    if not net.pairs:
        y = linear(prefix[:, 0], net.head.weight, net.head.bias).unflatten(0, (len(x), samples)).mean(1)
    else:
        patch = net.head.weight.shape[-1]
        y = torch.einsum("rijd,dcpq->ripjqc", tokens.unflatten(1, (14, 14)), net.head.weight) + net.head.bias
        y = y.reshape(len(y), 14 * patch, 14 * patch, -1)[:, :length, :length].unflatten(0, (len(x), samples))
        y = torch.einsum("bkij,bkjlc,bkml->bkimc", order, y, order).mean(1)
    return {"hard": hard, "output": y, "entropy": entropy(soft, mask)}


def loss_of(name: str, y: Tensor, batch: dict[str, Tensor]) -> Tensor:
    if name == "peptides-func":
        return binary_cross_entropy_with_logits(y, batch["target"])
    if name == "peptides-struct":
        return l1_loss(y, batch["target"])
    if name == "pcqm-contact":
        graph, i, j = batch["pair"].unbind(-1)
        return binary_cross_entropy_with_logits(y[graph, i, j, 0], batch["label"].double())
    scores = y.diagonal(dim1=1, dim2=2).mT[:, :N][batch["mask"]]
    labels = batch["label"][batch["mask"]]
    counts = torch.bincount(labels, minlength=2)
    return cross_entropy(scores, labels, (len(labels) - counts).double() / len(labels))


# ---------------------------------------------------------------- ours against it


@pytest.mark.parametrize(
    ("name", "method"),
    [
        ("pattern", "ps"),
        ("pattern", "canonical"),
        ("peptides-func", "ps"),
        ("peptides-struct", "ps"),
        ("pcqm-contact", "ps"),
    ],
)
def test_orders_outputs_and_gradients_are_those_of_the_published_code(
    name: str, method: str, tiny: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    phi, batch, config, goal = built(name, f"vit-b16-in21k-{method}-published", tiny)
    given = arguments(batch)
    noise = phi.draw_noise(**given, samples=2)
    monkeypatch.setattr(AsPublished, "noise", lambda self, x, shape=(), generator=None: noise)
    phi.train_estimator = replace(phi.train_estimator, k=2)

    # The patches that are left out: the same in both.
    kept: list[Tensor] = []
    if phi.model.patch_dropout:
        kept.append(phi.model.kept(torch.zeros(2 * len(SIZES), 196, 8)))
        monkeypatch.setattr(type(phi.model), "kept", lambda self, tokens: kept[0])

    # The loss of a training step, in float32 but for a patched `float`, and its gradient.
    monkeypatch.setattr(Tensor, "float", Tensor.double)
    ours = Loss(goal, config.entropy_weight)(phi, batch)
    weights = dict(phi.named_parameters())
    own = torch.autograd.grad(ours, list(weights.values()), allow_unused=True)
    found = theirs(phi, batch, noise, config, kept)
    expected_loss = loss_of(name, found["output"], batch) + config.entropy_weight * found["entropy"]
    expected = torch.autograd.grad(expected_loss, list(weights.values()), allow_unused=True)

    # Orders, outputs, losses.
    order = phi.distribution.transport(phi.bind((), given), noise)
    for b, real in enumerate(SIZES):
        matrix = one_hot(order.index[:, b, :real], real).double()
        assert torch.equal(matrix, found["hard"][b, :, :real, :real])
    y = phi(**given, noise=noise)
    theirs_output = found["output"]
    if phi.model.pairs:
        both = (batch["mask"][:, :, None] & batch["mask"][:, None])[..., None]
        theirs_output = theirs_output[:, :N, :N] * both
    torch.testing.assert_close(y, theirs_output, atol=EXACT, rtol=0)
    torch.testing.assert_close(ours, expected_loss, atol=1e-9, rtol=0)

    # Gradients, of the network and of the net of p.
    largest = max(float(other.abs().max()) for other in expected if other is not None)
    of_net = 0.0
    for weight, mine, other in zip(weights, own, expected, strict=True):
        if mine is None or other is None:
            assert mine is None or not mine.any(), weight
            assert other is None or not other.any(), weight
            continue
        torch.testing.assert_close(
            mine, other, atol=EXACT * max(1, largest), rtol=1e-8, msg=lambda text, weight=weight: f"{weight}: {text}"
        )
        if "distribution" in weight:
            of_net += float(mine.abs().sum())
    assert of_net > 1e-7


def test_features_are_full_indicators() -> None:
    """50 of the atoms of peptides and one more than 7 of their bonds; three signals of PATTERN, on the diagonal too."""
    task = peptides_func.TASK
    assert (
        Channels(task.node_classes, task.edge_classes, 0, True).x,
        Channels(task.node_classes, task.edge_classes, 0, True).edge,
    ) == (50, 8)
    task = pattern.TASK
    channels = Channels(task.node_classes, task.edge_classes, 0, True, True)
    assert (channels.x, channels.edge) == (3, 4)


def test_patches_are_left_out_in_evaluation_too(tiny: str) -> None:
    """Half of them of each row; or a share that each call draws anew."""
    phi, _, _, _ = built("peptides-func", "vit-b16-in21k-ps-published", tiny)
    model = phi.eval().model
    assert set(model.kept(torch.zeros(50, 196, 8)).sum(1).tolist()) == {98}
    x = torch.randn(2, 5, 50, dtype=torch.float64)
    edge = torch.randn(2, 5, 5, 8, dtype=torch.float64)
    assert not torch.equal(model(x, edge), model(x, edge))
    phi, _, _, _ = built("peptides-struct", "vit-b16-in21k-ps-published", tiny)
    counts = {int(phi.model.kept(torch.zeros(1, 196, 8)).sum()) for _ in range(200)}
    assert min(counts) >= 98
    assert len(counts) > 20


# ---------------------------------------------------------------- how it is trained


def rates(base: float, steps: int, warmup: int) -> list[float]:
    """Their scheduler, told the number of each step before it: a rate that no rule sets stays what it was."""
    found = []
    rate = base
    end = steps + 1
    for step in range(steps):
        if warmup < step < end:
            rate = base * (1 - (step - warmup) / (end - warmup))
        if warmup > 0 and step < warmup:
            rate = base * step / warmup
        found.append(rate)
    return found


@pytest.mark.parametrize("warmup", [0, 1, 7])
def test_rates_are_those_of_the_published_code(warmup: int) -> None:
    expected = rates(0.5, 30, warmup)
    flags = {"steps": 30, "lr": 0.5, "warmup": warmup, "warmup_from_zero": True}
    recipe = Recipe(schedule="linear-published", **flags)
    assert [recipe.rate(step) for step in range(30)] == pytest.approx(expected, abs=1e-15)
    other = Recipe(schedule="linear", **flags)
    assert abs(other.rate(29) - expected[29]) > 0.01


def test_published_rates_rise_from_zero() -> None:
    """A rise that ends one step earlier would dip where the published one lasts for two steps."""
    with pytest.raises(UserError, match="warmup_from_zero: expected true with schedule linear-published"):
        Recipe(schedule="linear-published", warmup=7)
    Recipe(schedule="linear-published")


PASSES = {"pattern": 10_000, "peptides-func": 10_873, "peptides-struct": 10_873, "pcqm-contact": 476_490}


@pytest.mark.parametrize("name", TASKS)
def test_recipes_are_the_published_ones(name: str) -> None:
    """Validation after each pass over the training set, whose last batch is a short one, and patience for 100."""
    for preset in experiment(name).presets:
        if preset.endswith("-published"):
            config = load_config(experiment(name), preset)
            assert config.validate_every == -(-PASSES[name] // config.batch_size)
            assert (config.schedule, config.patience, config.keep_rest) == ("linear-published", 100, True)


# ---------------------------------------------------------------- what a set is judged by


def recalls(scores: Tensor, labels: Tensor) -> float:
    """Mean over classes of the share of right nodes, from counts of pairs (class, guess)."""
    confusion = torch.zeros(2, 2)
    for label, guess in zip(labels.tolist(), scores.softmax(1).argmax(1).tolist(), strict=True):
        confusion[label, guess] += 1
    return (confusion.diagonal() / confusion.sum(1)).mean().item()


def test_the_metric_of_pattern_is_a_mean_over_batches_of_128() -> None:
    """200 graphs make a batch of 128 and one of 72, which count alike; not the recall of the whole set."""
    goal = NodeClasses(2).of_batches()
    generator = torch.Generator().manual_seed(3)
    label = torch.randint(2, (200, 3), generator=generator)
    pairs = torch.randn(200, 3, 3, 2, generator=generator)
    pairs[128:, ..., 1] += 3 * label[128:, :, None]  # the second batch is easier
    mask = torch.ones(200, 3, dtype=torch.bool)
    rows = goal.rows(pairs[None], {"label": label, "mask": mask})[0]
    scores = pairs[:, range(3), range(3)]
    expected = []
    for part in (slice(0, 128), slice(128, 200)):
        expected.append(recalls(scores[part].flatten(0, 1), label[part].flatten()))
    assert goal.total(rows).item() == pytest.approx(sum(expected) / 2, abs=1e-6)
    whole = recalls(scores.flatten(0, 1), label.flatten())
    assert abs(whole - sum(expected) / 2) > 0.01


@pytest.mark.parametrize("world", [2, 3])
def test_the_metric_of_pattern_does_not_depend_on_the_number_of_processes(
    world: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each process judges every second or third graph; gathered, their rows come process by process."""
    goal = NodeClasses(2).of_batches()
    every = torch.randint(1, 20, (200, 2), generator=torch.Generator().manual_seed(5)).float()
    share = torch.linspace(0.1, 0.9, 200)[:, None]
    rows = torch.cat([every * share, every], 1)
    whole = Whole(goal)
    for rank in range(world):
        for page in Pages(Tensors({"rows": rows}), 32, rank, world):
            whole.update(page["rows"])
    whole.rows = torch.cat(whole.rows)  # as torchmetrics leaves what it gathered
    monkeypatch.setattr(torch.distributed, "get_world_size", lambda: world)
    assert whole.compute() == goal.total(rows)
    assert abs(goal.total(whole.rows) - goal.total(rows)) > 0.01


class Echo(nn.Module):
    """A model that gives what it is told."""

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        return x


@pytest.mark.parametrize("name", ["pattern", "pcqm-contact"])
def test_the_loss_of_validation_is_a_mean_over_batches(name: str) -> None:
    """A batch of three graphs and one of a single graph count alike, each with its own weights of classes."""
    goal = TASKS[name].TASK.goal.of_batches()
    judge = Losses(goal, by_batch=True)
    metric = MeanMetric()
    generator = torch.Generator().manual_seed(4)
    expected = []
    for sizes in ([4, 2, 3], [4]):
        mask = torch.arange(4) < torch.tensor(sizes)[:, None]
        y = torch.randn(len(sizes), 4, 4, goal.outputs, generator=generator)
        batch = {"x": y, "mask": mask}
        if name == "pattern":
            batch["label"] = torch.randint(2, mask.shape, generator=generator) * mask
            batch["label"][:, 0] = 1
            batch["label"][:, 1] = 0
            labels = batch["label"][mask]
            counts = torch.bincount(labels, minlength=2)
            scores = y.diagonal(dim1=1, dim2=2).mT[mask]
            expected.append(cross_entropy(scores, labels, (len(labels) - counts).float() / len(labels)))
        else:
            pair = (mask[:, :, None] & mask[:, None]).nonzero()[::3]
            batch |= {"pair": pair, "label": torch.randint(2, (len(pair),), generator=generator)}
            scores = y[pair[:, 0], pair[:, 1], pair[:, 2], 0]
            expected.append(binary_cross_entropy_with_logits(scores, batch["label"].float()))
        metric.update(judge(Echo(), batch))
    torch.testing.assert_close(metric.compute(), torch.stack(expected).mean())


def test_published_sets_keep_their_order_and_are_validated_in_whole_batches(
    tiny: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The metric depends on which graphs share a batch; without `published` sets are sorted by size, for speed."""
    few = BlockModel(patterns=4, train=2, valid=3, test=3, communities=2, largest=8)
    task = replace(pattern.TASK, load=lambda folder: load(few, folder))
    wanted = assemble(draw(few)).take(few.parts()["valid"]).sizes.tolist()
    assert wanted != sorted(wanted)
    caught = []

    def keep(problem: Any, *rest: Any) -> None:
        caught.append(problem)
        raise InterruptedError

    monkeypatch.setattr(learn, "fit", keep)
    small = ["--batch_size=5", "--rows=64"]
    published = ("vit-b16-in21k-ps-published", [f"--source={tiny}", *small])
    ours = ("walk-transformer-ga", ["--train_size=8", "--valid_size=12", "--test_size=12", *small])
    for preset, flags in (published, ours):
        config = load_config(experiment("pattern"), preset, flags)
        with pytest.raises(InterruptedError):
            learn.learn(task, config, Place(preset, tmp_path, tmp_path, False))
    theirs, other = caught
    assert theirs.valid.graphs.sizes.tolist() == wanted
    assert other.valid.graphs.sizes.tolist() == sorted(wanted)
    assert theirs.page == 5
    assert other.page == 64
    assert isinstance(theirs.judge, InSinglePrecision)
    assert not isinstance(other.judge, InSinglePrecision)


def test_validation_is_in_single_precision_where_training_is_not(tmp_path: Path) -> None:
    """The value is that of the trained weights in float32, to the bit; without the wrapper it is another."""
    x = torch.randn(64, 4)
    data = Tensors({"x": x})
    narrow = []

    def loss(net: nn.Module, batch: dict[str, Tensor]) -> Tensor:
        narrow.append(torch.is_autocast_enabled("cpu"))
        return net(batch["x"]).float().square().mean()

    def errors(net: nn.Module, batch: dict[str, Tensor]) -> Tensor:
        return net(batch["x"]).float().square()[:, 0]

    options = TrainerOptions(accelerator="cpu", progress=False, precision="bf16-mixed")
    recipe = Recipe(steps=2, validate_every=2, batch_size=8, clip=0.0, trainer=options)
    equal = []
    for judge in (InSinglePrecision(errors), errors):
        net = nn.Linear(4, 1)
        progress = fit(Problem(net, loss, judge, data, data), recipe, tmp_path)
        equal.append(progress.best == errors(net, {"x": x}).mean().item())
    assert all(narrow)
    assert equal == [True, False]


def test_scores_of_p_would_tie_in_bfloat16() -> None:
    """Why p stays in float32: in 8 bits half of the nodes have the score of another, and ties go by their numbers.

    The noise of 1e-6 that breaks ties there is below the last of these bits.
    """
    channels = Channels((3,), full=True, diagonal=True)
    batch = Padded(channels)(assemble(draw(BlockModel(patterns=4, train=2, valid=1, test=1))))
    net = GraphScores(BatchNormGIN(3, padded_to=188)).train()
    x = batch["x"] + torch.rand_like(batch["x"])
    shares = []
    for narrow in (True, False):
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=narrow):
            scores = net(x, batch["edge"], batch["mask"])
        scores = scores + torch.zeros_like(scores).uniform_(0, 1e-6)
        tied = 0
        for row, there in zip(scores, batch["mask"], strict=True):
            counts = row[there].unique(return_counts=True)[1]
            tied += int(counts[counts > 1].sum())
        shares.append(tied / int(batch["mask"].sum()))
    assert shares[0] > 0.35
    assert shares[1] < 0.001
