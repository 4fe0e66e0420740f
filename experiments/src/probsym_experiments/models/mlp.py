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
        if out_shape is None:
            out_shape = (out_features,)
        self.out_shape = tuple(out_shape)
        if math.prod(self.out_shape) != out_features:
            raise ValueError(f"out_shape: expected out_features = {out_features} elements, got {self.out_shape}")
        widths = [in_features, *hidden]
        layers: list[nn.Module] = []
        for before, after in pairwise(widths):
            layers += [nn.Linear(before, after), activation()]
        last = nn.Linear(widths[-1], out_features)
        self.net = nn.Sequential(*layers, last, out_activation())

    def forward(self, *args: Tensor, **kwargs: Tensor) -> Tensor:
        inputs = list(args)
        for name in sorted(kwargs):
            inputs.append(kwargs[name])
        dtype = next(self.parameters()).dtype
        columns = []
        for tensor in inputs:
            columns.append(tensor.unsqueeze(-1).flatten(1).to(dtype))  # a number a row is one column
        return self.net(torch.cat(columns, -1)).unflatten(-1, self.out_shape)
