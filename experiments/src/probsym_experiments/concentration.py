"""How far a distribution over poses and orders is from uniform, and how close to a single one."""

from __future__ import annotations

import math

import torch
from torch import Tensor

import probsym as ps
from probsym.groups import Element

from .batches import Batch, Pages, Tensors, reseed

SAMPLES = 64  # of each input
PAGE = 64  # inputs at a time


@torch.no_grad()
def concentration(phi: ps.Symmetrizer, call: Batch, seed: int) -> dict[str, float]:
    """Of p(g|x) over each factor of its group: 0 where it is uniform, 1 where it is a single element.

        poses:    |E[R]|^2 / D                   R the orthogonal or unitary matrix of a pose
        orders:   (|E[P]|^2 - 1) / (N - 1)       P the matrix of a permutation of N nodes

    The norms are Frobenius norms for a given x, estimated without bias from pairs of independent samples, and averaged
    over the inputs; a root is taken at the end, so that a resultant stands there. A factor with elements of another
    kind is left out, and so are orders of padded or ragged batches.

    Args:
        call: What phi is called with, B inputs.
        seed: Of the samples.

    Returns: `concentration of poses` and `concentration of orders`, as far as there are such.

    >>> space = ps.SO(3)
    >>> phi = ps.symmetrize(torch.nn.Identity(), {"input": ps.Rep(None, space)}, ps.Rep(None, space), "haar")
    >>> found = concentration(phi.eval(), {"input": torch.randn(200, 4, 3)}, seed=0)
    >>> found["concentration of poses"] < 0.1
    True
    """
    reseed(seed)
    found: dict[str, list[Tensor]] = {}
    for page in Pages(Tensors(call), PAGE):
        x = phi.bind((), page)
        g = phi.distribution.transport(x, phi.distribution.draw(x, SAMPLES))
        for factor in phi.distribution.group.factors:
            layout = x.layouts.get(factor)  # type: ignore[call-overload]
            for name, squares in of_element(g[factor], layout is None or layout.padded_mask() is None).items():
                found.setdefault(name, []).append(squares)
    means = {}
    for name, squares_of_pages in found.items():
        mean = float(torch.cat(squares_of_pages).mean())
        means[f"concentration of {name}"] = math.sqrt(max(0.0, mean))
    return means


def of_element(g: Element, of_one_size: bool) -> dict[str, Tensor]:
    """Squares (B,) by name, from K samples (K, B, ...) of one factor."""
    tensors = g.tensors
    if "matrix" in tensors:
        matrix = tensors["matrix"]
        matrix = matrix.to(torch.promote_types(matrix.dtype, torch.float64))
        size = matrix.shape[-1]
        return {"poses": between_samples(matrix) / size}
    if "index" in tensors and of_one_size and tensors["index"].shape[-1] > 1:
        index = tensors["index"]
        nodes = index.shape[-1]
        matrix = torch.nn.functional.one_hot(index, nodes).double()
        return {"orders": (between_samples(matrix) - 1) / (nodes - 1)}
    return {}


def between_samples(matrix: Tensor) -> Tensor:
    """The mean of tr(M_k^* M_l) over pairs of different samples, which is |E[M]|^2: (K, B, D, D) to (B,)."""
    count = len(matrix)
    all_pairs = matrix.sum(0).abs().square().sum((-1, -2))
    same = matrix.abs().square().sum((0, -1, -2))
    return (all_pairs - same) / (count * (count - 1))
