"""Scores to sort nodes by and a frame to orient space by, linear in the nodes: vectors weighted by moments."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import silu

from probsym.members import register

from .masking import EdgeList, Segments, Where, by_graph, keep, lifted, mean, mean_product
from .rounding import settled

MIXED = 4  # channels of a node beyond so many are mixed before their inner products are taken
CUBIC = 4  # dimensions of space up to which third moments, D^3 numbers, are used


@register
class MomentWeights(nn.Module):
    """Invariant scores and an equivariant frame of a cloud of vectors, for any d, without a look at pairs of nodes.

    All O(d)-equivariant vectors are sums of the vectors themselves, weighted by invariants (arXiv 2106.06610, prop. 5).
    Here a node knows the others by their moments alone, fixed and learned ones: with one vector v_i a node,

        M = mean_j v_j v_j^T,   T = mean_j v_j v_j v_j^T
        s_i = [|v_i|^2, v_i^T M v_i, |M v_i|^2, T(v_i, v_i, v_i), x_i]             x: scalars
        a_i = SiLU(A s_i + a),              u_k = mean_j (K a_j)_k v_j             K vectors of the cloud
        h_i = SiLU(B s_i + <v_i, C u> + G [mean_j a_j, <u_k, u_l>] + b)
        scores_i = c h_i + e,               frame_m = mean_j (F h_j)_m v_j

    The moments tell apart what norms do not: for points on a sphere about their centroid all |v_i| are equal, and it is
    v_i^T M v_i that weights them. With several vectors a node, all their inner products take the place of |v_i|^2. An
    edge list adds messages between the ends of edges, m_ij = SiLU(E [<v_i, v_j>, s_i, s_j]), added up at either end.

    `forward(vectors (B, N, D, C), scalars (B, N, F), edges, mask (B, N) or Segments, rounding (B,))` returns scores
    (B, N) and frame (B, D, M): `scores(Q v) = scores(v)`, `frame(Q v) = Q frame(v)`; scores follow permutations, the
    frame ignores them. Without `scores` they are None. M is `columns`, or D if None; C, D, F are fixed by the first
    call. There is no norm and no root, so zero vectors are harmless. Columns that cancelled up to the rounding of the
    vectors are zero.

    >>> net, v = MomentWeights(hidden=8), torch.randn(2, 5, 3, 2)
    >>> scores, frame = net(v)
    >>> scores.shape, frame.shape
    (torch.Size([2, 5]), torch.Size([2, 3, 3]))
    >>> torch.allclose(net(-v)[1], -frame, atol=1e-5)
    True
    """

    def __init__(
        self, hidden: int = 16, columns: int | None = None, scores: bool = True, shared: int = 8, messages: bool = False
    ) -> None:
        super().__init__()
        self.arguments = {
            "hidden": hidden, "columns": columns, "scores": scores, "shared": shared, "messages": messages
        }  # fmt: skip
        self.hidden = hidden
        self.columns = columns
        self.edge = nn.LazyLinear(hidden) if messages else None
        self.cloud = nn.LazyLinear(shared, bias=False)
        self.towards = nn.LazyLinear(0, bias=False)
        self.others = nn.LazyLinear(hidden, bias=False)
        self.own = nn.LazyLinear(hidden)
        self.score = nn.Linear(hidden, 1) if scores else None
        self.weights = nn.LazyLinear(0, bias=False)

    def describe(self) -> dict[str, Any]:
        """The arguments of the constructor, for `probsym.save`."""
        return self.arguments

    def forward(
        self,
        vectors: Tensor,
        scalars: Tensor | None = None,
        edges: EdgeList | None = None,
        mask: Where = None,
        rounding: Tensor | None = None,
    ) -> tuple[Tensor | None, Tensor]:
        b, (d, c) = mask.sizes.shape[0] if isinstance(mask, Segments) else vectors.shape[0], vectors.shape[2:]
        self._size(c, d if self.columns is None else self.columns)
        vectors = keep(vectors, mask)
        flat = vectors.flatten(2)
        one = keep(torch.ones_like(flat[..., :1]), mask)

        # 1. what each node knows from fixed moments, and from its edges
        seen = torch.cat([one, invariants(vectors, mask)], -1)
        if scalars is not None:
            seen = torch.cat([seen, keep(scalars, mask)], -1)
        if self.edge is not None and edges is not None:
            seen = torch.cat([seen, self._messages(vectors, seen, edges)], -1)

        # 2. vectors of the whole cloud (B, D, K), and numbers; the last row of the sums belongs to the constant one
        constant = torch.cat([flat, one], -1)
        sums = mean_product(constant, seen, mask)
        simple = sums[:, :-1].reshape(b, d, c * seen.shape[-1])
        u = self.cloud(simple)
        known = torch.cat([sums[:, -1], products(u)], -1)

        # 3. what each node knows of them
        matrix = torch.cat([self.towards(u).reshape(b, d * c, self.hidden), self.others(known).unsqueeze(1)], 1)
        h = silu(by_graph(constant, matrix, mask, plus=self.own(seen)))

        # 4. scores, and vectors weighted by it
        scores = None if self.score is None else keep(lifted(self.score, h, mask).squeeze(-1), mask)
        lengths = vectors.detach().square().sum(2).sqrt()
        sums = mean_product(torch.cat([flat, lengths], -1), h, mask)
        refined = sums[:, : d * c].reshape(b, d, c * self.hidden)
        frame = self.weights(torch.cat([simple, refined], -1))

        # 5. less what is rounding, in view of what was added up: |SiLU(z)| <= SiLU(z) + 2 * 0.279
        with torch.no_grad():
            sizes = [
                mean_product(lengths, seen.abs(), mask),
                sums[:, d * c :] + 0.558 * mean(lengths, mask).unsqueeze(-1),
            ]
            whole = torch.cat([part.flatten(1) for part in sizes], -1) @ self.weights.weight.abs().mT
        return scores, settled(frame, whole, rounding)

    def _size(self, channels: int, columns: int) -> None:
        """Sizes that only the first call tells."""
        if isinstance(self.towards, nn.LazyLinear):
            self.towards.out_features = channels * self.hidden
        if isinstance(self.weights, nn.LazyLinear):
            self.weights.out_features = columns

    def _messages(self, vectors: Tensor, seen: Tensor, edges: EdgeList) -> Tensor:
        """Sums of the messages that leave and reach each node (B, N, 2 H)."""
        rows = seen.shape[0] * seen.shape[1]
        v = mixed(vectors).flatten(0, 1)
        s = seen.flatten(0, 1)
        between = (v[edges.start].mT @ v[edges.end]).flatten(1)
        message = silu(self.edge(torch.cat([between, s[edges.start], s[edges.end], edges.kind], -1)))  # type: ignore[misc]
        message = message * (edges.kind != 0).any(-1, keepdim=True)
        sums = [message.new_zeros(rows, self.hidden).index_add(0, at, message) for at in (edges.start, edges.end)]
        return torch.cat(sums, -1).reshape(*seen.shape[:2], 2 * self.hidden)


def invariants(vectors: Tensor, mask: Where) -> Tensor:
    """Numbers of each node (B, N, S) made of its vectors (B, N, D, C), zero on padding, and of fixed moments.

    For each pair of vectors v, w of a node `v^T w`, `v^T M w` and `v^T M^2 w`, and T(v, v, v) of their sum.
    """
    v = mixed(vectors).transpose(2, 3)
    c, d = v.shape[2:]
    # lengths below one, so that far nodes do not drown the others
    v = v * (1 + v.square().sum((2, 3), keepdim=True)).rsqrt()
    first, other = pairs(c)
    own = [place for place, (i, j) in enumerate(zip(first, other, strict=True)) if i == j]
    left, right = (v, v) if c == 1 else (v[:, :, first], v[:, :, other])
    squares = (left.unsqueeze(-1) * right.unsqueeze(-2)).flatten(3)  # (B, N, pairs, D^2)

    total, alike = _summed(v), _summed(squares if c == 1 else squares[:, :, own])
    constant = torch.cat([torch.ones_like(total[..., :1]), total if d <= CUBIC else total[..., :0]], -1)
    moments = mean_product(alike, constant, mask)
    second = moments[..., 0].unflatten(-1, (d, d))
    # of trace d, so that v^T M v is |v|^2 on average; clouds without extent have none
    trace = second.diagonal(dim1=-2, dim2=-1).sum(-1)[:, None, None]
    second = second * (d / (trace + 1e-3))
    one = torch.eye(d, dtype=v.dtype, device=v.device).expand_as(second)
    forms = torch.stack([one, second - one, (second - one) @ (second - one)], -1).flatten(1, 2)

    found = by_graph(squares, torch.cat([forms, moments[..., 1:]], -1), mask)
    numbers = [found[..., :3].flatten(2)]
    lone = found if c == 1 else found[:, :, own]
    length, direction, _ = _summed(lone[..., :3]).split(1, -1)
    if d <= CUBIC:
        numbers.append(4 * (_summed(lone[..., 3:]) * total).sum(-1, keepdim=True))

    # curved functions of the length and of the direction: sums weighted by lines alone would all be nearly parallel
    length = 2 * length - 1
    bend = 2 * length * length - 1
    numbers += [bend, length * (2 * bend - 1), direction * direction, direction * length]
    return torch.cat(numbers, -1)


def _summed(x: Tensor) -> Tensor:
    """The sum over the vectors of a node, (B, N, C, ...) to (B, N, ...); no copy of a single one."""
    return x.squeeze(2) if x.shape[2] == 1 else x.sum(2)


def products(v: Tensor) -> Tensor:
    """All inner products of vectors (B, D, C), each pair once: (B, C (C + 1) / 2)."""
    c = v.shape[-1]
    if c == 1:
        return v.square().sum(1)
    first, second = pairs(c)
    return (v[..., first] * v[..., second]).sum(1)


def pairs(count: int) -> tuple[list[int], list[int]]:
    """The pairs i <= j of that many things, as two lists of numbers.

    Not `torch.triu_indices`, whose length depends on data to a compiler.

    >>> pairs(3)
    ([0, 0, 0, 1, 1, 2], [0, 1, 2, 1, 2, 2])
    """
    chosen = [(i, j) for i in range(count) for j in range(i, count)]
    return [i for i, _ in chosen], [j for _, j in chosen]


def mixed(vectors: Tensor) -> Tensor:
    """The vectors of each node (B, N, D, C), or if there are many a few fixed generic combinations of them."""
    c = vectors.shape[-1]
    if c <= MIXED:
        return vectors
    k = torch.arange(1, c + 1, dtype=torch.float64, device=vectors.device)[:, None]
    phase = torch.arange(1, MIXED + 1, dtype=torch.float64, device=vectors.device)
    weights = torch.sin(3.7 * k * k + k * phase + phase) * (2 / c) ** 0.5
    return vectors @ weights.to(vectors.dtype)
