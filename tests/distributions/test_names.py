"""What a name stands for, by the kind of group: a builder for one kind, the product where kinds differ."""

from dataclasses import dataclass
from typing import ClassVar

import pytest
import torch
from torch import nn

import probsym as ps
from probsym.distributions import BY_KIND, Canonical, ProductDistribution, by_name, stands_for
from probsym.groups import FiniteGroup, Slot
from probsym.groups.permutation import Permutation
from probsym.kernels.gathers import gather_nodes
from probsym.testing import assert_equivariant


@dataclass(frozen=True)
class Ends(Slot):
    sizes = (2,)

    def act(self, g, x, axis, shared_dims):
        return gather_nodes(x, g.index, axis, shared_dims)


@dataclass(frozen=True)
class Flip(FiniteGroup[Permutation]):
    """A group of a reader's own, of a kind of its own."""

    name: str | None = None
    feature_kind: ClassVar[str] = "tests/flip"

    @property
    def defining(self):
        return Ends(self)

    def elements(self, device=None):
        return Permutation(self, torch.tensor([[0, 1], [1, 0]], device=device))

    def compose(self, g, h):
        first, second = torch.broadcast_tensors(h.index, g.index)
        return Permutation(self, first.gather(-1, second))


def canonical(spec, group):
    return Canonical(nn.Identity(), group)


@pytest.fixture(autouse=True)
def named():
    """The table as it was before."""
    before = dict(BY_KIND)
    yield
    BY_KIND.clear()
    BY_KIND.update(before)


def test_a_group_gets_what_the_name_stands_for_on_its_kind():
    flip = Flip()
    with pytest.raises(ValueError, match="no default net orients by"):
        by_name("learned", ps.Rep(flip), flip)
    assert stands_for("learned", "tests/flip")(canonical) is canonical
    phi = ps.symmetrize(nn.Linear(2, 2).double(), ps.Rep(flip), ps.Rep(flip), "learned").eval()
    assert isinstance(phi.distribution, Canonical)
    assert_equivariant(phi, torch.randn(4, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64))
    with pytest.raises(ValueError, match="no default net orients by"):
        by_name("canonical", ps.Rep(flip), flip)  # a name that was not told for this kind


def test_factors_of_other_kinds_keep_theirs():
    stands_for("learned", "tests/flip")(canonical)
    nodes, fixed, flip = ps.S("nodes"), ps.Axis("fixed"), Flip()
    spec = {"a": ps.Rep(nodes, None), "b": ps.Rep(fixed), "c": ps.Rep(flip)}
    p = by_name("learned", spec, nodes * fixed * flip)
    assert isinstance(p, ProductDistribution)
    assert {type(part): part.group for part in p.members} == {Canonical: flip, ps.Learned: nodes * fixed}
    alone = by_name("learned", {"b": ps.Rep(fixed), "c": ps.Rep(flip)}, fixed * flip)
    assert isinstance(alone, Canonical)
    assert alone.group == flip
    plain = by_name("learned", {"a": ps.Rep(nodes, None), "b": ps.Rep(fixed)}, nodes * fixed)
    assert isinstance(plain, ps.Learned)


def test_a_name_is_not_taken_twice():
    stands_for("learned", "tests/flip")(canonical)
    stands_for("learned", "tests/flip")(canonical)
    with pytest.raises(ValueError, match=r"stands for .*canonical already"):
        stands_for("learned", "tests/flip")(lambda spec, group: ps.Haar(group))
    with pytest.raises(ValueError, match="name: expected one of"):
        stands_for("best", "tests/flip")
