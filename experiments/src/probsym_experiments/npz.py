"""Reads npz files that may be damaged or hostile: numbers, or one clear error before memory is spent on claims."""

from __future__ import annotations

import math
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from .errors import UserError

Arrays = dict[str, NDArray]
LARGEST_ARRAY = 2**32  # bytes
KINDS = "biuf"  # booleans, integers, real numbers


def read_npz(path: Path, names: Iterable[str], advice: str = "") -> Arrays:
    """The named arrays of an npz file.

    Each must hold real numbers, none of them NaN or infinite, in exactly the bytes that its header claims.

    Args:
        advice: what to do with a damaged file; ends the message.

    Raises:
        UserError: the file is damaged, lacks an array, or holds something else; names the file.
        OSError: it cannot be opened.
    """
    with path.open("rb") as file:
        try:
            with zipfile.ZipFile(file) as archive:
                return {name: _member(archive, name) for name in names}
        except Exception as error:  # bytes that are no archive, no header or no numbers can raise anything
            reason = str(error) or type(error).__name__
            message = f"{path}: damaged data file ({reason})"
            if advice:
                message += f"; {advice}"
            raise UserError(message) from error


def expect_axes(arrays: Arrays, axes: Mapping[str, int], where: str) -> Arrays:
    """The same arrays, each of which has as many axes as are said of its name.

    Raises:
        UserError: names the array.
    """
    for name, array in arrays.items():
        if name in axes and array.ndim != axes[name]:
            raise UserError(f"{where}: {name}: expected {axes[name]} axes; got shape {array.shape}")
    return arrays


def _member(archive: zipfile.ZipFile, name: str) -> NDArray:
    """One array, whose header is checked before anything is read; the archive checks its sum of bytes at the end."""
    held = archive.getinfo(f"{name}.npy").file_size
    if held > LARGEST_ARRAY:
        raise ValueError(f"{name}: expected at most {LARGEST_ARRAY} bytes, got {held}")
    with archive.open(f"{name}.npy") as file:
        version = np.lib.format.read_magic(file)
        if version == (1, 0):
            header = np.lib.format.read_array_header_1_0(file)
        elif version == (2, 0):
            header = np.lib.format.read_array_header_2_0(file)
        else:
            raise ValueError(f"{name}: expected the npy format 1.0 or 2.0, got {version}")
        shape, by_columns, dtype = header
        if dtype.kind not in KINDS or dtype.shape:
            raise ValueError(f"{name}: expected numbers, got {dtype}")
        claimed = math.prod(shape) * dtype.itemsize
        if min(shape, default=0) < 0 or claimed > held:
            raise ValueError(f"{name}: claims {claimed} bytes for shape {shape}; the file holds {held}")
        content = file.read(claimed)
        if len(content) != claimed or file.read(1):
            raise ValueError(f"{name}: expected {claimed} bytes for shape {shape}, got another number")
    array = np.frombuffer(bytearray(content), dtype)
    if by_columns:
        array = array.reshape(shape, order="F")
    else:
        array = array.reshape(shape)
    if dtype.kind == "f" and not np.isfinite(array).all():
        raise ValueError(f"{name}: expected finite numbers, got NaN or infinity")
    return array.astype(dtype.newbyteorder("="), copy=False)
