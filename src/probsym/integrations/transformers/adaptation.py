"""Which part of a backbone is trained (everything, low-rank updates, nothing), and at which learning rate."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from torch import nn

from probsym.integrations.transformers.checks import counted, rate
from probsym.integrations.transformers.encoder import Encoder

LoRA = int | Mapping[str, Any] | None


def add_lora(encoder: Encoder, lora: int | Mapping[str, Any], targets: tuple[str, ...]) -> None:
    """Low-rank updates of the encoder's linear maps (arXiv 2106.09685) through `peft`; all else in it is frozen.

    Args:
        lora: rank, or keyword arguments of `peft.LoraConfig`.
        targets: names of linear maps that are adapted where `lora` does not say.

    Raises:
        ImportError: peft is not installed.
        TypeError, ValueError: neither a rank from 1 on nor arguments that peft takes and that can be saved as JSON.
    """
    # 1. The arguments of peft: a rank stands for two of them.
    options: dict[str, Any] = {"target_modules": list(targets)}
    if isinstance(lora, int):
        counted(lora=lora)
        options["r"] = lora
        options["lora_alpha"] = lora
    else:
        try:
            options.update(lora)
            json.dumps(options)
        except (TypeError, ValueError) as error:
            raise TypeError(
                f"lora: expected a rank, or arguments of peft.LoraConfig as in JSON; got {lora!r}"
            ) from error
    if not options["target_modules"]:
        raise ValueError("lora: expected target_modules, the names of the linear maps of an Encoder; got none")

    # 2. The updates, put into the encoder in place.
    try:
        from peft import LoraConfig, inject_adapter_in_model
    except ImportError as error:
        raise ImportError('lora= needs peft: pip install "probsym[lora]"') from error
    try:
        inject_adapter_in_model(LoraConfig(**options), encoder)
    except (TypeError, ValueError) as error:
        raise ValueError(f"lora: peft cannot use {lora!r}: {error}") from error


def parameter_groups(model: nn.Module, lr: float = 1e-4, backbone_lr: float = 1e-5) -> list[dict[str, Any]]:
    """Parameters for `torch.optim`: those of pretrained encoders at `backbone_lr`, all others at `lr`.

    Frozen parameters are left out, and groups without parameters too; updates by LoRA belong to the encoder. Works on
    a GraphTransformer, on a Symmetrizer around one (the net of p is among the others), and on modules that hold them.

    Raises:
        TypeError, ValueError: a learning rate that is no finite number from 0 on.
    """
    rate(lr=lr, backbone_lr=backbone_lr)
    in_encoders: set[nn.Parameter] = set()
    for module in model.modules():
        if isinstance(module, Encoder):
            in_encoders.update(module.parameters())

    new = []
    backbone = []
    for parameter in model.parameters():
        if not parameter.requires_grad:
            continue
        if parameter in in_encoders:
            backbone.append(parameter)
        else:
            new.append(parameter)

    groups: list[dict[str, Any]] = []
    if new:
        groups.append({"params": new, "lr": lr, "name": "new"})
    if backbone:
        groups.append({"params": backbone, "lr": backbone_lr, "name": "backbone"})
    return groups
