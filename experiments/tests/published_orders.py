"""How the published code (github.com/jw9730/lps, c03c9a4) orders the nodes of graphs, written anew with matrices.

Letters: B graphs, K samples, N nodes.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import batch_norm, linear


def score_net(net: nn.Module, x: Tensor, adjacency: Tensor, mask: Tensor) -> Tensor:
    """Scores (B, K, N): x (B, K, N, F) with its noise. Node 0 is the virtual one; padding is counted by BatchNorm."""
    count, samples, n, width = x.shape

    # 1. The graph with a virtual node that has a loop and an edge to every node.
    larger = adjacency.new_zeros(count, n + 1, n + 1)
    larger[:, 1:, 1:] = adjacency
    larger[:, 0, 0] = 1
    larger[:, 0, 1:] = mask.double()
    larger[:, 1:, 0] = mask.double()
    x = x * mask[:, None, :, None]
    h = torch.cat([net.virtual.expand(count, samples, 1, width), x], 2)

    # 2. Three layers of GIN. Statistics of BatchNorm are over graphs, samples and nodes.
    for eps, layer in zip(net.eps, net.updates, strict=True):
        h = torch.einsum("bij,bkjd->bkid", larger, h) + (1 + eps) * h
        flat = linear(h.reshape(-1, h.shape[-1]), layer.first.weight, layer.first.bias)
        flat = batch_norm(flat, None, None, layer.inner.weight, layer.inner.bias, training=True).relu()
        flat = linear(flat, layer.second.weight, layer.second.bias)
        flat = batch_norm(flat, None, None, layer.outer.weight, layer.outer.bias, training=True).relu()
        h = flat.reshape(count, samples, n + 1, -1)
    return linear(h, net.head.weight, net.head.bias)[:, :, 1:, 0]


def soft_and_hard(scores: Tensor, mask: Tensor, tau: float, passes: int) -> tuple[Tensor, Tensor]:
    """P (B, K, N, N), node by place, of scores without padding: relaxed, and as a permutation."""
    softs = []
    hards = []
    for b in range(len(scores)):
        own = int(mask[b].sum())
        width = mask.shape[1]
        s = scores[b, :, :own]
        s = s / s.square().sum(-1, keepdim=True).sqrt()
        downwards, order = s.sort(-1, descending=True)
        log_p = -(s[..., :, None] - downwards[..., None, :]).abs() / tau
        for _ in range(passes):
            log_p = log_p - log_p.logsumexp(-1, keepdim=True)
            log_p = log_p - log_p.logsumexp(-2, keepdim=True)
        hard = torch.nn.functional.one_hot(order, own).mT.double()
        border = (0, width - own, 0, width - own)
        softs.append(torch.nn.functional.pad(log_p.exp(), border))
        hards.append(torch.nn.functional.pad(hard, border))
    return torch.stack(softs), torch.stack(hards)


def entropy(soft: Tensor, mask: Tensor) -> Tensor:
    """Of rows and columns: mean over samples, over the nodes of a graph, over graphs."""
    by_graph = []
    for b in range(len(soft)):
        own = int(mask[b].sum())
        p = soft[b, :, :own, :own].clamp(min=1e-12)
        rows = p / p.sum(-1, keepdim=True)
        columns = p / p.sum(-2, keepdim=True)
        by_node = -(rows * rows.log()).sum(-1) - (columns * columns.log()).sum(-2)
        by_graph.append(by_node.mean(0).sum() / own)
    return torch.stack(by_graph).mean()
