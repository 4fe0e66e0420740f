"""Chunks in training: their activations are computed again in backward instead of being kept."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy
from torch.utils.checkpoint import checkpoint

from probsym.estimators.estimator import OrbitMap
from probsym.estimators.samples import OutputSamples
from probsym.groups import Element
from probsym.reps import Inputs

LARGE_BUFFER_ENTRIES = 2**18  # from here on it is worth a look whether a copy of a buffer is needed


class Recomputed:
    """An orbit whose activations are computed again in backward; `checkpoint` of torch.

    Memory is then that of one chunk. The second evaluation leaves the model's buffers alone.

    Args:
        orbit: what is evaluated.
    """

    def __init__(self, orbit: OrbitMap) -> None:
        self.orbit = orbit
        self.model = orbit.model
        self.training = orbit.training

    def __call__(self, x: Inputs, g: Element, active: Tensor | None = None, deduplicate: bool = False) -> OutputSamples:
        """`orbit(x, g)`."""
        # 1. A compiler cannot follow the context below, and without it buffers would count twice where its graph
        #    breaks. What backward needs it keeps or computes again as it sees fit. Transforms take no checkpoints.
        if not torch.is_grad_enabled() or not x.readable:
            return self.orbit(x, g, active, deduplicate)

        # 2. In evaluation a derivative is wanted where the inputs ask for one (forces). Else there is nothing to spare,
        #    and a model that takes derivatives inside would be evaluated twice.
        if not self.training and not any(leaf.value.requires_grad for leaf in x.leaves.values()):
            return self.orbit(x, g, active, deduplicate)
        again = Recomputation(self.model)

        def evaluate(device_witness: Tensor) -> OutputSamples:
            return self.orbit(x, g, active, deduplicate)

        # torch looks for tensors among the arguments to find the devices whose random state it has to restore
        witness = next(iter(x.leaves.values())).value
        samples: OutputSamples = checkpoint(
            evaluate, witness, use_reentrant=False, context_fn=lambda: (again.first(), again)
        )
        return samples


class Recomputation:
    """A context in which a model in training sees the buffers that it had when this was made, and changes copies.

    Chunks are evaluated twice, and only the first time may count: statistics of BatchNorm, momentum averages, the
    vectors of spectral norms. (Dropout: the checkpoint itself restores torch's random state.)
    Buffers of lazy layers, which the first evaluation makes, are seen as it leaves them.
    """

    def __init__(self, model: nn.Module) -> None:
        self.kept: list[tuple[nn.Module, str, Tensor | None]] = []  # module, name, value before the first evaluation
        self.current: list[Tensor | None] = []  # values that the context puts back when it ends
        for module in model.modules():
            if not module.training:
                continue
            for name, buffer in module._buffers.items():
                if buffer is None:
                    continue
                before = None if is_lazy(buffer) else buffer.detach().clone()
                self.kept.append((module, name, before))

    @contextmanager
    def first(self) -> Iterator[None]:
        """The first evaluation. Of large buffers that it leaves alone, such as masks, no copy is held until backward.

        Values are compared: the statistics of BatchNorm change without a new version of the tensor.
        """
        yield
        changed = []
        for module, name, before in self.kept:
            current = module._buffers[name]
            if before is not None and current is not None:
                if before.numel() >= LARGE_BUFFER_ENTRIES and torch.equal(before, current):
                    continue
            changed.append((module, name, before))
        self.kept = changed

    def __enter__(self) -> None:
        self.current = [module._buffers[name] for module, name, _ in self.kept]
        for (module, name, before), current in zip(self.kept, self.current, strict=True):
            seen = current if before is None else before
            module._buffers[name] = None if seen is None else seen.clone()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for (module, name, _), current in zip(self.kept, self.current, strict=True):
            module._buffers[name] = current
        self.current = []
