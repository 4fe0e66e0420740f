"""The library's exactness, measured: coupled equivariance errors, Haar statistics, numerics of the projections.

python benchmarks correctness
"""

from __future__ import annotations

import math
from itertools import permutations, product

import torch
from torch import Tensor, nn

import probsym as ps
from nets import MLP
from probsym.distributions import DefaultNet
from probsym.groups import Group
from probsym.kernels.orthonormal import orthonormalise
from probsym.reps import as_spec
from probsym.symmetrizer import Symmetrizer

SAMPLES = 100_000


def cases() -> dict[str, tuple[Group, dict[str, ps.Rep], ps.Rep]]:
    """Group, Reps of the inputs, Rep of the output."""
    by_name: dict[str, tuple[Group, dict[str, ps.Rep], ps.Rep]] = {}
    for family in (ps.O, ps.SO, ps.E, ps.SE):
        for d in (2, 3):
            space = family(d, "space")
            rep = ps.Rep(None, space)
            by_name[f"{family.__name__}({d})"] = (space, {"x": rep}, rep)

    nodes = ps.S("nodes")
    rep = ps.Rep(nodes)
    by_name["S(n)"] = (nodes, {"x": rep}, rep)

    space = ps.E(3, "space")
    rep = ps.Rep(nodes, space)
    by_name["S(n) x E(3)"] = (nodes * space, {"x": rep}, rep)

    rep = ps.Rep(nodes, ps.SO(3))
    by_name["S(n) x SO(3)"] = (nodes * ps.SO(3), {"x": rep}, rep)
    return by_name


def distributions(group: Group, reps: dict[str, ps.Rep]) -> dict[str, ps.EquivariantDistribution]:
    net = DefaultNet(as_spec(reps, "inputs"), group)
    return {
        "haar": ps.Haar(group, origin="centroid"),
        "frame": ps.Frame(group),
        "canonical": ps.Canonical(net, group),
        "learned, late": ps.Learned(net, group),
        "learned, input": ps.Learned(net, group, noise="input"),
    }


def coupled_error(phi: Symmetrizer, x: dict[str, Tensor]) -> float:
    """Largest |g f(g^-1 hx; h eps) - h (g f(g^-1 x; eps))| over 16 samples, relative to the output."""
    bound = phi.bind((), x)
    eps = phi.draw_noise(**x, samples=16)

    # 1. One h per input, factor by factor. Motions of E(d) also move the origin, here by 3 along every axis.
    parts = []
    for factor in phi.group.factors:
        stored = bound.stored(factor)
        noise = stored.draw_noise((bound.count,), dtype=torch.float64)
        features = noise
        if factor.anchored:
            features = (noise.new_zeros(bound.count, factor.dim) + 3, noise)
        parts.append(stored.project(features, noise))
    h = phi.group.join(*parts)

    # 2. The samples of the moved input, with the noise moved along.
    moved_input = bound.act(h)
    moved_eps = phi.distribution.move_noise(bound, h, eps)
    samples_of_moved = phi.sample(*moved_input.args, **moved_input.kwargs, noise=moved_eps)

    # 3. The moved samples of the input.
    h_for_samples = h.map(lambda t, _: t.expand(16, *t.shape))
    moved_samples = phi.output.act(h_for_samples, phi.sample(**x, noise=eps))
    error = (samples_of_moved - moved_samples).abs().max()
    return (error / moved_samples.abs().max()).item()


def coupled() -> None:
    """The table of the coupled errors: groups by distributions."""
    names = ["haar", "frame", "canonical", "learned, late", "learned, input"]
    print("| group | " + " | ".join(names) + " | bare MLP |")
    print("|---" * 7 + "|")
    for group_name, (group, reps, out) in cases().items():
        d = 2
        for factor in group.factors:
            if hasattr(factor, "dim"):
                d = factor.dim
                break
        x = {"x": torch.randn(8, 5, d, dtype=torch.float64)}
        model = MLP(5 * d, (32,), 5, d).double()
        by_name = distributions(group, reps)
        errors = []
        for name in names:
            phi = ps.symmetrize(model, reps, out, by_name[name].double())
            phi(**x)  # fixes the sizes of the net of p
            errors.append(f"{coupled_error(phi.double(), x):.0e}")
        bare = ps.testing.equivariance_error(model, x, reps=reps, output=out).error
        print(f"| {group_name} | " + " | ".join(errors) + f" | {bare:.2f} |")


def clouds() -> dict[str, Tensor]:
    """Generic and degenerate clouds in space, (1, N, 3)."""
    cube = torch.tensor(list(product((-1.0, 1.0), repeat=3)))
    line = torch.tensor([-1.0, 0.2, 0.5, 2.0])[:, None] * torch.tensor([1.0, 2.0, -1.0])
    return {
        "generic": torch.randn(1, 6, 3),
        "cube": cube[None],
        "tetrahedron": cube[None, [0, 3, 5, 6]],
        "square": cube[None, :4],
        "collinear": line[None],
        "coplanar": torch.randn(1, 5, 3) * torch.tensor([1.0, 1.0, 0.0]),
        "coincident": torch.ones(1, 4, 3),
        "single point": torch.ones(1, 1, 3),
        "tiny (1e-8)": 1e-8 * torch.randn(1, 6, 3),
        "huge (1e8)": 1e8 * torch.randn(1, 6, 3),
    }


class Cloud(nn.Module):
    """A rough function of the order and the pose of the points, relative to their size."""

    def forward(self, x: Tensor) -> Tensor:
        size = x.square().mean((1, 2), keepdim=True).sqrt().clamp_min(1e-30)
        place = torch.arange(x.shape[1] * x.shape[2]).view(x.shape[1:]).to(x)
        return x + size * torch.sin(2 * x / size + place)


def frames() -> None:
    """Exact frame averages in float32: relative error |phi(hx) - h phi(x)|, and the number of frames."""
    points = ps.Axis("nodes")
    nodes = ps.S("nodes")
    reps = {
        "E(3)": ps.Rep(points, ps.E(3)),
        "SE(3)": ps.Rep(points, ps.SE(3)),
        "S(n) x E(3)": ps.Rep(nodes, ps.E(3)),
    }
    print("\n| frames, float32 | " + " | ".join(reps) + " | bare |")
    print("|---" * 5 + "|")
    for cloud_name, cloud in clouds().items():
        cells = []
        for rep in reps.values():
            phi = ps.symmetrize(Cloud(), rep, rep, "frame").eval()
            error = ps.testing.equivariance_error(phi, cloud).error
            count = int(phi.estimate(cloud).samples[0])
            cells.append(f"{error:.0e} ({count})")
        largest = reps["S(n) x E(3)"]
        bare = ps.testing.equivariance_error(Cloud(), cloud, largest, largest).error
        print(f"| {cloud_name} | " + " | ".join(cells) + f" | {bare:.1f} |")


def haar_moments() -> None:
    """Means of tr and tr^2 of Haar matrices, with standard errors, beside their exact values."""
    print("\n| group | E tr | expected | E tr^2 | expected |")
    print("|---" * 5 + "|")
    for group, square in ((ps.O(2), 1), (ps.SO(2), 2), (ps.O(3), 1), (ps.SO(3), 1), (ps.O(4), 1), (ps.SO(4), 1)):
        trace = group.haar((SAMPLES,)).matrix.diagonal(dim1=-2, dim2=-1).sum(-1)
        first = mean_with_error(trace)
        second = mean_with_error(trace.square())
        print(f"| {group!r} | {first} | 0 | {second} | {square} |")


def mean_with_error(values: Tensor) -> str:
    """A mean and its standard error."""
    error = values.std().item() / math.sqrt(len(values))
    return f"{values.mean().item():+.4f} +- {error:.4f}"


def chi_square(index: Tensor, n: int) -> str:
    """Counts of all n! permutations against equal ones: statistic, degrees of freedom, standardised."""
    code = (index * n ** torch.arange(n)).sum(-1)
    all_codes = (torch.tensor(list(permutations(range(n)))) * n ** torch.arange(n)).sum(-1)
    counts = (code[:, None] == all_codes).sum(0).double()
    expected = len(index) / len(all_codes)
    statistic = ((counts - expected).square() / expected).sum().item()
    df = len(all_codes) - 1
    return f"{statistic:.1f} on {df} df, z = {(statistic - df) / math.sqrt(2 * df):+.2f}"


def permutations_uniform() -> None:
    """Chi-square of drawn orders: alone, ragged beside graphs of other sizes, and of scores that are all tied."""
    print("\n| permutations | chi-square |")
    print("|---" * 2 + "|")
    for n in (2, 3, 4, 5):
        drawn = ps.S(n).haar((20_000,)).index
        print(f"| Haar S({n}) | {chi_square(drawn, n)} |")

    # Sets of 2 to 5 nodes in turn, in one ragged batch. The input numbers the nodes of each set.
    sizes = torch.tensor([2, 3, 4, 5]).repeat(20_000)
    batch = torch.repeat_interleave(torch.arange(len(sizes)), sizes)
    nodes = ps.S("nodes", batch="batch")
    phi = ps.symmetrize(Identity(), {"x": ps.Rep(nodes)}, ps.Rep(nodes), "haar")
    drawn = phi.sample(x=numbered(sizes), batch=batch)[0].long()
    for n in (2, 3, 4, 5):
        of_this_size = (sizes == n)[batch]
        print(f"| Haar S({n}), ragged with other sizes | {chi_square(drawn[of_this_size].reshape(-1, n), n)} |")

    for dtype in (torch.float32, torch.bfloat16):
        tied = torch.full((20_000, 4), 20.0).to(dtype)
        drawn = ps.S(4).project(tied, torch.randn(20_000, 4)).index
        print(f"| tied scores, {dtype} | {chi_square(drawn, 4)} |")


def numbered(sizes: Tensor) -> Tensor:
    """0, 1, ..., n - 1 for each set in turn, in one row."""
    numbers = []
    for n in sizes.tolist():
        numbers.append(torch.arange(n))
    return torch.cat(numbers).float()


class Identity(nn.Module):
    """The number of each node in its set, whatever the input: phi then shows the drawn permutation itself."""

    def forward(self, x: Tensor, batch: Tensor) -> Tensor:
        return numbered(torch.bincount(batch))


def numerics() -> None:
    """Orthonormalised columns that are nearly or exactly collinear: error and gradient."""
    print("\n| columns | largest error of Q^T Q, float32 | largest gradient |")
    print("|---" * 3 + "|")
    line = torch.randn(10_000, 3, 1).expand(-1, -1, 3)
    for gap in (1.0, 1e-1, 1e-3, 1e-5, 0.0):
        z = (line + gap * torch.randn(10_000, 3, 3)).requires_grad_()
        q = orthonormalise(z, torch.randn(10_000, 3, 3))
        (slope,) = torch.autograd.grad(q.sum(), z)
        error = (q.mT @ q - torch.eye(3)).abs().max().item()
        print(f"| collinear up to {gap:.0e} | {error:.1e} | {slope.abs().max().item():.1e} |")


def correctness(quick: bool) -> None:
    """errors of coupled noise, exact frames, Haar moments, uniform orders, numerics of the projections"""
    torch.manual_seed(0)
    print("\n## Coupled-noise equivariance error, float64\n")
    coupled()
    frames()
    haar_moments()
    permutations_uniform()
    numerics()
