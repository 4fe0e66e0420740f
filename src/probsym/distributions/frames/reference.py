"""Frame averaging for generic inputs, to be read beside the papers: what `Frame` is where nothing is degenerate.

Puny et al., Frame Averaging for Invariant and Equivariant Network Design (arXiv 2110.03336). A frame F(X) is a finite
set of group elements that moves with the input, F(g X) = g F(X), and the average over it is equivariant:

    <Phi>_F (X) = 1/|F(X)| sum_{g in F(X)} g Phi(g^-1 X)

As p(g|X), uniform on F(X), it is a case of Kim et al. (arXiv 2306.02866, eq. 4) with the symmetry of its eq. 5.

One input at a time, plain torch, nothing but formulas. Eigenvalues are distinct, no two nodes have equal keys. The
library does not use this file; `tests/distributions/test_frame_reference.py` holds `Frame` against it.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable

import torch
from torch import Tensor


def pca_frame(points: Tensor, affine: bool = True, special: bool = False) -> tuple[Tensor, Tensor]:
    """The frame of a point cloud (section "Point clouds, Euclidean motions"): all signs of the principal axes.

        t = 1/N X^T 1,    C = (X - 1 t^T)^T (X - 1 t^T),    C v_k = l_k v_k,    l_1 < ... < l_D
        F(X) = { ([a_1 v_1, ..., a_D v_D], t) : a_k in {-1, 1} }

    Args:
        points: X (N, D).
        affine: whether the group has translations (E, SE); t = 0 without (O, SO).
        special: whether only matrices of determinant one belong to the group (SO, SE).

    Returns: the matrices (M, D, D) and t (D,).
    """
    origin = points.mean(0) if affine else torch.zeros_like(points[0])
    centred = points - origin
    covariance = centred.T @ centred
    _, axes = torch.linalg.eigh(covariance)
    frame = []
    for signs in itertools.product((1.0, -1.0), repeat=points.shape[1]):
        matrix = axes * torch.tensor(signs, dtype=axes.dtype)
        if special and torch.linalg.det(matrix) < 0:
            continue
        frame.append(matrix)
    return torch.stack(frame), origin


def average_over_poses(
    model: Callable[[Tensor], Tensor], points: Tensor, affine: bool = True, special: bool = False
) -> Tensor:
    """The frame average of a model that maps points (N, D) to points (N', D).

    A motion g = (R, t) acts on the rows of X as X R^T + 1 t^T, so that g^-1 X = (X - 1 t^T) R.

    >>> _ = torch.manual_seed(0)
    >>> x = torch.randn(5, 3, dtype=torch.float64)
    >>> model = lambda x: x.cumsum(0) * torch.tensor([1.0, 2.0, 3.0])             # knows axes and their signs
    >>> turn, _ = torch.linalg.qr(torch.randn(3, 3, dtype=torch.float64))
    >>> left = average_over_poses(model, x @ turn.T + 7)
    >>> right = average_over_poses(model, x) @ turn.T + 7
    >>> torch.allclose(left, right), torch.allclose(model(x @ turn.T + 7), model(x) @ turn.T + 7)
    (True, False)
    """
    frame, origin = pca_frame(points, affine, special)
    total = torch.zeros_like(points[:1])
    for matrix in frame:
        pose = (points - origin) @ matrix
        total = total + model(pose) @ matrix.T + origin
    return total / len(frame)


def projector_diagonals(adjacency: Tensor, tolerance: float = 1e-8) -> Tensor:
    """What Puny et al. sort the nodes of a graph by (section "Graphs, permutations"): rows of S(X) (N, r).

        L = diag(A 1) - A = sum_k l_k P_k,    S(X)_ik = (P_k)_ii

    P_k projects on the k-th of r eigenspaces, so that S(X) does not depend on the basis that `eigh` happens to choose.

    Args:
        adjacency: A (N, N), symmetric, zero on the diagonal.
        tolerance: eigenvalues that are closer belong to one eigenspace.
    """
    laplacian = torch.diag(adjacency.sum(1)) - adjacency
    eigenvalue, vector = torch.linalg.eigh(laplacian)
    begins = torch.nn.functional.pad(eigenvalue.diff() > tolerance, (1, 0), value=True)
    space = begins.long().cumsum(0) - 1
    columns = torch.zeros(len(adjacency), int(space[-1]) + 1, dtype=adjacency.dtype)
    return columns.index_add(1, space, vector.square())


def laplacian_keys(adjacency: Tensor) -> Tensor:
    """What the library sorts the nodes of a graph by: one number (N,) in place of the rows of S(X).

        key_i = h(L)_ii + c deg_i = sum_k h(l_k) S(X)_ik + c deg_i,    h(l) = cos(5 l + 0.3) + sin(11 l + 0.7)

    For a generic h two keys are equal exactly if the rows of S(X) are. Unlike the rows, which come in the order of the
    eigenvalues, the keys are smooth in A where eigenvalues cross. A is scaled before, and then L to norm one.

    Args:
        adjacency: A (N, N), symmetric, zero on the diagonal.
    """
    generic = 1 + 0.5 * math.sin(3.7 + 1 + 0.3)  # the weight of the first kind of edges, of several that there may be
    weights = generic * adjacency / adjacency.abs().max()
    degree = weights.sum(1)
    laplacian = torch.diag(degree) - weights
    norm = laplacian.abs().sum(1).max().clamp_min(1)
    eigenvalue, vector = torch.linalg.eigh(laplacian / norm)
    h = torch.cos(5 * eigenvalue + 0.3) + torch.sin(11 * eigenvalue + 0.7)
    return vector.square() @ h + 0.21 * degree / weights.abs().sum(1).max().clamp_min(1)


def average_over_orders(model: Callable[[Tensor], Tensor], data: Tensor, keys: Tensor) -> Tensor:
    """The frame average of a model on a graph (N, N) or a set of numbers (N,), with one output per node (N, ...).

    F(X) = {g : g^-1 X is in ascending order of its keys}, one permutation where all keys differ.

    Args:
        keys: (N,), `laplacian_keys` of a graph; the numbers themselves of a set.

    >>> model = lambda x: x * torch.tensor([1.0, 10.0, 100.0])                     # knows the order of the nodes
    >>> x = torch.tensor([3.0, 1.0, 2.0])
    >>> average_over_orders(model, x, keys=x).tolist()
    [300.0, 1.0, 20.0]
    """
    order = keys.argsort()
    pose = data[order]
    if data.ndim == 2:
        pose = pose[:, order]
    return model(pose)[order.argsort()]
