"""Chunks: the same samples whatever their size, and memory that does not grow with their number."""

import os
import subprocess
import sys

import pytest
import torch

import probsym as ps
from cases import SETTINGS, seeded

GROWTH = """
import torch, probsym as ps
torch.set_num_threads(1)
class Net(torch.nn.Module):
    def forward(self, x, sign):
        return x.flatten(1)[:, :4] * sign
nodes = ps.S("nodes")
phi = ps.symmetrize(Net(), {{"x": ps.Rep(nodes, nodes), "sign": ps.Rep(ps.O(1))}}, ps.Rep(), {distribution!r}).eval()
call = {{"x": torch.randn(64, 20, 20), "sign": torch.randn(64, 1)}}
def peak(k):
    with torch.no_grad():
        phi.estimate(**call, estimator=ps.{estimator})
    # Not ru_maxrss of getrusage: that starts at the peak of the process that started this one, here of all tests.
    with open("/proc/self/status") as status:
        for line in status:
            if line.startswith("VmHWM:"):
                return int(line.split()[1])
few = peak(160)
print(peak(1600) - few)
"""


def growth(estimator: str, distribution: str = "haar") -> int:
    """Kilobytes by which the peak of 1,600 samples exceeds that of 160."""
    code = GROWTH.format(distribution=distribution, estimator=estimator)
    env = {**os.environ, "MALLOC_MMAP_THRESHOLD_": "65536"}  # freed memory goes back at once
    return int(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=env).stdout)


def flat_in_k(estimator: str, distribution: str = "haar") -> bool:
    """Whether the peak rises by less than 4 MB: a machine short of memory may add to one measurement, not to all."""
    return any(growth(estimator, distribution) < 4_000 for _ in range(3))


linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the peak is read from /proc")


@linux
@pytest.mark.parametrize(
    "estimator",
    [
        "MonteCarlo(k, 16)",
        pytest.param("MonteCarlo(k, 16, 'shifts')", marks=pytest.mark.slow),
        pytest.param("Hybrid(k, chunk=2)", marks=pytest.mark.slow),
        pytest.param("MonteCarlo(k, 16, 'antithetic')", marks=pytest.mark.slow),
        pytest.param("MonteCarlo(k, 16, 'sobol')", marks=pytest.mark.slow),
        pytest.param("MonteCarlo(k, 16, 'stratified')", marks=pytest.mark.slow),
    ],
)
def test_memory_is_flat_in_k(estimator):
    """64 matrices of 20 x 20: the noise of one sample holds 10 kB, its elements 30 kB, its rows 100 kB."""
    assert flat_in_k(estimator)


@linux
@pytest.mark.slow
def test_memory_of_a_learned_p_is_flat_and_grows_without_chunks():
    assert flat_in_k("MonteCarlo(k, 16)", "learned")
    assert growth("MonteCarlo(k)", "learned") > 20_000  # the control


@linux
def test_growth_is_measured_below_the_peak_of_the_tests():
    """A peak of this process that exceeds all of the measured ones hides nothing."""
    torch.ones(2**28)  # 1 GB
    assert growth("MonteCarlo(k)") > 20_000


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


@pytest.mark.parametrize("name", ["shifts", "octahedral", "antithetic", "sobol", "stratified", ("shifts", "signs")])
def test_pages_of_a_design_are_the_samples_of_one_call(name):
    """480 samples are several pages: whole blocks, of fresh noise and of given noise."""
    s = SETTINGS["S x E(3)"]()
    phi = s.symmetrized("learned")
    given = phi.draw_noise(**s.call, samples=480, generator=seeded())
    with torch.no_grad():
        for source in (lambda: {"generator": seeded()}, lambda: {"noise": given}):
            whole, part, held = (
                phi.estimate(**s.call, **source(), estimator=ps.MonteCarlo(480, chunk, name))
                for chunk in (None, 7, 240)
            )
            with torch.enable_grad():
                learning = phi.estimate(**s.call, **source(), estimator=ps.MonteCarlo(480, 7, name))
            for other in (part, held, learning):
                assert torch.allclose(flat(other.mean), flat(whole.mean), atol=1e-12)
                assert torch.allclose(flat(other.stderr), flat(whole.stderr), atol=1e-10)
                assert other.samples.tolist() == [480] * 3


def test_pages_of_hybrid_are_the_samples_of_one_call():
    """Without gradients page by page, with them at once."""
    s = SETTINGS["S x E(3)"]()
    phi = s.symmetrized("haar")
    learning = phi.estimate(**s.call, estimator=ps.Hybrid(150), generator=seeded())
    with torch.no_grad():
        paged = phi.estimate(**s.call, estimator=ps.Hybrid(150, chunk=5), generator=seeded())
    assert torch.allclose(flat(paged.mean), flat(learning.mean), atol=1e-12)
    assert torch.allclose(flat(paged.stderr), flat(learning.stderr), atol=1e-10)
    assert paged.aux == learning.aux


class Half(torch.nn.Module):
    """Outputs near `center` in half precision, with a standard deviation of 0.2 to 0.7."""

    def __init__(self, kind: torch.dtype, center: float) -> None:
        super().__init__()
        self.kind, self.center = kind, center

    def forward(self, v):
        return (self.center + v[..., 0]).to(self.kind)


@pytest.mark.parametrize(("kind", "center"), [(torch.bfloat16, 1.0), (torch.float16, 1.0), (torch.float16, 500.0)])
def test_half_precision_is_averaged_in_single(kind, center):
    """1,024 outputs of 8 or 11 bits: the mean and its error are those in float64 but for one rounding."""
    v = torch.tensor([[0.3, 0.0], [1.0, 0.0]])
    phi = ps.symmetrize(Half(kind, center), {"v": ps.Rep(ps.O(2))}, ps.Rep(), "haar").eval()
    exact = phi.sample(v=v, samples=1024, generator=seeded()).double()
    mean, error = exact.mean(0), exact.std(0) / 32
    for chunk in (None, 1, 60):
        found = phi.estimate(v=v, estimator=ps.MonteCarlo(1024, chunk), generator=seeded())
        assert found.mean.dtype == found.stderr.dtype == kind
        assert torch.allclose(found.mean.double(), mean, rtol=torch.finfo(kind).eps, atol=0)
        assert torch.allclose(found.stderr.double(), error, rtol=torch.finfo(kind).eps, atol=0)
    found = phi.estimate(v=v, tol=1e-9, max_samples=1024, generator=seeded())
    assert torch.allclose(found.stderr.double(), error, rtol=0.1, atol=0)


def flat(value) -> torch.Tensor:
    parts = value.values() if isinstance(value, dict) else value if isinstance(value, tuple) else (value,)
    return torch.cat([t.flatten() for t in parts])
