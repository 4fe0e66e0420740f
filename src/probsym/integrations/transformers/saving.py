"""Folders in Hugging Face layout: model.safetensors and config.json, on disk or on the hub."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from torch import Tensor, nn

from probsym.files import read_json, read_tensors, write
from probsym.integrations.transformers.sources import Source, config_dict

WEIGHTS = "model.safetensors"
CONFIG = "config.json"
MODEL_TYPE = "probsym-graph-transformer"
FORMAT = 1
M = TypeVar("M", bound=nn.Module)


def save(weights: dict[str, Tensor], description: dict[str, Any], folder: Source, overwrite: bool) -> None:
    """Write both files, each in one go."""
    from safetensors.torch import save as to_bytes

    folder = refuse(folder, overwrite)
    weights = {name: tensor.detach().contiguous().clone() for name, tensor in weights.items()}
    write(folder / WEIGHTS, to_bytes(weights, metadata={"format": "pt"}))
    save_config(description, folder)


def save_config(description: dict[str, Any], folder: Path) -> None:
    config = {"model_type": MODEL_TYPE, "format": FORMAT, **description}
    write(folder / CONFIG, json.dumps(config, indent=2))


def refuse(folder: Source, overwrite: bool) -> Path:
    """The folder as a path.

    Raises:
        FileExistsError: it holds a saved model, and `overwrite` is false.
    """
    folder = Path(folder)
    if (folder / CONFIG).exists() and not overwrite:
        raise FileExistsError(f"{folder / CONFIG} exists: pass overwrite=True to replace the saved model")
    return folder


def is_saved(source: Source) -> bool:
    """Whether a source is a model that probsym saved, and not a backbone."""
    return config_dict(source).get("model_type") == MODEL_TYPE


def load(source: Source, build: Callable[[dict[str, Any]], M], weights: bool = True) -> M:
    """The GraphTransformer that `build` makes of config.json, with the saved weights unless `weights` is false.

    Raises:
        ValueError: another model, or the weights do not fit; names them.
    """
    folder, description = opened(source, "GraphTransformer")
    model = built(build, description, folder)
    if weights:
        try:
            model.load_state_dict(read_tensors(folder / WEIGHTS))
        except RuntimeError as error:
            raise ValueError(f"{folder / WEIGHTS} does not fit the model: {error}") from error
    return model


def built(build: Callable[[dict[str, Any]], M], description: dict[str, Any], folder: Path) -> M:
    """build(description).

    Raises:
        ValueError: the description is damaged; names the file.
    """
    try:
        return build(description)
    except OSError:
        raise
    except Exception as error:  # a description that does not fit can fail anywhere in transformers
        raise ValueError(f"{folder / CONFIG}: describes no model ({type(error).__name__}: {error})") from error


def opened(source: Source, architecture: str) -> tuple[Path, dict[str, Any]]:
    """Local folder and config.json of a saved model.

    Raises:
        FileNotFoundError: neither a folder nor a name on the hub; files are missing.
        ValueError: a model of another kind.
    """
    config = config_dict(source)
    names = config.get("architectures")
    kind = "model of another kind"
    if isinstance(names, list) and names:
        kind = names[0]
    if config.get("model_type") != MODEL_TYPE or kind != architecture:
        raise ValueError(
            f"source: expected a {architecture} that was saved as such, got {str(source)!r}, a {kind} (backbones and "
            "GraphTransformers are for GraphTransformer.from_pretrained, Symmetrizers for load_pretrained)"
        )
    folder = _local(source)
    description = read_json(folder / CONFIG)
    if description.get("format") != FORMAT:
        raise ValueError(f"{folder / CONFIG}: expected format {FORMAT}, got {description.get('format')!r}")
    return folder, description


def _local(source: Source) -> Path:
    """The folder itself, or the local copy of a model on the hub."""
    folder = Path(source)
    if not folder.is_dir():
        from huggingface_hub import snapshot_download

        folder = Path(snapshot_download(str(source), allow_patterns=[WEIGHTS, "*.json"]))
    for name in (CONFIG, WEIGHTS):
        if not (folder / name).is_file():
            raise FileNotFoundError(f"{folder / name}: no such file; expected a folder written by save_pretrained")
    return folder
