"""Polarizabilities of molecules, a symmetric 3 x 3 tensor: as irreps l = 0 and l = 2, or as a product of two vectors.

The target is the dipole-dipole polarizability of a cloud of point charges, which turns with the molecule. Seven numbers
say it all: one for the trace and five for the rest; e3nn's order, so that its models and data fit.
"""

import torch
from torch import nn

import probsym as ps

space = ps.O(3, "space")
inputs = {"pos": ps.Rep(None, space), "charge": ps.Rep(None)}
by_irreps = ps.Rep(space.irrep(0) + space.irrep(2))  # (B, 6)
by_product = ps.Rep(space.vector * space.vector)  # (B, 9)


def to_irreps(tensor):
    """Symmetric tensors (B, 3, 3) in the basis of e3nn: the trace, and xz, xy, 2 yy - xx - zz, yz, zz - xx."""
    xx, yy, zz = tensor.diagonal(dim1=-2, dim2=-1).unbind(-1)
    xy, xz, yz = tensor[:, 0, 1], tensor[:, 0, 2], tensor[:, 1, 2]
    root = 3**0.5
    rest = [root * xz, root * xy, yy - (xx + zz) / 2, root * yz, root / 2 * (zz - xx)]
    return torch.stack([xx + yy + zz, *rest], -1)


class Network(nn.Module):
    """Any network: numbers in, numbers out."""

    def __init__(self, out):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(20, 128), nn.SiLU(), nn.Linear(128, 128), nn.SiLU(), nn.Linear(128, out))

    def forward(self, pos, charge):
        return self.net(torch.cat([pos.flatten(1), charge], 1))


def molecules(count):
    """Five atoms each; polarizable charges screen one another."""
    pos = torch.randn(count, 5, 3)
    charge = torch.rand(count, 5)
    weight = charge * torch.exp(-pos.square().sum(-1) / 4)
    return {"pos": pos, "charge": charge}, torch.einsum("bn,bni,bnj->bij", weight, pos, pos)


# Irreps are another basis of the same tensors: changing the basis and turning commute.
x, tensor = molecules(4)
g = space.haar((4,), generator=torch.Generator().manual_seed(0))
turned = g.matrix @ tensor @ g.matrix.mT
assert torch.allclose(by_irreps.act(g, to_irreps(tensor)), to_irreps(turned), atol=1e-4)
assert torch.allclose(by_product.act(g, tensor.flatten(1)), turned.flatten(1), atol=1e-4)

torch.manual_seed(0)
test_x, test_tensor = molecules(1000)
train_x, train_tensor = molecules(1000)
for name, output, make in [("irreps", by_irreps, to_irreps), ("product", by_product, lambda t: t.flatten(1))]:
    size = output.slots[0].sizes[0]
    symmetrized = ps.symmetrize(Network(size), inputs, output, "frame")
    for kind, model in [("plain", Network(size)), ("symmetrized", symmetrized)]:
        optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
        for step in range(200):
            rows = torch.arange(100) + 100 * (step % 10)
            y = model(**{key: value[rows] for key, value in train_x.items()})
            optimizer.zero_grad()
            (y - make(train_tensor[rows])).square().mean().backward()
            optimizer.step()
        with torch.no_grad():
            error = (model.eval()(**test_x) - make(test_tensor)).square().mean() / make(test_tensor).var()
        print(f"{name}, {kind}: {error:.3f} of the variance is not explained")
    double = {key: value[:8].double() for key, value in test_x.items()}
    ps.testing.assert_equivariant(symmetrized.double(), double)
