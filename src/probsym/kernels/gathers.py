"""Gathers of nodes and of pairs of nodes: how a permutation acts on a tensor.

Each fast gather has a reference of a few lines below it, which tests compare it with.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from probsym.kernels.values import recorded

SHORT_ROW_ENTRIES = 4  # rows of fewer entries: their numbers would cost more than the entries that they copy
FEW_ENTRIES = 2**13  # a gather of no more is over before three operations are dispatched
LARGEST_INT32 = 2**31


def inverse_index(index: Tensor) -> Tensor:
    """The gather index of the inverse permutation: inverse[index_i] = i, for index (*shape, N).

    >>> inverse_index(torch.tensor([2, 0, 1])).tolist()
    [1, 2, 0]
    """
    places = torch.arange(index.shape[-1], device=index.device).expand_as(index)
    inverse = torch.empty_like(index, memory_format=torch.contiguous_format)
    return inverse.scatter(-1, index, places)  # vmap has no rule for the one in place


def stable_order(x: Tensor) -> Tensor:
    """Indices that sort the last axis of x (*shape, N) and leave equal entries in their order.

    >>> stable_order(torch.tensor([1, 0, 1, 0])).tolist()
    [1, 3, 0, 2]
    """
    # The sort of ONNX (TopK) is stable, but the exporter knows no sort that says so.
    if torch.onnx.is_in_onnx_export():
        return x.argsort(-1)
    return x.argsort(dim=-1, stable=True)


def gather_nodes(x: Tensor, index: Tensor, axis: int, shared_dims: int) -> Tensor:
    """y_i = x_{index_i} along one axis.

    Args:
        x: (B..., middle..., N, rest...) with N at `axis`.
        index: (K..., B..., N), node numbers.
        axis: the axis of x that is permuted.
        shared_dims: number of batch dims B... of x, which are the last ones of those of the index.

    Returns: (K..., B..., middle..., N, rest...).

    Raises:
        ValueError: x has another number of nodes than the index.

    >>> x, index = torch.tensor([[10, 20, 30]]), torch.tensor([[[2, 0, 1]], [[0, 1, 2]]])       # K = 2, B = 1, N = 3
    >>> gather_nodes(x, index, axis=1, shared_dims=1).tolist()
    [[[30, 10, 20]], [[10, 20, 30]]]
    """
    nodes = index.shape[-1]
    if x.shape[axis] != nodes:
        raise ValueError(f"expected {nodes} nodes on axis {axis}, got a tensor of shape {tuple(x.shape)}")
    shape = index.shape[:-1]
    batch, middle, rest = x.shape[:shared_dims], x.shape[shared_dims:axis], x.shape[axis + 1 :]

    # Short rows inside of the tensor: an index per entry is cheaper than one per row.
    if axis > shared_dims and math.prod(rest) < SHORT_ROW_ENTRIES:
        return gather_nodes_reference(x, index, axis, shared_dims)
    # So it is for few entries, where one operation instead of three counts. A recorded call holds for any number.
    if not recorded() and index.numel() * math.prod(middle) * math.prod(rest) < FEW_ENTRIES:
        return gather_nodes_reference(x, index, axis, shared_dims)

    # All else: write x as a table with one row per (batch, middle, node) and copy rows whole. The K samples of an input
    # read the same rows, so that x is never expanded.
    tables = math.prod(batch) * math.prod(middle)
    if tables > 1:
        first_row = torch.arange(tables * nodes, device=x.device).reshape(*batch, *middle, nodes)[..., :1]
        index = index.reshape(*shape, *[1] * len(middle), nodes) + first_row
    rows = x.reshape(tables * nodes, *rest)
    return rows.index_select(0, index.reshape(-1)).reshape(*shape, *middle, nodes, *rest)


def gather_nodes_reference(x: Tensor, index: Tensor, axis: int, shared_dims: int) -> Tensor:
    """What `gather_nodes` computes: expand x to all samples, and gather entry by entry."""
    shape = index.shape[:-1]
    x = x.expand(*shape, *x.shape[shared_dims:])
    axis = axis + len(shape) - shared_dims
    before, after = axis - len(shape), x.ndim - axis - 1
    index = index.reshape(*shape, *[1] * before, index.shape[-1], *[1] * after)
    return x.gather(axis, index.expand_as(x))


def gather_pairs(x: Tensor, index: Tensor, axis: int, shared_dims: int) -> Tensor:
    """y_ij = x_{index_i index_j} along two neighbouring axes, in one gather.

    Args:
        x: (B..., middle..., N, N, rest...) with the first N at `axis`.
        index: (K..., B..., N), node numbers.
        axis: the first of the two axes of x that are permuted.
        shared_dims: number of batch dims B... of x, which are the last ones of those of the index.

    Returns: (K..., B..., middle..., N, N, rest...).

    >>> x = torch.arange(4).reshape(1, 2, 2)                        # B = 1, N = 2
    >>> gather_pairs(x, torch.tensor([[1, 0]]), axis=1, shared_dims=1).tolist()
    [[[3, 2], [1, 0]]]
    """
    nodes = index.shape[-1]

    # Axes between the batch and the pairs: number the pairs (i, j) as N i + j, and gather along one axis of N^2.
    if axis > shared_dims:
        pairs = (nodes * index.unsqueeze(-1) + index.unsqueeze(-2)).flatten(-2)
        moved = gather_nodes(x.flatten(axis, axis + 1), pairs, axis, shared_dims)
        return moved.unflatten(axis + index.ndim - 1 - shared_dims, (nodes, nodes))

    batch, rest = x.shape[:shared_dims], x.shape[shared_dims + 2 :]
    # Few entries: those of each input by one gather, as `gather_nodes` does.
    if not recorded() and index.numel() * nodes * math.prod(rest) < FEW_ENTRIES:
        pairs = torch.add(index.unsqueeze(-2), index.unsqueeze(-1), alpha=nodes).flatten(-2)
        moved = gather_nodes_reference(x.flatten(axis, axis + 1), pairs, axis, shared_dims)
        return moved.reshape(*index.shape, nodes, *rest)
    inputs = math.prod(batch)
    # Numbers of 32 bits take half of the memory. The sums that a gradient to x needs are slow over them.
    # What is recorded holds for any size, so that the size is asked last: it would become a limit of an exported model.
    needs_sums = torch.is_grad_enabled() and x.requires_grad
    if not needs_sums and not recorded() and inputs * nodes * nodes < LARGEST_INT32:
        index = index.int()
    first_row = torch.arange(inputs * nodes, device=x.device, dtype=index.dtype).reshape(*batch, nodes)[..., :1]
    rows = first_row + index
    pairs = torch.add(index.unsqueeze(-2), rows.unsqueeze(-1), alpha=nodes)
    table = x.reshape(inputs * nodes * nodes, *rest)
    return table.index_select(0, pairs.reshape(-1)).reshape(*pairs.shape, *rest)


def gather_pairs_reference(x: Tensor, index: Tensor, axis: int, shared_dims: int) -> Tensor:
    """What `gather_pairs` computes: the first axis, then the second."""
    moved = gather_nodes_reference(x, index, axis, shared_dims)
    samples = moved.ndim - x.ndim
    return gather_nodes_reference(moved, index, axis + samples + 1, shared_dims + samples)
