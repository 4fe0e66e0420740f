"""What can be left out while nobody but autograd follows a computation."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad


def traced() -> bool:
    """Whether a compiler, exporter, tracer or function transform follows, so that nothing may depend on a value."""
    if torch.compiler.is_compiling() or torch._C._are_functorch_transforms_active():
        return True
    return torch._C._is_tracing() or torch._C._len_torch_dispatch_stack() > 0


def may_peek(x: Tensor) -> bool:
    """Whether reading a value is free: on a CPU, and while the computation is not `traced`.

    Common cases may then leave out what only rare inputs need. On a GPU reading a value waits for all work under way.
    """
    return x.is_cpu and not traced()


def in_forward_mode() -> bool:
    """Whether derivatives in forward mode (dual numbers) may be under way."""
    return forward_ad._current_level >= 0


def differentiated(x: Tensor) -> bool:
    """Whether a derivative follows x, in reverse or in forward mode."""
    if torch.is_grad_enabled() and x.requires_grad:
        return True
    return not torch.compiler.is_compiling() and forward_ad.unpack_dual(x).tangent is not None


def applied(function: type[torch.autograd.Function], *args: Any) -> Any:
    """function.apply(*args), where nothing is traced without looking up its signature: a third of a small step."""
    if traced():
        return function.apply(*args)
    return super(torch.autograd.Function, function).apply(*args)  # type: ignore[misc]
