"""Small graphs in the schemas of the tasks, for tests without the data sets."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from probsym_experiments.tasks.molecules import CONTACT_ATOMS, CONTACT_BONDS, PEPTIDE_ATOMS, PEPTIDE_BONDS


def keep(path: Path, arrays: dict[str, NDArray]) -> None:
    """Writes an npz file, as a data folder holds them."""
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez(path, **arrays)  # type: ignore[arg-type]  # its stub reads ** as allow_pickle


def molecules(count: int = 30, seed: int = 0) -> dict[str, NDArray]:
    """Random trees in the schema of peptides_func.npz, a third of them in each part; every label occurs in each."""
    rng = np.random.default_rng(seed)
    sizes = rng.integers(3, 12, count)
    links = [np.array([[rng.integers(i), i] for i in range(1, n)]) for n in sizes]
    kinds = [rng.integers(0, PEPTIDE_BONDS, (len(link), 3)) for link in links]
    part = count // 3
    y = (rng.random((count, 10)) < 0.5).astype(np.int8)
    for first in range(0, count, part):
        y[first : first + 10] = np.eye(10, dtype=np.int8)
    return {
        "num_nodes": sizes.astype(np.int16),
        "num_edges": (2 * (sizes - 1)).astype(np.int16),
        "x": rng.integers(0, PEPTIDE_ATOMS, (sizes.sum(), 9)).astype(np.uint8),
        "edge_index": np.concatenate([np.concatenate([link, link[:, ::-1]]) for link in links]).T.astype(np.int16),
        "edge_attr": np.concatenate([np.concatenate([kind, kind]) for kind in kinds]).astype(np.uint8),
        "y": y,
        "train": np.arange(part),
        "val": np.arange(part, 2 * part),
        "test": np.arange(2 * part, 3 * part),
    }


def structures() -> dict[str, NDArray]:
    """The same with eleven numbers a molecule: peptides_struct.npz."""
    arrays = molecules()
    return arrays | {"y": np.random.default_rng(1).normal(5, 3, (len(arrays["y"]), 11)).astype(np.float32)}


def contacts(count: int = 30) -> dict[str, NDArray]:
    """The same with two labelled pairs a molecule, one true: pcqm_contact.npz."""
    arrays = molecules(count)
    del arrays["y"]
    arrays["x"] = arrays["x"] % np.array(CONTACT_ATOMS, np.uint8)
    arrays["edge_attr"] = arrays["edge_attr"] % np.array(CONTACT_BONDS, np.uint8)
    pairs = {"pair_index": np.tile([[0, 1], [2, 2]], (count, 1)), "pair_label": np.tile([1, 0], count)}
    return arrays | {"num_pairs": np.full(count, 2)} | pairs
