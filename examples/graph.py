"""Graph classification on ragged PyG batches: an MLP and a GNN, made permutation invariant without padding by hand."""

import torch
from torch import Tensor, nn
from torch_geometric.data import Batch, Data
from torch_geometric.nn import MLP, GINConv, global_add_pool

import probsym as ps


class Numbered(nn.Module):
    """Embeds the number of each node in its graph: expressive, and not equivariant."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.number = nn.Embedding(16, 32)
        self.net = net

    def embedded(self, data: Data) -> Tensor:
        first_node = data.ptr[data.batch]
        return self.number(torch.arange(data.num_nodes) - first_node)


class EdgeMLP(Numbered):
    def forward(self, data: Data) -> Tensor:
        both_ends = self.embedded(data)[data.edge_index.T].flatten(1)
        edges = self.net(both_ends)
        graph_of_edge = data.batch[data.edge_index[0]]
        return global_add_pool(edges, graph_of_edge, size=data.num_graphs) / 8


class NumberedGIN(Numbered):
    def forward(self, data: Data) -> Tensor:
        nodes = self.net(self.embedded(data), data.edge_index)
        return global_add_pool(nodes, data.batch, size=data.num_graphs) / 8


def graphs() -> Batch:
    """Rings (label 0) and stars (1) of 6 to 10 nodes, numbered at random."""
    graphs = []
    for label in [0, 1] * 32:
        node = torch.randperm(int(torch.randint(6, 11, ())))
        if label == 0:
            neighbour = node.roll(1)
        else:
            neighbour = node[:1].expand_as(node)
        edges = torch.stack([torch.cat([node, neighbour]), torch.cat([neighbour, node])])
        graphs.append(Data(x=torch.ones(len(node), 1), edge_index=edges, y=torch.tensor([label])))
    return Batch.from_data_list(graphs)


torch.manual_seed(0)
nodes = ps.S("nodes", batch="batch")
mlp = EdgeMLP(MLP([64, 64, 2], norm=None))
gin = NumberedGIN(GINConv(MLP([32, 64, 2], norm=None)))
for model in (mlp, gin):
    data = {"x": ps.Rep(nodes), "edge_index": nodes.labels}
    phi = ps.symmetrize(model, inputs=(data,), output=ps.Rep(), example=graphs(), eval_samples=20)
    optimizer = torch.optim.Adam(phi.parameters(), lr=3e-3)
    for _ in range(100):
        batch = graphs()
        optimizer.zero_grad()
        nn.functional.cross_entropy(phi(batch), batch.y).backward()
        optimizer.step()
    report = ps.testing.equivariance_error(phi.eval(), (batch,))
    accuracy = (phi(batch).argmax(-1) == batch.y).float().mean().item()
    print(f"{type(model).__name__}: accuracy {accuracy:.2f}, {report}")
    assert report.passed
    assert accuracy > 0.9
