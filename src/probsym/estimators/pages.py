"""Diagnostics of elements that come page by page."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from probsym.distributions.diagnostics import Diagnostics, gathered


class PagedDiagnostics:
    """Scalars about the elements of all pages: means of shares, of counts of inputs the largest.

    What is computed only when it is read stays that of the first page: for later ones their scores would be held.
    """

    def __init__(self) -> None:
        self.pages: list[tuple[dict[str, Tensor], int]] = []  # scalars, and of how many samples

    def add(self, diagnostics: dict[str, Tensor], samples: int) -> None:
        """Add the scalars of a page of samples."""
        if self.pages and isinstance(diagnostics, Diagnostics):
            diagnostics = diagnostics.computed()
        self.pages.append((diagnostics, samples))

    def merged(self) -> dict[str, Tensor]:
        """The scalars of all samples."""
        total = sum(samples for _, samples in self.pages)
        first_page, _ = self.pages[0]
        scalars: dict[str, Any] = {}
        for key in first_page:
            first = first_page.later(key) if isinstance(first_page, Diagnostics) else first_page[key]
            if callable(first):
                scalars[key] = first
                continue
            values = torch.stack([diagnostics[key] for diagnostics, _ in self.pages])
            if first.is_floating_point():
                weights = torch.tensor([samples / total for _, samples in self.pages], device=first.device)
                scalars[key] = (values * weights).sum(0).to(values.dtype)
            else:
                scalars[key] = values.amax(0)
        return gathered(scalars)
