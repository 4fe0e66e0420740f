"""Node numbers: small integers, one number per input, and leaves without channels."""

import pytest
import torch
from torch import nn

import probsym as ps
from cases import close, randn, seeded
from probsym.reps import Inputs

STORAGES = ("dense", "padded", "ragged")
SIZES = (3, 2)


def axis(storage, kind=ps.S):
    return kind("n", **{"dense": {}, "padded": {"mask": "mask"}, "ragged": {"batch": "batch"}}[storage])


class Sent(nn.Module):
    """What arrives along the edges, and what stands at one node of each input."""

    def forward(self, x, e=None, root=None, mask=None, batch=None):
        e, root = (None if number is None else number.long() for number in (e, root))
        y = torch.zeros_like(x)
        if batch is not None:
            if e is not None:
                y = y.index_add(0, e[1], x[e[0]])
            return y if root is None else x[root]
        if e is not None:
            y = torch.stack([torch.zeros_like(a).index_add(0, k[1], a[k[0]]) for a, k in zip(x, e, strict=True)])
        return y if root is None else x[torch.arange(len(x)), root]


# ---------------------------------------------------------------- small integers


@pytest.mark.parametrize("distribution", ["haar", "frame", "learned", "canonical"])
@pytest.mark.parametrize("storage", STORAGES)
@pytest.mark.parametrize("kind", [torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64], ids=str)
def test_node_numbers_in_any_integers(kind, storage, distribution):
    """300 nodes have numbers after a permutation that a byte does not hold, and those of all samples still less."""
    n = 300 if distribution == "haar" else 60
    x, e = randn(n), torch.stack([torch.arange(50), torch.arange(1, 51)]).to(kind)
    nodes = axis(storage)
    call = {"x": x[None], "e": e[None]}
    if storage == "padded":
        call["mask"] = torch.ones(1, n, dtype=torch.bool)
    if storage == "ragged":
        call = {"x": x, "e": e, "batch": torch.zeros(n, dtype=kind if n < 100 else torch.long)}
    phi = ps.symmetrize(Sent(), {"x": ps.Rep(nodes), "e": ps.Rep(nodes.labels)}, ps.Rep(nodes), distribution)
    for samples in (1, 10):
        y = phi.double().eval()(**call, samples=samples, generator=seeded())
        assert close(y, Sent()(**{**call, "e": call["e"].long()}))
    assert call["e"].dtype == kind


@pytest.mark.parametrize("storage", STORAGES)
@pytest.mark.parametrize(
    "kind", [torch.bool, torch.float16, torch.float32, torch.float64, torch.complex64, torch.complex128], ids=str
)
def test_other_node_numbers_are_refused(kind, storage):
    nodes = axis(storage)
    call = {"x": randn(1, 4), "e": torch.ones(1, 2, 3).to(kind), "mask": torch.ones(1, 4, dtype=torch.bool)}
    if storage == "ragged":
        call = {"x": randn(4), "e": torch.ones(2, 3).to(kind), "batch": torch.zeros(4, dtype=torch.long)}
    if storage == "dense":
        del call["mask"]
    phi = ps.symmetrize(Sent(), {"x": ps.Rep(nodes), "e": ps.Rep(nodes.labels)}, ps.Rep(nodes), "haar")
    with pytest.raises(TypeError, match="e: expected integer node numbers"):
        phi(**call)


# ---------------------------------------------------------------- one number per input


@pytest.mark.parametrize("distribution", ["haar", "frame", "learned", "canonical", "exact"])
@pytest.mark.parametrize("edges", [False, True])
@pytest.mark.parametrize("storage", STORAGES)
def test_one_node_number_per_input(storage, edges, distribution):
    nodes = axis(storage)
    mask = torch.arange(3) < torch.tensor(SIZES)[:, None]
    call = {"x": randn(2, 3, 2), "root": torch.tensor([2, 1])}
    if edges:
        call["e"] = torch.tensor([[[0, 1], [1, 2]], [[0, 1], [1, 0]]])
    if storage == "padded":
        call |= {"x": call["x"] * mask[..., None], "mask": mask}
    if storage == "ragged":
        call = {"x": call["x"][mask], "root": torch.tensor([2, 4]), "batch": torch.tensor([0, 0, 0, 1, 1])}
        if edges:
            call["e"] = torch.tensor([[0, 1, 3, 4], [1, 2, 4, 3]])
    spec = {"x": ps.Rep(nodes), "root": ps.Rep(nodes.labels)} | ({"e": ps.Rep(nodes.labels)} if edges else {})
    exact = {"eval_samples": ps.Exact()} if distribution == "exact" else {}
    phi = ps.symmetrize(Sent(), spec, ps.Rep(), "haar" if exact else distribution, **exact).double().eval()
    right = Sent()(**call)
    assert close(phi(**call, generator=seeded()), right)
    assert close(phi(**call, tol=0.5, generator=seeded()), right)
    if not exact:
        assert close(phi(**call, samples=1, generator=seeded()), right)


def test_the_root_tells_equal_nodes_apart():
    """A frame of equal nodes with a root: the root goes first or last, the others are exchanged."""
    for storage in ("dense", "ragged"):
        nodes = axis(storage)
        root = torch.tensor([1])
        call = {"x": torch.ones(1, 3, 1), "root": root}
        if storage == "ragged":
            call = {"x": torch.ones(3, 1), "root": root, "batch": torch.zeros(3, dtype=torch.long)}
        p = ps.Frame(nodes)
        x = Inputs.bind({"x": ps.Rep(nodes), "root": ps.Rep(nodes.labels)}, (), call)
        places = {g.index.reshape(-1)[1].item() for g in map(p.support(x).element.select, range(2))}
        assert len(p.support(x).weight) == 2
        assert len(places) == 1


def test_a_part_of_a_ragged_batch_keeps_its_roots():
    nodes = axis("ragged")
    batch = torch.tensor([0, 0, 1, 1, 1, 2])
    call = {"x": randn(6), "root": torch.tensor([1, -1, 5]), "batch": batch}
    x = Inputs.bind({"x": ps.Rep(nodes), "root": ps.Rep(nodes.labels)}, (), call)
    keep = torch.tensor([False, True, True])
    assert x.select(keep).kwargs["root"].tolist() == [-1, 3]
    assert x.tile(2).kwargs["root"].tolist() == [1, -1, 5, 7, -1, 11]
    listed = Inputs.bind({"x": ps.Rep(nodes), "root": ps.Rep(nodes.labels)}, (), {**call, "root": torch.arange(5)})
    assert listed.select(keep).kwargs["root"].tolist() == [0, 1, 2]


def test_roots_and_lists_of_pyg():
    """`root_index` is one number per graph that PyG shifts as it does edges."""
    data = pytest.importorskip("torch_geometric.data")
    nodes = axis("ragged")
    graphs = [data.Data(x=randn(n, 1, seed=n), root_index=torch.tensor([n - 1])) for n in SIZES]
    batch = data.Batch.from_data_list(graphs)

    class Picks(nn.Module):
        def forward(self, data):
            return data.x[data.root_index]

    for distribution in ("haar", "frame", "learned"):
        phi = ps.symmetrize(
            Picks(), ({"x": ps.Rep(nodes), "root_index": ps.Rep(nodes.labels)},), ps.Rep(), distribution
        )
        assert close(phi.double().eval()(batch, generator=seeded()), batch.x[batch.root_index])


# ---------------------------------------------------------------- leaves without channels


class Scaled(nn.Module):
    def forward(self, x, t):
        return x * t.reshape(-1, *[1] * (x.ndim - 1))


@pytest.mark.parametrize("t", [torch.tensor([1.0, 2.0]), torch.tensor([1, 2]), torch.tensor([True, False])], ids=str)
@pytest.mark.parametrize(
    ("rep", "x", "distribution", "estimator"),
    [
        (ps.Rep(None, ps.C(4)), randn(2, 3, 4, 4), "haar", ps.Exact()),
        (ps.Rep(ps.D(4)), randn(2, 4, 4), "haar", ps.Exact()),
        (ps.Rep(ps.Shift(4)), randn(2, 4, 4), "haar", ps.Exact()),
        (ps.Rep(ps.S("n")), randn(2, 4), "haar", ps.Exact()),
        (ps.Rep(ps.S("n")), torch.ones(2, 4, dtype=torch.float64), "frame", None),
        (ps.Rep(ps.S("n")), randn(2, 4), "learned", None),
        (ps.Rep(ps.S("n")), randn(2, 4), "canonical", None),
        (ps.Rep(ps.S("n"), ps.O(3)), randn(2, 4, 3), "frame", None),
        (ps.Rep(ps.S("n"), ps.O(3)), randn(2, 4, 3), "learned", None),
        (ps.Rep(ps.S("n"), ps.O(3)), randn(2, 4, 3), "haar", 8),
    ],
    ids=lambda value: str(value) if isinstance(value, str) else "",
)
def test_one_number_per_input_as_with_a_channel(rep, x, distribution, estimator, t):
    for count in (1, 2):
        phi = ps.symmetrize(Scaled(), {"x": rep, "t": ps.Rep()}, rep, distribution, eval_samples=estimator)
        phi = phi.double().eval()
        right = Scaled()(x[:count], t[:count])
        assert close(phi(x=x[:count], t=t[:count], generator=seeded()), right)
        assert close(phi(x=x[:count], t=t[:count, None], generator=seeded()), right)
