"""Backbones by name: Hugging Face hub or folder, timm."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

Source = str | os.PathLike[str]


@dataclass(frozen=True)
class Opened:
    """A backbone, how to build it again without weights, and the names of weights that its files do not hold."""

    model: nn.Module
    recipe: dict[str, Any]
    missing: tuple[str, ...] = ()


def open_source(source: Source, pretrained: bool = True) -> Opened:
    """The backbone of a hub name, a folder in Hugging Face layout, or `timm:NAME`.

    Raises:
        FileNotFoundError: neither a folder with config.json nor a name that the hub (or the cache) knows.
        ValueError: files that are no model.
    """
    library, colon, name = str(source).partition(":")
    if colon and library in LIBRARIES:
        return LIBRARIES[library].by_name(name, pretrained)
    return _from_hub(str(source), pretrained)


def rebuild(recipe: dict[str, Any]) -> nn.Module:
    """The architecture of `Opened.recipe`, with random weights."""
    return LIBRARIES[recipe["library"]].by_recipe(recipe)


def recipe_of(model: nn.Module) -> dict[str, Any] | None:
    """The recipe of a module that the caller built; None if it has no Hugging Face config."""
    config: Any = getattr(model, "config", None)
    return _recipe(config) if hasattr(config, "to_diff_dict") else None


def config_dict(source: Source) -> dict[str, Any]:
    """config.json of a folder or a hub name."""
    from transformers import PretrainedConfig

    if Path(source).is_dir() and not (Path(source) / "config.json").is_file():
        raise FileNotFoundError(f"source: no config.json in the folder {source}")
    try:
        return PretrainedConfig.get_config_dict(str(source))[0]
    except OSError as error:
        raise FileNotFoundError(
            f"source: expected a folder with config.json, a name on the Hugging Face hub, or timm:NAME; got {source!r}"
        ) from error


def _from_hub(source: str, pretrained: bool) -> Opened:
    from transformers import AutoConfig, AutoModel

    config_dict(source)
    try:
        config = AutoConfig.from_pretrained(source)
        if not pretrained:
            return Opened(AutoModel.from_config(config, dtype=torch.float32), _recipe(config))
        model, report = AutoModel.from_pretrained(source, dtype=torch.float32, output_loading_info=True)
    except OSError as error:
        raise FileNotFoundError(f"source: no weights in {source!r}: {error}") from error
    except (ValueError, RuntimeError) as error:
        raise ValueError(f"source: {source!r} is no model that transformers can load: {error}") from error
    return Opened(model, _recipe(config), tuple(sorted(report["missing_keys"])))


def _recipe(config: Any) -> dict[str, Any]:
    return {"library": "transformers", "config": config.to_diff_dict()}


def _named_on_hub(name: str, pretrained: bool) -> Opened:
    return _from_hub(name, pretrained)


def _built_by_transformers(recipe: dict[str, Any]) -> nn.Module:
    from transformers import AutoConfig, AutoModel

    return AutoModel.from_config(AutoConfig.for_model(**recipe["config"]), dtype=torch.float32)


def _named_in_timm(name: str, pretrained: bool) -> Opened:
    import timm

    return Opened(timm.create_model(name, pretrained=pretrained, num_classes=0), {"library": "timm", "name": name})


def _built_by_timm(recipe: dict[str, Any]) -> nn.Module:
    return _named_in_timm(recipe["name"], False).model


@dataclass(frozen=True)
class Library:
    """How a library makes a model: from a name (with weights or without), or from a recipe."""

    by_name: Callable[[str, bool], Opened]
    by_recipe: Callable[[dict[str, Any]], nn.Module]


LIBRARIES: dict[str, Library] = {
    "transformers": Library(_named_on_hub, _built_by_transformers),
    "timm": Library(_named_in_timm, _built_by_timm),
}
