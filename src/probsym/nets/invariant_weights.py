"""Scores to sort nodes by and a frame to orient space by, from pairs: vectors weighted by their inner products."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import linear, silu

from probsym.members import register

from .masking import channels, keep, lifted, mean, pairwise, size
from .rounding import settled


@register
class InvariantWeights(nn.Module):
    """Invariant scores and an equivariant frame of a cloud of vectors, for any d ("scalars are universal").

    All O(d)-invariants of vectors are functions of their inner products `G_ij = v_i^T v_j` (C x C), and all
    O(d)-equivariant vectors are sums of the vectors themselves, weighted by invariants (arXiv 2106.06610, prop. 5). So

        e_ij = SiLU(W [G_ij, A_ij, y_i, y_j])            y_i = [G_ii, x_i];  x: scalars, A: pairs
        s_i  = mean_j e_ij,    h_i = SiLU(U s_i + V mean_j s_j + b)
        scores_i = a h_i + c,  frame_m = mean_j sum_c v_jc (B h_j)_cm

    `forward(vectors (B, N, D, C), scalars (B, N, F), pairs (B, N, N[, P]), mask (B, N))` returns scores
    (B, N) and frame (B, D, M): `scores(Q v) = scores(v)`, `frame(Q v) = Q frame(v)`; scores follow
    permutations, the frame ignores them. Without `scores` they are None. M is `columns`, or D if None; C, D, F
    and P are fixed by the first call.
    There is no norm and no root, so zero vectors are harmless. Columns that cancelled up to the rounding of the
    vectors, `rounding` (B,) relative to their size, are zero.

    The cost is quadratic in the number of nodes, so this net is for inputs that hold pairs anyway. `MomentWeights` is
    linear.

    >>> net, v = InvariantWeights(hidden=8), torch.randn(2, 5, 3, 2)
    >>> scores, frame = net(v)
    >>> scores.shape, frame.shape
    (torch.Size([2, 5]), torch.Size([2, 3, 3]))
    >>> torch.allclose(net(-v)[1], -frame, atol=1e-5)
    True
    """

    def __init__(self, hidden: int = 32, columns: int | None = None, scores: bool = True) -> None:
        super().__init__()
        self.arguments = {"hidden": hidden, "columns": columns, "scores": scores}
        self.columns = columns
        self.edge = nn.LazyLinear(hidden)
        self.own = nn.Linear(hidden, hidden)
        self.others = nn.Linear(hidden, hidden, bias=False)
        self.score = nn.Linear(hidden, 1) if scores else None
        self.weights = nn.LazyLinear(0)

    def describe(self) -> dict[str, Any]:
        """The arguments of the constructor, for `probsym.save`."""
        return self.arguments

    def forward(
        self,
        vectors: Tensor,
        scalars: Tensor | None = None,
        pairs: Tensor | None = None,
        mask: Tensor | None = None,
        rounding: Tensor | None = None,
    ) -> tuple[Tensor | None, Tensor]:
        batch, count, dim, channels_in = vectors.shape
        columns = self.columns
        if columns is None:
            columns = dim
        if isinstance(self.weights, nn.LazyLinear):
            self.weights.out_features = channels_in * columns

        # 1. What each node knows of the others, by inner products.
        v = keep(vectors, mask).transpose(1, 2).reshape(batch, dim, count * channels_in)
        gram = inner_products(v, count, channels_in)
        h = self.nodes(self.edges(gram, scalars, pairs, mask), mask)

        # 2. Scores, and the mean of the vectors weighted by it.
        scores = None
        if self.score is not None:
            scores = keep(lifted(self.score, h, mask).squeeze(-1), mask)
        if mask is None:
            v = v / max(count, 1)
        else:
            v = v / size(mask)[:, None, None]
        weights = self.weights(h).reshape(batch, count * channels_in, columns)
        frame = torch.bmm(v, weights)

        # 3. How long the columns would be at most if nothing cancelled (B, M): what is small next to that is rounding.
        with torch.no_grad():
            # h = SiLU(z) >= -0.279, so |h| <= h + 2 * 0.279
            largest_weights = linear(h + 0.558, self.weights.weight.abs(), self.weights.bias.abs())
            largest_weights = largest_weights.reshape(batch, count * channels_in, columns)
            lengths = torch.linalg.vector_norm(v, dim=1, keepdim=True)
            whole = torch.bmm(lengths, largest_weights).squeeze(1)
        return scores, settled(frame, whole, rounding)

    def edges(self, gram: Tensor, scalars: Tensor | None, pairs: Tensor | None, mask: Tensor | None) -> Tensor:
        """Hidden features `e_ij` (B, N, N, H) of ordered pairs."""
        own = gram.diagonal(dim1=1, dim2=2).mT
        if scalars is not None:
            own = torch.cat([own, keep(scalars, mask)], -1)
        shape = (*gram.shape[:3], own.shape[-1])
        seen = [gram, own.unsqueeze(2).expand(shape), own.unsqueeze(1).expand(shape)]
        if pairs is not None:
            seen.append(keep(channels(pairs), pairwise(mask)))
        return silu(self.edge(torch.cat(seen, -1)))

    def nodes(self, e: Tensor, mask: Tensor | None) -> Tensor:
        """Hidden features `h_i` (B, N, H)."""
        s = mean(e.transpose(1, 2), mask)
        return silu(self.own(s) + self.others(mean(s, mask)).unsqueeze(1))


def inner_products(v: Tensor, n: int, c: int) -> Tensor:
    """All `<v_ic, v_jc'>` at once: (B, D, N*C) to (B, N, N, C*C)."""
    return torch.bmm(v.mT, v).view(v.shape[0], n, c, n, c).transpose(2, 3).flatten(3)
