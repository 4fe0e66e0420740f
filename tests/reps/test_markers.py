"""Masks and batch vectors: where they are found, and that they are not blamed for the faults of others."""

from itertools import pairwise

import pytest
import torch
from torch import nn

import probsym as ps
from cases import close, randn, seeded

BATCH = torch.tensor([0, 0, 0, 1, 1])
MASK = torch.arange(3) < torch.tensor([3, 2])[:, None]
SPACE = ps.E(3, "space")
DISTRIBUTIONS = ["recursive", "haar", "frame", "learned", "canonical"]


class Pooled(nn.Module):
    """The mean position of each graph."""

    def forward(self, x, pos, batch, power=1):
        count = int(batch.max()) + 1
        total = pos.new_zeros(count, 3).index_add(0, batch, pos)
        assert power in (1, 2)
        return total / torch.bincount(batch, minlength=count)[:, None]


class Masked(nn.Module):
    def forward(self, x, pos, mask, power=1):
        return (pos * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)


class Middle(nn.Module):
    def forward(self, x, batch, pos):
        return Pooled()(x, pos, batch)


@pytest.mark.parametrize("distribution", DISTRIBUTIONS)
@pytest.mark.parametrize("kind", [ps.S, ps.Axis])
def test_a_batch_vector_or_mask_by_position(kind, distribution):
    """As PyG's own models take them; the model's signature tells which it is."""
    atoms = kind("atoms", batch="batch")
    call = (randn(5, 1), randn(5, 3), BATCH)
    phi = ps.symmetrize(Pooled(), (ps.Rep(atoms), ps.Rep(atoms, SPACE)), ps.Rep(SPACE), distribution).double().eval()
    for samples in (1, 4):
        assert close(phi(*call, samples=samples, generator=seeded()), Pooled()(*call))
        assert close(phi(*call, 2, samples=samples, generator=seeded()), Pooled()(*call))
        assert close(phi(*call[:2], batch=BATCH, samples=samples, generator=seeded()), Pooled()(*call))
    atoms = kind("atoms", mask="mask")
    call = (randn(2, 3, 1) * MASK[..., None], randn(2, 3, 3) * MASK[..., None], MASK)
    phi = ps.symmetrize(Masked(), (ps.Rep(atoms), ps.Rep(atoms, SPACE)), ps.Rep(SPACE), distribution).double().eval()
    for samples in (1, 4):
        assert close(phi(*call, samples=samples, generator=seeded()), Masked()(*call))


@pytest.mark.parametrize("distribution", DISTRIBUTIONS)
def test_a_batch_vector_among_the_declared_arguments_is_named_by_its_position(distribution):
    call = (randn(5, 1), BATCH, randn(5, 3))
    by_name, by_place = ps.S("atoms", batch="batch"), ps.S("atoms", batch=1)
    phi = ps.symmetrize(Middle(), (ps.Rep(by_name), None, ps.Rep(by_name, SPACE)), ps.Rep(SPACE), distribution)
    with pytest.raises(ValueError, match=r"argument 1: the model calls it 'batch'.*batch=1"):
        phi.double()(*call)
    phi = ps.symmetrize(Middle(), (ps.Rep(by_place), None, ps.Rep(by_place, SPACE)), ps.Rep(SPACE), distribution)
    assert close(phi.double().eval()(*call, generator=seeded()), Middle()(*call))


def test_a_batch_vector_of_a_model_without_names_is_asked_for():
    class Unnamed(Pooled):
        def forward(self, *args):
            return super().forward(*args)

    atoms = ps.S("atoms", batch="batch")
    phi = ps.symmetrize(Unnamed(), (ps.Rep(atoms), ps.Rep(atoms, SPACE)), ps.Rep(SPACE), "haar").double()
    with pytest.raises(ValueError, match=r"argument 2 has no Rep.*'batch' that an axis names.*batch=2"):
        phi(randn(5, 1), randn(5, 3), BATCH)


def test_pyg_sequential_takes_its_batch_by_position():
    geometric = pytest.importorskip("torch_geometric.nn")
    layers = [
        (geometric.GCNConv(1, 4), "x, edge_index -> x"),
        nn.Tanh(),
        (geometric.global_mean_pool, "x, batch -> x"),
    ]
    model = geometric.Sequential("x, edge_index, batch", layers).double()
    atoms = ps.S("atoms", batch="batch")
    call = (randn(5, 1), torch.tensor([[0, 1, 3], [1, 2, 4]]), BATCH)
    for distribution in DISTRIBUTIONS:
        phi = ps.symmetrize(model, (ps.Rep(atoms), ps.Rep(atoms.labels)), ps.Rep(), distribution).double().eval()
        assert close(phi(*call, generator=seeded()), model(*call))


@pytest.mark.parametrize("storage", ["dense", "padded", "ragged"])
def test_exchanged_axes_are_not_blamed_on_the_mask(storage):
    """Positions (B, 3, N) where (B, N, 3) are declared."""
    known = {"dense": {}, "padded": {"mask": "mask"}, "ragged": {"batch": "batch"}}[storage]
    atoms = ps.S("atoms", **known)
    call = {"pos": randn(2, 3, 5), "mask": torch.ones(2, 5, dtype=torch.bool)}
    if storage == "ragged":
        call = {"pos": randn(3, 5), "batch": BATCH}
    if storage == "dense":
        del call["mask"]
    for distribution in DISTRIBUTIONS:
        phi = ps.symmetrize(nn.Identity(), {"pos": ps.Rep(atoms, SPACE)}, ps.Rep(atoms, SPACE), distribution)
        with pytest.raises(ValueError, match=r"pos: expected size 3 on axis \d for E"):
            phi.double()(**call)


def test_a_mask_is_as_long_as_the_batch():
    atoms = ps.S("atoms", mask="mask")
    phi = ps.symmetrize(nn.Identity(), {"pos": ps.Rep(atoms, SPACE)}, ps.Rep(atoms, SPACE), "haar").double()
    for rows in (1, 3):
        with pytest.raises(ValueError, match=r"'mask': expected a bool mask of shape \(2, 3\).*got \(\d, 3\)"):
            phi(pos=randn(2, 3, 3), mask=torch.ones(rows, 3, dtype=torch.bool))


@pytest.mark.parametrize("distribution", ["haar", "frame", "learned"])
def test_one_graph_without_a_batch_vector(distribution):
    """Trained on batches, used on one `Data`: as one graph, or an error that says what to pass."""
    data = pytest.importorskip("torch_geometric.data")
    atoms = ps.S("atoms", batch="batch")
    edges = torch.tensor([[0, 1], [1, 0]])

    class Counts(nn.Module):
        def forward(self, d):
            batch = torch.zeros(d.num_nodes, dtype=torch.long) if d.batch is None else d.batch
            return torch.zeros(int(batch.max()) + 1, 1).index_add(0, batch, torch.ones(d.num_nodes, 1))

    for graph, spec in [
        (data.Data(x=randn(3, 2), edge_index=edges), {"x": ps.Rep(atoms), "edge_index": ps.Rep(atoms.labels)}),
        (data.Data(edge_index=edges, num_nodes=3), {"edge_index": ps.Rep(atoms.labels)}),
    ]:
        phi = ps.symmetrize(Counts(), (spec,), ps.Rep(), distribution).double().eval()
        assert phi(graph, samples=1).item() == 3
        with pytest.raises(ValueError, match=r"'batch' is missing: .*pass zeros of shape \(3,\), in PyG a Batch"):
            phi.sample(graph, samples=4)
        assert phi(data.Batch.from_data_list([graph, graph]), samples=4).tolist() == [[3], [3]]


class Paired(nn.Module):
    """Adds what the residues of its graph sum up to, to every atom."""

    def forward(self, x, y, x_batch, y_batch, num_graphs=None, **rest):
        count = max(int(batch.max()) + 1 for batch in (x_batch, y_batch))
        assert num_graphs is None or num_graphs >= count
        return x + y.new_zeros(count, 1).index_add(0, y_batch, y)[x_batch]


@pytest.mark.parametrize("distribution", DISTRIBUTIONS)
@pytest.mark.parametrize("last", ["x", "y"])
def test_the_last_graph_is_empty_on_one_of_two_axes(distribution, last):
    """Copies of a batch are as many graphs apart on both axes: a sample meets none of another one."""
    atoms, residues = ps.S("atoms", batch="x_batch"), ps.S("residues", batch="y_batch")
    spec = {"x": ps.Rep(atoms), "y": ps.Rep(residues)}
    phi = ps.symmetrize(Paired(), spec, ps.Rep(atoms), distribution).double().eval()
    call = {"x": randn(4, 1), "y": randn(3, 1)}
    call["x_batch"], call["y_batch"] = torch.tensor([0, 0, 1, 1]), torch.tensor([0, 1, 2])
    if last == "x":
        call["x_batch"], call["y_batch"] = torch.tensor([0, 0, 1, 2]), torch.tensor([0, 1, 1])
    for told in ({}, {"num_graphs": 3}, {"num_graphs": 5}, {"num_graphs": torch.tensor(3)}):
        for samples in (1, 4):
            assert close(phi(**call, **told, samples=samples, generator=seeded()), Paired()(**call))


def test_batch_vectors_that_number_other_inputs():
    atoms, residues = ps.S("atoms", batch="x_batch"), ps.S("residues", batch="y_batch")
    spec = {"left": {"x": ps.Rep(atoms)}, "right": {"y": ps.Rep(residues)}}
    phi = ps.symmetrize(nn.Identity(), spec, {"x": ps.Rep(atoms)}, "haar").double()
    left = {"x": randn(4, 1), "x_batch": torch.tensor([0, 0, 1, 1]), "ptr": torch.tensor([0, 2, 4])}
    right = {"y": randn(3, 1), "y_batch": torch.tensor([0, 1, 2]), "ptr": torch.tensor([0, 1, 2, 3])}
    with pytest.raises(ValueError, match=r"'y_batch': expected the nodes of 2 graphs.*got those of 3"):
        phi(left=left, right=right)


@pytest.mark.parametrize("distribution", ["haar", "learned"])
def test_a_missing_batch_vector_of_several_inputs(distribution):
    atoms = ps.S("atoms", batch="batch")
    spec = {"x": ps.Rep(atoms), "root": ps.Rep()}
    phi = ps.symmetrize(nn.Identity(), spec, ps.Rep(atoms), distribution).double()
    for inputs in (0, 2):
        with pytest.raises(ValueError, match=rf"argument 'batch' is missing: .* there are {inputs} inputs"):
            phi(x=randn(5, 1), root=randn(inputs, 1), samples=1)


class Starts(nn.Module):
    """What the atoms of each graph sum up to, by where they start, with the residues of the same graph."""

    def forward(self, x, y, y_batch, ptr, num_nodes, num_graphs, **rest):
        assert num_nodes == len(x)
        assert num_graphs == len(ptr) - 1
        sums = torch.stack([x[a:b].sum(0) for a, b in pairwise(ptr)])
        return sums * y.new_zeros(len(sums), 1).index_add(0, y_batch, y)


@pytest.mark.parametrize("counted", [int, torch.tensor])
@pytest.mark.parametrize("swapped", [False, True])
def test_whose_nodes_ptr_and_num_nodes_count(swapped, counted):
    """Of two ragged axes in one container those of one; in copies of the batch they counted the axis declared last."""
    atoms, residues = ps.S("atoms", batch="batch"), ps.S("residues", batch="y_batch")
    spec = {"x": ps.Rep(atoms), "y": ps.Rep(residues)}
    if swapped:
        spec = {"y": ps.Rep(residues), "x": ps.Rep(atoms)}
    phi = ps.symmetrize(Starts(), spec, ps.Rep(), "haar").double().eval()
    call = {"x": randn(5, 1), "y": randn(4, 1), "batch": BATCH, "y_batch": torch.tensor([0, 1, 1, 1])}
    told = {"ptr": torch.tensor([0, 3, 5]), "num_nodes": 5, "num_graphs": counted(2)}
    expected = Starts()(**call, **told)
    for samples in (1, 4):
        assert close(phi(**call, **told, samples=samples, generator=seeded()), expected)
    for keep in ([True, False], [False, True]):
        part = phi.bind((), {**call, **told}).select(torch.tensor(keep)).kwargs
        assert close(Starts()(**part), expected[torch.tensor(keep)])


def test_ptr_and_num_graphs_that_differ_are_refused():
    phi = ps.symmetrize(nn.Identity(), {"x": ps.Rep(ps.S("atoms", batch="batch"))}, ps.Rep(), "haar").double()
    with pytest.raises(ValueError, match=r"'ptr': expected the starts of 3 graphs.*got shape \(3,\)"):
        phi(x=randn(5, 1), batch=BATCH, ptr=torch.tensor([0, 3, 5]), num_graphs=3)
