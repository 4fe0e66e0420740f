"""What is trained of a backbone: everything, low-rank updates, or nothing; and how fast."""

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
    given = {"target_modules": list(targets), **_arguments(lora)}
    if not given["target_modules"]:
        raise ValueError("lora: expected target_modules, the names of the linear maps of an Encoder; got none")
    try:
        from peft import LoraConfig, inject_adapter_in_model
    except ImportError as error:
        raise ImportError('lora= needs peft: pip install "probsym[lora]"') from error
    try:
        inject_adapter_in_model(LoraConfig(**given), encoder)
    except (TypeError, ValueError) as error:
        raise ValueError(f"lora: peft cannot use {lora!r}: {error}") from error


def _arguments(lora: int | Mapping[str, Any]) -> dict[str, Any]:
    if isinstance(lora, int):
        counted(lora=lora)
        return {"r": lora, "lora_alpha": lora}
    try:
        json.dumps(given := dict(lora))
    except (TypeError, ValueError) as error:
        raise TypeError(f"lora: expected a rank, or arguments of peft.LoraConfig as in JSON; got {lora!r}") from error
    return given


def parameter_groups(model: nn.Module, lr: float = 1e-4, backbone_lr: float = 1e-5) -> list[dict[str, Any]]:
    """Parameters for `torch.optim`: those of pretrained encoders at `backbone_lr`, all others at `lr`.

    Frozen parameters are left out, and groups without parameters too; updates by LoRA belong to the encoder. Works on
    a GraphTransformer, on a Symmetrizer around one (the net of p is among the others), and on modules that hold them.

    Raises:
        TypeError, ValueError: a learning rate that is no finite number from 0 on.
    """
    rate(lr=lr, backbone_lr=backbone_lr)
    inside = {id(p) for encoder in model.modules() if isinstance(encoder, Encoder) for p in encoder.parameters()}
    trained = [p for p in model.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in trained if id(p) not in inside], "lr": lr, "name": "new"},
        {"params": [p for p in trained if id(p) in inside], "lr": backbone_lr, "name": "backbone"},
    ]
    return [group for group in groups if group["params"]]
