"""How well an order of nodes learns: straight-through and score-function gradients against the true one.

1. Cosine of the gradient of one training step with the true gradient of the expected loss, and of the mean of many
   steps (what is left is bias); its variance. The true one sums over all orders of five nodes.
2. Training: a plain MLP that must learn a function of a sorted set, with a learned order, at equal numbers of steps.
3. The scale of the noise in such a training: fixed, learned with the rest, or annealed, on numbers and on points that
   are sorted along a direction which is not told.

python benchmarks/order_gradients.py --out order_gradients.json         minutes on one core; --quick: seconds
python benchmarks/order_gradients.py --only scales --out order_scales.json          one of gradients, training, scales
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
from probsym.distributions.score_function import score_weights
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
    p: ps.Learned, phi: ps.Symmetrizer, x: Tensor, slope: Tensor, calls: int, which: str, generator: torch.Generator
) -> Tensor:
    """A number with the gradient of sum(slope * average) by exchanges of neighbours in rank, from `calls` base calls.

    Args:
        which: the neighbours that each order is compared with: "all", one at random ("one"), or one that is chosen in
            proportion to the density of the tie ("near").
    """
    # 1. Orders (orders, B, N), node by place.
    bound = phi.bind((x,), {})
    size = x.shape[1]
    exchanged = size - 1 if which == "all" else 1
    orders = calls // (1 + exchanged)
    with torch.no_grad():
        drawn: Any = p.transport(bound, p.noise(bound, (orders,), generator))
        places = drawn[NODES].moves.places

    # 2. Exchanges, weighted by the density of the tie, and with how many others each one that is chosen stands for.
    scores = p.net_features(bound)[NODES]
    centred = scores - scores.mean(-1, keepdim=True)
    preference = -centred / centred.square().mean(-1, keepdim=True).sqrt() / p.scale
    ranked = preference.expand(places.shape).gather(-1, places)
    weights = boundary_weights(ranked.detach())
    at = torch.arange(size - 1).expand(weights.shape)
    if which == "one":
        at = torch.randint(size - 1, (*places.shape[:-1], 1), generator=generator)
        weights = (size - 1) * weights.gather(-1, at)
    elif which == "near":
        at = weights.flatten(0, -2).multinomial(1, generator=generator).unflatten(0, weights.shape[:-1])
        weights = weights.sum(-1, keepdim=True)
    poses = [places]
    for number in range(exchanged):
        r = at[..., number : number + 1]
        pair = torch.cat([r, r + 1], -1)
        poses.append(places.scatter(-1, pair, places.gather(-1, pair.flip(-1))))

    # 3. What the base makes of each: a number, since the slope is known.
    every = torch.stack(poses, 1).flatten(0, 1)
    ranks = every.argsort(-1).double()
    with torch.no_grad():
        g = bound.stored(NODES).project(ranks, torch.zeros_like(ranks))
        outputs = phi.orbit(bound, g).tensors[0]
        value = (slope * outputs).sum((-2, -1)).unflatten(0, (orders, 1 + exchanged))
    change = (value[:, 1:] - value[:, :1]).movedim(1, -1)

    steps = (ranked[..., 1:] - ranked[..., :-1]).gather(-1, at)
    return (weights * change * steps).sum() / orders


BOUNDARY = {
    "boundary, all neighbours": "all",
    "boundary, one neighbour": "one",
    "boundary, one neighbour by its weight": "near",
}


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


# ---------------------------------------------------------------- 3. the scale of the noise


DIRECTION = (0.8, -0.6)  # along which points in the plane are sorted


def sorted_along(x: Tensor) -> Tensor:
    """`sorted_sum` of numbers (B, N, 1), or of the coordinates of points (B, N, 2) along a direction."""
    if x.shape[-1] == 1:
        return sorted_sum(x)
    return sorted_sum((x * torch.tensor(DIRECTION)).sum(-1, keepdim=True))


def average_and_scale(
    p: ps.Learned, phi: ps.Symmetrizer, x: Tensor, k: int, log_scale: Tensor, generator: torch.Generator
) -> Tensor:
    """The average over k orders, with the gradient of their law to the scale of its noise as well."""
    bound = phi.bind((x,), {})
    with torch.no_grad():
        g = p.transport(bound, p.noise(bound, (k,), generator))
    fixed = p.scale
    p.scale = log_scale.exp()  # type: ignore[assignment]
    weights = score_weights(p.log_prob(bound, g))
    p.scale = fixed
    assert weights is not None
    return (weights[..., None] * phi.orbit(bound, g).tensors[0]).mean(0)


def train_scale(
    name: str, channels: int, first: float, last: float, learned: bool, seed: int, steps: int
) -> dict[str, Any]:
    """Test error of an MLP on sets of 16, with noise whose scale goes from `first` to `last`, or is learned."""
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    size = 16
    layers = [nn.Flatten(), nn.Linear(size * channels, 64), nn.SiLU(), nn.Linear(64, 64), nn.SiLU(), nn.Linear(64, 1)]
    if name == "canonical":
        p: Any = ps.Canonical(Scores(channels, 8), NODES)
    else:
        p = ps.Learned(Scores(channels, 8), NODES, "gumbel", first, WAYS[name])
    phi = ps.symmetrize(nn.Sequential(*layers), ps.Rep(NODES), ps.Rep(), p).train()
    log_scale = nn.Parameter(torch.tensor(first or 1.0).log())
    optimizer = torch.optim.Adam([{"params": list(phi.parameters()), "lr": 2e-3}, {"params": [log_scale], "lr": 1e-2}])
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    k = None if name == "canonical" else 4
    for step in range(steps):
        x = torch.rand(64, size, channels, generator=generator)
        if learned:
            p.scale = log_scale.exp().item()
            y = average_and_scale(p, phi, x, 4, log_scale, generator)
        else:
            if first != last:
                p.scale = first * (last / first) ** (step / steps)
            y = phi(x, samples=k, generator=generator)
        loss = (y - sorted_along(x)).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    x = torch.rand(2000, size, channels, generator=generator)
    with torch.no_grad():
        y = phi.eval()(x, samples=None if name == "canonical" else 20, generator=generator)
    found = {"mse": float((y - sorted_along(x)).square().mean())}
    if name != "canonical":
        found["last scale"] = float(p.scale)
    return found


# How the scale of the noise goes, as the table says it.
COURSES: dict[str, tuple[float, float, bool]] = {
    "0.03": (0.03, 0.03, False),
    "0.1": (0.1, 0.1, False),
    "0.3": (0.3, 0.3, False),
    "annealed, 0.3 to 0.01": (0.3, 0.01, False),
    "learned, from 0.3": (0.3, 0.3, True),
}
STRAIGHT = "straight-through, temperature 0.1"
SCALED = (
    ("canonical", "none"),
    *[("score function", course) for course in COURSES],
    (STRAIGHT, "0.1"),
    (STRAIGHT, "annealed, 0.3 to 0.01"),
)


def scales(seeds: int, steps: int) -> list[dict[str, Any]]:
    """Test errors of every course of the scale, one training per seed."""
    rows: list[dict[str, Any]] = []
    for channels in (1, 2):
        for name, course in SCALED:
            first, last, learned = COURSES.get(course, (0.0, 0.0, False))
            for seed in range(1, seeds + 1):
                row = train_scale(name, channels, first, last, learned, seed, steps)
                rows.append({"channels": channels, "way": name, "course": course, "seed": seed, **row})
                print(rows[-1], flush=True)
    return rows


def scale_table(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Means over seeds."""
    by_course: dict[tuple[int, str, str], list[dict[str, Any]]] = {}
    for row in rows:
        by_course.setdefault((row["channels"], row["way"], row["course"]), []).append(row)
    shown: list[list[str]] = []
    for (channels, way, course), of_seeds in by_course.items():
        errors = [row["mse"] for row in of_seeds]
        ends = [row.get("last scale", 0.0) for row in of_seeds]
        end = f"{statistics.mean(ends):.2g}" if ends[0] else ""
        kind = "numbers" if channels == 1 else "points in the plane"
        shown.append([kind, way, course, end, f"{statistics.mean(errors):.2g}", span(errors)])
    columns = ["sets of 16", "p or its gradient", "scale of the noise", "at the end", "mean MSE", "range over seeds"]
    return {"title": "The scale of the noise", "columns": columns, "rows": shown}


# ---------------------------------------------------------------- all of it


SCALES = (0.1, 0.3, 1.0)
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


def gradient_table(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Means over problems with their standard errors, medians of variances; as `fill.py` reads it."""
    shown: list[list[str]] = []
    for row in rows:
        variance = f"{statistics.median(row['variance']):.2g}"
        shown.append([str(row["scale"]), row["way"], spread(row["one step"]), spread(row["mean of steps"]), variance])
    columns = ["scale of the noise", "gradient", "one step, k = 10", "mean of 60 steps", "variance, median"]
    return {"title": "Cosine with the true gradient", "columns": columns, "rows": shown}


def training_table(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Means over seeds and their range."""
    by_way: dict[tuple[int, str, float], list[float]] = {}
    for row in rows:
        by_way.setdefault((row["size"], row["way"], row["scale"]), []).append(row["mse"])
    shown: list[list[str]] = []
    for (size, way, scale), values in by_way.items():
        shown.append([str(size), way, str(scale) if scale else "", f"{statistics.mean(values):.2g}", span(values)])
    columns = ["numbers in a set", "p or its gradient", "scale", "mean MSE", "range over seeds"]
    return {"title": "Test error of an MLP on sets", "columns": columns, "rows": shown}


def spread(values: list[float]) -> str:
    """Mean and standard error."""
    error = statistics.stdev(values) / len(values) ** 0.5
    return f"{statistics.mean(values):.2f} +- {error:.2f}"


def span(values: list[float]) -> str:
    return f"{min(values):.2g} to {max(values):.2g}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="fewer seeds and steps: seconds")
    parser.add_argument("--only", choices=("gradients", "training", "scales"), help="one part instead of all")
    parser.add_argument("--out", type=Path, help="write the numbers, as JSON")
    given = parser.parse_args()
    torch.set_num_threads(1)
    start = time.time()
    facts = circumstances(1)  # before anything runs: the commit that is measured
    seeds, steps, training_steps, scale_steps = (2, 10, 50, 20) if given.quick else (6, 60, 2000, 1000)
    shown: list[dict[str, Any]] = []
    result: dict[str, Any] = {**facts, "tables": shown}
    if given.only in (None, "gradients"):
        result["gradients"] = gradients(seeds, steps)
        shown.append(gradient_table(result["gradients"]))
    if given.only in (None, "training"):
        result["training"] = trainings(min(seeds, 3), training_steps)
        shown.append(training_table(result["training"]))
    if given.only in (None, "scales"):
        result["scales"] = scales(min(seeds, 3), scale_steps)
        shown.append(scale_table(result["scales"]))
    if given.out is not None:
        result["wall"] = round(time.time() - start)
        write(given.out, json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
