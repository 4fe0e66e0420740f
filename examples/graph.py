"""Graph classification on ragged PyG batches: an MLP and a GNN, made permutation invariant without padding by hand."""

import torch
from torch import Tensor, nn
from torch_geometric.data import Batch, Data
from torch_geometric.nn import GINConv, global_add_pool

import probsym as ps

torch.manual_seed(0)


class EdgeMLP(nn.Module):
    """Reads the number of each node, so it is not permutation invariant: an MLP on numbered edges, summed a graph."""

    def __init__(self, largest: int = 16) -> None:
        super().__init__()
        self.node = nn.Embedding(largest, 32)
        self.net = nn.Sequential(nn.Linear(64, 64), nn.SiLU(), nn.Linear(64, 2))

    def forward(self, data: Data) -> Tensor:
        number = self.node(torch.arange(data.num_nodes) - data.ptr[data.batch])
        start, end = data.edge_index
        messages = self.net(torch.cat([number[start], number[end]], -1))
        return global_add_pool(messages, data.batch[start], size=data.num_graphs) / 8


class NumberedGIN(nn.Module):
    """A GNN with node identifiers: more expressive than a GNN, no longer equivariant."""

    def __init__(self, largest: int = 16) -> None:
        super().__init__()
        self.node = nn.Embedding(largest, 32)
        self.conv = GINConv(nn.Sequential(nn.Linear(32, 64), nn.SiLU(), nn.Linear(64, 2)))

    def forward(self, data: Data) -> Tensor:
        number = self.node(torch.arange(data.num_nodes) - data.ptr[data.batch])
        return global_add_pool(self.conv(number, data.edge_index), data.batch, size=data.num_graphs) / 8


def graph(rings: int) -> Data:
    """One ring of 6 to 10 nodes, or two rings of the same size in all: what message passing cannot tell apart."""
    n = 2 * int(torch.randint(3, 6, ()))
    node = torch.arange(n)
    size = n // rings
    after = node // size * size + (node % size + 1) % size
    shuffle = torch.randperm(n)
    edges = shuffle[torch.stack([torch.cat([node, after]), torch.cat([after, node])])]
    return Data(x=torch.ones(n, 1), edge_index=edges, y=torch.tensor([rings - 1]), num_nodes=n)


nodes = ps.S("nodes", batch="batch")
for model in (EdgeMLP(), NumberedGIN()):
    declared = ({"x": ps.Rep(nodes), "edge_index": nodes.labels},)
    batch = Batch.from_data_list([graph(1 + i % 2) for i in range(64)])
    phi = ps.symmetrize(model, inputs=declared, output=ps.Rep(), example=batch, eval_samples=20)
    optimizer = torch.optim.Adam(phi.parameters(), lr=3e-3)
    for _ in range(100):
        batch = Batch.from_data_list([graph(1 + i % 2) for i in range(64)])
        loss = nn.functional.cross_entropy(phi(batch), batch.y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    report = ps.testing.equivariance_error(phi.eval(), (batch,), generator=torch.Generator().manual_seed(0))
    accuracy = (phi(batch).argmax(-1) == batch.y).float().mean()
    print(f"{type(model).__name__}: accuracy {accuracy:.2f}, {report}")
    assert report.passed
