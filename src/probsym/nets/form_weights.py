"""Scores of nodes and sums of their vectors, weighted by invariants of a form that is not that of space."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import silu, softplus

from probsym.kernels.minkowski import boost_to, minkowski, reflected
from probsym.members import register

from .masking import Where, keep, lifted, mean, spread
from .moment_weights import mixed, pairs
from .rounding import settled

FORMS = ("lorentz", "hermitian")
LIGHTLIKE_IN_EPS = 16  # products below this share of the squared lengths, in units of rounding, are rounding


@register
class FormWeights(nn.Module):
    """Invariant scores and equivariant sums of vectors, for groups that keep a form <v, w>; linear in the nodes.

        <v, w> = v_0 w_0 - v_1 w_1 - v_2 w_2 - v_3 w_3        form="lorentz", real vectors, D = 4
        <v, w> = sum_d conj(v_d) w_d                          form="hermitian", complex vectors

    Every sum of the vectors themselves, weighted by invariants, moves as they do (arXiv 2106.06610, prop. 2 and 6).
    A node knows the others by their mean T, by their second moment, and by K learned sums u_k:

        s_i = asinh [<v_i, v_i> / s, <v_i, T> / s, mean_j |<v_i, v_j>|^2 / s^2, x_i]          s: the mean of |<v_i, T>|,
        a_i = SiLU(A s_i + a),        u_k = mean_j (K a_j)_k v_j                              or of |v_i|^2
        h_i = SiLU(B [s_i, asinh <v_i, u> / s] + G [mean_j a_j, asinh <u_k, u_l> / s] + b)
        scores_i = c h_i + e,         column_m = mean_j (F h_j)_m v_j

    Weights are real for "lorentz", where those of the first column are positive: of momenta of particles it is the
    momentum of something. They are complex for "hermitian". Products are taken in double precision.

    `forward(vectors (B, N, D, C), scalars (B, N, F), mask (B, N) or Segments)` returns scores (B, N), None without
    `scores`, and columns (B, D, M). C and F are fixed by the first call. Zero and light-like vectors are harmless.

    Args:
        form: "lorentz" or "hermitian".
        columns: M.

    Raises:
        ValueError: another form.

    >>> from probsym.groups import U
    >>> net, v = FormWeights("hermitian", 2, hidden=8), torch.randn(3, 5, 2, 1, dtype=torch.complex64)
    >>> scores, columns = net(v)
    >>> g = U(2).haar(generator=torch.Generator().manual_seed(0)).matrix
    >>> moved = net(g @ v)
    >>> torch.allclose(moved[0], scores, atol=1e-4), torch.allclose(moved[1], g @ columns, atol=1e-4)
    (True, True)
    """

    def __init__(self, form: str, columns: int, hidden: int = 16, shared: int = 4, scores: bool = True) -> None:
        super().__init__()
        if form not in FORMS:
            raise ValueError(f"form: expected one of {', '.join(map(repr, FORMS))}, got {form!r}")
        self.arguments = {"form": form, "columns": columns, "hidden": hidden, "shared": shared, "scores": scores}
        self.form = form
        self.columns = columns
        self.shared = shared
        self.first = nn.LazyLinear(hidden)
        self.cloud = nn.LazyLinear(0, bias=False)
        self.own = nn.LazyLinear(hidden)
        self.others = nn.LazyLinear(hidden, bias=False)
        self.score = nn.Linear(hidden, 1) if scores else None
        self.weights = nn.LazyLinear(0)

    def describe(self) -> dict[str, Any]:
        """The arguments of the constructor, for `probsym.save`."""
        return self.arguments

    def forward(
        self, vectors: Tensor, scalars: Tensor | None = None, mask: Where = None
    ) -> tuple[Tensor | None, Tensor]:
        channels = vectors.shape[3]
        parts = 2 if self.form == "hermitian" else 1  # real numbers in a weight
        if isinstance(self.cloud, nn.LazyLinear):
            self.cloud.out_features = self.shared * channels * parts
        if isinstance(self.weights, nn.LazyLinear):
            self.weights.out_features = self.columns * channels * parts
        kind = next(self.parameters()).dtype
        eps = torch.finfo(vectors.dtype).eps

        # Products of momenta cancel: E^2 - p^2.
        precise = keep(vectors, mask).to(torch.complex128 if vectors.is_complex() else torch.float64)
        v = precise.transpose(2, 3)  # (B, N, C, D)
        seen = self._at_rest(v, mask, eps)
        few = mixed(seen.transpose(2, 3)).transpose(2, 3)

        # 1. s_i, relative to a size of the whole input, so that no unit matters.
        total = mean(few, mask).sum(1)
        with_total = self.product(few, spread(total, mask).unsqueeze(2))
        size, known = self._size(few, with_total, mask, eps)
        node_size = spread(size[:, None, None], mask)  # to be divided by along (B, N, C, parts)
        node_known = spread(known[:, None], mask)
        first, second = pairs(few.shape[2])
        own = self.product(few[:, :, first], few[:, :, second])
        moment = self.product(few, self._by_moment(few, mask))
        relative = [own / node_size, with_total / node_size, moment / node_size.square()]
        s = torch.cat([numbers.flatten(2) for numbers in relative], -1)
        s = (s.asinh() * node_known).to(kind)
        if scalars is not None:
            s = torch.cat([s, keep(scalars, mask).to(kind)], -1)
        a = silu(self.first(s))

        # 2. K sums, and what they say about each node and about the whole.
        u = self._sums(self.cloud(a), seen, self.shared, mask)  # (B, K, D)
        towards = self.product(few.unsqueeze(3), spread(u, mask).unsqueeze(2)) / node_size.unsqueeze(-1)
        towards = (towards.flatten(2).asinh() * node_known).to(kind)
        first, second = pairs(self.shared)
        products = self.product(u[:, first], u[:, second]) / size[:, None, None]
        products = (products.flatten(1).asinh() * known[:, None]).to(kind)
        whole = torch.cat([mean(keep(a, mask), mask), products], -1)
        h = silu(self.own(torch.cat([s, towards], -1)) + spread(self.others(whole), mask))

        # 3. Scores, and the columns.
        scores = None
        if self.score is not None:
            scores = keep(lifted(self.score, keep(h, mask), mask).squeeze(-1), mask)
        columns = self._sums(self.weights(h), v, self.columns, mask, self.form == "lorentz").mT
        if self.form == "hermitian":
            lengths = torch.linalg.vector_norm(v.detach(), dim=-1, keepdim=True)  # (B, N, C, 1)
            weights = self._weights(self.weights(h).detach(), v.shape[2], self.columns, False).abs()
            columns = settled(columns, mean(keep(weights * lengths, mask).sum(2), mask))
        return scores, columns.to(vectors.dtype)

    def _at_rest(self, v: Tensor, mask: Where, eps: float) -> Tensor:
        """The vectors (B, N, C, D) as seen from the rest frame of their sum, if it has one.

        Invariants are the same there, and products do not cancel: those of fourth order would lose eps gamma^4.
        """
        if self.form == "hermitian":
            return v
        total = mean(v, mask).sum(1)  # (B, 4)
        square = minkowski(total, total).unsqueeze(-1)
        energy = total[:, :1].detach()
        massive = square.detach() > LIGHTLIKE_IN_EPS * eps * energy.square()
        mass = torch.where(massive, square, 1.0).sqrt() * torch.where(energy < 0, -1.0, 1.0)
        velocity = torch.where(massive, total / mass, total.new_tensor([1.0, 0.0, 0.0, 0.0]))
        back = spread(reflected(boost_to(velocity)), mask)  # (B, 1, 4, 4), of a ragged batch (1, sum N, 4, 4)
        return v @ back.mT

    @torch.no_grad()
    def rounding(self, vectors: Tensor, mask: Where = None) -> Tensor | None:
        """Relative rounding (B,) of the invariants that scores are made of, where it is more than that of their dtype.

        Products of momenta cancel: seen at gamma, what is left of them has lost eps gamma^2.
        """
        if self.form == "hermitian":
            return None
        eps = torch.finfo(vectors.dtype).eps
        total = mean(keep(vectors, mask).double().sum(3), mask)  # (B, 4)
        energy = total[:, 0].square()
        mass = self.product(total, total).squeeze(-1)
        least = LIGHTLIKE_IN_EPS * eps * energy
        gamma_square = energy / torch.where(mass > least, mass, 1.0)
        return torch.where(mass > least, eps * gamma_square, 1.0)

    def product(self, v: Tensor, w: Tensor) -> Tensor:
        """<v, w> of vectors (..., D), as real numbers (..., 1), or both parts (..., 2)."""
        if self.form == "hermitian":
            return torch.view_as_real((v.conj() * w).sum(-1))
        product = v * w
        return (product[..., :1] - product[..., 1:].sum(-1, keepdim=True)).contiguous()

    def _size(self, v: Tensor, with_total: Tensor, mask: Where, eps: float) -> tuple[Tensor, Tensor]:
        """A squared size (B,) of each input, and one where that is more than rounding, else zero."""
        lengths = v.abs().square().sum((2, 3))
        if self.form == "hermitian":
            square = mean(lengths, mask)
            least = torch.zeros_like(square)
        else:
            square = mean(with_total.abs().sum((2, 3)), mask)
            least = LIGHTLIKE_IN_EPS * eps * mean(lengths, mask).detach()
        known = square.detach() > least
        safe = torch.where(known, square, 1.0)
        return safe, known.to(square.dtype)

    def _by_moment(self, v: Tensor, mask: Where) -> Tensor:
        """mean_j v_j <v_j, v_i>: (B, N, C, D)."""
        outer = (v.unsqueeze(-1) * v.conj().unsqueeze(-2)).sum(2)  # (B, N, D, D)
        matrix = mean(outer, mask)
        if self.form == "lorentz":
            matrix = matrix * matrix.new_tensor([1.0, -1.0, -1.0, -1.0])
        return torch.einsum("bnij,bncj->bnci", spread(matrix, mask).expand(*v.shape[:2], -1, -1), v)

    def _weights(self, numbers: Tensor, channels: int, columns: int, positive: bool) -> Tensor:
        """Numbers (B, N, columns C), twice as many for complex ones, as weights (B, N, C, columns)."""
        if self.form == "hermitian":
            pairs_of_parts = numbers.unflatten(-1, (channels, columns, 2)).double()
            return torch.view_as_complex(pairs_of_parts.contiguous())
        weights = numbers.unflatten(-1, (channels, columns)).double()
        if positive:
            weights = torch.cat([softplus(weights[..., :1]), weights[..., 1:]], -1)
        return weights

    def _sums(self, numbers: Tensor, v: Tensor, columns: int, mask: Where, positive: bool = False) -> Tensor:
        """mean_i sum_c w_icm v_ic: (B, M, D)."""
        weights = self._weights(numbers, v.shape[2], columns, positive)
        return mean(torch.einsum("bncm,bncd->bnmd", weights, v), mask)
