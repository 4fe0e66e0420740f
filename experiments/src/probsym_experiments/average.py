"""Exponential moving average of weights."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Average:
    """w' <- w' + (1 - d) (w - w') with d = min(decay, (1 + t) / (10 + t)), so that early weights are soon forgotten."""

    def __init__(self, model: nn.Module, decay: float):
        self.decay = decay
        self.updates = 0
        self.live: list[Tensor] = []
        self.weights: list[Tensor] = []
        for parameter in model.parameters():
            if parameter.requires_grad:
                self.live.append(parameter)
                self.weights.append(parameter.detach().clone())

    @torch.no_grad()
    def update(self) -> None:
        """Once after each optimizer step."""
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates))
        self.updates += 1
        torch._foreach_lerp_(self.weights, self.live, 1 - decay)

    @torch.no_grad()
    def swap(self) -> None:
        """Exchanges average and live weights; a second call undoes it."""
        for average, live in zip(self.weights, self.live, strict=True):
            kept = live.detach().clone()
            live.copy_(average)
            average.copy_(kept)

    def to(self, device: torch.device) -> None:
        """Follows a model that was moved."""
        self.weights = [average.to(device) for average in self.weights]

    def state(self) -> dict[str, int | list[Tensor]]:
        return {"updates": self.updates, "weights": self.weights}

    @torch.no_grad()
    def load(self, state: dict) -> None:
        self.updates = state["updates"]
        for average, saved in zip(self.weights, state["weights"], strict=True):
            average.copy_(saved)
