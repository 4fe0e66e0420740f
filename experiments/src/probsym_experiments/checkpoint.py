"""The checkpoint of a training: written whole, and read only if every byte of it is as it was written.

It is what torch.save makes, an archive of zip, with a digest of all bytes before it as the archive's comment, so that
torch.load reads it too. torch.load alone reads past a flipped bit without a word.
"""

from __future__ import annotations

import hashlib
import io
import json
import pickle
import struct
import zipfile
import zlib
from pathlib import Path
from typing import IO, Any

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
    OSError,  # zipfile seeks to where a damaged index says
)
MARK = b"probsym-sha256:"  # begins the comment, which ends the file
HEX = 64  # digits of the digest after it


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
        sign(content)
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
        """Raises UserError if the run of a checkpoint, as JSON, is another one."""
        differ = []
        try:
            for name, was in json.loads(run).items():
                now = self.run.get(name)
                if now != was:
                    differ.append(f"{name}: {was!r}, not {now!r}")
        except (TypeError, ValueError, AttributeError) as error:
            raise UserError(f"--resume: {path}: damaged checkpoint (run: {error})") from error
        if differ:
            raise UserError(f"--resume: {path}: checkpoint of another run ({'; '.join(differ)})")

    def remove_checkpoint(self, path: Any) -> None:
        Path(path).unlink(missing_ok=True)


def sign(content: io.BytesIO) -> None:
    """Adds the digest to an archive of torch.save."""
    content.seek(-2, io.SEEK_END)  # an archive without a comment ends with the comment's length
    content.write((len(MARK) + HEX).to_bytes(2, "little"))
    content.write(MARK)
    content.write(hashlib.sha256(content.getbuffer()).hexdigest().encode())


def read(path: Path) -> dict[str, Any]:
    """A checkpoint, on the CPU.

    Raises UserError if the file is damaged, or is no checkpoint of a training.
    """
    with path.open("rb") as file:
        try:
            verify(file)
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
    optimizers = checkpoint["optimizer_states"]
    if not isinstance(optimizers, list) or len(optimizers) != 1:
        raise UserError(f"--resume: {path}: expected a checkpoint with the state of one optimizer")
    return checkpoint


def verify(file: IO[bytes]) -> None:
    """Raises zipfile.BadZipFile, or what else zipfile raises, if the bytes of an archive are not those written.

    Earlier versions wrote no digest: then the archive's own sums of each record have to do.
    """
    length = file.seek(0, io.SEEK_END) - HEX
    digest = hashlib.sha256()
    file.seek(0)
    left = max(0, length)
    while left:
        chunk = file.read(min(left, 2**20))
        if not chunk:
            break
        digest.update(chunk)
        left -= len(chunk)
    end = file.read()
    file.seek(max(0, length - len(MARK)))
    if file.read(len(MARK)) == MARK:
        if end != digest.hexdigest().encode():
            raise zipfile.BadZipFile("wrong check sum")
        return
    with zipfile.ZipFile(file) as archive:
        broken = archive.testzip()
        if broken is not None or archive.comment:  # a comment is what is left of a digest
            raise zipfile.BadZipFile(f"wrong check sum of {broken or 'the file'}")
        for record in archive.infolist():
            # torch compresses nothing and writes no folders, and trusts these entries of the index.
            if record.compress_size != record.file_size or record.external_attr:
                raise zipfile.BadZipFile(f"wrong entry for {record.filename}")
