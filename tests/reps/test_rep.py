"""Reps and containers: which axis feels what."""

import pytest
import torch

import probsym as ps
from cases import PADDED, RAGGED
from probsym.reps import Inputs, Layout, as_spec, group_of, leaves

NODES, SPACE = ps.S("nodes"), ps.E(3, "space")


def element(shape=(2,), n=4, seed=0):
    generator = torch.Generator().manual_seed(seed)
    options = {"generator": generator, "dtype": torch.float64}
    z = {
        NODES: torch.randn(*shape, n, **options),
        SPACE: (torch.randn(*shape, 3, **options), torch.randn(*shape, 3, 3, **options)),
    }
    fallback = {NODES: torch.randn(*shape, n, **options), SPACE: torch.randn(*shape, 3, 3, **options)}
    return (NODES * SPACE).project(z, fallback)


def dense(g):
    """The element as matrices: P (B, N, N), R (B, D, D), t (B, D)."""
    permutation = torch.nn.functional.one_hot(g[NODES].index, g[NODES].index.shape[-1]).double()
    return permutation, g[SPACE].matrix, g[SPACE].translation


def test_every_slot_against_dense_matrices():
    g = element()
    P, R, t = dense(g)
    x, v, a = torch.randn(2, 4, 3, 5).double(), torch.randn(2, 4, 3).double(), torch.randn(2, 4, 4, 2).double()
    moved = torch.einsum("bij,bde,bjec->bidc", P, R, x) + t[:, None, :, None]
    assert torch.allclose(ps.Rep(NODES, SPACE).act(g, x), moved)
    assert torch.allclose(ps.Rep(NODES, SPACE.vector).act(g, v), torch.einsum("bij,bde,bje->bid", P, R, v))
    assert torch.allclose(ps.Rep(NODES, NODES).act(g, a), torch.einsum("bij,bkl,bjlc->bikc", P, P, a))
    det = torch.linalg.det(R)
    assert torch.allclose(
        ps.Rep(SPACE.vector, SPACE.det).act(g, v[:, 0]), torch.einsum("bde,be->bd", R, v[:, 0]) * det[:, None]
    )
    assert torch.equal(ps.Rep().act(g, x), x)
    assert torch.allclose(ps.Rep(None, SPACE.vector).act(g, v), torch.einsum("bde,bne->bnd", R, v))
    tensor = torch.randn(2, 3, 3).double()
    assert torch.allclose(ps.Rep(SPACE.vector, SPACE.vector).act(g, tensor), R @ tensor @ R.mT)


def test_labels_follow_their_nodes():
    """The adjacency of moved labels is the moved adjacency; -1 marks padding and stays."""
    g = element()
    edges = torch.tensor([[[0, 1, 2], [1, 2, -1]], [[3, 3, 0], [0, 1, 2]]])

    def adjacency(e):
        a = torch.zeros(2, 4, 4)
        for b in range(2):
            for i, j in e[b].mT.tolist():
                if j >= 0:
                    a[b, i, j] += 1
        return a

    moved = ps.Rep(NODES.labels).act(g, edges)
    assert torch.equal(adjacency(moved), ps.Rep(NODES, NODES).act(g, adjacency(edges)))
    assert moved.dtype == edges.dtype
    assert ((moved < 0) == (edges < 0)).all()


def test_sample_axes_are_added_in_front():
    g, x = element((5, 2)), torch.randn(2, 4, 3).double()
    for rep in (ps.Rep(NODES, SPACE), ps.Rep(NODES, None), ps.Rep(None, SPACE), ps.Rep(None, None)):
        y = rep.act(g, x, 1)
        assert y.shape == (5, 2, 4, 3)
        each = torch.stack([rep.act(g.select(k), x) for k in range(5)])
        assert torch.allclose(y, each)


def test_padding_is_zero_and_stays_behind():
    mask = torch.tensor([[True, True, True, False], [True, False, False, False]])
    g = PADDED.haar((2,), n=Layout(4, mask), generator=torch.Generator().manual_seed(0))
    x = torch.randn(2, 4, 3)
    y = ps.Rep(PADDED).act(g, x)
    assert (y[~mask] == 0).all()
    assert torch.equal(y[0, :3].sort(0).values, x[0, :3].sort(0).values)
    pair = ps.Rep(PADDED, PADDED).act(g, torch.randn(2, 4, 4))
    assert (pair[~(mask[:, :, None] & mask[:, None])] == 0).all()


def test_ragged_graphs_equal_single_ones():
    """Each graph of a ragged batch, also unsorted, moves as it would alone."""
    for batch in (torch.tensor([0, 0, 0, 1, 1, 2]), torch.tensor([1, 0, 2, 0, 1, 0])):
        layout = Layout(6, batch=batch, count=3)
        nodes = RAGGED.haar((3,), n=layout, generator=torch.Generator().manual_seed(0))
        space = ps.O(3).haar((3,), generator=torch.Generator().manual_seed(1))
        from probsym.groups import ProductElement

        g = ProductElement(RAGGED * ps.O(3), {RAGGED: nodes, ps.O(3): space})
        x = torch.randn(6, 3)
        y = ps.Rep(RAGGED, ps.O(3)).act(g, x)
        for b in range(3):
            own = batch == b
            turned = x[own] @ space.matrix[b].mT
            assert torch.allclose(y[own].sort(0).values, turned.sort(0).values, atol=1e-6)


def test_repr_hash_equality():
    rep = ps.Rep(NODES, SPACE.vector, None)
    assert repr(rep) == "Rep(S('nodes'), E(3, 'space').vector, None)"
    assert repr(ps.Rep(NODES.labels, SPACE.det)) == "Rep(S('nodes').labels, E(3, 'space').det)"
    assert rep == ps.Rep(ps.S("nodes"), ps.E(3, "space").vector, None)
    assert rep != ps.Rep(NODES, SPACE, None)
    assert hash(rep) == hash(ps.Rep(ps.S("nodes"), ps.E(3, "space").vector, None))


@pytest.mark.parametrize(
    ("make", "error", "says"),
    [
        (lambda: ps.Rep("nodes"), TypeError, "groups, slots"),
        (lambda: ps.Rep(3), TypeError, "groups, slots"),
        (lambda: ps.Rep(NODES * SPACE), TypeError, "is a product"),
        (lambda: ps.Rep(None, RAGGED), ValueError, "must come first"),
        (lambda: ps.Rep(RAGGED, RAGGED), ValueError, "must come first"),
        (lambda: as_spec({"x": [1]}, "inputs"), TypeError, r"inputs\['x'\]\[0\]"),
    ],
)
def test_malformed_reps(make, error, says):
    with pytest.raises(error, match=says):
        make()


def test_specs():
    spec = as_spec({"a": NODES, "b": (SPACE, ps.Rep())}, "inputs")
    assert leaves(spec) == {("a",): ps.Rep(NODES), ("b", 0): ps.Rep(SPACE), ("b", 1): ps.Rep()}
    assert group_of(spec) == NODES * SPACE


def test_inputs_read_sizes_and_types():
    x = Inputs.bind(
        {"a": ps.Rep(NODES, None), "b": ps.Rep()},
        (),
        {"a": torch.zeros(2, 5, 3, 7).bfloat16(), "b": torch.zeros(2), "c": 4},
    )
    assert (x.count, x.layouts[NODES].size, x.dtype) == (2, 5, torch.float32)
    assert x.leaves[("kwargs", "a")].channels == (7,)
    assert x.kwargs["c"] == 4
    tiled = x.tile(3)
    assert tiled.count == 6
    assert tiled.kwargs["a"].shape == (6, 5, 3, 7)
    with pytest.raises(ValueError, match=r"argument 'c'.*declare it Rep"):
        Inputs.bind({"a": ps.Rep()}, (), {"a": torch.zeros(2), "c": torch.zeros(2)}).tile(2)
