"""Which values may be looked at: the one file that decides it.

In eager mode the library reads a few values to leave out what only rare inputs need, and takes derivatives in closed
form by `torch.autograd.Function`s of its own. Both must stop where somebody else follows the computation:

| who follows | `recorded()` | `readable(x)` | our functions |
|---|---|---|---|
| nobody, or autograd in reverse mode | False | True | apply |
| forward mode (dual numbers) | False | True | torch refuses them: they have no jvp |
| `torch.func` (vmap, grad, jvp, ...) | False | False if it wraps x | torch refuses them |
| `torch.compile`, `torch.export`, `torch.jit.trace`, `make_fx`, ONNX | True | False | are recorded |

Nothing here is private to torch. A tensor that a function transform wraps has no memory, so that `data_ptr` raises; and
whether our own functions can be followed is what torch says when they are applied (`apply_or`).
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch.autograd import forward_ad
from torch.fx.experimental.proxy_tensor import get_proxy_mode

T = TypeVar("T")


def recorded() -> bool:
    """Whether a compiler, exporter or tracer records the computation, so that nothing may depend on a value."""
    if torch.compiler.is_compiling():
        return True
    return torch.jit.is_tracing() or get_proxy_mode() is not None


def readable(*tensors: Tensor) -> bool:
    """Whether the values of these tensors are there to be read: nothing is `recorded`, and no transform wraps them.

    >>> x = torch.zeros(2, 3)
    >>> readable(x), torch.vmap(lambda row: torch.tensor(readable(row)))(x).any().item()
    (True, False)
    """
    if recorded():
        return False
    for x in tensors:
        if not has_memory(x):
            return False
    return True


def may_peek(*tensors: Tensor) -> bool:
    """Whether reading these values is free: `readable`, and on a CPU.

    Common cases may then leave out what only rare inputs need. On a GPU reading a value waits for all work under way.
    """
    for x in tensors:
        if not x.is_cpu:
            return False
    return readable(*tensors)


def differentiated(x: Tensor) -> bool:
    """Whether a derivative may follow x: in reverse mode, in forward mode, or by a function transform that wraps it."""
    if torch.is_grad_enabled() and x.requires_grad:
        return True
    if torch.compiler.is_compiling() or not x.is_floating_point():
        return False
    return not has_memory(x) or forward_ad.unpack_dual(x).tangent is not None


def vmapped(x: Tensor) -> bool:
    """Whether `torch.vmap` runs over the values of x, so that there is no one value to read.

    Under `torch.func.grad` and the like there is one, and torch reads it. Before torch 2.7, which has no
    `debug_unwrap`, the answer is False: whoever reads then gets an error of torch.
    """
    unwrap = getattr(torch.func, "debug_unwrap", None)
    if unwrap is None or torch.compiler.is_compiling():
        return False
    while True:
        inner = unwrap(x, recurse=False)
        if inner is x:
            return False
        if inner.ndim != x.ndim:  # the axis that vmap hides
            return True
        x = inner


def apply_or(function: type[torch.autograd.Function], plain: Callable[..., Any], *args: Any) -> Any:
    """function.apply(*args), or plain(*args) where torch refuses the function.

    Our functions have derivatives in reverse mode only. Forward mode and function transforms refuse them, with a
    RuntimeError, and follow plain operations instead. An error of another cause comes again from `plain`.
    """
    if torch.compiler.is_compiling():
        return function.apply(*args)
    try:
        return function.apply(*args)
    except RuntimeError:
        return plain(*args)


def drawn_once(draw: Callable[[], T]) -> T:
    """draw(), for random numbers that all rows of a `torch.vmap` share, which by default refuses random operations.

    Transforms belong to a thread, so that another one draws what they refuse.
    """
    if torch.compiler.is_compiling():
        return draw()
    try:
        return draw()
    except RuntimeError:
        with ThreadPoolExecutor(1) as undisturbed:
            return undisturbed.submit(draw).result()


def has_memory(x: Tensor) -> bool:
    """Whether x is memory rather than the wrapper of a function transform."""
    try:
        x.data_ptr()
    except RuntimeError:
        return False
    return True
