"""One protocol for every group; nothing public may be left out of it."""

import inspect

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import probsym as ps
from probsym.groups import Group, IsometryGroup, Product
from probsym.reps import FAMILIES, NodeAxis
from probsym.testing import assert_group

NODE = [family for family in FAMILIES if issubclass(family, NodeAxis)]
POLYHEDRAL = (ps.Tetrahedral, ps.Octahedral, ps.Icosahedral)
LINEAR = [family for family in FAMILIES if issubclass(family, IsometryGroup)]


@pytest.mark.parametrize("d", [1, 2, 3, 4])
@pytest.mark.parametrize("family", LINEAR)
def test_linear_families(family, d):
    assert_group(family(d))
    assert_group(family(d, "space"))


@pytest.mark.parametrize("n", [0, 1, 2, 5])
@pytest.mark.parametrize("family", NODE)
def test_node_families(family, n):
    assert_group(family("nodes"), n=n)
    assert_group(family("nodes", size=n))


def test_s_of_a_number():
    assert ps.S(3) == ps.S(size=3)
    assert_group(ps.S(3))


@settings(max_examples=15, deadline=None, derandomize=True)
@given(st.lists(st.tuples(st.sampled_from(FAMILIES), st.integers(1, 3)), min_size=1, max_size=3))
def test_products(parts):
    groups = []
    for i, (family, d) in enumerate(parts):
        if issubclass(family, NodeAxis):
            groups.append(family(f"axis{i}"))
        elif family in (ps.C, ps.D):
            groups.append(family(2 ** (d - 1), f"space{i}"))
        elif family in POLYHEDRAL or family is ps.Lorentz:
            groups.append(family(name=f"space{i}"))
        else:
            groups.append(family(d, f"space{i}"))
    total = groups[0]
    for group in groups[1:]:
        total = total * group
    assert set(total.factors) == set(groups)
    assert_group(total, n=parts[0][1])


def test_products_are_flat_and_commute():
    a, b, c = ps.S("a"), ps.O(3, "b"), ps.SE(2, "c")
    assert (a * b) * c == c * (b * a)
    assert all(not isinstance(f, Product) for f in (a * (b * c)).factors)
    assert hash((a * b) * c) == hash(c * (b * a))


def test_every_public_group_is_registered():
    public = {
        c
        for module in (ps.groups, ps.reps)
        for c in vars(module).values()
        if inspect.isclass(c) and issubclass(c, Group) and not inspect.isabstract(c)
    }
    assert public == set(FAMILIES) | {Product}
    assert {c for c in vars(ps).values() if inspect.isclass(c) and issubclass(c, Group)} <= set(FAMILIES) | {Group}


@pytest.mark.parametrize("group", [ps.E(3), ps.SE(2), ps.S("n") * ps.E(1)])
def test_haar_of_a_group_that_is_not_compact(group):
    with pytest.raises(ValueError, match=r"not compact.*origin='centroid'"):
        group.haar((2,), n=3)


def test_elements_of_other_groups_do_not_compose():
    with pytest.raises(ValueError, match="cannot compose"):
        ps.O(3).haar((2,)) @ ps.SO(3).haar((2,))
    with pytest.raises(KeyError, match="not a factor"):
        ps.O(3).haar((2,))[ps.O(2)]
    with pytest.raises(ValueError, match="occurs twice"):
        ps.O(3) * ps.O(3)


@pytest.mark.parametrize(
    "make",
    [lambda: ps.O(0), lambda: ps.E(2.0), lambda: ps.SO(True), lambda: ps.S("n", mask="m", batch="b"), lambda: ps.S(-1)],
)
def test_bad_arguments(make):
    with pytest.raises(ValueError, match=r"integer of at least [01]|not both"):
        make()


def test_size_must_come_from_somewhere():
    with pytest.raises(ValueError, match="does not know its size"):
        ps.S("nodes").haar((2,))


@pytest.mark.parametrize("slot", ["vector", "det"])
def test_missing_slots_say_so(slot):
    with pytest.raises(TypeError, match="slot of O, SO, E and SE"):
        getattr(ps.S("nodes"), slot)
    with pytest.raises(TypeError, match="slot of S and Axis"):
        _ = ps.O(3).labels


def test_identity_leaves_far_points_alone():
    """Two origins rather than one translation: a frame at 1e8 keeps the digits of what it centres."""
    g = ps.E(3).project((torch.full((3,), 1e8), torch.randn(3, 3)), torch.randn(3, 3))
    x = torch.full((5, 3), 1e8) + torch.arange(5)[:, None] * 8
    local = ps.Rep(None, ps.E(3)).act(g.inverse(), x, 0)
    assert torch.allclose(local.norm(dim=1), (x - 1e8).norm(dim=1), atol=1e-4)
    assert torch.equal(ps.Rep(None, ps.E(3)).act(g, local, 0), x)


@pytest.mark.parametrize(
    "index", [torch.tensor([2, 0, 2, 1]), torch.tensor([True, False, True]), slice(1, 3), 0], ids=str
)
def test_elements_of_an_axis_are_selected_like_tensors(index):
    group = ps.Axis("n")
    element = group.identity((3, 2), n=5)
    assert element.select(index).shape == tuple(torch.empty(3, 2)[index].shape)
    assert element.select(index).layout is element.layout
