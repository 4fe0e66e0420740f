"""GraphTransformer: a transformer for other data, reading and writing graphs."""

from __future__ import annotations

import os
import warnings
from dataclasses import asdict
from inspect import signature
from typing import Any

import torch
from torch import Tensor, nn

from probsym.integrations.transformers import adaptation, saving, sources
from probsym.integrations.transformers.adaptation import LoRA
from probsym.integrations.transformers.checks import counted, expected
from probsym.integrations.transformers.encoder import Encoder
from probsym.integrations.transformers.families import encoder_of, taken_over
from probsym.integrations.transformers.heads import GraphHead, NodeHead, PairHead
from probsym.integrations.transformers.sources import Source
from probsym.integrations.transformers.tokens import ImagePatches, NodeTokens, kept
from probsym.reps import NodeAxis, Rep

Tokens = ImagePatches | NodeTokens
Head = GraphHead | NodeHead | PairHead
# Tokens and heads by the names under which config.json holds them.
TOKEN_KINDS: dict[str, type[ImagePatches] | type[NodeTokens]] = {"ImagePatches": ImagePatches, "NodeTokens": NodeTokens}
HEAD_KINDS: dict[str, type[GraphHead] | type[NodeHead] | type[PairHead]] = {
    "GraphHead": GraphHead,
    "NodeHead": NodeHead,
    "PairHead": PairHead,
}


class GraphTransformer(nn.Module):
    """A transformer from tokens to tokens on graphs: embed, encode, decode (Kim et al., arXiv 2306.02866, section 4).

        y = head(encoder(tokens(x, edge)))

    It is not equivariant: symmetrize it over S_n. It keeps the backbone's blocks, norms, class token and position
    embeddings (interpolated to the tokens). The backbone's own embeddings and head are not used.

    Args:
        backbone: a Hugging Face model (ViT, DeiT, DINOv2, BEiT, Data2Vec, CLIP, SigLIP; BERT, RoBERTa, DistilBERT and
            alike), a timm ViT, or an `Encoder` of any other blocks. Its parts are copied.
        tokens: `ImagePatches` or `NodeTokens`.
        head: `GraphHead`, `NodeHead` or `PairHead`.
        node_channels, edge_channels: sizes of the last axes of x and edge.
        layers: keep only the first blocks.
        frozen: train only the tokens and the head.
        lora: train low-rank updates of the backbone instead of its weights: a rank, or arguments of `peft.LoraConfig`
            (target_modules among them for an `Encoder`).
        checkpointing: compute each block again in backward instead of keeping its activations.
        patch_dropout: share of the tokens of each row of a batch that a training step leaves out, at random. No token
            attends to them, and means over tokens skip them. Node and pair outputs are still read from them.
        dtype: of the weights.

    Raises:
        TypeError: the backbone has an unknown interface; says which attributes were looked for. A look-alike whose
            blocks let masked tokens through. Other types.
        ValueError: numbers below 1, more layers than there are, positions that cannot be interpolated; both of frozen
            and lora; patch_dropout outside of [0, 1), or for blocks that take no mask.

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
        patch_dropout: float = 0.0,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        super().__init__()
        expected(nn.Module, backbone=backbone)
        expected(Tokens, tokens=tokens)
        expected(Head, head=head)
        expected(bool, frozen=frozen, checkpointing=checkpointing)
        expected(torch.dtype, dtype=dtype)
        counted(node_channels=node_channels, edge_channels=edge_channels)
        self.tokens = tokens
        self.head = head
        self.channels = {"x": node_channels, "edge": edge_channels}
        self.recipe = sources.recipe_of(backbone)
        self.options: dict[str, Any] = {
            "layers": layers,
            "frozen": frozen,
            "lora": lora,
            "checkpointing": checkpointing,
            "patch_dropout": patch_dropout,
        }

        # 1. The encoder: a copy of the parts of the backbone, all of them trained, some updates, or none.
        encoder, lora_targets = encoder_of(backbone, tokens, layers)
        self._check_masking(encoder, type(backbone).__name__)
        if frozen and lora is not None:
            raise ValueError(f"lora: expected None for a frozen backbone, which does not learn; got {lora!r}")
        if frozen:
            encoder.requires_grad_(False)
        if lora is not None:
            adaptation.add_lora(encoder, lora, lora_targets)
        encoder.checkpointing = checkpointing
        self.encoder = encoder

        # 2. Dropout of tokens, which blocks without a mask would still see.
        expected(float | int, patch_dropout=patch_dropout)
        if not 0 <= patch_dropout < 1:
            raise ValueError(f"patch_dropout: expected a share from 0 on and below 1, got {patch_dropout}")
        if patch_dropout and encoder.mask_name is None:
            raise ValueError("patch_dropout: expected 0 for a backbone whose blocks take no mask")
        self.patch_dropout = patch_dropout

        # 3. What leads from graphs to tokens and back.
        self.embedding = tokens.embedding(encoder.width, node_channels, edge_channels)
        self.decoder = head.decoder(tokens, encoder.width)
        self.to(dtype)
        self.train()

    def _check_masking(self, encoder: Encoder, name: str) -> None:
        """Padding must not reach the other tokens. A look-alike may understand the mask in another way."""
        if encoder.mask_name is None:
            message = f"backbone: the blocks of {name} take no mask, so that outputs of a graph depend on its padding"
            warnings.warn(message, stacklevel=3)
            return
        try:
            reads_masks = encoder.reads_masks(self.tokens.length)
        except Exception as error:  # whatever foreign blocks raise
            raise TypeError(
                f"backbone: the blocks of {name} cannot be called with tokens and a mask: {error}"
            ) from error
        if not reads_masks:
            raise TypeError(
                f"backbone: the blocks of {name} see masked tokens, or attend causally where nothing is masked; "
                f"{encoder.mask_name} means something else to them"
            )

    @property
    def dtype(self) -> torch.dtype:
        return next(self.embedding.parameters()).dtype

    @classmethod
    def from_pretrained(
        cls,
        source: Source,
        tokens: Tokens | None = None,
        head: Head | None = None,
        node_channels: int | None = None,
        edge_channels: int | None = None,
        pretrained: bool = True,
        attention: str | None = None,
        **options: Any,
    ) -> GraphTransformer:
        """A backbone by name with new tokens and a new head, or a whole model that `save_pretrained` wrote.

        The model is in training mode, as every new module. Call `eval()` before predicting, or the backbone's dropout
        stays on.

        Args:
            source: hub name, folder in Hugging Face layout, or `timm:NAME`. Of CLIP and its kind the image tower is
                taken.
            tokens, head, node_channels, edge_channels: as for the class; not given for a saved GraphTransformer.
            pretrained: False takes the same architecture with random weights.
            attention: transformers' name of an implementation of attention, such as "eager", "sdpa"; None is its
                choice. On CPUs and in bfloat16 "eager" is faster. Not saved with the model.
            options: those of the class.

        Raises:
            FileNotFoundError: no such folder or name.
            ValueError: weights are missing (listed by name), or arguments are too many or too few.
            TypeError: those of the class; a source that is no name.
        """
        expected(bool, pretrained=pretrained)
        needed = {"tokens": tokens, "head": head, "node_channels": node_channels, "edge_channels": edge_channels}

        # 1. A whole model knows all of its arguments.
        if saving.is_saved(source):
            unwanted = []
            for name, value in {**needed, **options, "attention": attention}.items():
                if value is not None:
                    unwanted.append(name)
            if unwanted:
                raise ValueError(
                    f"source: {str(source)!r} is a whole GraphTransformer; leave out {', '.join(unwanted)}"
                )
            return saving.load(source, cls.from_description, pretrained)

        # 2. A backbone gets new tokens and a new head.
        if tokens is None or head is None or node_channels is None or edge_channels is None:
            missing = [name for name, value in needed.items() if value is None]
            raise ValueError(f"source: {str(source)!r} is a backbone; give {', '.join(missing)} too")
        opened = sources.open_source(source, pretrained, attention)
        opened.check(taken_over(opened.model))
        model = cls(opened.model, tokens, head, node_channels, edge_channels, **options)
        model.recipe = opened.recipe
        return model

    def save_pretrained(self, folder: str | os.PathLike[str], overwrite: bool = False) -> None:
        """Write model.safetensors and config.json, from which `from_pretrained(folder)` makes the whole model again.

        The folder can be pushed as it is: `huggingface_hub.upload_folder(repo_id=..., folder_path=folder)`.

        Raises:
            FileExistsError: a model lies there, and `overwrite` is false.
            ValueError: the backbone has no Hugging Face config, so that it could not be built again.
        """
        saving.save(self.state_dict(), self.description(), folder, overwrite)

    def description(self) -> dict[str, Any]:
        """Everything but the weights, as JSON."""
        if self.recipe is None:
            raise ValueError("backbone: it has no Hugging Face config; save its state_dict() yourself")
        return {
            "architectures": ["GraphTransformer"],
            "backbone": self.recipe,
            "tokens": {"kind": type(self.tokens).__name__, **asdict(self.tokens)},
            "head": {"kind": type(self.head).__name__, **asdict(self.head)},
            "node_channels": self.channels["x"],
            "edge_channels": self.channels["edge"],
            **self.options,
            "dtype": str(self.dtype).removeprefix("torch."),
        }

    @classmethod
    def from_description(cls, description: dict[str, Any]) -> GraphTransformer:
        """The model of a `description`, with random weights."""
        arguments = {}
        for name in signature(cls).parameters:
            if name in description:
                arguments[name] = description[name]
        tokens = dict(description["tokens"])
        arguments["tokens"] = TOKEN_KINDS[tokens.pop("kind")](**tokens)
        head = dict(description["head"])
        arguments["head"] = HEAD_KINDS[head.pop("kind")](**head)
        arguments["backbone"] = sources.rebuild(description["backbone"])
        arguments["dtype"] = getattr(torch, description["dtype"])
        model = cls(**arguments)
        model.recipe = description["backbone"]
        return model

    def forward(self, x: Tensor, edge: Tensor, mask: Tensor | None = None) -> Tensor:
        """x (B, N, Cx), edge (B, N, N, Ce), mask (B, N) bool -> (B, C), (B, N, C) or (B, N, N, C).

        Padded nodes are last and their entries zero, as the Symmetrizer leaves them. That is not checked here: a node
        that is masked between others is absent from its place, and the places of the others stay.

        Raises:
            ValueError: more nodes than `max_nodes`; shapes that do not fit.
            TypeError: a mask that is not bool.
        """
        self._check(x, edge, mask)
        tokens, counting = self.embedding(x.to(self.dtype), edge.to(self.dtype), mask)
        if self.training and self.patch_dropout:
            if counting is None:
                counting = torch.ones((), dtype=torch.bool, device=x.device)
            counting = kept(counting.expand(tokens.shape[:2]), self.patch_dropout)
        prefix, tokens = self.encoder(tokens, counting)
        return self.decoder(prefix, tokens, counting, mask, x.shape[1])

    def _check(self, x: Tensor, edge: Tensor, mask: Tensor | None) -> None:
        if x.ndim != 3:
            raise ValueError(f"x: expected shape (B, N, {self.channels['x']}), got {tuple(x.shape)}")
        b, n = x.shape[:2]
        if n > self.tokens.max_nodes:
            raise ValueError(f"x: expected at most max_nodes = {self.tokens.max_nodes} nodes, got {n}")
        _check_shape("x", x, (b, n, self.channels["x"]))
        _check_shape("edge", edge, (b, n, n, self.channels["edge"]))
        if mask is not None:
            _check_shape("mask", mask, (b, n))
            if mask.dtype != torch.bool:
                raise TypeError(f"mask: expected torch.bool, got {mask.dtype}")

    def inputs(self, nodes: NodeAxis) -> dict[str, Rep]:
        """Reps of the inputs on a node axis, for `ps.symmetrize`."""
        return {"x": Rep(nodes), "edge": Rep(nodes, nodes)}

    def output(self, nodes: NodeAxis) -> Rep:
        """Rep of the output on a node axis."""
        return self.head.rep(nodes)

    def parameter_groups(self, lr: float = 1e-4, backbone_lr: float = 1e-5) -> list[dict[str, Any]]:
        """See `probsym.integrations.transformers.parameter_groups`."""
        return adaptation.parameter_groups(self, lr, backbone_lr)


def _check_shape(name: str, value: Tensor, shape: tuple[int, ...]) -> None:
    if value.shape != shape:
        raise ValueError(f"{name}: expected shape {shape}, got {tuple(value.shape)}")
