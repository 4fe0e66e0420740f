"""BREC (Wang and Zhang, arXiv 2304.07702): 400 pairs of graphs that are not isomorphic, in seven kinds."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from ..errors import UserError
from .enumeration import parse

# The file of each kind, and how many pairs the benchmark has of it. The paper's tables count four kinds as regular.
KINDS = {
    "basic": 60,
    "regular": 50,
    "strongly-regular": 50,
    "extension": 100,
    "cfi": 100,
    "4-vertex-condition": 20,
    "distance-regular": 20,
}
CATEGORIES = {
    "basic": "basic",
    "regular": "regular",
    "strongly-regular": "regular",
    "extension": "extension",
    "cfi": "cfi",
    "4-vertex-condition": "regular",
    "distance-regular": "regular",
}
LARGEST = 512  # nodes
FOLDER = "brec"
SOURCE = "customize/Data/raw (github.com/GraphPKU/BREC)"
CONVERTER = "python experiments/scripts/convert_brec.py RAW DIR/brec"


@dataclass(frozen=True)
class Pair:
    """Two graphs of N nodes, as adjacencies (N, N).

    Args:
        number: Of the pair within its kind.
    """

    kind: str
    number: int
    first: Tensor
    second: Tensor


def load(folder: Path) -> list[Pair]:
    """The pairs of every file folder/brec/KIND.g6 that is there, in the order of KINDS.

    A file has a graph a line in the format graph6; lines 2k and 2k + 1 are a pair.

    Raises:
        UserError: there is no file, or one is damaged or holds something else; names it.
    """
    pairs = []
    for kind in KINDS:
        path = folder / FOLDER / f"{kind}.g6"
        if path.is_file():
            pairs += read(path, kind)
    if not pairs:
        names = ", ".join(f"{kind}.g6" for kind in KINDS)
        raise UserError(
            f"--data {folder}: expected {FOLDER}/ with any of {names}; make them of {SOURCE} by {CONVERTER}"
        )
    return pairs


def read(path: Path, kind: str) -> list[Pair]:
    """The pairs of one file."""
    lines = path.read_bytes().split()
    if not lines or len(lines) % 2:
        raise UserError(f"{path}: expected pairs of lines; got {len(lines)} lines")
    graphs = []
    for number, line in enumerate(lines, 1):
        try:
            graph = parse(line, LARGEST)
        except ValueError as error:
            raise UserError(f"{path}: line {number}: {error}") from error
        graphs.append(torch.from_numpy(graph).float())
    pairs = []
    for number in range(len(graphs) // 2):
        first, second = graphs[2 * number : 2 * number + 2]
        if first.shape != second.shape:
            sizes = f"{len(first)} and {len(second)}"
            raise UserError(f"{path}: pair {number}: expected two graphs of as many nodes; got {sizes}")
        if torch.equal(first, second):
            raise UserError(f"{path}: pair {number}: expected two graphs that are not isomorphic; they are the same")
        pairs.append(Pair(kind, number, first, second))
    return pairs
