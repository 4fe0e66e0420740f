"""What each process of the distributed test runs: `probsym`, with the order of nodes as it comes and the noise noted.

    torchrun ... ddp_driver.py FOLDER run EXPERIMENT ...

Each process writes what its first training step would have drawn to FOLDER/noise-RANK-of-WORLD.npy.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch

import probsym as ps
from probsym.saving import register
from probsym_experiments.cli import main
from probsym_experiments.methods import PAPER, Method

FOLDER = Path(sys.argv[1])


@register(name="experiments/tests/Ordered")
class Ordered(ps.Haar):
    """All noise is zero after it was drawn, so that ties leave every node where it is."""

    def noise(self, x: Any, shape: Any = (), generator: Any = None) -> Any:
        drawn = super().noise(x, shape, generator)
        if torch.is_grad_enabled() and torch.distributed.is_initialized():  # not the count of its operations
            path = FOLDER / f"noise-{torch.distributed.get_rank()}-of-{torch.distributed.get_world_size()}.npy"
            if not path.exists():
                np.save(path, torch.cat([leaf.reshape(-1) for leaf in flat(drawn)]).numpy())
        return zeros(drawn)


def flat(noise: Any) -> list[torch.Tensor]:
    return [noise] if isinstance(noise, torch.Tensor) else [leaf for value in noise.values() for leaf in flat(value)]


def zeros(noise: Any) -> Any:
    if isinstance(noise, torch.Tensor):
        return torch.zeros_like(noise)
    return {key: zeros(value) for key, value in noise.items()}


if __name__ == "__main__":
    torch.set_num_threads(1)
    PAPER["ga"] = Method(lambda group, settings: Ordered(group), random=True, exact=True)
    sys.exit(main(sys.argv[2:]))
