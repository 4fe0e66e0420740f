"""What can be left out while nobody but autograd follows a computation."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

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


def transformed() -> bool:
    """Whether dual numbers (forward mode) or function transforms (`torch.func`) may be under way.

    Autograd functions of our own then give way to plain operations, which all of these know how to treat.
    """
    return forward_ad._current_level >= 0 or torch._C._are_functorch_transforms_active()


def vmapped(x: Tensor) -> bool:
    """Whether `torch.vmap` runs over values of x, so that there is no one value to read, not even for derivatives."""
    wrapped = torch._C._functorch
    while not torch.compiler.is_compiling() and wrapped.is_functorch_wrapped_tensor(x):
        if wrapped.is_batchedtensor(x):
            return True
        x = wrapped.get_unwrapped(x)
    return False


def undisturbed() -> AbstractContextManager[object]:
    """Where nothing is recorded by function transforms: `torch.vmap` refuses random numbers that may not matter."""
    if torch.compiler.is_compiling() or not torch._C._are_functorch_transforms_active():
        return nullcontext()
    return torch._C._DisableFuncTorch()


def differentiated(x: Tensor) -> bool:
    """Whether a derivative follows x, in reverse or in forward mode; under function transforms one may."""
    if torch.is_grad_enabled() and x.requires_grad:
        return True
    return not torch.compiler.is_compiling() and transformed() and x.is_floating_point()
