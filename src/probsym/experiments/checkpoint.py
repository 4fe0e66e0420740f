"""The checkpoint of a training: written whole, and read only if every byte of it is as it was written."""

from __future__ import annotations

import io
import json
import pickle
import struct
import zipfile
import zlib
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.plugins import CheckpointIO

from probsym.files import write

from .errors import UserError

# What Lightning and `Training` need of a checkpoint.
NEEDED = ("state_dict", "optimizer_states", "lr_schedulers", "loops", "epoch", "global_step", "progress")
DAMAGE = (
    zipfile.BadZipFile,
    zlib.error,
    struct.error,
    pickle.UnpicklingError,
    RuntimeError,  # torch.load, also NotImplementedError of zipfile
    EOFError,
    ValueError,  # also UnicodeDecodeError
    LookupError,
    TypeError,
    AttributeError,
    OverflowError,
    MemoryError,
)


class Checkpoints(CheckpointIO):
    """How Lightning writes and reads checkpoints.

    Args:
        run: What tells this run from others, as JSON could hold it. It is kept in the checkpoint; one of another run
            is refused.

    Attributes:
        loaded: The checkpoint that was read; None before that.
    """

    def __init__(self, run: dict[str, Any]) -> None:
        self.run = json.loads(json.dumps(run))  # as it will be read
        self.loaded: Path | None = None

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        content = io.BytesIO()
        torch.save(checkpoint | {"run": json.dumps(self.run)}, content)
        write(Path(path), content.getbuffer())

    def load_checkpoint(self, path: Any, map_location: Any = "cpu", weights_only: bool | None = True) -> dict[str, Any]:
        """Raises UserError if the file is damaged, or of another run."""
        path = Path(path)
        checkpoint = read(path)
        if "run" in checkpoint:  # earlier versions did not write it
            self._compare(path, checkpoint["run"])
        self.loaded = path
        return checkpoint

    def _compare(self, path: Path, run: Any) -> None:
        try:
            other = json.loads(run)
            differ = [f"{name}: {was!r}, not {self.run.get(name)!r}" for name, was in other.items()]
        except (TypeError, ValueError, AttributeError) as error:
            raise UserError(f"--resume: {path}: damaged checkpoint (run: {error})") from error
        differ = [text for text, name in zip(differ, other, strict=True) if self.run.get(name) != other[name]]
        if differ:
            raise UserError(f"--resume: {path}: checkpoint of another run ({'; '.join(differ)})")

    def remove_checkpoint(self, path: Any) -> None:
        Path(path).unlink(missing_ok=True)


def read(path: Path) -> dict[str, Any]:
    """A checkpoint, on the CPU.

    The archive's own check sums are compared first: torch.load reads past a flipped bit without a word.

    Raises UserError if the file is damaged, or is no checkpoint of a training.
    """
    with path.open("rb") as file:
        try:
            with zipfile.ZipFile(file) as archive:
                broken = archive.testzip()
            if broken is not None:
                raise zipfile.BadZipFile(f"wrong check sum of {broken}")
            file.seek(0)
            checkpoint = torch.load(file, weights_only=True, map_location="cpu")
        except DAMAGE as error:
            reason = str(error).strip().partition("\n")[0].partition(". ")[0]
            raise UserError(f"--resume: {path}: damaged checkpoint ({reason or type(error).__name__})") from error
    if not isinstance(checkpoint, dict):
        raise UserError(f"--resume: {path}: expected a checkpoint of a training; got {type(checkpoint).__name__}")
    missing = [name for name in NEEDED if name not in checkpoint]
    if missing:
        raise UserError(f"--resume: {path}: expected a checkpoint of a training; it lacks {', '.join(missing)}")
    return checkpoint
