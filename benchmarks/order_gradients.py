"""How well an order of nodes learns: straight-through and score-function gradients against the true one.

1. Cosine of the gradient of one training step with the true gradient of the expected loss, and of the mean of many
   steps (what is left is bias); its variance. The true one sums over all orders of five nodes.
2. Training: a plain MLP that must learn a function of a sorted set, with a learned order, at equal numbers of steps.

python benchmarks/order_gradients.py --out order_gradients.json         minutes on one core; --quick: seconds
"""

from __future__ import annotations

import argparse
import itertools
import json
import statistics
import time
from pathlib import Path
from typing import Any

import torch
from report import circumstances
from torch import Tensor, nn

import probsym as ps
from probsym.files import write

NODES = ps.S("nodes")
WAYS: dict[str, ps.Relaxation | ps.ScoreFunction] = {
    "score function": ps.ScoreFunction(),
    "straight-through, temperature 0.03": ps.Relaxation(0.03, 2),
    "straight-through, temperature 0.1": ps.Relaxation(0.1, 2),
    "straight-through, temperature 0.5": ps.Relaxation(0.5, 2),
}


class Scores(nn.Module):
    """A small net with one score per node (B, N)."""

    def __init__(self, channels: int, hidden: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(channels, hidden), nn.Tanh(), nn.Linear(hidden, 1))

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x).squeeze(-1)


def flat(gradients: Any) -> Tensor:
    return torch.cat([gradient.reshape(-1) for gradient in gradients])


# ---------------------------------------------------------------- 1. gradients


class Steps(nn.Module):
    """How far five points move (B, 5, 3), by an MLP that reads them in their order."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(15, 32), nn.Tanh(), nn.Linear(32, 15))

    def forward(self, x: Tensor) -> Tensor:
        return 1.5 * self.net(x.flatten(1)).view_as(x)


def exact_average(p: ps.Learned, phi: ps.Symmetrizer, x: Tensor) -> Tensor:
    """The average over p, the sum over all 120 orders; only the probabilities have a gradient."""
    bound = phi.bind((x,), {})
    orders = torch.tensor(list(itertools.permutations(range(5))), dtype=torch.float64)
    scores = orders[:, None].expand(-1, bound.count, -1)
    g = bound.stored(NODES).project(scores, torch.zeros_like(scores))
    with torch.no_grad():
        outputs = phi.orbit(bound, g).tensors[0]
    return (p.log_prob(bound, g).exp()[..., None, None] * outputs).sum(0)


def boundary_weights(preference: Tensor) -> Tensor:
    """By how much the probability of orders flows to those with two neighbours exchanged: (*shape, N - 1).

    An order changes where two neighbours in rank tie. As the preferences l change, so much probability crosses the tie
    of the nodes i and j in places r and r + 1 as its density says, for Gumbel noise

        W_r = p(order) (L_r - e^l_i) S_r,    L_r = sum_{s >= r} e^l_s,    S_r = sum_{m <= r} 1 / L_m

    so that d E[y] = sum over pairs of neighbouring orders of W_r (y(exchanged) - y) (dl_j - dl_i). Orders are drawn and
    each has all of its neighbours: the sum over pairs is an average over orders of W_r / (p(order) + p(exchanged)).

    Args:
        preference: l in the order of the places (*shape, N).
    """
    rate = preference.exp()
    left = rate.flip(-1).cumsum(-1).flip(-1)
    time = left.reciprocal().cumsum(-1)
    first = left[..., :-1] - rate[..., :-1]
    second = left[..., :-1] - rate[..., 1:]
    return time[..., :-1] * first * second / (first + second)


def boundary(
    p: ps.Learned, phi: ps.Symmetrizer, x: Tensor, slope: Tensor, calls: int, one: bool, generator: torch.Generator
) -> Tensor:
    """A number with the gradient of sum(slope * average) by exchanges of neighbours in rank, from `calls` base calls.

    Args:
        one: each order with one of its neighbours, chosen at random, instead of with all of them.
    """
    # 1. Orders, and those with neighbours exchanged: (orders, 1 + exchanged, B, N), node by place.
    bound = phi.bind((x,), {})
    size = x.shape[1]
    exchanged = 1 if one else size - 1
    orders = calls // (1 + exchanged)
    with torch.no_grad():
        drawn: Any = p.transport(bound, p.noise(bound, (orders,), generator))
        places = drawn[NODES].moves.places
    at = torch.arange(size - 1).expand(*places.shape[:-1], size - 1)
    if one:
        at = torch.randint(size - 1, (*places.shape[:-1], 1), generator=generator)
    poses = [places]
    for number in range(exchanged):
        r = at[..., number : number + 1]
        pair = torch.cat([r, r + 1], -1)
        poses.append(places.scatter(-1, pair, places.gather(-1, pair.flip(-1))))

    # 2. What the base makes of each: a number, since the slope is known.
    every = torch.stack(poses, 1).flatten(0, 1)
    ranks = every.argsort(-1).double()
    with torch.no_grad():
        g = bound.stored(NODES).project(ranks, torch.zeros_like(ranks))
        outputs = phi.orbit(bound, g).tensors[0]
        value = (slope * outputs).sum((-2, -1)).unflatten(0, (orders, 1 + exchanged))
    change = (value[:, 1:] - value[:, :1]).movedim(1, -1)

    # 3. Exchanges weighted by the density of the tie.
    scores = p.net_features(bound)[NODES]
    centred = scores - scores.mean(-1, keepdim=True)
    preference = -centred / centred.square().mean(-1, keepdim=True).sqrt() / p.scale
    ranked = preference.expand(places.shape).gather(-1, places)
    weights = boundary_weights(ranked.detach()).gather(-1, at)
    steps = (ranked[..., 1:] - ranked[..., :-1]).gather(-1, at)
    times = (size - 1) / exchanged
    return times * (weights * change * steps).sum() / orders


BOUNDARY = {"boundary, all neighbours": False, "boundary, one neighbour": True}


def cosines(seed: int, scale: float, k: int, steps: int) -> dict[str, tuple[float, float, float]]:
    """For every way the mean cosine of one step with k base calls, the cosine of the mean of all steps, and the
    variance of a step (mean squared distance from the mean) over the squared norm of the true gradient.

    The loss is the squared distance from targets of the points that moved. Its slope is taken at the exact average, so
    that nothing but the gradient of the average is compared, and the points are added outside.
    """
    generator = torch.Generator().manual_seed(seed)
    torch.manual_seed(seed)
    net = Scores(3, 4).double()
    model = Steps().double().requires_grad_(False)
    x = torch.randn(32, 5, 3, generator=generator, dtype=torch.float64)
    target = 0.5 * torch.randn(32, 5, 3, generator=generator, dtype=torch.float64)
    rep = ps.Rep(NODES, None)
    found: dict[str, tuple[float, float, float]] = {}
    for name in [*WAYS, *BOUNDARY]:
        p = ps.Learned(net, NODES, "gumbel", scale, WAYS.get(name, ps.ScoreFunction()))
        phi = ps.symmetrize(model, rep, rep, p).train()
        average = exact_average(p, phi, x)
        slope = (average - target).detach()
        truth = flat(torch.autograd.grad((slope * average).sum(), list(net.parameters())))
        each: list[Tensor] = []
        for _ in range(steps):
            if name in BOUNDARY:
                objective = boundary(p, phi, x, slope, k, BOUNDARY[name], generator)
            else:
                objective = (slope * phi(x, samples=k, generator=generator)).sum()
            each.append(flat(torch.autograd.grad(objective, list(net.parameters()))))
        every = torch.stack(each)
        of_steps = nn.functional.cosine_similarity(every, truth[None], 1).mean()
        of_mean = nn.functional.cosine_similarity(every.mean(0), truth, 0)
        variance = every.var(0).sum() / truth.square().sum()
        found[name] = (float(of_steps), float(of_mean), float(variance))
    return found


# ---------------------------------------------------------------- 2. training


def sorted_sum(x: Tensor) -> Tensor:
    """A function of a set of numbers (B, N, 1) that is easy once they are sorted: weights by rank."""
    values = x.squeeze(-1).sort(-1).values
    weights = torch.linspace(-1, 1, values.shape[1]).sign() * torch.arange(values.shape[1]).add(1.0).rsqrt()
    return (values * weights).sum(-1, keepdim=True)


def train(name: str, size: int, scale: float, seed: int, steps: int) -> dict[str, Any]:
    """Test error of an MLP on sets of `size` numbers, and seconds of training."""
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    model = nn.Sequential(nn.Flatten(), nn.Linear(size, 64), nn.SiLU(), nn.Linear(64, 64), nn.SiLU(), nn.Linear(64, 1))
    if name == "haar":
        p: Any = "haar"
    elif name == "canonical":
        p = ps.Canonical(Scores(1, 8), NODES)
    else:
        p = ps.Learned(Scores(1, 8), NODES, "gumbel", scale, WAYS[name])
    phi = ps.symmetrize(model, ps.Rep(NODES), ps.Rep(), p).train()
    optimizer = torch.optim.Adam(phi.parameters(), lr=2e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    k = None if name == "canonical" else 4
    start = time.perf_counter()
    for _ in range(steps):
        x = torch.rand(64, size, 1, generator=generator)
        loss = (phi(x, samples=k, generator=generator) - sorted_sum(x)).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    seconds = time.perf_counter() - start
    x = torch.rand(2000, size, 1, generator=generator)
    with torch.no_grad():
        y = phi.eval()(x, samples=None if name == "canonical" else 20, generator=generator)
    return {"mse": float((y - sorted_sum(x)).square().mean()), "seconds": round(seconds, 2)}


# ---------------------------------------------------------------- all of it


SCALES = (0.3, 1.0)
TRAINED = (
    ("haar", 0.0),
    ("canonical", 0.0),
    ("score function", 0.1),
    ("score function", 0.3),
    ("straight-through, temperature 0.1", 0.1),
    ("straight-through, temperature 0.1", 0.3),
)


def gradients(seeds: int, steps: int) -> list[dict[str, Any]]:
    """Cosines of every way at every scale, one per seed."""
    rows: list[dict[str, Any]] = []
    for scale in SCALES:
        by_seed = [cosines(seed, scale, k=10, steps=steps) for seed in range(seeds)]
        for name in by_seed[0]:
            one, many, variance = (list(values) for values in zip(*[of[name] for of in by_seed], strict=True))
            rows.append({"scale": scale, "way": name, "one step": one, "mean of steps": many, "variance": variance})
            shown = f"one step {statistics.mean(one):.2f}, mean {statistics.mean(many):.2f}"
            print(f"scale {scale}, {name}: {shown}, variance {statistics.median(variance):.1f}", flush=True)
    return rows


def trainings(seeds: int, steps: int) -> list[dict[str, Any]]:
    """Test errors of every way, one training per seed."""
    rows: list[dict[str, Any]] = []
    for size in (6, 16):
        for name, scale in TRAINED:
            for seed in range(1, seeds + 1):
                row = train(name, size, scale, seed, steps)
                rows.append({"size": size, "way": name, "scale": scale, "seed": seed, **row})
                print(rows[-1], flush=True)
    return rows


def tables(gradient_rows: list[dict[str, Any]], trained: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Means over seeds with their standard errors, as `fill.py` reads them."""
    shown: list[list[str]] = []
    for row in gradient_rows:
        shown.append([str(row["scale"]), row["way"], spread(row["one step"]), spread(row["mean of steps"])])
    first = {"title": "Cosine with the true gradient", "rows": shown}
    first["columns"] = ["scale of the noise", "gradient", "one step, k = 10", "mean of 60 steps"]

    by_way: dict[tuple[int, str, float], list[float]] = {}
    for row in trained:
        by_way.setdefault((row["size"], row["way"], row["scale"]), []).append(row["mse"])
    errors: list[list[str]] = []
    for (size, way, scale), values in by_way.items():
        errors.append([str(size), way, str(scale) if scale else "", f"{statistics.mean(values):.2g}", span(values)])
    second = {"title": "Test error of an MLP on sets", "rows": errors}
    second["columns"] = ["numbers in a set", "p or its gradient", "scale", "mean MSE", "range over seeds"]
    return [first, second]


def spread(values: list[float]) -> str:
    """Mean and standard error."""
    error = statistics.stdev(values) / len(values) ** 0.5
    return f"{statistics.mean(values):.2f} +- {error:.2f}"


def span(values: list[float]) -> str:
    return f"{min(values):.2g} to {max(values):.2g}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="fewer seeds and steps: seconds")
    parser.add_argument("--out", type=Path, help="write the numbers, as JSON")
    given = parser.parse_args()
    torch.set_num_threads(1)
    start = time.time()
    facts = circumstances(1)  # before anything runs: the commit that is measured
    seeds, steps, training_steps = (2, 10, 50) if given.quick else (6, 60, 2000)
    gradient_rows = gradients(seeds, steps)
    trained = trainings(min(seeds, 3), training_steps)
    result = {
        **facts,
        "tables": tables(gradient_rows, trained),
        "gradients": gradient_rows,
        "training": trained,
    }
    if given.out is not None:
        result["wall"] = round(time.time() - start)
        write(given.out, json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
