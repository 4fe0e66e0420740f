"""Multilayer perceptron on everything it is given: the plainest model there is to symmetrize."""

import math
from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn


class MLP(nn.Module):
    """`x -> W_L act(... act(W_1 x + b_1) ...) + b_L` on the flattened inputs.

    `forward(*args, **kwargs)` takes any tensors (R, ...): positional ones in order, then keyword ones by
    name; each is flattened from axis 1 on. Output (R, out_features), or (R, *out_shape) if that is given.
    For graph separation Kim et al. (arXiv 2306.02866) end with a tanh too: `out_activation=nn.Tanh`.

    >>> net = MLP(64, (128, 64), 10)
    >>> sum(p.numel() for p in net.parameters()), net(torch.rand(3, 8, 8)).shape
    (17226, torch.Size([3, 10]))
    """

    def __init__(
        self,
        in_features: int,
        hidden: Sequence[int],
        out_features: int,
        activation: type[nn.Module] = nn.Tanh,
        out_activation: type[nn.Module] = nn.Identity,
        out_shape: Sequence[int] | None = None,
    ) -> None:
        super().__init__()
        self.out_shape = (out_features,) if out_shape is None else tuple(out_shape)
        if math.prod(self.out_shape) != out_features:
            raise ValueError(f"out_shape: expected out_features = {out_features} elements, got {self.out_shape}")
        *body, last = (nn.Linear(i, o) for i, o in pairwise((in_features, *hidden, out_features)))
        steps = [step for linear in body for step in (linear, activation())]
        self.net = nn.Sequential(*steps, last, out_activation())

    def forward(self, *args: Tensor, **kwargs: Tensor) -> Tensor:
        inputs = [*args, *(kwargs[name] for name in sorted(kwargs))]
        dtype = next(self.parameters()).dtype
        x = torch.cat([t.unsqueeze(-1).flatten(1).to(dtype) for t in inputs], -1)
        return self.net(x).unflatten(-1, self.out_shape)
