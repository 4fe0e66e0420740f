"""Base models of graphs of different sizes: their formulas, graph by graph and dense; padding; half precision."""

import math

import pytest
import torch
from torch import Tensor

from probsym_experiments.models import IdentifiedGNN, WalkTransformer
from probsym_experiments.models.packed_gnn import PackedGNN, Smooth
from probsym_experiments.models.walk_transformer import FAR, WalkBlock


def graph(n: int, channels: int = 1) -> tuple[Tensor, Tensor]:
    """Features (n, 3) and symmetric links (n, n, C), each link of one kind."""
    kind = torch.randint(channels + 1, (n, n)).triu(1)
    edge = torch.nn.functional.one_hot(kind + kind.T, channels + 1)[..., 1:].double()
    return torch.randn(n, 3, dtype=torch.float64), edge


def padded(graphs: list[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor, Tensor]:
    largest = max(len(x) for x, _ in graphs)
    x = torch.stack([torch.nn.functional.pad(x, (0, 0, 0, largest - len(x))) for x, _ in graphs])
    gaps = [(0, 0, 0, largest - len(x), 0, largest - len(x)) for x, _ in graphs]
    edge = torch.stack([torch.nn.functional.pad(e, gap) for (_, e), gap in zip(graphs, gaps, strict=True)])
    return x, edge, torch.stack([torch.arange(largest) < len(x) for x, _ in graphs])


def packed(graphs: list[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    sizes = torch.tensor([len(x) for x, _ in graphs])
    index = [edge.any(-1).nonzero().T for _, edge in graphs]
    bonds = torch.cat([edge[i, j] for (_, edge), (i, j) in zip(graphs, index, strict=True)])
    link = torch.cat([i + start for i, start in zip(index, sizes.cumsum(0) - sizes, strict=True)], 1)
    batch = torch.arange(len(graphs)).repeat_interleave(sizes)
    return torch.cat([x for x, _ in graphs]), link, bonds, batch, sizes[:, None].double()


def test_a_walk_block_is_attention_with_a_bias_of_pairs() -> None:
    torch.manual_seed(0)
    block, h, pairs = WalkBlock(8, 2, 2, 3).double(), torch.randn(2, 5, 8).double(), torch.randn(2, 4, 25).double()
    pairs[:, 0] = 0
    pairs[0, 0].view(5, 5)[:, 3:] = 1  # the first graph has three nodes
    bias = pairs[:, 0].view(2, 1, 5, 5) * FAR + torch.einsum("hp,rpm->rhm", block.bias, pairs[:, 1:]).view(2, 2, 5, 5)
    q, k, v = (t.unflatten(-1, (2, 4)).movedim(2, 1) for t in block.qkv(block.before_attention(h)).chunk(3, -1))
    read = (q @ k.mT / math.sqrt(4) + bias).softmax(-1) @ v
    wanted = h + block.out(read.movedim(1, 2).flatten(2))
    torch.testing.assert_close(block(h, pairs), wanted + block.mlp(block.before_mlp(wanted)))


@pytest.mark.parametrize("pooled", [False, True])
def test_walk_transformer_sees_neither_padding_nor_other_graphs(pooled: bool) -> None:
    torch.manual_seed(0)
    graphs = [graph(n, 2) for n in (6, 1, 4)]
    net = WalkTransformer(7, 3, 2, 2, width=8, layers=2, heads=2, pooled=pooled).double()
    together = net(*padded(graphs))
    for row, (x, edge) in zip(together, graphs, strict=True):
        alone = net(x[None], edge[None])[0]
        torch.testing.assert_close(row if pooled else row[: len(x)], alone)
        assert pooled or not row[len(x) :].any()


def test_only_places_break_the_symmetry_of_a_walk_transformer() -> None:
    torch.manual_seed(0)
    net, (x, edge) = WalkTransformer(7, 3, 1, 2, width=8, layers=2, heads=2).double(), graph(6)
    g = torch.tensor([2, 0, 1, 5, 3, 4])

    def moved() -> tuple[Tensor, Tensor]:
        return net(x[None], edge[None])[0, g], net(x[g][None], edge[g][:, g][None])[0]

    assert not torch.allclose(*moved())
    with torch.no_grad():
        net.rows.zero_()
        net.position.zero_()
    torch.testing.assert_close(*moved())


def test_packed_gnn_is_its_dense_formula() -> None:
    torch.manual_seed(0)
    graphs, net = [graph(n, 2) for n in (5, 1, 3)], PackedGNN(3, 2, width=8, layers=3).double()
    found = net(*packed(graphs)[:3]).split([5, 1, 3])
    for part, (x, edge) in zip(found, graphs, strict=True):
        link = edge.any(-1).double() + torch.eye(len(x))
        s = link / (link.sum(0) * link.sum(1, keepdim=True)).sqrt()
        h, kinds = net.embed(x), net.kinds((s[..., None] * edge).sum(1)).chunk(3, -1)
        for linear, norm, kind in zip(net.maps, net.norms, kinds, strict=True):
            h = h + norm(linear(s @ h) + kind).relu()
        torch.testing.assert_close(part, h)


def test_the_gradient_of_smoothing_is_that_of_its_matrix() -> None:
    s = torch.tensor([[1.0, 2.0, 0.0], [2.0, 0.0, 3.0], [0.0, 3.0, 5.0]]).double()
    row, source = s.nonzero().T
    starts = torch.bincount(row).cumsum(0) - torch.bincount(row)
    h = torch.randn(3, 2, dtype=torch.float64, requires_grad=True)
    torch.testing.assert_close(Smooth.apply(h, source, starts, s[row, source]), s @ h)
    assert torch.autograd.gradcheck(lambda h: Smooth.apply(h, source, starts, s[row, source]), h)


@pytest.mark.parametrize("wide", [False, True], ids=["as on a CPU", "layer norms in float32, as on a GPU"])
def test_identified_gnn_in_half_precision(wide: bool) -> None:
    """Products in bfloat16, sums over hundreds of nodes not: errors stay those of one rounding."""
    torch.manual_seed(0)
    net = IdentifiedGNN(300, 3, 2, 4, width=16, layers=3)
    inputs = [t.float() if t.is_floating_point() else t for t in packed([graph(n, 2) for n in (300, 1)])]
    exact = net(*inputs)
    for norm in net.gnn.norms if wide else ():
        norm.register_forward_hook(lambda module, given, out: out.float())
    with torch.autocast("cpu", torch.bfloat16):
        assert net.gnn(torch.cat([inputs[0], torch.zeros(301, 16)], 1), *inputs[1:3]).dtype == torch.float32
        found = net(*inputs)
    found.float().square().sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in net.parameters())
    assert (found - exact).abs().max() < 0.03 * exact.abs().max()
