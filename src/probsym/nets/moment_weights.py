"""Scores to sort nodes by and a frame to orient space by, linear in the nodes: vectors weighted by moments."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import silu

from probsym.members import register

from .masking import EdgeList, Segments, Where, by_graph, keep, lifted, mean, mean_product
from .rounding import settled

MIXED = 4  # a node with more channels than this has them mixed before their inner products are taken
CUBIC = 4  # largest dimension of space for which third moments, D^3 numbers, are used


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

    The moments distinguish what norms do not: for points on a sphere about their centroid all |v_i| are equal, and only
    v_i^T M v_i weights them. With several vectors per node, all their inner products take the place of |v_i|^2. An edge
    list adds messages between the ends of edges, m_ij = SiLU(E [<v_i, v_j>, s_i, s_j]), summed at both ends.

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
            "hidden": hidden,
            "columns": columns,
            "scores": scores,
            "shared": shared,
            "messages": messages,
        }
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
        batch = vectors.shape[0]
        if isinstance(mask, Segments):
            batch = mask.sizes.shape[0]
        dim, channels = vectors.shape[2:]
        columns = self.columns
        if columns is None:
            columns = dim
        if isinstance(self.towards, nn.LazyLinear):
            self.towards.out_features = channels * self.hidden
        if isinstance(self.weights, nn.LazyLinear):
            self.weights.out_features = columns

        vectors = keep(vectors, mask)
        flat = vectors.flatten(2)  # (B, N, D C)
        one = keep(torch.ones_like(flat[..., :1]), mask)

        # 1. s_i: what each node knows from fixed moments, from its scalars, and from its edges.
        s = torch.cat([one, invariants(vectors, mask)], -1)
        if scalars is not None:
            s = torch.cat([s, keep(scalars, mask)], -1)
        if self.edge is not None and edges is not None:
            s = torch.cat([s, messages(self.edge, vectors, s, edges)], -1)

        # 2. u (B, D, K): vectors of the whole cloud, and their inner products. The last row of the sums, that of the
        #    constant column, is the mean of s.
        with_one = torch.cat([flat, one], -1)
        sums = mean_product(with_one, s, mask)
        first_moments = sums[:, :-1].reshape(batch, dim, channels * s.shape[-1])
        u = self.cloud(first_moments)
        cloud_invariants = torch.cat([sums[:, -1], products(u)], -1)

        # 3. h_i: what each node knows of them. One matrix per graph holds both terms, the second in the constant's row.
        towards = self.towards(u).reshape(batch, dim * channels, self.hidden)
        others = self.others(cloud_invariants).unsqueeze(1)
        matrix = torch.cat([towards, others], 1)
        h = silu(by_graph(with_one, matrix, mask, plus=self.own(s)))

        # 4. Scores, and vectors weighted by h. The sums of lengths are for step 5.
        scores = None
        if self.score is not None:
            scores = keep(lifted(self.score, h, mask).squeeze(-1), mask)
        lengths = vectors.detach().square().sum(2).sqrt()
        sums = mean_product(torch.cat([flat, lengths], -1), h, mask)
        weighted = sums[:, : dim * channels].reshape(batch, dim, channels * self.hidden)
        frame = self.weights(torch.cat([first_moments, weighted], -1))

        # 5. Drop what is rounding: what is small next to the lengths that were added up, had nothing cancelled.
        with torch.no_grad():
            most_first = mean_product(lengths, s.abs(), mask)
            # h = SiLU(z) >= -0.279, so |h| <= h + 2 * 0.279
            most_weighted = sums[:, dim * channels :] + 0.558 * mean(lengths, mask).unsqueeze(-1)
            most = torch.cat([most_first.flatten(1), most_weighted.flatten(1)], -1)
            whole = most @ self.weights.weight.abs().mT
        return scores, settled(frame, whole, rounding)


def messages(edge: nn.Module, vectors: Tensor, s: Tensor, edges: EdgeList) -> Tensor:
    """Sums of the messages `SiLU(E [<v_i, v_j>, s_i, s_j])` that leave and that reach each node (B, N, 2 H)."""
    batch, count = s.shape[:2]
    v = mixed(vectors).flatten(0, 1)
    s = s.flatten(0, 1)
    inner = (v[edges.start].mT @ v[edges.end]).flatten(1)
    message = silu(edge(torch.cat([inner, s[edges.start], s[edges.end], edges.kind], -1)))
    # Edges of no kind are padding.
    message = message * (edges.kind != 0).any(-1, keepdim=True)
    zeros = message.new_zeros(batch * count, message.shape[-1])
    leaving = zeros.index_add(0, edges.start, message)
    reaching = zeros.index_add(0, edges.end, message)
    return torch.cat([leaving, reaching], -1).reshape(batch, count, 2 * message.shape[-1])


def invariants(vectors: Tensor, mask: Where) -> Tensor:
    """Numbers of each node (B, N, S) made of its vectors (B, N, D, C), zero on padding, and of fixed moments.

    For each pair of vectors v, w of a node `v^T w`, `v^T M w` and `v^T M^2 w`, and T(v, v, v) of their sum.
    """
    v = mixed(vectors).transpose(2, 3)  # (B, N, C, D)
    c, d = v.shape[2:]
    # Lengths below one, so that far nodes do not drown the others.
    v = v * (1 + v.square().sum((2, 3), keepdim=True)).rsqrt()

    # 1. v w^T of each pair of vectors of a node, (B, N, pairs, D^2). `own` numbers the pairs of a vector with itself.
    first, second = pairs(c)
    own = [number for number in range(len(first)) if first[number] == second[number]]
    left = _chosen(v, first)
    right = _chosen(v, second)
    squares = (left.unsqueeze(-1) * right.unsqueeze(-2)).flatten(3)

    # 2. Second moments M, and behind them third moments T where space has few dimensions.
    total = _summed(v)
    factors = [torch.ones_like(total[..., :1])]
    if d <= CUBIC:
        factors.append(total)
    moments = mean_product(_summed(_chosen(squares, own)), torch.cat(factors, -1), mask)
    m = moments[..., 0].unflatten(-1, (d, d))

    # 3. The forms 1, M and M^2, each less the identity where it is large. M has trace d, so that v^T M v is |v|^2 on
    #    average; the small number is for clouds without extent.
    trace = m.diagonal(dim1=-2, dim2=-1).sum(-1)[:, None, None]
    m = m * (d / (trace + 1e-3))
    one = torch.eye(d, dtype=v.dtype, device=v.device).expand_as(m)
    forms = torch.stack([one, m - one, (m - one) @ (m - one)], -1).flatten(1, 2)

    # 4. Their values at each pair, and T(v, v, v) of the sum.
    values = by_graph(squares, torch.cat([forms, moments[..., 1:]], -1), mask)
    numbers = [values[..., :3].flatten(2)]
    own_values = _chosen(values, own)
    length, direction, _ = _summed(own_values[..., :3]).split(1, -1)
    if d <= CUBIC:
        cubic = (_summed(own_values[..., 3:]) * total).sum(-1, keepdim=True)
        numbers.append(4 * cubic)

    # 5. Curved functions of the length (Chebyshev polynomials) and of the direction: sums weighted by linear ones
    #    alone would all be nearly parallel.
    length = 2 * length - 1
    bend = 2 * length * length - 1
    numbers.append(bend)
    numbers.append(length * (2 * bend - 1))
    numbers.append(direction * direction)
    numbers.append(direction * length)
    return torch.cat(numbers, -1)


def _chosen(x: Tensor, places: list[int]) -> Tensor:
    """Entries of the third axis, (B, N, C, ...); no copy where there is one."""
    if x.shape[2] == 1:
        return x
    return x[:, :, places]


def _summed(x: Tensor) -> Tensor:
    """The sum over the third axis, (B, N, C, ...) to (B, N, ...); no copy where it has one entry."""
    if x.shape[2] == 1:
        return x.squeeze(2)
    return x.sum(2)


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
    first = []
    second = []
    for i in range(count):
        for j in range(i, count):
            first.append(i)
            second.append(j)
    return first, second


def mixed(vectors: Tensor) -> Tensor:
    """The vectors of each node (B, N, D, C), or if there are many a few fixed generic combinations of them."""
    c = vectors.shape[-1]
    if c <= MIXED:
        return vectors
    # Any weights in general position will do. They are computed in float64, so that every device has the same ones.
    k = torch.arange(1, c + 1, dtype=torch.float64, device=vectors.device)[:, None]
    phase = torch.arange(1, MIXED + 1, dtype=torch.float64, device=vectors.device)
    weights = torch.sin(3.7 * k * k + k * phase + phase) * (2 / c) ** 0.5
    return vectors @ weights.to(vectors.dtype)
