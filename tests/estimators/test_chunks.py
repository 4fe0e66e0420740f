"""Chunks: the same samples whatever their size, and memory that does not grow with their number."""

import os
import subprocess
import sys

import pytest
import torch

import probsym as ps
from cases import SETTINGS, seeded

GROWTH = """
import resource, torch, probsym as ps
torch.set_num_threads(1)
nodes = ps.S("nodes")
net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(400, 64), torch.nn.ReLU(), torch.nn.Linear(64, 4))
phi = ps.symmetrize(net, ps.Rep(nodes, nodes), ps.Rep(), {distribution!r}).eval()
x = torch.randn(64, 20, 20)
def peak(k):
    with torch.no_grad():
        phi.estimate(x, estimator=ps.MonteCarlo(k, {chunk}))
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
few = peak(64)
print(peak(1024) - few)
"""


def growth(distribution: str, chunk: int | None) -> int:
    """Kilobytes by which the peak of 1,024 samples exceeds that of 64."""
    code = GROWTH.format(distribution=distribution, chunk=chunk)
    env = {**os.environ, "MALLOC_MMAP_THRESHOLD_": "65536"}  # freed memory goes back at once
    return int(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=env).stdout)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="ru_maxrss has other units elsewhere")
def test_memory_is_flat_in_k():
    """64 matrices of 20 x 20: the noise of one sample holds 10 kB, its elements 30 kB, its rows 100 kB."""
    assert growth("learned", 16) < 4_000
    assert growth("haar", None) > 40_000  # the control


@pytest.mark.parametrize("setting", ["S x E(3)", "ragged S x E(3)", "Axis x E(3)"])
@pytest.mark.parametrize("distribution", ["learned", "learned-input", "haar"])
def test_pages_and_chunks_are_the_samples_of_one_call(setting, distribution):
    s = SETTINGS[setting]()
    phi = s.symmetrized(distribution)
    with torch.no_grad():
        whole = phi.estimate(**s.call, samples=150, generator=seeded())
        given = phi.draw_noise(**s.call, samples=150, generator=seeded())
        for options in (
            {"generator": seeded(), "estimator": ps.MonteCarlo(150, chunk=7)},
            {"generator": seeded(), "estimator": ps.MonteCarlo(150, chunk=100)},
            {"noise": given, "estimator": ps.MonteCarlo(150, chunk=64)},
            {"noise": given},
        ):
            parts = phi.estimate(**s.call, **options)
            assert torch.allclose(flat(parts.mean), flat(whole.mean), atol=1e-12)
            assert torch.allclose(flat(parts.stderr), flat(whole.stderr), atol=1e-12)
            assert parts.samples.tolist() == whole.samples.tolist()
            assert parts.aux.keys() == whole.aux.keys()
            assert all(torch.allclose(parts.aux[key].double(), whole.aux[key].double()) for key in whole.aux)


def flat(value) -> torch.Tensor:
    parts = value.values() if isinstance(value, dict) else value if isinstance(value, tuple) else (value,)
    return torch.cat([t.flatten() for t in parts])
