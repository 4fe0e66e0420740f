"""The fields that every task shares."""

from __future__ import annotations

from dataclasses import dataclass, field

import probsym as ps

from ..checks import Uses, at_least, noise_enters, positive, samples_evaluated
from ..errors import UserError, choose
from ..methods import PAPER
from ..recipe import Recipe
from .bases import BASES, readers

RELAXED = ps.Relaxation()


@dataclass(kw_only=True)
class Config(Recipe):
    """Which model, how it is symmetrized, how it is trained and tested.

    Args:
        base: vit-b16-in21k, dinov2-s, minilm (pretrained; weights in a folder of PROBSYM_MODELS or from the hub),
            scratch (a small ViT), walk-transformer (a token each node), gnn-id (message passing, nodes with numbers).
        source: Of a pretrained base, in place of its own: a folder, a name on the hub, or timm:NAME.
        symmetrizer: ps (learned), ga (Haar), fa (frames), canonical.
        pretrained: Whether a pretrained base keeps its weights; false trains the same network from scratch.
        tokens: Of transformers: patches (of the image of the adjacency) or nodes.
        patch: Pixels a side of a patch; null is as many as make 14 x 14 patches.
        patch_dropout: Share of the patches of each sample that a training step leaves out.
        width: Of scratch, walk-transformer and gnn-id, as the next.
        heads: Of attention.
        layers: Null is all layers of a pretrained base; scratch 6, walk-transformer 4, gnn-id 6.
        dropout: Of gnn-id: share of layers that a node skips, and of the head's inputs.
        frozen: Whether the backbone stays as it is.
        lora: Rank of low-rank updates of a backbone that else stays as it is; needs peft.
        checkpointing: Whether a backbone is computed anew in backward, for memory.
        attention: eager (fast in bf16 on CPUs) or sdpa, as transformers has them; null is its choice.
        backbone_lr: Peak learning rate of a backbone; null is lr.
        walks: Steps of random walks whose return probabilities are features of the nodes.
        train_samples: Samples a training step; null is 1.
        valid_samples: Samples at each validation; ps and ga only, as the next three.
        eval_samples: Numbers of samples at which the test metric is measured.
        samples: The one of them that is the result.
        repeats: Times that the largest of them is drawn anew.
        rows: Samples times graphs that the base sees at once when it is judged; with published, when it is tested, and
            validation is in batches of batch_size graphs.
        bootstrap: Resamples of the test set for its standard error.
        published: p and its net, the features of nodes and edges, what leads from graphs to a pretrained transformer
            and back, the loss of a batch and the metric as in the published code (see docs/reproduction.md); the noise
            is uniform on [0, scale].
        order_dropout: Of the net of p of the published code.
        padding: What fills the margin of the image: zeros, reflect or circular; with published, as the next two.
        centred: Whether half of the margin is in front of the image.
        patch_dropout_varies: Whether each call draws its share of patches that are left out, up to patch_dropout.
        select: What picks the weights that are kept: the metric of the task, or the loss.
        entropy_weight: Of the entropy of the soft permutations in the loss; ps and canonical only.
        temperature: Of the relaxation, in standard deviations of the scores.
        sinkhorn: Normalisations of the relaxation.
        noise: Where noise enters p: late (its scores) or input (node features).
        scale: Of that noise; late, in standard deviations of the scores.
        max_support: Most frames of a graph that are averaged; fa only.
        train_size: Training graphs, the first ones; null is all of them, as for the next two.
        valid_size: Validation graphs.
        test_size: Test graphs.
    """

    base: str = "scratch"
    source: str | None = None
    symmetrizer: str = "ps"
    pretrained: bool = True
    tokens: str = "patches"
    patch: int | None = None
    patch_dropout: float = 0.0
    width: int = 96
    heads: int = 4
    layers: int | None = None
    dropout: float = 0.0
    frozen: bool = False
    lora: int | None = None
    checkpointing: bool = False
    attention: str | None = None
    backbone_lr: float | None = None
    walks: int = 0
    train_samples: int | None = None
    valid_samples: int = 1
    eval_samples: list[int] = field(default_factory=lambda: [1, 10])
    samples: int = 10
    repeats: int = 3
    rows: int = 64
    bootstrap: int = 200
    published: bool = False
    order_dropout: float = 0.0
    padding: str = "zeros"
    centred: bool = False
    patch_dropout_varies: bool = False
    select: str = "metric"
    entropy_weight: float = 0.0
    temperature: float = RELAXED.temperature
    sinkhorn: int = RELAXED.sinkhorn
    noise: str = "late"
    scale: float = 1.0
    max_support: int = 64
    train_size: int | None = None
    valid_size: int | None = None
    test_size: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        choose("base", BASES, self.base)
        choose("symmetrizer", PAPER, self.symmetrizer)
        choose("tokens", dict.fromkeys(("patches", "nodes")), self.tokens)
        if self.attention is not None:
            choose("attention", dict.fromkeys(("eager", "sdpa")), self.attention)
        noise_enters(self)
        at_least(self, 1, "valid_samples", "repeats", "rows", "bootstrap", "width", "heads", "max_support")
        for name in ("patch", "layers", "lora", "train_samples", "train_size", "valid_size", "test_size"):
            if getattr(self, name) is not None:
                at_least(self, 1, name)
        at_least(self, 0, "walks", "entropy_weight", "sinkhorn", "dropout", "patch_dropout", "order_dropout")
        choose("select", dict.fromkeys(("metric", "loss")), self.select)
        choose("padding", dict.fromkeys(("zeros", "reflect", "circular")), self.padding)
        if self.published and ("source" not in BASES[self.base].settings or self.base == "minilm"):
            raise UserError(f"published: expected a vision transformer with weights as base; got {self.base}")
        if self.published and (self.tokens == "nodes" or self.frozen or self.lora is not None):
            raise UserError("published: expected false with tokens nodes, frozen or lora")
        positive(self, "temperature", "scale")
        for name in ("dropout", "patch_dropout", "order_dropout"):
            if not getattr(self, name) < 1:
                raise UserError(f"{name}: expected less than 1; got {getattr(self, name)}")
        if self.width % self.heads:
            raise UserError(f"width: expected a multiple of heads = {self.heads}; got {self.width}")
        samples_evaluated(self)

    def uses(self) -> Uses:
        """What fields belong to, whether this configuration has it, and their names."""
        method = PAPER[self.symmetrizer]
        drawn = ("valid_samples", "eval_samples", "samples", "repeats")
        uses: Uses = {
            "samples that are drawn (symmetrizer ps, ga)": (method.random, drawn),
            "noise (symmetrizer ps)": (method.noisy, ("noise", "scale")),
            "a net that orders the nodes (symmetrizer ps, canonical)": (
                method.net,
                ("temperature", "sinkhorn", "entropy_weight"),
            ),
            "published": (self.published, ("padding", "centred", "patch_dropout_varies")),
            "published, with a net of p": (self.published and method.net, ("order_dropout",)),
            "published false": (not self.published, ("noise",)),
            "tokens patches": (self.tokens == "patches", ("patch", "patch_dropout")),
            "frames (symmetrizer fa)": (self.symmetrizer == "fa", ("max_support",)),
        }
        for bases, names in readers().items():
            uses[f"base {' or '.join(bases)}"] = (self.base in bases, names)
        return uses

    @property
    def relaxation(self) -> ps.Relaxation:
        return ps.Relaxation(self.temperature, self.sinkhorn, softmax=not self.published)

    @property
    def counts(self) -> dict[str, int | None]:
        """Graphs of each part; None is all."""
        return {"train": self.train_size, "valid": self.valid_size, "test": self.test_size}
