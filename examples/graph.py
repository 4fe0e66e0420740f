"""Graph classification on ragged PyG batches: an MLP and a GNN, made permutation invariant without padding by hand."""

import torch
from torch import Tensor, nn
from torch_geometric.data import Batch, Data
from torch_geometric.nn import GINConv, global_add_pool

import probsym as ps

torch.manual_seed(0)


class EdgeMLP(nn.Module):
    """Reads the number of each node, so it is not permutation invariant: an MLP on the sum of numbered edges."""

    def __init__(self, largest: int = 16) -> None:
        super().__init__()
        self.node = nn.Embedding(largest, 32)
        self.edge, self.graph = (
            nn.Linear(64, 64),
            nn.Sequential(nn.SiLU(), nn.Linear(64, 64), nn.SiLU(), nn.Linear(64, 2)),
        )

    def forward(self, data: Data) -> Tensor:
        number = self.node(torch.arange(data.num_nodes) - data.ptr[data.batch])
        start, end = data.edge_index
        edges = self.edge(torch.cat([number[start], number[end]], -1))
        return self.graph(global_add_pool(edges, data.batch[start], size=data.num_graphs) / 4)


class NumberedGIN(nn.Module):
    """A GNN with node identifiers: more expressive than a GNN, no longer equivariant."""

    def __init__(self, largest: int = 16) -> None:
        super().__init__()
        self.node = nn.Embedding(largest, 32)
        self.conv = GINConv(nn.Sequential(nn.Linear(32, 64), nn.SiLU(), nn.Linear(64, 2)))

    def forward(self, data: Data) -> Tensor:
        number = self.node(torch.arange(data.num_nodes) - data.ptr[data.batch])
        return global_add_pool(self.conv(number, data.edge_index), data.batch, size=data.num_graphs) / 8


def graph(label: int) -> Data:
    """A ring (0) or a star (1) of 6 to 10 nodes, numbered at random."""
    n = int(torch.randint(6, 11, ()))
    node = torch.arange(n)
    other = (node + 1) % n if label == 0 else torch.zeros(n, dtype=torch.long)
    edges = torch.randperm(n)[torch.stack([torch.cat([node, other]), torch.cat([other, node])])]
    return Data(x=torch.ones(n, 1), edge_index=edges, y=torch.tensor([label]))


nodes = ps.S("nodes", batch="batch")
for model in (EdgeMLP(), NumberedGIN()):
    declared = ({"x": ps.Rep(nodes), "edge_index": nodes.labels},)
    batch = Batch.from_data_list([graph(i % 2) for i in range(64)])
    phi = ps.symmetrize(model, inputs=declared, output=ps.Rep(), example=batch, eval_samples=20)
    optimizer = torch.optim.Adam(phi.parameters(), lr=3e-3)
    for _ in range(100):
        batch = Batch.from_data_list([graph(i % 2) for i in range(64)])
        loss = nn.functional.cross_entropy(phi(batch), batch.y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    report = ps.testing.equivariance_error(phi.eval(), (batch,), generator=torch.Generator().manual_seed(0))
    accuracy = (phi(batch).argmax(-1) == batch.y).float().mean()
    print(f"{type(model).__name__}: accuracy {accuracy:.2f}, {report}")
    assert report.passed
    assert accuracy > 0.9
