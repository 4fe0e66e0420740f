"""A tensor without a Rep is refused at the first call, by name, whatever the sizes; None passes it as it is."""

import copy

import numpy as np
import pytest
import torch
from torch import nn

import probsym as ps
from cases import close, randn, seeded
from probsym.reps.containers import Undeclared

SPACE = ps.O(3)
STORAGES = ("dense", "padded", "ragged")


class Weighted(nn.Module):
    """Vectors of the nodes times what else it is given, summed up to something of the right shape."""

    def forward(self, pos, other=None, mask=None, batch=None):
        return pos if other is None else pos * other.to(pos).sum()


class FromDict(Weighted):
    def forward(self, data):
        return super().forward(data["pos"], data["other"], data.get("mask"), data.get("batch"))


def call(storage, count):
    """Positions of `count` inputs of 4 nodes, and what marks the nodes."""
    pos = randn(count, 4, 3)
    if storage == "dense":
        return ps.S("n"), {"pos": pos}
    if storage == "padded":
        return ps.S("n", mask="mask"), {"pos": pos, "mask": torch.ones(count, 4, dtype=torch.bool)}
    batch = torch.arange(count).repeat_interleave(4)
    return ps.S("n", batch="batch"), {"pos": pos.flatten(0, 1), "batch": batch}


def others(storage, count):
    """What users forget: a row per node, edge or input, in every kind of number, and what has no row at all."""
    nodes = (count, 4) if storage != "ragged" else (4 * count,)
    return {
        "velocities": randn(*nodes, 3),
        "atom types": torch.ones(nodes, dtype=torch.long),
        "flags": torch.ones(nodes, dtype=torch.bool),
        "edge features": randn(7, 2),
        "node numbers": torch.zeros(2, 7, dtype=torch.long),
        "cells": randn(count, 3, 3),
        "one cell": randn(3, 3),
        "charges": randn(count),
        "table": randn(11, 5),
        "array": np.ones(nodes),
    }


@pytest.mark.parametrize("distribution", ["haar", "frame", "learned"])
@pytest.mark.parametrize("storage", STORAGES)
def test_undeclared_arguments_are_refused_whatever_the_sizes(storage, distribution):
    for count in (1, 2):
        nodes, known = call(storage, count)
        rep = ps.Rep(nodes, SPACE)
        for other in others(storage, count).values():
            phi = ps.symmetrize(Weighted(), {"pos": rep}, rep, distribution)
            for samples in (1, 3):
                with pytest.raises(ValueError, match=r"argument 'other' has no Rep.*'other': ps.Rep\(\).*None"):
                    phi(**known, other=other, samples=samples)
                with pytest.raises(ValueError, match=r"argument other\[0\]\['deep'\] has no Rep"):
                    phi.estimate(**known, other=[{"deep": other}])


@pytest.mark.parametrize("storage", STORAGES)
def test_undeclared_entries_are_refused_when_they_are_used(storage):
    for count in (1, 2):
        nodes, known = call(storage, count)
        rep = ps.Rep(nodes, SPACE)
        for other in others(storage, count).values():
            phi = ps.symmetrize(FromDict(), ({"pos": rep},), rep, "haar")
            for samples in (1, 3):
                with pytest.raises(ValueError, match=r"argument \[0\]\['other'\] has no Rep.*in inputs\[0\], 'other'"):
                    phi({**known, "other": other}, samples=samples)


def test_entries_that_the_model_never_reads_pass():
    """Labels and running numbers travel with the data of every training loop."""
    nodes, known = call("dense", 2)
    rep = ps.Rep(nodes, SPACE)
    phi = ps.symmetrize(FromDict(), ({"pos": rep},), rep, "haar").eval()
    data = {**known, "other": None, "y": randn(2), "idx": torch.arange(2), "more": {"cell": randn(2, 3, 3)}}
    assert close(phi(data, samples=3), known["pos"])
    assert isinstance(data["y"], torch.Tensor)  # the caller's own is left alone


@pytest.mark.parametrize(
    "use",
    [
        lambda t: t + 1, lambda t: 1 - t, lambda t: t * torch.ones(2), lambda t: torch.ones(2) * t, lambda t: t @ t,
        lambda t: torch.stack([t, t]), lambda t: torch.cat([torch.ones(2), t]), lambda t: torch.relu(input=t),
        lambda t: t.sum(), lambda t: t.shape, lambda t: t.to(torch.float64), lambda t: t[0] + 1, lambda t: list(t),
        lambda t: len(t), bool, float, lambda t: t > 0, lambda t: t == 0, lambda t: torch.ones(2)[t], np.asarray,
        lambda t: copy.deepcopy(t) + 1,
    ],
)  # fmt: skip
def test_whatever_is_done_with_an_undeclared_entry_names_it(use):
    with pytest.raises(ValueError, match="this one"):
        use(Undeclared("this one"))


def test_a_stand_in_can_be_handed_on():
    stand_in = Undeclared("this one")
    assert copy.copy({"a": stand_in})["a"] is stand_in
    assert stand_in[0] is stand_in
    assert repr(stand_in) == "<no Rep>"
    assert stand_in is not None


class Table(nn.Module):
    """Looks a number of each node up, times one of each input."""

    def forward(self, pos, kinds, table, scale=None, batch=None):
        weight = table[kinds][..., None]
        return pos * weight if scale is None else pos * weight * scale.reshape(-1, 1, 1)


class TableInDict(Table):
    def forward(self, data):
        return super().forward(data["pos"], data["kinds"], data["table"], data["scale"])


@pytest.mark.parametrize("rows", [1, 2, 4, 8])
@pytest.mark.parametrize("distribution", ["haar", "frame", "learned"])
def test_none_passes_an_argument_as_it_is(rows, distribution):
    """A table as long as the batch, the nodes or the rows of all samples is still a table."""
    nodes = ps.S("n")
    rep = ps.Rep(nodes, SPACE)
    pos, table = randn(2, 4, 3), randn(rows, seed=3)
    kinds, scale = torch.arange(8).reshape(2, 4) % rows, randn(2, seed=4)
    spec = {"pos": rep, "kinds": ps.Rep(nodes), "table": None, "scale": ps.Rep()}
    right = Table()(pos, kinds, table, scale)
    for count in (1, 2):
        data = {"pos": pos[:count], "kinds": kinds[:count], "table": table, "scale": scale[:count]}
        for phi, args, kwargs in [
            (ps.symmetrize(Table(), spec, rep, distribution), (), data),
            (ps.symmetrize(Table(), tuple(spec.values()), rep, distribution), tuple(data.values()), {}),
            (ps.symmetrize(TableInDict(), (spec,), rep, distribution), (data,), {}),
        ]:
            for samples in (1, 4):
                y = phi.double().eval()(*args, **kwargs, samples=samples, generator=seeded())
                assert close(y, right[:count])


def test_numbers_strings_and_tensors_without_axes_pass():
    class Scaled(nn.Module):
        def forward(self, pos, a, b, c, d, name):
            return pos * a * b * c * (d is None) * (name == "kept")

    rep = ps.Rep(ps.S("n"), SPACE)
    pos = randn(2, 4, 3)
    phi = ps.symmetrize(Scaled(), {"pos": rep}, rep, "haar").eval()
    y = phi(pos=pos, a=torch.tensor(2.0), b=3, c=np.float64(0.5), d=None, name="kept", samples=3)
    assert close(y, 3 * pos)


def test_saved_declarations_keep_what_is_passed_as_it_is(tmp_path):
    nodes = ps.S("n")
    rep = ps.Rep(nodes, SPACE)
    spec = ({"pos": rep, "kinds": ps.Rep(nodes), "table": None, "scale": ps.Rep()},)
    phi = ps.symmetrize(TableInDict(), spec, rep, "haar").eval()
    ps.save(phi, tmp_path)
    again = ps.load(tmp_path, model=TableInDict()).eval()
    assert again.inputs == spec
    data = {"pos": randn(2, 4, 3), "kinds": torch.zeros(2, 4, dtype=torch.long), "table": randn(5), "scale": randn(2)}
    assert close(again(data, generator=seeded()), phi(data, generator=seeded()))


def test_something_must_be_declared():
    for inputs in (None, {"pos": None}, (None, None)):
        with pytest.raises(ValueError, match="inputs: expected at least one Rep"):
            ps.symmetrize(Weighted(), inputs, ps.Rep(ps.S("n")), "haar")
    with pytest.raises(ValueError, match="output: expected at least one Rep"):
        ps.symmetrize(Weighted(), ps.Rep(ps.S("n")), None, "haar")


# ---------------------------------------------------------------- PyG


class Graphs(nn.Module):
    """Reads one entry of a PyG batch beside the positions."""

    def __init__(self, key):
        super().__init__()
        self.key = key

    def forward(self, data):
        other = getattr(data, self.key, None)
        return data.pos if other is None else data.pos * other.to(data.pos).sum()


def pyg(count, edges=True):
    data = pytest.importorskip("torch_geometric.data")
    graphs = []
    for i in range(count):
        graph = data.Data(pos=randn(4, 3, seed=i), z=torch.arange(4), edge_attr=randn(3, 2), y=randn(1), name="n")
        graph.edge_index = torch.tensor([[0, 1, 2], [1, 2, 3]])
        graph.cell, graph.bare_cell = randn(1, 3, 3), randn(3, 3)
        graphs.append(graph)
    return data.Batch.from_data_list(graphs)


@pytest.mark.parametrize("key", ["z", "edge_attr", "y", "edge_index", "cell", "bare_cell"])
def test_undeclared_entries_of_pyg_data_are_refused_when_they_are_used(key):
    nodes = ps.Axis("atoms", batch="batch")
    rep = ps.Rep(nodes, SPACE)
    for distribution in ("haar", "frame", "learned"):
        for count in (1, 2):
            data = pyg(count)
            for samples in (1, 3):
                phi = ps.symmetrize(Graphs(key), ({"pos": rep},), rep, distribution)
                with pytest.raises(ValueError, match=rf"argument \[0\]\['{key}'\] has no Rep"):
                    phi(data, samples=samples)
            assert isinstance(data[key], torch.Tensor)


@pytest.mark.parametrize("count", [1, 2])
def test_a_label_does_not_keep_a_model_from_training(count):
    nodes = ps.Axis("atoms", batch="batch")
    rep = ps.Rep(nodes, SPACE)
    data = pyg(count)

    class Clones(Graphs):
        def forward(self, data):
            assert "y" in data
            return super().forward(data.clone().to("cpu"))

    phi = ps.symmetrize(Clones("nothing"), ({"pos": rep, "edge_index": nodes.labels},), rep, "haar")
    assert close(phi(data, samples=3), data.pos)


def test_entries_of_pyg_data_declared_none_pass_as_they_are():
    nodes = ps.Axis("atoms", batch="batch")
    rep = ps.Rep(nodes, SPACE)
    data = pyg(2)
    data.table = randn(3, seed=5)
    phi = ps.symmetrize(Graphs("table"), ({"pos": rep, "table": None},), rep, "haar")
    for samples in (1, 3):
        assert close(phi(data, samples=samples), data.pos * data.table.sum())
