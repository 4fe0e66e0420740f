"""Backbones by name: Hugging Face hub or folder, timm."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from probsym.integrations.transformers.checks import expected
from probsym.integrations.transformers.families import within

Source = str | os.PathLike[str]
IMPLEMENTATIONS = (
    "eager",
    "sdpa",
    "flash_attention_2",
    "flash_attention_3",
    "flex_attention",
    "batched_mm",
    "grouped_mm",
)


@dataclass(frozen=True)
class Opened:
    """A backbone.

    Args:
        model: with its weights.
        recipe: how to build it again without weights, as JSON.
        missing: names of weights that its files do not hold.
    """

    model: nn.Module
    recipe: dict[str, Any]
    missing: tuple[str, ...] = ()

    def check(self, read: tuple[str, ...]) -> None:
        """Raises ValueError if a weight at or below one of the paths `read` is missing."""
        missing = [name for name in self.missing if within(name, read)]
        if missing:
            raise ValueError(f"source: its files lack {len(missing)} weights of the backbone: {', '.join(missing)}")


def open_source(source: Source, pretrained: bool = True, attention: str | None = None) -> Opened:
    """The backbone of a hub name, a folder in Hugging Face layout, or `timm:NAME`.

    Args:
        attention: transformers' name of an implementation; None is its choice. Not for timm.

    Raises:
        FileNotFoundError: neither a folder with config.json nor a name that the hub (or the cache) or timm knows.
        ValueError: files that are no model.
    """
    library, name = _split(source)
    return library.open(name, pretrained, attention)


def config_dict(source: Source) -> dict[str, Any]:
    """config.json of a folder or a hub name; empty for timm."""
    library, name = _split(source)
    return library.config(name)


def rebuild(recipe: dict[str, Any]) -> nn.Module:
    """The architecture of `Opened.recipe`, with random weights."""
    return LIBRARIES[recipe["library"]].rebuild(recipe)


def recipe_of(model: nn.Module) -> dict[str, Any] | None:
    """The recipe of a module that the caller built; None if it has no Hugging Face config."""
    config: Any = getattr(model, "config", None)
    if not hasattr(config, "to_diff_dict"):
        return None
    return _recipe(config)


def _split(source: Source) -> tuple[Library, str]:
    """The library of a source, and what it calls the model."""
    expected(str | os.PathLike, source=source)
    library, colon, name = str(source).partition(":")
    if colon and library in LIBRARIES:
        return LIBRARIES[library], name
    return LIBRARIES["transformers"], str(source)


def _recipe(config: Any) -> dict[str, Any]:
    return {"library": "transformers", "config": config.to_diff_dict()}


def _config_on_hub(name: str) -> dict[str, Any]:
    from transformers import PretrainedConfig

    if Path(name).is_dir() and not (Path(name) / "config.json").is_file():
        raise FileNotFoundError(f"source: no config.json in the folder {name}")
    try:
        config = PretrainedConfig.get_config_dict(name)[0]
    except OSError as error:
        if isinstance(error.__context__, json.JSONDecodeError | UnicodeDecodeError):
            raise ValueError(f"source: the config.json of {name!r} is no JSON: {error.__context__}") from error
        raise FileNotFoundError(
            f"source: expected a folder with config.json, a name on the Hugging Face hub, or timm:NAME; got {name!r}"
        ) from error
    except Exception as error:  # JSON that is no config can fail anywhere in transformers
        raise ValueError(f"source: the config.json of {name!r} is damaged ({type(error).__name__}: {error})") from error
    if not isinstance(config, dict):
        raise ValueError(f"source: the config.json of {name!r} is no JSON object but a {type(config).__name__}")
    refuse_foreign_kernels(config, f"source: the config.json of {name!r}")
    return config


def refuse_foreign_kernels(config: dict[str, Any], where: str) -> None:
    """Refuse a config that names an implementation which transformers would download and run.

    Raises:
        ValueError: names the entry.
    """
    unread: list[Any] = [config]  # a list instead of recursion, since a config may be nested deeply on purpose
    while unread:
        part = unread.pop()
        if isinstance(part, dict):
            for key, value in part.items():
                if "_implementation" in str(key):
                    _check_implementations(value, f"{where}: {key}")
                unread.append(value)
        elif isinstance(part, list):
            unread.extend(part)


def _check_implementations(value: Any, where: str) -> None:
    """One implementation, or a dict with one for each part of the model."""
    names = [value]
    if isinstance(value, dict):
        names = list(value.values())
    for name in names:
        if name is not None and name not in IMPLEMENTATIONS:
            raise ValueError(f"{where}: expected one of {', '.join(map(repr, IMPLEMENTATIONS))}, got {name!r}")


def _open_on_hub(name: str, pretrained: bool, attention: str | None) -> Opened:
    """Weights only from safetensors, classes only from transformers: nothing that the source holds is executed."""
    from transformers import AutoConfig, AutoModel

    _config_on_hub(name)
    _check_implementations(attention, "attention")
    options: dict[str, Any] = {"dtype": torch.float32, "trust_remote_code": False, "attn_implementation": attention}
    try:
        config = AutoConfig.from_pretrained(name, trust_remote_code=False)
        if not pretrained:
            return Opened(AutoModel.from_config(config, **options), _recipe(config))
        model, report = AutoModel.from_pretrained(name, **options, use_safetensors=True, output_loading_info=True)
    except OSError as error:
        raise FileNotFoundError(f"source: no weights (as safetensors) in {name!r}: {error}") from error
    except Exception as error:  # files that do not fit can fail anywhere in transformers
        reason = f"{type(error).__name__}: {error}"
        raise ValueError(f"source: {name!r} is no model that transformers can load: {reason}") from error
    for weight, tensor in [*model.named_parameters(), *model.named_buffers()]:
        if bool(tensor.isnan().any()):
            raise ValueError(f"source: {name!r}: {weight}: expected numbers, got NaN")
    return Opened(model, _recipe(config), tuple(sorted(report["missing_keys"])))


def _rebuild_by_transformers(recipe: dict[str, Any]) -> nn.Module:
    from transformers import AutoConfig, AutoModel

    refuse_foreign_kernels(recipe, "backbone")
    config = AutoConfig.for_model(**recipe["config"])
    return AutoModel.from_config(config, dtype=torch.float32, trust_remote_code=False)


def _no_config(name: str) -> dict[str, Any]:
    """timm names an architecture, and keeps no config beside it."""
    return {}


def _open_in_timm(name: str, pretrained: bool, attention: str | None) -> Opened:
    if attention is not None:
        raise ValueError(f"attention: expected None for timm:{name}, got {attention!r}")
    try:
        import timm
    except ImportError as error:
        raise ImportError(f'source: timm:{name} needs timm: pip install "probsym[timm]"') from error
    try:
        model = timm.create_model(name, pretrained=pretrained, num_classes=0)
    except (RuntimeError, OSError) as error:
        raise FileNotFoundError(f"source: timm cannot open {name!r}, or has no weights of it: {error}") from error
    return Opened(model, {"library": "timm", "name": name})


def _rebuild_by_timm(recipe: dict[str, Any]) -> nn.Module:
    return _open_in_timm(recipe["name"], False, None).model


@dataclass(frozen=True)
class Library:
    """What a library of models can do.

    Args:
        open: called with a name, whether with weights, and the implementation of attention.
        config: config.json of a name.
        rebuild: the architecture of a recipe, with random weights.
    """

    open: Callable[[str, bool, str | None], Opened]
    config: Callable[[str], dict[str, Any]]
    rebuild: Callable[[dict[str, Any]], nn.Module]


LIBRARIES: dict[str, Library] = {
    "transformers": Library(_open_on_hub, _config_on_hub, _rebuild_by_transformers),
    "timm": Library(_open_in_timm, _no_config, _rebuild_by_timm),
}
