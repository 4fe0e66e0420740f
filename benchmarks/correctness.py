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
    found = {}
    for family in (ps.O, ps.SO, ps.E, ps.SE):
        for d in (2, 3):
            space = family(d, "space")
            found[f"{family.__name__}({d})"] = (space, {"x": ps.Rep(None, space)}, ps.Rep(None, space))
    nodes, space = ps.S("nodes"), ps.E(3, "space")
    found["S(n)"] = (nodes, {"x": ps.Rep(nodes)}, ps.Rep(nodes))
    found["S(n) x E(3)"] = (nodes * space, {"x": ps.Rep(nodes, space)}, ps.Rep(nodes, space))
    found["S(n) x SO(3)"] = (nodes * ps.SO(3), {"x": ps.Rep(nodes, ps.SO(3))}, ps.Rep(nodes, ps.SO(3)))
    return found


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
    noise = {f: bound.stored(f).draw_noise((bound.count,), dtype=torch.float64) for f in phi.group.factors}
    lift = {f: (noise[f].new_zeros(bound.count, f.dim) + 3, noise[f]) if f.anchored else noise[f] for f in noise}
    parts = {f: bound.stored(f).project(lift[f], noise[f]) for f in lift}
    h = phi.group.join(*parts.values())
    moved = phi.sample(*bound.act(h).args, **bound.act(h).kwargs, noise=phi.distribution.move_noise(bound, h, eps))
    still = phi.output.act(h.map(lambda t, _: t.expand(16, *t.shape)), phi.sample(**x, noise=eps))
    return ((moved - still).abs().max() / still.abs().max()).item()


def coupled() -> None:
    print("| group | " + " | ".join(distributions(*next(iter(cases().values()))[:2])) + " | bare MLP |")
    print("|---" * 7 + "|")
    for name, (group, reps, out) in cases().items():
        d = next((f.dim for f in group.factors if hasattr(f, "dim")), 2)
        x = {"x": torch.randn(8, 5, d, dtype=torch.float64)}
        model = MLP(5 * d, (32,), 5, d).double()
        errors = []
        for p in distributions(group, reps).values():
            phi = ps.symmetrize(model, reps, out, p.double())
            phi(**x)
            errors.append(coupled_error(phi.double(), x))
        bare = ps.testing.equivariance_error(model, x, reps=reps, output=out).error
        print(f"| {name} | " + " | ".join(f"{e:.0e}" for e in errors) + f" | {bare:.2f} |")


def clouds() -> dict[str, Tensor]:
    """Generic and degenerate clouds in space, (1, N, 3)."""
    cube = torch.tensor(list(product((-1.0, 1.0), repeat=3)))
    line = torch.tensor([-1.0, 0.2, 0.5, 2.0])[:, None] * torch.tensor([1.0, 2.0, -1.0])
    found = {
        "generic": torch.randn(6, 3),
        "cube": cube,
        "tetrahedron": cube[[0, 3, 5, 6]],
        "square": cube[:4],
        "collinear": line,
        "coplanar": torch.randn(5, 3) * torch.tensor([1.0, 1.0, 0.0]),
        "coincident": torch.ones(4, 3),
        "single point": torch.ones(1, 3),
        "tiny (1e-8)": 1e-8 * torch.randn(6, 3),
        "huge (1e8)": 1e8 * torch.randn(6, 3),
    }
    return {name: cloud[None] for name, cloud in found.items()}


class Cloud(nn.Module):
    """A rough function of the order and the pose of the points, relative to their size."""

    def forward(self, x: Tensor) -> Tensor:
        size = x.square().mean((1, 2), keepdim=True).sqrt().clamp_min(1e-30)
        place = torch.arange(x.shape[1] * x.shape[2]).view(x.shape[1:]).to(x)
        return x + size * torch.sin(2 * x / size + place)


def frames() -> None:
    """Exact frame averages in float32: relative error |phi(hx) - h phi(x)|, and the number of frames."""
    groups = {"E(3)": (ps.E(3), None), "SE(3)": (ps.SE(3), None), "S(n) x E(3)": (ps.E(3), ps.S("nodes"))}
    print("\n| frames, float32 | " + " | ".join(groups) + " | bare |\n" + "|---" * 5 + "|")
    for name, cloud in clouds().items():
        row = []
        for space, nodes in groups.values():
            rep = ps.Rep(nodes or ps.Axis("nodes"), space)
            phi = ps.symmetrize(Cloud(), rep, rep, "frame").eval()
            report = ps.testing.equivariance_error(phi, cloud)
            row.append(f"{report.error:.0e} ({int(phi.estimate(cloud).samples[0])})")
        bare = ps.testing.equivariance_error(Cloud(), cloud, rep, rep).error
        print(f"| {name} | " + " | ".join(row) + f" | {bare:.1f} |")


def haar_moments() -> None:
    print("\n| group | E tr | expected | E tr^2 | expected |\n|---|---|---|---|---|")
    for group, square in ((ps.O(2), 1), (ps.SO(2), 2), (ps.O(3), 1), (ps.SO(3), 1), (ps.O(4), 1), (ps.SO(4), 1)):
        trace = group.haar((SAMPLES,)).matrix.diagonal(dim1=-2, dim2=-1).sum(-1)
        moments = [(m.mean().item(), m.std().item() / math.sqrt(SAMPLES)) for m in (trace, trace.square())]
        first, second = (f"{mean:+.4f} +- {error:.4f}" for mean, error in moments)
        print(f"| {group!r} | {first} | 0 | {second} | {square} |")


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
    print("\n| permutations | chi-square |\n|---|---|")
    for n in (2, 3, 4, 5):
        print(f"| Haar S({n}) | {chi_square(ps.S(n).haar((20_000,)).index, n)} |")
    sizes = torch.tensor([2, 3, 4, 5]).repeat(20_000)
    batch = torch.repeat_interleave(torch.arange(len(sizes)), sizes)
    nodes = ps.S("nodes", batch="batch")
    phi = ps.symmetrize(Identity(), {"x": ps.Rep(nodes)}, ps.Rep(nodes), "haar")
    place = torch.cat([torch.arange(n) for n in sizes.tolist()]).float()
    drawn = phi.sample(x=place, batch=batch)[0].long()
    for n in (2, 3, 4, 5):
        picked = drawn[(sizes == n)[batch]].reshape(-1, n)
        print(f"| Haar S({n}), ragged with other sizes | {chi_square(picked, n)} |")
    for dtype in (torch.float32, torch.bfloat16):
        tied = torch.full((20_000, 4), 20.0).to(dtype)
        print(f"| tied scores, {dtype} | {chi_square(ps.S(4).project(tied, torch.randn(20_000, 4)).index, 4)} |")


class Identity(nn.Module):
    def forward(self, x: Tensor, batch: Tensor) -> Tensor:
        return torch.cat([torch.arange(n) for n in torch.bincount(batch).tolist()]).float()


def numerics() -> None:
    line = torch.randn(10_000, 3, 1).expand(-1, -1, 3)
    print("\n| columns | largest error of Q^T Q, float32 | largest gradient |\n|---|---|---|")
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
