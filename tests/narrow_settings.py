"""Settings in which torch narrows matrix products of float32."""

import contextlib

import torch


@contextlib.contextmanager
def matmuls(precision):
    """Matmuls of float32 in the given precision; "mixed" is TF32 for one backend, of which torch tells no one value."""
    before = torch.backends.mkldnn.matmul.fp32_precision
    try:
        if precision == "mixed":
            torch.backends.mkldnn.matmul.fp32_precision = "bf16"
        else:
            torch.set_float32_matmul_precision(precision)
        yield
    finally:
        torch.backends.mkldnn.matmul.fp32_precision = "ieee" if before == "none" else before
        torch.set_float32_matmul_precision("highest")


SETTINGS = {
    "bfloat16": lambda: torch.autocast("cpu", torch.bfloat16),
    "float16": lambda: torch.autocast("cpu", torch.float16),
    "high": lambda: matmuls("high"),
    "medium": lambda: matmuls("medium"),
    "mixed": lambda: matmuls("mixed"),
}
