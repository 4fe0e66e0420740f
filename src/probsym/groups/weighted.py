"""Elements with weights: samples that count for more or less than one, or that only pass a gradient on."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Self

from torch import Tensor

from probsym.groups.base import Element, Group


@dataclass(frozen=True, eq=False)
class WeightedElement(Element):
    """Elements g whose samples are multiplied by weights, w g f(g^-1 x); `Element.weighted` makes it.

    A distribution whose elements carry no gradient learns by weights of value one, such as exp(l - l.detach()) for
    l = log p(g|x): the gradient of their samples is that of the mean under p (the score function). Weights q(g|x) /
    p(g|x) are importance weights. Estimators need not know: the weights travel with the elements, and the orbit
    multiplies by them.

    Parts (`g[factor]`) and inverses have no weights, since it is the sample that has one. A product g h and what `join`
    makes of several elements have the product of their weights.

    Args:
        element: the elements, of any group. weights: (*shape), real.

    >>> import torch
    >>> from probsym.groups import O
    >>> g = O(2).identity((3,)).weighted(torch.tensor([1.0, 2.0, 0.5]))
    >>> (g @ g).weight.tolist(), g.inverse().weight, g.select(slice(1, 2)).weight.tolist()
    ([1.0, 4.0, 0.25], None, [2.0])
    """

    element: Element
    weights: Tensor

    @property
    def weight(self) -> Tensor | None:
        return self.weights

    def weighted(self, weight: Tensor | None) -> Element:
        if weight is None:
            return self
        return dataclasses.replace(self, weights=self.weights * weight)

    @property
    def shape(self) -> tuple[int, ...]:
        return self.element.shape

    @property
    def tensors(self) -> dict[str, Tensor]:
        return {**self.element.tensors, "weights": self.weights}

    def map(self, fn: Callable[[Tensor, int], Tensor]) -> Self:
        return dataclasses.replace(self, element=self.element.map(fn), weights=fn(self.weights, 0))

    def select(self, index: Any) -> Self:
        return dataclasses.replace(self, element=self.element.select(index), weights=self.weights[index])

    def repeat(self, times: int) -> Self:
        weights = self.weights.expand(times, *self.weights.shape[1:])
        return dataclasses.replace(self, element=self.element.repeat(times), weights=weights)

    def inverse(self) -> Any:
        return self.element.inverse()

    def __getitem__(self, factor: Group) -> Element:
        return self.element[factor]
