"""Converts the pairs of BREC, as they are published, to the graph6 files that the experiments read.

    python experiments/scripts/convert_brec.py RAW DIR/brec

RAW is the folder customize/Data/raw of github.com/GraphPKU/BREC with basic.npy, regular.npy, str.npy, extension.npy,
cfi.npy, 4vtx.npy and dr.npy, or the one file brec_v3.npy, of which the first copy of each graph is taken. The files are
read as fixed texts: what would need a pickle is refused. Nothing that is there is overwritten.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

from probsym.files import write
from probsym_experiments.graphs.brec_data import KINDS, LARGEST
from probsym_experiments.graphs.enumeration import parse

FILES = {
    "basic.npy": "basic",
    "regular.npy": "regular",
    "str.npy": "strongly-regular",
    "extension.npy": "extension",
    "cfi.npy": "cfi",
    "4vtx.npy": "4-vertex-condition",
    "dr.npy": "distance-regular",
}
COPIES = 32  # of each graph in brec_v3.npy, where the copies of a pair take turns
LARGEST_FILE = 2**31  # bytes


def texts(path: Path) -> list[bytes]:
    """The strings of an npy file, in order.

    Raises:
        ValueError: it is damaged, or holds something else than texts of ASCII.
    """
    if path.stat().st_size > LARGEST_FILE:
        raise ValueError(f"{path}: expected at most {LARGEST_FILE} bytes")
    try:
        array = np.load(path, allow_pickle=False)
    except (ValueError, EOFError, OSError) as error:
        raise ValueError(f"{path}: damaged, or no array of texts ({error})") from error
    if not isinstance(array, np.ndarray) or array.dtype.kind not in "SU":
        raise ValueError(f"{path}: expected an array of texts")
    lines = []
    for text in array.reshape(-1).tolist():
        if isinstance(text, str):
            text = text.encode("ascii", errors="replace")
        lines.append(text)
    return lines


def graphs(source: Path) -> dict[str, list[bytes]]:
    """Lines of graph6 by kind; lines 2k and 2k + 1 are a pair."""
    if source.is_dir():
        return {kind: texts(source / name) for name, kind in FILES.items()}

    # One file: the pairs in the order of their kinds, 2 x 32 copies of each, then those of the reliability test.
    lines = texts(source)
    pairs = sum(KINDS.values())
    if len(lines) != 2 * pairs * 2 * COPIES:
        raise ValueError(f"{source}: expected {2 * pairs * 2 * COPIES} graphs; got {len(lines)}")
    by_kind = {}
    pair = 0
    for kind, count in KINDS.items():
        by_kind[kind] = []
        for _ in range(count):
            by_kind[kind] += lines[2 * COPIES * pair : 2 * COPIES * pair + 2]
            pair += 1
    return by_kind


def main(source: Path, target: Path) -> None:
    for kind, lines in graphs(source).items():
        if len(lines) != 2 * KINDS[kind]:
            raise ValueError(f"{kind}: expected {KINDS[kind]} pairs; got {len(lines) / 2}")
        for number, line in enumerate(lines):
            try:
                parse(line, LARGEST)
            except ValueError as error:
                raise ValueError(f"{kind}: graph {number}: {error}") from error
        path = target / f"{kind}.g6"
        if path.exists():
            raise ValueError(f"{path}: is there already; give another folder, or move it away")
        target.mkdir(parents=True, exist_ok=True)
        write(path, b"\n".join(lines) + b"\n")
        print(f"{path}: {KINDS[kind]} pairs")


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(str(__doc__))
    try:
        main(Path(sys.argv[1]), Path(sys.argv[2]))
    except (ValueError, OSError) as error:
        sys.exit(f"convert_brec: {error}")
