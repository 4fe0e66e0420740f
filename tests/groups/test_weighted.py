"""Elements with weights: what keeps them, and that samples are multiplied by them."""

import torch
from torch import nn

import probsym as ps
from cases import randn, seeded


def test_weights_travel_with_the_elements():
    space, turns = ps.O(2), ps.C(4)
    weight = torch.tensor([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]])
    g = space.haar((3, 2), generator=seeded()).weighted(weight)
    h = turns.haar((3, 2), generator=seeded())
    assert g.weighted(None) is g
    assert torch.equal((g @ g).weight, weight**2)
    assert torch.equal((g @ g[space]).weight, weight)
    assert torch.equal((g[space] @ g).weight, weight)
    assert torch.equal((space * turns).join(g, h).weight, weight)
    assert torch.equal((space * turns).join(g, h.weighted(weight)).weight, weight**2)
    assert torch.equal(space.join(g, g[space]).weight, weight)
    assert torch.equal(g.select(slice(1, 3)).weight, weight[1:])
    assert g.select(slice(0, 1)).repeat(4).weight.shape == (4, 2)
    assert g.inverse().weight is None
    assert g[space].weight is None
    assert torch.allclose((g @ g.inverse())[space].matrix, torch.eye(2).expand(3, 2, 2, 2), atol=1e-6)


def test_samples_are_multiplied():
    """An importance weight in every output; integers, which are not averaged, stay."""
    space = ps.O(2)

    class Model(nn.Module):
        def forward(self, x):
            return {"y": x.square(), "z": x * 1j, "n": torch.ones(len(x), dtype=torch.long)}

    x = randn(2, 2)
    output = {"y": ps.Rep(), "z": ps.Rep(), "n": ps.Rep()}
    phi = ps.symmetrize(Model(), ps.Rep(space), output, "haar")
    bound = phi.bind((x,), {})
    g = space.haar((3, 2), generator=seeded(), dtype=torch.float64)
    weight = randn(3, 2)
    orbit = ps.symmetrizer.Orbit(phi.model, phi.orbit.outputs, averaged=False)
    plain, weighted = orbit(bound, g).tensors, orbit(bound, g.weighted(weight)).tensors
    assert torch.equal(weighted[0], weight[..., None] * plain[0])
    assert torch.equal(weighted[1], weight[..., None] * plain[1])
    assert torch.equal(weighted[2], plain[2])
