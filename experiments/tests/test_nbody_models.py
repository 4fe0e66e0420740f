"""Bases, groups and symmetrizers by name: each is equivariant to what it claims, for any number and dimension."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

import probsym as ps
from probsym_experiments.nbody import Config
from probsym_experiments.nbody.data import System, centred, load
from probsym_experiments.nbody.experiment import analysis
from probsym_experiments.nbody.models import BASES, GROUPS, build, claimed, group_name

SMALL: dict[str, Any] = {"train_size": 8, "valid_size": 2, "test_size": 4, "eval_samples": [1, 4], "samples": 4}


def batch(config: Config) -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    shape = (4, config.particles, config.dims)
    charges = torch.randn(shape[:2], dtype=torch.float64).sign()
    found = {name: torch.randn(shape, dtype=torch.float64) for name in ("pos", "vel")}
    return found | {"edge": (charges[:, :, None] * charges[:, None, :]).unsqueeze(-1)}


def model(config: Config) -> tuple[ps.Symmetrizer, dict[str, torch.Tensor]]:
    x = batch(config)
    torch.manual_seed(0)
    return build(config, {name: value.float() for name, value in x.items()}).double().eval(), x


def error(config: Config, samples: int = 64) -> ps.testing.equivariance.EquivarianceReport:
    phi, x = model(config)
    generator = torch.Generator().manual_seed(0)
    return ps.testing.equivariance_error(phi, x, *claimed(config), samples=samples, elements=2, generator=generator)


@pytest.mark.parametrize("group", GROUPS)
@pytest.mark.parametrize("base", ["gnn", "dynamics", "node-transformer", "dynamics-transformer"])
def test_every_group_is_what_the_model_is_equivariant_to(base: str, group: str) -> None:
    config = Config(base=base, group=group, **SMALL)
    factors = {type(f).__name__ for f in build(config, batch(config)).group.factors} - {"Axis"}
    assert factors == set(group.split("x"))
    assert error(config).passed


@pytest.mark.parametrize(
    ("base", "method"), [("egnn", "none"), ("egnn-inverse", "none"), ("node-transformer", "canonical"), ("gnn", "fa")]
)
def test_exact_symmetrizers_are_exactly_equivariant(base: str, method: str) -> None:
    report = error(Config(base=base, symmetrizer=method, **SMALL))
    assert (report.samples, report.passed) == (0, True)


@pytest.mark.parametrize("base", ["gnn", "transformer", "node-transformer", "dynamics-transformer"])
def test_bare_bases_are_not_equivariant(base: str) -> None:
    """A negative control, and `none` is the base itself."""
    config = Config(base=base, symmetrizer="none", **SMALL)
    phi, x = model(config)
    assert torch.equal(phi(**x), phi.model(**x))
    assert not error(config).passed


@pytest.mark.parametrize("base", BASES)
def test_twenty_particles_in_the_plane_by_two_flags(base: str) -> None:
    method = "none" if "egnn" in base else "ps"
    config = Config(base=base, symmetrizer=method, particles=20, dims=2, layers=1, **SMALL)
    phi, x = model(config)
    y = phi(**x)
    assert y.shape == (4, 20, 2)
    y.square().mean().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in phi.parameters())
    if base != "transformer":
        assert error(config, samples=16).passed


def test_default_group_leaves_out_what_the_base_has() -> None:
    assert {base: group_name(Config(base=base)) for base in BASES} == {
        **dict.fromkeys(("gnn", "dynamics", "egnn", "egnn-inverse"), "E"),
        **dict.fromkeys(("transformer", "node-transformer", "dynamics-transformer"), "SxE"),
    }


def test_centring_is_what_the_orthogonal_group_lacks() -> None:
    """With centred data, O(d) and E(d) about the centroid are the same symmetrization."""
    x = batch(Config(**SMALL)) | {"target": torch.randn(4, 5, 3, dtype=torch.float64)}
    moved = x | {name: x[name] + 3 for name in ("pos", "target")}
    for name in x:
        torch.testing.assert_close(centred(x)[name], centred(moved)[name])
    few = {name: value for name, value in centred(x).items() if name != "target"}
    outputs = []
    for group in ("E", "O"):
        phi, _ = model(Config(group=group, symmetrizer="ga", **SMALL))
        outputs.append(phi(**few, generator=torch.Generator().manual_seed(0)))
    torch.testing.assert_close(*outputs)


@pytest.mark.parametrize("base", BASES)
def test_depth_is_the_bases_own_or_the_field(base: str) -> None:
    own = {"transformer": 8, "dynamics": 8, "dynamics-transformer": 6}.get(base, 4)
    nets = {n: BASES[base].build(Config(base=base, layers=n)) for n in (None, 2, own)}
    count = [sum(p.numel() for p in net.parameters()) for net in nets.values()]
    assert count[0] == count[2] > count[1]


def test_fields_reach_the_distribution() -> None:
    config = Config(base="node-transformer", noise="input", noise_scale=0.3, temperature=0.2, sinkhorn=4, **SMALL)
    p = build(config, batch(config)).distribution
    assert isinstance(p, ps.Learned)
    assert (p.place.name, p.scale, p.relaxation) == ("input", 0.3, ps.Relaxation(0.2, 4))


def test_noise_reaches_orders_that_learn_by_their_law() -> None:
    at_input = {"noise": "input", "noise_scale": 0.3, "temperature": 0.2}
    for fields, expected in (
        (at_input, ("input", 0.3, ps.ScoreFunction(0.2))),
        ({"noise_scale": 0.3}, ("gumbel", 0.3, ps.ScoreFunction())),
    ):
        config = Config(base="node-transformer", symmetrizer="ps-score", **fields, **SMALL)
        p = build(config, batch(config)).distribution
        assert isinstance(p, ps.Learned)
        assert (p.place.name, p.scale, p.relaxation) == expected


def test_velocities_come_with_the_positions_and_are_vectors() -> None:
    config = Config(velocity_weight=1.0, **SMALL)
    phi, x = model(config)
    y = phi(**x)
    assert {name: value.shape for name, value in y.items()} == {"pos": (4, 5, 3), "vel": (4, 5, 3)}
    assert error(config).passed


def test_velocity_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same simulations with one more array, in a file of their own."""
    monkeypatch.setattr("probsym_experiments.nbody.data.DRAWN", {"train": 4, "valid": 2, "test": 2})
    plain, more = (System(3, 2, 4, 2, 2, velocity=v) for v in (False, True))
    assert plain.file != more.file
    small, large = (load(system, tmp_path)["test"] for system in (plain, more))
    assert all(torch.equal(large[name], small[name]) for name in small)
    assert large["target_vel"].shape == (2, 3, 2)
    assert not torch.equal(large["target_vel"], large["vel"])


def test_analysis_of_seven_particles_in_the_plane() -> None:
    config = Config(particles=7, dims=2, **SMALL)
    phi, x = model(config)
    found = analysis(phi.float(), {name: value.float() for name, value in x.items()}, config)
    assert found["equivariance"]["p_value"] >= 1e-6
    one, four = (entry["error"] for entry in found["equivariance_by_samples"])
    assert 0.3 < four / one < 0.7  # 1 / sqrt(4), from few samples
    assert [sum(entry["histogram"]) for entry in found["samples_for_tolerance"]] == [4, 4, 4]
    medians = [entry["median"] for entry in found["samples_for_tolerance"]]
    assert medians == sorted(medians)
