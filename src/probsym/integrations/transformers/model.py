"""GraphTransformer: a transformer for other data, reading and writing graphs; and its symmetrization in one call."""

from __future__ import annotations

import os
from typing import Any

import torch
from torch import Tensor, nn

from probsym.distributions import EquivariantDistribution
from probsym.groups import NodeAxis, S
from probsym.integrations.transformers import adaptation, sources
from probsym.integrations.transformers.adaptation import LoRA
from probsym.integrations.transformers.encoder import Encoder
from probsym.integrations.transformers.families import family_of
from probsym.integrations.transformers.heads import GraphHead, NodeHead, PairHead
from probsym.integrations.transformers.tokens import ImagePatches, NodeTokens
from probsym.reps import Rep
from probsym.symmetrizer import Samples, Symmetrizer, symmetrize

Tokens = ImagePatches | NodeTokens
Head = GraphHead | NodeHead | PairHead


class GraphTransformer(nn.Module):
    """A token-in token-out transformer on graphs: embed, encode, decode (Kim et al., arXiv 2306.02866, section 4).

        y = head(encoder(tokens(x, edge)))

    It knows no symmetry: symmetrize it over S_n. Of the backbone the blocks, the norms, the class token and the
    position embeddings (interpolated to the tokens) are kept; its own embeddings and head are left behind.

    Args:
        backbone: a Hugging Face model (ViT, DeiT, DINOv2, BEiT, BERT and alike) or a timm ViT. Its modules are taken
            over, not copied.
        tokens: `ImagePatches` or `NodeTokens`. head: `GraphHead`, `NodeHead` or `PairHead`.
        node_channels, edge_channels: sizes of the last axes of x and edge.
        layers: keep the first blocks only.
        frozen: train the tokens and the head alone. lora: train low-rank updates of the backbone instead; rank, or
            arguments of `peft.LoraConfig`.
        checkpointing: compute each block again in backward instead of keeping its activations.
        dtype: of the weights.

    Raises:
        TypeError: the backbone has an unknown interface; says which attributes were looked for.
        ValueError: more layers than there are, positions that cannot be interpolated.

    >>> from transformers import ViTConfig, ViTModel
    >>> config = ViTConfig(hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32)
    >>> f = GraphTransformer(ViTModel(config), ImagePatches(30, patch=8), NodeHead(2), node_channels=3, edge_channels=1)
    >>> f(x=torch.randn(4, 25, 3), edge=torch.randn(4, 25, 25, 1)).shape
    torch.Size([4, 25, 2])
    """

    def __init__(
        self,
        backbone: nn.Module,
        tokens: Tokens,
        head: Head,
        node_channels: int,
        edge_channels: int,
        layers: int | None = None,
        frozen: bool = False,
        lora: LoRA = None,
        checkpointing: bool = False,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        super().__init__()
        if not isinstance(backbone, nn.Module):
            raise TypeError(f"backbone: expected an nn.Module, got {type(backbone).__name__}")
        self.tokens, self.head = tokens, head
        self.channels = {"x": node_channels, "edge": edge_channels}
        self.recipe = sources.recipe_of(backbone)
        self.options = {"layers": layers, "frozen": frozen, "lora": lora, "checkpointing": checkpointing}
        self.encoder = self._encoder(backbone, layers, frozen, lora)
        self.encoder.checkpointing = checkpointing
        width = self.width
        self.embedding = tokens.embedding(width, node_channels, edge_channels)
        self.decoder = head.decoder(tokens, width)
        self.to(dtype).train()

    def _encoder(self, backbone: nn.Module, layers: int | None, frozen: bool, lora: LoRA) -> Encoder:
        backbone = getattr(backbone, "base_model", backbone)
        family = family_of(backbone)
        encoder = family.encoder(backbone, self.tokens, layers)
        if frozen:
            encoder.requires_grad_(False)
        if lora is not None:
            adaptation.add_lora(encoder, lora, family.lora)
        return encoder

    @property
    def width(self) -> int:
        """Size of a token."""
        table = self.encoder.position if self.encoder.prefix is None else self.encoder.prefix
        return table.shape[-1]  # type: ignore[union-attr]

    @property
    def dtype(self) -> torch.dtype:
        return next(self.embedding.parameters()).dtype

    @classmethod
    def from_pretrained(
        cls,
        source: str | os.PathLike[str],
        tokens: Tokens,
        head: Head,
        node_channels: int,
        edge_channels: int,
        pretrained: bool = True,
        **options: Any,
    ) -> GraphTransformer:
        """A backbone by name with new tokens and a new head.

        Args:
            source: hub name, folder in Hugging Face layout, or `timm:NAME`.
            pretrained: False takes the same architecture with random weights.
            options: those of the class.

        Raises:
            FileNotFoundError: no such folder or name. ValueError: weights are missing (listed by name).
        """
        opened = sources.open_source(source, pretrained)
        read = family_of(opened.model).reads()
        missing = [name for name in opened.missing if name.startswith(read)]
        if missing:
            raise ValueError(f"source: {len(missing)} weights are missing in {str(source)!r}: {', '.join(missing)}")
        model = cls(opened.model, tokens, head, node_channels, edge_channels, **options)
        model.recipe = opened.recipe
        return model

    def forward(self, x: Tensor, edge: Tensor, mask: Tensor | None = None) -> Tensor:
        """x (B, N, Cx), edge (B, N, N, Ce), mask (B, N) bool -> (B, C), (B, N, C) or (B, N, N, C).

        Padded nodes are last and their entries zero, as the Symmetrizer leaves them.

        Raises:
            ValueError: more nodes than `max_nodes`; shapes that do not fit.
        """
        self._check(x, edge, mask)
        tokens, counting = self.embedding(x.to(self.dtype), edge.to(self.dtype), mask)
        prefix, tokens = self.encoder(tokens, counting)
        return self.decoder(prefix, tokens, counting, mask, x.shape[1])

    def _check(self, x: Tensor, edge: Tensor, mask: Tensor | None) -> None:
        b, n = x.shape[:2]
        if n > self.tokens.max_nodes:
            raise ValueError(f"x: expected at most max_nodes = {self.tokens.max_nodes} nodes, got {n}")
        shapes = {"x": (b, n, self.channels["x"]), "edge": (b, n, n, self.channels["edge"]), "mask": (b, n)}
        for name, value in (("x", x), ("edge", edge), ("mask", mask)):
            if value is not None and value.shape != shapes[name]:
                raise ValueError(f"{name}: expected shape {shapes[name]}, got {tuple(value.shape)}")

    def inputs(self, nodes: NodeAxis) -> dict[str, Rep]:
        """Reps of the inputs on a node axis, for `ps.symmetrize`."""
        return {"x": Rep(nodes), "edge": Rep(nodes, nodes)}

    def output(self, nodes: NodeAxis) -> Rep:
        """Rep of the output on a node axis."""
        return self.head.rep(nodes)

    def parameter_groups(self, lr: float = 1e-4, backbone_lr: float = 1e-5) -> list[dict[str, Any]]:
        """See `parameter_groups`."""
        return adaptation.parameter_groups(self, lr, backbone_lr)


NODES = S("nodes", mask="mask")


def symmetrized(
    model: GraphTransformer,
    distribution: str | EquivariantDistribution = "learned",
    nodes: NodeAxis = NODES,
    train_samples: Samples = None,
    eval_samples: Samples = None,
) -> Symmetrizer:
    """The permutation equivariant Symmetrizer of a GraphTransformer, called as phi(x=x, edge=edge, mask=mask).

    Args:
        distribution, train_samples, eval_samples: as for `ps.symmetrize`.
        nodes: the node axis, padded with `mask` if not given.
    """
    b, n = 1, min(2, model.tokens.max_nodes)
    example = {
        "x": torch.zeros(b, n, model.channels["x"]),
        "edge": torch.zeros(b, n, n, model.channels["edge"]),
        "mask": torch.ones(b, n, dtype=torch.bool),
    }
    return symmetrize(
        model, model.inputs(nodes), model.output(nodes), distribution, train_samples, eval_samples, example=example
    )
