"""Base networks on graphs, the net of p, and ways to symmetrize, by name: a new one is one line here."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

import probsym as ps
from probsym.nets import GIN
from probsym.nets.masking import keep

from ..batches import Batch
from ..checks import Uses
from ..errors import choose
from ..methods import METHODS as ALL_METHODS
from ..methods import PAPER, PublishedNoise, Settings
from ..models import GINID, MLP, BatchNormGIN
from .dense import return_probabilities
from .soft import Soft

Samples = int | ps.Estimator | None
ACTIVATIONS: Mapping[str, type[nn.Module]] = {"tanh": nn.Tanh, "relu": nn.ReLU}
NETS = dict.fromkeys(("gin", "batch-norm-gin"))  # of p


class FlatMLP(nn.Module):
    """An MLP on the padded adjacency and the node features, N * N + N * F numbers; the mask tells it nothing new.

    Args:
        nodes: Where the node features stand: behind the adjacency ("last"), before it ("first") or not at all ("none").
    """

    def __init__(
        self,
        in_features: int,
        hidden: Sequence[int],
        out_features: int,
        activation: type[nn.Module],
        bounded: bool,
        nodes: str = "last",
    ) -> None:
        super().__init__()
        self.nodes = nodes
        out_activation: type[nn.Module] = nn.Identity
        if bounded:
            out_activation = nn.Tanh
        self.net = MLP(in_features, hidden, out_features, activation, out_activation)

    def forward(
        self, adjacency: Tensor, nodes: Tensor | None = None, mask: Tensor | None = None, **others: Tensor
    ) -> Tensor:
        if nodes is None or self.nodes == "none":
            return self.net(adjacency)
        if self.nodes == "first":
            return self.net(nodes, adjacency)
        return self.net(adjacency, nodes)


class ScoreNet(nn.Module):
    """Scores (B, N) of nodes by a GIN on their features and, if `walks` > 0, their random-walk return probabilities.

    The probabilities tell apart nodes that message passing cannot, as in arXiv 2110.07875.
    """

    def __init__(self, walks: int = 0, hidden: int = 64, layers: int = 3) -> None:
        super().__init__()
        self.walks = walks
        self.gin = GIN(hidden, layers)

    def forward(self, adjacency: Tensor, nodes: Tensor | None = None, mask: Tensor | None = None) -> Tensor:
        known = []
        if nodes is not None:
            known.append(nodes)
        if self.walks:
            known.append(return_probabilities(adjacency, self.walks).to(adjacency.dtype))
        features = None
        if known:
            features = keep(torch.cat(known, -1), mask)
        return self.gin(features, adjacency, mask).squeeze(-1)


@dataclass(frozen=True)
class Shape:
    """What the graphs of a data set look like: nodes of the largest, features a node, whether they are padded."""

    nodes: int
    features: int = 0
    padded: bool = False

    @staticmethod
    def of(batch: Batch) -> Shape:
        features = 0
        if "nodes" in batch:
            features = batch["nodes"].shape[-1]
        return Shape(batch["adjacency"].shape[-1], features, "mask" in batch)

    @property
    def pairs(self) -> int:
        """In the adjacency of one graph."""
        return self.nodes**2

    @property
    def numbers(self) -> int:
        """In one graph."""
        return self.nodes * (self.nodes + self.features)


@dataclass(frozen=True)
class Design:
    """Sizes and settings of a model.

    Args:
        out: Numbers of the output. bounded: With a tanh after it.
        activation: Name in ACTIVATIONS.
        hidden: Widths of the MLP. width, layers: Of GIN-ID. head: Widths of the MLP after its pooling.
        net: Of p: "gin", or "batch-norm-gin", the paper's.
        walks: Steps of random walks whose return probabilities the net of p sees; "gin" alone.
        noise, scale: Of p, "late" or "input".
        temperature, sinkhorn: Of the relaxation.
        max_support: Most frames of an input that are listed.
        seed: Of fixed noise.
        by_node: Whether the output is one number a node (`out` of them) instead of invariant.
        published: Whether p is that of the published code, with its net and its noise, and the MLP sees the node
            features first. The graphs then have the node features of that code.
        adjacency_alone: Whether the MLP sees no node features, as there on GRAPH8c.
    """

    out: int = 10
    bounded: bool = False
    activation: str = "tanh"
    hidden: tuple[int, ...] = (128, 64)
    width: int = 64
    layers: int = 3
    head: tuple[int, ...] = ()
    net: str = "gin"
    walks: int = 0
    noise: str = "late"
    scale: float = 1.0
    temperature: float = 0.1
    sinkhorn: int = 10
    max_support: int = 64
    seed: int = 0
    by_node: bool = False
    published: bool = False
    adjacency_alone: bool = False

    def settings(self, shape: Shape, index: str | None) -> Settings:
        """Of the distribution.

        Args:
            index: Name of the argument that numbers the graphs, if there is one.
        """

        def net() -> nn.Module:
            if self.published:
                return BatchNormGIN(shape.features, spare=True)
            if self.net == "batch-norm-gin":
                return BatchNormGIN(shape.features)
            return ScoreNet(self.walks)

        noise = None
        if self.published:
            noise = PublishedNoise("uniform", ("nodes",))
        return Settings(
            net,
            self.noise,
            self.scale,
            ps.Relaxation(self.temperature, self.sinkhorn, softmax=not self.published),
            self.max_support,
            self.seed,
            index,
            published=noise,
        )


def mlp(shape: Shape, design: Design) -> nn.Module:
    numbers = shape.numbers
    nodes = "last"
    if design.adjacency_alone:
        numbers = shape.pairs
        nodes = "none"
    elif design.published:
        nodes = "first"
    return FlatMLP(numbers, design.hidden, design.out, ACTIVATIONS[design.activation], design.bounded, nodes)


def gin_id(shape: Shape, design: Design) -> nn.Module:
    out_activation: type[nn.Module] = nn.Identity
    if design.bounded:
        out_activation = nn.Tanh
    return GINID(
        shape.nodes,
        shape.features,
        design.out,
        design.width,
        design.layers,
        design.head,
        ACTIVATIONS[design.activation],
        out_activation,
    )


@dataclass(frozen=True)
class Base:
    """A network for graphs of a shape, and the settings of a design that it reads."""

    build: Callable[[Shape, Design], nn.Module]
    settings: tuple[str, ...]


BASES: Mapping[str, Base] = {
    "mlp": Base(mlp, ("hidden",)),
    "gin-id": Base(gin_id, ("width", "layers", "head")),
}

# The four of the paper, one by its score function, and two ablations.
METHODS = {
    **PAPER,
    "ps-score": ALL_METHODS["ps-score"],
    "ps-fixed-noise": ALL_METHODS["ps-fixed-noise"],
    "ps-soft": ALL_METHODS["ps-soft"],
}


def uses(base: str, methods: Collection[str], fields: Collection[str]) -> Uses:
    """What settings among `fields` belong to, whether a model symmetrized in these ways has it, and their names."""
    chosen = [ALL_METHODS[name] for name in methods]  # none is one of them
    with_net = any(method.net for method in chosen)
    with_noise = any(method.noisy for method in chosen)
    owners: Uses = {
        "a net that orders the nodes (ps, canonical)": (
            with_net,
            ("net", "walks", "temperature", "sinkhorn", "entropy_weight"),
        ),
        "noise (ps)": (with_noise, ("noise", "scale")),
        "frames (fa)": ("fa" in methods, ("max_support",)),
    }
    for name, one in BASES.items():
        owners[f"base {name}"] = (name == base, one.settings)

    # An experiment that lacks a setting as a field says nothing of it.
    owners_of_fields: Uses = {}
    for owner, (has, names) in owners.items():
        owners_of_fields[owner] = (has, [name for name in names if name in fields])
    return owners_of_fields


def build(
    base: str, method: str, example: Batch, design: Design, samples: tuple[Samples, Samples] = (None, None)
) -> ps.Symmetrizer | Soft:
    """The base network made invariant to the order of the nodes.

    Args:
        base, method: Names in BASES and METHODS; or none, the bare base over the trivial group, of graphs of one size.
        example: A batch that tells the sizes.
        samples: In training and in evaluation; None is the distribution's own choice.

    The weights follow torch's present random state.
    """
    how = choose("symmetrizer", {**METHODS, "none": ALL_METHODS["none"]}, method)

    # 1. What the nodes act on.
    shape = Shape.of(example)
    nodes: ps.S | ps.Axis = ps.S("nodes")
    if shape.padded:
        nodes = ps.S("nodes", mask="mask")
    if how.distribution is None:
        nodes = ps.Axis("nodes")  # nothing acts: the bare base
    reps = {"adjacency": ps.Rep(nodes, nodes)}
    if shape.features:
        reps["nodes"] = ps.Rep(nodes)
    index = None
    if "index" in example:
        index = "index"
        reps["index"] = ps.Rep()
    output = ps.Rep()
    if design.by_node:
        output = ps.Rep(nodes)

    # 2. The base first, then the net of p: both take their weights from torch's random state.
    model = choose("base", BASES, base).build(shape, design)
    if how.distribution is None:
        return ps.symmetrize(model, reps, output, "haar", ps.Exact(), ps.Exact())
    distribution = how.distribution(nodes, design.settings(shape, index))
    few = None
    if not design.published and design.net != "batch-norm-gin":
        few = inputs(example, slice(0, 2))  # lazy nets have to see one; a net with statistics should not
    phi = ps.symmetrize(model, reps, output, distribution, *samples, example=few)
    if how.soft:
        return Soft(phi)
    return phi


def inputs(batch: Batch, index: slice | Tensor = slice(None)) -> dict[str, Any]:
    """What a model is called with: the graphs, without their labels."""
    call: dict[str, Any] = {}
    for name in ("adjacency", "nodes", "mask", "index"):
        if name in batch:
            call[name] = batch[name][index]
    return call
