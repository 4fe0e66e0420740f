"""A PyG `Batch` inside the model is a whole one: what it says of its graphs holds for the graphs of all samples."""

import itertools

import pytest
import torch
from torch import nn

import probsym as ps
from cases import close, randn, seeded
from probsym.reps import Inputs

geometric = pytest.importorskip("torch_geometric.data")
pool = pytest.importorskip("torch_geometric.nn").global_add_pool

NODES = ps.S("nodes", batch="batch")
SPACE = ps.O(3, "space")
SPEC = {
    "x": ps.Rep(NODES),
    "pos": ps.Rep(NODES, SPACE),
    "edge_index": ps.Rep(NODES.labels),
    "edge_attr": ps.Rep(NODES.edges),
    "charge": ps.Rep(),
    "y": None,
}
FOLLOWED = ["x", "edge_attr", "edge_index"]


def graph(nodes, number):
    edges = torch.stack([torch.arange(nodes - 1), torch.arange(1, nodes)])
    return geometric.Data(
        x=randn(nodes, 2, seed=nodes),
        pos=randn(nodes, 3, seed=nodes),
        edge_index=edges,
        edge_attr=randn(nodes - 1, 1, seed=nodes),
        charge=torch.tensor([number + 1.0], dtype=torch.float64),
        y=torch.tensor([number]),
        unread=torch.arange(nodes),
        name=f"graph {number}",
        num_nodes=nodes,
    )


def batch(sizes=(3, 2, 1)):
    return geometric.Batch.from_data_list([graph(n, i) for i, n in enumerate(sizes)], follow_batch=FOLLOWED)


def sent(data):
    """What the edges of one graph carry, (1,)."""
    start, end = data.edge_index
    return ((data.x[start] - data.x[end]).square().sum(-1, keepdim=True) * data.edge_attr).sum(0)


def parts(values, pointer):
    return torch.stack([values[i:j].sum(0) for i, j in itertools.pairwise(pointer)])


READS = {
    "batch": lambda d: pool(d.x, d.batch),
    "num_graphs": lambda d: pool(d.x, d.batch, size=d.num_graphs),
    "batch_size": lambda d: pool(d.x, d.batch, size=d.batch_size),
    "ptr": lambda d: parts(d.x, d.ptr),
    "x_batch": lambda d: pool(d.x, d.x_batch),
    "x_ptr": lambda d: parts(d.x, d.x_ptr),
    "edge_attr_batch": lambda d: pool(d.edge_attr, d.edge_attr_batch, size=d.num_graphs),
    "edge_attr_ptr": lambda d: parts(d.edge_attr, d.edge_attr_ptr),
    "edge_index_batch": lambda d: pool(d.edge_attr, d.edge_index_batch, size=d.num_graphs),
    "charge": lambda d: d.charge[:, None] * pool(d.x, d.batch),
    "to_data_list": lambda d: torch.stack([g.charge * g.x.sum(0) for g in d.to_data_list()]),
    "edges in to_data_list": lambda d: torch.stack([sent(g) for g in d.to_data_list()]),
    "num_nodes in to_data_list": lambda d: torch.tensor([[float(g.num_nodes)] for g in d.to_data_list()]).double(),
    "names": lambda d: torch.tensor([[float(name[-1])] for name in d.name]).double(),
    "names in to_data_list": lambda d: torch.tensor([[float(g.name[-1])] for g in d.to_data_list()]).double(),
    "get_example": lambda d: torch.stack([d.get_example(i).pos.square().sum()[None] for i in range(d.num_graphs)]),
    "indexing": lambda d: torch.stack([sent(g) for g in d[torch.arange(d.num_graphs)]]),
    "clone": lambda d: torch.stack([sent(g) for g in d.clone().to("cpu").to_data_list()]),
    "num_nodes": lambda d: pool(torch.ones(d.num_nodes, 1, dtype=torch.float64), d.batch),
}


class Reads(nn.Module):
    def __init__(self, read):
        super().__init__()
        self.read = read

    def forward(self, data):
        return self.read(data)


@pytest.mark.parametrize("how", ["haar", "frame", "learned", "exact", "tol"])
@pytest.mark.parametrize("read", READS)
def test_a_batch_is_whole(read, how):
    """The bases are invariant, so phi = f."""
    f, options = READS[read], {"tol": 0.5} if how == "tol" else {}
    p = ps.Haar(NODES * SPACE) if how in ("haar", "tol") else how
    spec = SPEC
    if how == "exact":  # over S_n alone, whose elements can be listed
        spec, p = {**SPEC, "pos": ps.Rep(NODES, None)}, ps.Haar(NODES)
        options["estimator"] = ps.Exact()
    phi = ps.symmetrize(Reads(f), (spec,), ps.Rep(), p).double().eval()
    for sizes in ((3, 2, 1), (2,)):
        data = batch(sizes)
        assert close(phi(data, generator=seeded(), **options), f(data))
        assert close(phi(data, samples=1, generator=seeded()), f(data))
        assert torch.equal(data.ptr, batch(sizes).ptr)
        assert torch.equal(data.x_batch, batch(sizes).x_batch)
        assert data.num_graphs == len(sizes)


def test_part_of_a_batch_is_what_pyg_would_make_of_it():
    sizes, keep = (3, 2, 1, 4), torch.tensor([True, False, True, True])
    x = Inputs.bind((SPEC,), (batch(sizes),), {})
    part = x.select(keep).args[0]
    whole = batch(sizes)
    right = geometric.Batch.from_data_list([whole[i] for i in keep.nonzero()[:, 0].tolist()], follow_batch=FOLLOWED)
    for name in ("x", "pos", "edge_index", "edge_attr", "charge", "batch", "ptr", "x_batch", "x_ptr", "edge_attr_ptr"):
        assert torch.equal(part[name], right[name]), name
    for mine, theirs in zip(part.to_data_list(), right.to_data_list(), strict=True):
        assert torch.equal(mine.edge_index, theirs.edge_index)
        assert (mine.name, mine.num_nodes) == (theirs.name, theirs.num_nodes)


def test_entries_without_a_rep_are_not_split_among_the_graphs():
    """What is passed as it is belongs to no graph in particular; what has no Rep is refused there too."""

    def read(data):
        graphs = data.to_data_list()
        assert not any("y" in graph for graph in graphs)
        assert data.y.tolist() == [0, 1, 2]
        return torch.stack([graph.unread + 1 for graph in graphs])

    phi = ps.symmetrize(Reads(read), (SPEC,), ps.Rep(), "haar").double()
    for samples in (1, 4):
        with pytest.raises(ValueError, match=r"\['unread'\] has no Rep"):
            phi(batch(), samples=samples)


def test_two_kinds_of_nodes_in_one_data():
    """Two ragged axes, as PyG makes them of `follow_batch`."""

    class Pair(geometric.Data):
        def __inc__(self, key, value, *args):
            return len(self.a) if key == "a_index" else super().__inc__(key, value, *args)

    left, right = ps.S("left", batch="a_batch"), ps.S("right", batch="b_batch")
    pairs = [Pair(a=randn(n, 1, seed=n), b=randn(m, 1, seed=m), a_index=torch.arange(n)) for n, m in ((3, 2), (1, 4))]
    data = geometric.Batch.from_data_list(pairs, follow_batch=["a", "b"])
    spec = {"a": ps.Rep(left), "b": ps.Rep(right), "a_index": ps.Rep(left.labels)}

    def read(d):
        alone = torch.stack([g.a[g.a_index].sum(0) * g.b.sum(0) for g in d.to_data_list()])
        return alone + parts(d.a, d.a_ptr) + pool(d.b, d.b_batch, size=d.num_graphs)

    for distribution in ("haar", "frame", "learned"):
        phi = ps.symmetrize(Reads(read), (spec,), ps.Rep(), distribution).double().eval()
        for samples in (1, 3):
            assert close(phi(data, samples=samples, generator=seeded()), read(data))


def test_hetero_data_is_refused_by_name():
    """It ended in an AttributeError of None."""
    kinds = geometric.HeteroData()
    kinds["atom"].x, kinds["residue"].x = randn(3, 1), randn(2, 1)
    data = geometric.Batch.from_data_list([kinds, kinds])
    spec = {"atom": {"x": ps.Rep(ps.S("atoms", batch="batch"))}}
    phi = ps.symmetrize(Reads(lambda d: d["atom"].x), (spec,), ps.Rep(), "haar").double()
    with pytest.raises(TypeError, match=r"argument 0: a HeteroData.*pass its tensors as arguments"):
        phi(data)
