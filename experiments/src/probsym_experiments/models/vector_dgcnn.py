"""The paper's net of p on particles: a vector-neuron DGCNN (arXiv 2104.12229) that sees positions and velocities."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

import probsym as ps

LEAST = 1e-6  # added to lengths


class VectorDGCNN(nn.Module):
    """Scores of particles and three vectors by the net of Kim et al. (arXiv 2306.02866; github.com/jw9730/lps).

        e_ij = [v_j - v_i, v_i]                    v_i = [x_i, velocity]: the `neighbours` nearest j, i among them
        a_i  = pool_j layer(e_ij)                  the same again on a gives b, with dropout
        c_i  = layer([a_i, b_i]);  u_i = [c_i, mean_j c_j];  Z_i = three vectors of two layers on u_i
        score of i = w [max_j Z_j u_j, Z_i [a_i, b_i]]           inner products, invariant
        vectors = W pool_i a_i                                    columns of a pose

    A layer is a map of channels, BatchNorm of lengths and a leaky ReLU along a learned direction; `pool` takes the
    vector that goes farthest along one. Charges are not seen. Dropout takes single coordinates, as there, so that in
    training p is only nearly equivariant.

    `forward(pos (R, N, 3), vel (R, N, 3))` returns features by factor: scores (R, N) for permutations, columns
    (R, 3, 3) for space; the other arguments of a model are not read.

    Args:
        group: S_n, O(3) or SO(3), or a product of them.

    >>> net = VectorDGCNN(ps.S("particles") * ps.O(3))
    >>> sum(p.numel() for p in net.parameters())
    6897
    """

    reads_only = True  # it writes into none of its arguments

    def __init__(self, group: ps.Group, hidden: int = 64, neighbours: int = 4, dropout: float = 0.08) -> None:
        super().__init__()
        self.group = group
        self.neighbours = neighbours
        width = hidden // 3
        self.first = VectorLayer(4, width)
        self.second = VectorLayer(2 * width, width)
        self.third = VectorLayer(2 * width, width, shared=True)
        self.pool_first = VectorPool(width)
        self.pool_second = VectorPool(width)
        self.dropout = nn.Dropout(dropout)
        # Three vectors of each particle, along which its features are measured.
        self.frame = nn.Sequential(
            VectorLayer(2 * width, width), VectorLayer(width, width // 2), Channels(width // 2, 3)
        )
        self.score = nn.Linear(2 * 6 * width, 1)
        self.pool_all = VectorPool(width)
        self.columns = Channels(width, 3)

    def forward(self, pos: Tensor, vel: Tensor, **others: Tensor) -> Mapping[ps.Group, Tensor]:
        # 1. Two rounds with the nearest, in the space of positions and velocities and then of features: (R, N, C, 3).
        v = torch.stack([pos, vel], 2)
        a = self.pool_first(self.first(self.edges(v)))
        b = self.dropout(self.pool_second(self.second(self.edges(a))))
        ab = torch.cat([a, b], 2)
        c = self.third(ab)
        u = torch.cat([c, c.mean(1, keepdim=True).expand_as(c)], 2)

        features: dict[ps.Group, Tensor] = {}
        for factor in self.group.factors:
            if factor.feature_kind == "scores":
                # 2. Invariant numbers, the largest of all particles and those of each.
                z = self.frame(u)
                numbers = (u @ z.mT).flatten(2)
                largest = numbers.amax(1, keepdim=True).expand_as(numbers)
                own = (ab @ z.mT).flatten(2)
                features[factor] = self.score(torch.cat([largest, own], 2)).squeeze(-1)
            elif factor.feature_kind == "columns":
                # 3. Vectors of all particles together.
                features[factor] = self.columns(self.pool_all(a)).mT
        return features

    def edges(self, v: Tensor) -> Tensor:
        """[v_j - v_i, v_i] of the nearest j: (R, N, C, 3) to (R, N, k, 2 C, 3)."""
        flat = v.flatten(2)
        inner = -2 * (flat @ flat.mT)
        square = flat.square().sum(-1)
        nearness = -square.unsqueeze(1) - inner - square.unsqueeze(2)
        nearest = nearness.topk(self.neighbours, dim=-1).indices  # (R, N, k)
        rows = torch.arange(len(v), device=v.device)[:, None, None]
        others = v[rows, nearest]
        own = v.unsqueeze(2).expand_as(others)
        return torch.cat([others - own, own], 3)


class Channels(nn.Module):
    """A linear map of channels: (..., C, 3) to (..., out, 3)."""

    def __init__(self, channels: int, out: int) -> None:
        super().__init__()
        self.linear = nn.Linear(channels, out, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(x.mT).mT


class VectorLayer(nn.Module):
    """A linear map of channels, BatchNorm of lengths, and a leaky ReLU along learned directions.

        p = W x;  p <- p BatchNorm(|p|) / |p|;  d = U x
        y = p where p . d >= 0, else p - 0.8 (p . d) / |d|^2 d

    Args:
        shared: Whether all channels have one direction.
    """

    def __init__(self, channels: int, out: int, shared: bool = False) -> None:
        super().__init__()
        self.linear = Channels(channels, out)
        self.norm = nn.BatchNorm1d(out)
        directions = 1 if shared else out
        self.direction = Channels(channels, directions)

    def forward(self, x: Tensor) -> Tensor:
        p = self.linear(x)
        length = torch.linalg.vector_norm(p, dim=-1) + LEAST
        normed = self.norm(length.reshape(-1, length.shape[-1])).view_as(length)
        p = p / length.unsqueeze(-1) * normed.unsqueeze(-1)
        d = self.direction(x)
        along = (p * d).sum(-1, keepdim=True)
        reflected = p - along / (d.square().sum(-1, keepdim=True) + LEAST) * d
        return 0.2 * p + 0.8 * torch.where(along >= 0, p, reflected)


class VectorPool(nn.Module):
    """Of several vectors the one that goes farthest along its learned direction: (..., k, C, 3) to (..., C, 3)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.direction = Channels(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        along = (x * self.direction(x)).sum(-1, keepdim=True)
        return x.take_along_dim(along.argmax(-3, keepdim=True), -3).squeeze(-3)
