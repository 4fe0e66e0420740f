"""Vector Neurons with a joint S_n x O(d) head: scores to sort nodes by, a frame to orient space by."""

import torch
from torch import Tensor, nn
from torch.nn.functional import silu

from .masking import channels, keep, lifted, mean, pairwise, size


class VectorNeurons(nn.Module):
    """Invariant scores and an equivariant frame of a cloud of vectors, for any d (after arXiv 2104.12229).

    By the first fundamental theorem all O(d)-invariants of the vectors are functions of their inner products
    `G_ij = v_i^T v_j` (C x C), distances included. So an edge network makes smooth weights of them, and the
    vectors themselves only ever meet matrices on their channel axis:

        e_ij = SiLU(W [G_ij, A_ij] + S [G_ii, x_i] + R [G_jj, x_j])     x: scalars, A: pairs
        s_i  = mean_j e_ij,   w_ij = V e_ij                             invariants; weights of all layers
        v_i, s_i <- layer(v_i + mean_j w_ij (v_j - v_i), s_i)           `VectorLayer`
        scores_i = a s_i + b,   frame = mean_i v_i U

    `forward(vectors (B, N, D, C), scalars (B, N, F), pairs (B, N, N[, P]), mask (B, N))` returns scores
    (B, N) and frame (B, D, M): `scores(Q v) = scores(v)`, `frame(Q v) = Q frame(v)`; scores follow
    permutations, the frame ignores them. Without `scores` they are None. M is `columns`, or D if None; C, D, F
    and P are fixed by the first call.
    There is no norm and no root, so zero vectors are harmless.

    >>> net, v = VectorNeurons(hidden=8), torch.randn(2, 5, 3, 2)
    >>> scores, frame = net(v)
    >>> scores.shape, frame.shape
    (torch.Size([2, 5]), torch.Size([2, 3, 3]))
    >>> torch.allclose(net(-v)[1], -frame, atol=1e-5)
    True
    """

    heads = 4

    def __init__(self, hidden: int = 32, layers: int = 2, columns: int | None = None, scores: bool = True) -> None:
        super().__init__()
        if hidden % self.heads:
            raise ValueError(f"hidden: expected a multiple of {self.heads}, got {hidden}")
        self.edge = nn.LazyLinear(hidden)
        self.ends = nn.LazyLinear(2 * hidden, bias=False)
        self.weights = nn.Linear(hidden, layers * self.heads)
        self.layers = nn.ModuleList(VectorLayer(hidden) for _ in range(layers))
        self.score = nn.Linear(hidden, 1) if scores else None
        self.frame = LazySquare() if columns is None else nn.Linear(hidden, columns, bias=False)

    def forward(
        self,
        vectors: Tensor,
        scalars: Tensor | None = None,
        pairs: Tensor | None = None,
        mask: Tensor | None = None,
    ) -> tuple[Tensor | None, Tensor]:
        v = keep(vectors, mask)
        e = self.edges(v, scalars, pairs, mask)
        s = mean(e.transpose(1, 2), mask)
        for layer, w in zip(self.layers, self.diffusions(e, mask), strict=True):
            v, s = layer(v, s, w)
        scores = None if self.score is None else keep(lifted(self.score, s, mask).squeeze(-1), mask)
        return scores, self.frame(balance(v, mask))

    def edges(self, v: Tensor, scalars: Tensor | None, pairs: Tensor | None, mask: Tensor | None) -> Tensor:
        """Hidden features `e_ij` (B, N, N, H) of ordered pairs."""
        gram = inner_products(v)
        own = gram.diagonal(dim1=1, dim2=2).mT
        if scalars is not None:
            own = torch.cat([own, keep(scalars, mask)], -1)
        if pairs is not None:
            gram = torch.cat([gram, keep(channels(pairs), pairwise(mask))], -1)
        receiver, sender = self.ends(own).chunk(2, -1)
        return silu(self.edge(gram) + receiver.unsqueeze(2) + sender.unsqueeze(1))

    def diffusions(self, e: Tensor, mask: Tensor | None) -> tuple[Tensor, ...]:
        """For each layer L (B, K, N, N), K heads: `(L v)_i = v_i + mean_j w_ij (v_j - v_i)`."""
        b, n, _, _ = e.shape
        w = keep(self.weights(e), pairwise(mask))
        w = w / (max(n, 1) if mask is None else size(mask)[:, None, None, None])
        w = w.view(b, n, n, len(self.layers), self.heads).permute(3, 0, 4, 1, 2)
        return (w + torch.diag_embed(1 - w.sum(-1))).unbind(0)


class VectorLayer(nn.Module):
    """One equivariant layer on vectors (B, N, D, C) and invariants (B, N, H).

    q, k = v Q, v K                          no bias: a constant vector would not turn
    q   <- L q                               messages, each head on its own channels
    s_i <- s_i + SiLU(W [s_i, <q_i, k_i>] + b)   one inner product a channel
    v_i <- q_i * W' s_i                      the gate: a nonlinearity built on invariants
    """

    def __init__(self, hidden: int) -> None:
        super().__init__()
        self.linear = nn.LazyLinear(2 * hidden, bias=False)
        self.invariants = nn.Linear(2 * hidden, hidden)
        self.gate = nn.Linear(hidden, hidden, bias=False)

    def forward(self, v: Tensor, s: Tensor, diffusion: Tensor) -> tuple[Tensor, Tensor]:
        q, k = self.linear(v).chunk(2, -1)
        q = propagate(diffusion, q)
        s = s + silu(self.invariants(torch.cat([s, (q * k).sum(-2)], -1)))
        return q * self.gate(s).unsqueeze(-2), s


class LazySquare(nn.LazyLinear):
    """`v U`, (B, D, H) to (B, D, D), no bias; D and H are fixed by the first call."""

    def __init__(self) -> None:
        super().__init__(0, bias=False)

    def initialize_parameters(self, pooled: Tensor) -> None:
        self.out_features = pooled.shape[-2]
        super().initialize_parameters(pooled)


def inner_products(v: Tensor) -> Tensor:
    """All `<v_ic, v_jc'>` at once: (B, N, D, C) to (B, N, N, C*C)."""
    b, n, d, c = v.shape
    x = v.transpose(1, 2).reshape(b, d, n * c)
    return torch.bmm(x.mT, x).view(b, n, c, n, c).transpose(2, 3).reshape(b, n, n, c * c)


def balance(v: Tensor, mask: Tensor | None) -> Tensor:
    """`mean_i v_i`, exactly zero where they cancel up to rounding, as in symmetric clouds: (B, N, D, C) to (B, D, C).

    A remainder of rounding would look like a direction to whoever normalises it.
    """
    pooled, length = mean(v, mask), mean(v.detach().square().sum(-2).sqrt(), mask)
    rest = pooled.detach().square().sum(-2).sqrt()
    return pooled * (rest > 1000 * torch.finfo(v.dtype).eps * length).unsqueeze(-2)


def propagate(diffusion: Tensor, u: Tensor) -> Tensor:
    """`sum_j L_kij u_j`, head k acts on its own C/K channels: (B, K, N, N), (B, N, D, C) to (B, N, D, C)."""
    (b, n, d, c), heads = u.shape, diffusion.shape[1]
    split = u.reshape(b, n, d, heads, c // heads).permute(0, 3, 1, 2, 4).reshape(b * heads, n, d * c // heads)
    moved = torch.bmm(diffusion.reshape(b * heads, n, n), split).view(b, heads, n, d, c // heads)
    return moved.permute(0, 2, 3, 1, 4).reshape(b, n, d, c)
