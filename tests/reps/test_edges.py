"""Values on the edges of a ragged batch: whose edges they are, and that they are never taken for nodes."""

import warnings

import pytest
import torch
from torch import nn

import probsym as ps
from cases import close, randn, seeded
from probsym.distributions import DefaultNet
from probsym.reps import Inputs
from probsym.testing import assert_equivariant

BATCH = torch.tensor([0, 0, 0, 1, 1])
POS = randn(5, 3)
AXES = {"S": ps.S("nodes", batch="batch"), "Axis": ps.Axis("nodes", batch="batch")}
SPACES = [ps.O(3, "space"), ps.SE(3, "space")]
CONTACTS = torch.tensor([[0, 3, 4], [1, 4, 3]])
BONDS = {
    "as many, elsewhere": torch.tensor([[0, 1, 2], [1, 2, 0]]),
    "as many, there too": torch.tensor([[2, 4, 4], [0, 3, 3]]),
    "more": torch.tensor([[0, 1, 2, 3], [1, 2, 0, 4]]),
    "as many as nodes": torch.tensor([[0, 1, 2, 3, 4], [1, 2, 0, 4, 3]]),
    "none": torch.zeros(2, 0, dtype=torch.long),
}


def vectors(pairs):
    return POS[pairs[0]] - POS[pairs[1]]


class OnEdges(nn.Module):
    """Equivariant: twice the vectors of the contacts, and what arrives at the nodes."""

    def forward(self, pos, bonds, contacts, v, batch, w=None):
        return {"node": torch.zeros_like(pos).index_add(0, contacts[1], v), "edge": 2 * v}


class Graded(nn.Module):
    """Not equivariant: vectors on the edges, times the first coordinate of each."""

    def forward(self, pos, bonds, contacts, v, batch):
        return {"node": pos * pos[:, :1], "edge": v * (1 + v[:, :1])}


def declared(nodes, space, order):
    spec = {
        "pos": ps.Rep(nodes, space),
        "bonds": ps.Rep(nodes.labels),
        "contacts": ps.Rep(nodes.labels),
        "v": ps.Rep(nodes.edges, space.vector),
    }
    return {name: spec[name] for name in order.split()}


OUTPUT = lambda nodes, space: {"node": ps.Rep(nodes, space.vector), "edge": ps.Rep(nodes.edges, space.vector)}  # noqa: E731
ORDERS = ["pos bonds contacts v", "contacts v bonds pos", "bonds pos contacts v"]


@pytest.mark.parametrize("distribution", ["haar", "frame", "learned", "canonical"])
@pytest.mark.parametrize("axis", AXES)
@pytest.mark.parametrize("space", SPACES, ids=repr)
def test_vectors_on_one_of_two_sets_of_edges(space, axis, distribution):
    """The base is equivariant, so phi = f, however many bonds there are."""
    nodes = AXES[axis]
    for order in ORDERS:
        phi = ps.symmetrize(OnEdges(), declared(nodes, space, order), OUTPUT(nodes, space), distribution)
        phi = phi.double().eval()
        for bonds in BONDS.values():
            call = {"pos": POS, "bonds": bonds, "contacts": CONTACTS, "v": vectors(CONTACTS), "batch": BATCH}
            right = OnEdges()(**call)
            assert close(phi(**call, generator=seeded()), right)
            assert close(phi(**call, samples=1, generator=seeded()), right)
            assert close(phi(**call, tol=0.5, generator=seeded()), right)


@pytest.mark.parametrize("axis", AXES)
def test_what_acts_on_edges_is_equivariant_for_a_base_that_is_not(axis):
    nodes, space = AXES[axis], SPACES[1]
    for bonds in BONDS.values():
        call = {"pos": POS, "bonds": bonds, "contacts": CONTACTS, "v": vectors(CONTACTS), "batch": BATCH}
        phi = ps.symmetrize(Graded(), declared(nodes, space, ORDERS[0]), OUTPUT(nodes, space), "frame").double().eval()
        assert_equivariant(phi, call, generator=seeded())


@pytest.mark.parametrize("axis", AXES)
def test_the_wrong_edges_would_be_found(axis):
    """Negative control: told that the vectors are those of the bonds, phi is another function."""
    nodes, space = AXES[axis], SPACES[0]
    spec = {**declared(nodes, space, ORDERS[0]), "v": ps.Rep(nodes.edges_of("bonds"), space)}
    output = {"node": ps.Rep(nodes, space), "edge": ps.Rep(nodes.edges_of("bonds"), space)}
    phi = ps.symmetrize(OnEdges(), spec, output, "haar").double().eval()
    call = {"pos": POS, "contacts": CONTACTS, "v": vectors(CONTACTS), "batch": BATCH}
    call["bonds"] = BONDS["as many, elsewhere"]
    assert not close(phi(**call, generator=seeded()), OnEdges()(**call), 0.01)


@pytest.mark.parametrize("distribution", ["haar", "frame", "learned"])
def test_a_name_says_whose_edges_they_are(distribution):
    """Vectors on both sets, of equal length."""
    nodes, space = AXES["S"], SPACES[0]
    spec = {
        "pos": ps.Rep(nodes, space),
        "bonds": ps.Rep(nodes.labels),
        "contacts": ps.Rep(nodes.labels),
        "w": ps.Rep(nodes.edges_of("bonds"), space),
        "v": ps.Rep(nodes.edges_of("contacts"), space),
    }

    class Both(nn.Module):
        def forward(self, pos, bonds, contacts, w, v, batch):
            return {"w": 3 * w, "v": 2 * v}

    output = {"w": ps.Rep(nodes.edges_of("bonds"), space), "v": ps.Rep(nodes.edges_of("contacts"), space)}
    bonds = BONDS["as many, elsewhere"]
    call = {"pos": POS, "bonds": bonds, "contacts": CONTACTS, "w": vectors(bonds), "v": vectors(CONTACTS)}
    phi = ps.symmetrize(Both(), spec, output, distribution).double().eval()
    assert close(phi(**call, batch=BATCH, generator=seeded()), Both()(**call, batch=BATCH))
    plain = {"w": ps.Rep(nodes.edges, space), "v": ps.Rep(nodes.edges, space)}
    phi = ps.symmetrize(Both(), spec, plain, distribution).double().eval()
    with pytest.raises(ValueError, match=r"w: .* rows may be the edges of 'bonds' or 'contacts'.*edges_of\('bonds'\)"):
        phi(**call, batch=BATCH)


def test_values_that_only_their_length_tells_apart_are_warned_of():
    """Told by their length today, by the order of declaration in a batch with equally many edges."""
    nodes, space = AXES["S"], SPACES[0]
    spec = declared(nodes, space, "pos contacts bonds v")
    call = {"pos": POS, "bonds": BONDS["more"], "contacts": CONTACTS, "v": vectors(CONTACTS), "batch": BATCH}
    phi = ps.symmetrize(OnEdges(), spec, OUTPUT(nodes, space), "haar").double().eval()
    with pytest.warns(UserWarning, match=r"v: taken for .* edges of 'contacts'.*edges_of\('contacts'\)"):
        assert close(phi(**call, generator=seeded()), OnEdges()(**call))
    spec["v"] = ps.Rep(nodes.edges_of("contacts"), space)
    phi = ps.symmetrize(OnEdges(), spec, OUTPUT(nodes, space), "haar").double().eval()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert close(phi(**call, generator=seeded()), OnEdges()(**call))


def test_a_length_that_no_edges_have_is_refused():
    nodes, space = AXES["S"], SPACES[0]
    spec = declared(nodes, space, ORDERS[0])
    call = {"pos": POS, "bonds": BONDS["more"], "contacts": CONTACTS, "v": POS, "batch": BATCH}
    phi = ps.symmetrize(OnEdges(), spec, OUTPUT(nodes, space), "haar").double()
    with pytest.raises(ValueError, match=r"v: .*expected as many rows as edges, 4 as in 'bonds' or 3 as in 'contacts'"):
        phi(**call)

    class Wrong(OnEdges):
        def forward(self, **call):
            y = super().forward(**call)
            return {**y, "edge": y["edge"][:-1]}

    with pytest.raises(ValueError, match=r"edge: .*expected as many rows as edges"):
        ps.symmetrize(Wrong(), spec, OUTPUT(nodes, space), "haar").double()(**{**call, "v": vectors(CONTACTS)})
    without = {name: rep for name, rep in spec.items() if name == "pos"} | {"v": ps.Rep(nodes.edges, space)}
    bare = {name: call[name] for name in ("pos", "v", "batch")}
    with pytest.raises(ValueError, match="values on the edges of a ragged batch need node numbers"):
        ps.symmetrize(nn.Identity(), without, ps.Rep(nodes, space), "haar").double()(**bare)


@pytest.mark.parametrize("axis", AXES)
@pytest.mark.parametrize("space", SPACES, ids=repr)
def test_noise_at_the_input_reaches_vectors_on_edges(space, axis):
    nodes = AXES[axis]
    spec = declared(nodes, space, ORDERS[0])
    p = ps.Learned(DefaultNet(spec, nodes * space), nodes * space, noise="input")
    phi = ps.symmetrize(OnEdges(), spec, OUTPUT(nodes, space), p).double().eval()
    for bonds in BONDS.values():
        call = {"pos": POS, "bonds": bonds, "contacts": CONTACTS, "v": vectors(CONTACTS), "batch": BATCH}
        assert close(phi(**call, generator=seeded()), OnEdges()(**call))


def test_a_part_of_the_batch_keeps_its_own_edges():
    nodes, space = AXES["S"], SPACES[0]
    for bonds in BONDS.values():
        call = {"pos": POS, "bonds": bonds, "contacts": CONTACTS, "v": vectors(CONTACTS), "batch": BATCH}
        x = Inputs.bind(declared(nodes, space, ORDERS[0]), (), call)
        for b in (0, 1):
            part = x.select(torch.arange(2) == b).kwargs
            start = 3 * b
            mine = BATCH[bonds[0]] == b
            assert torch.equal(part["bonds"], bonds[:, mine] - start)
            mine = BATCH[CONTACTS[0]] == b
            assert torch.equal(part["contacts"], CONTACTS[:, mine] - start)
            assert torch.equal(part["v"], vectors(CONTACTS)[mine])


def test_named_edges_are_saved(tmp_path):
    nodes, space = AXES["S"], SPACES[0]
    spec = {**declared(nodes, space, ORDERS[0]), "v": ps.Rep(nodes.edges_of("contacts"), space)}
    phi = ps.symmetrize(OnEdges(), spec, OUTPUT(nodes, space), "haar")
    ps.save(phi, tmp_path)
    again = ps.load(tmp_path, model=OnEdges())
    assert again.inputs == phi.inputs
    assert again.output == phi.output
    assert repr(again.inputs["v"].slots[0]) == "S('nodes', batch='batch').edges_of('contacts')"
