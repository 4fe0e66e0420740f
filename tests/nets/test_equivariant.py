"""The nets that feed `project`: exact equivariance, masks, degenerate inputs, and that every input counts."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from probsym.nets import GIN, DeepSets, InvariantWeights, MomentWeights

B, N, D, F, C, P = 3, 6, 3, 2, 2, 2
Inputs = dict[str, Tensor]
NODE_AXES = {"nodes": 1, "scalars": 1, "vectors": 1, "pairs": 2, "mask": 1}  # how many node axes each input has

# name: (make the net, the inputs it takes)
NETS: dict[str, tuple[Callable[[], nn.Module], tuple[str, ...]]] = {
    "gin": (lambda: GIN(16), ("nodes", "pairs")),
    "gin-wide": (lambda: GIN(16, out_features=4), ("nodes", "pairs")),
    "gin-nodes": (lambda: GIN(16), ("nodes",)),
    "gin-pairs": (lambda: GIN(16), ("pairs",)),
    "gin-mean": (lambda: GIN(16, pooling="mean"), ("nodes", "pairs")),
    "gin-mean-nodes": (lambda: GIN(16, pooling="mean"), ("nodes",)),
    "gin-mean-pairs": (lambda: GIN(16, pooling="mean"), ("pairs",)),
    "deepsets": (lambda: DeepSets(16), ("nodes",)),
    "vector": (lambda: InvariantWeights(16), ("vectors",)),
    "vector-scalars": (lambda: InvariantWeights(16), ("vectors", "scalars")),
    "vector-pairs": (lambda: InvariantWeights(16), ("vectors", "pairs")),
    "vector-all": (lambda: InvariantWeights(16, columns=5), ("vectors", "scalars", "pairs")),
    "vector-moments": (lambda: MomentWeights(16), ("vectors",)),
    "vector-moments-all": (lambda: MomentWeights(16, columns=5), ("vectors", "scalars")),
}
VECTOR = [name for name in NETS if name.startswith("vector")]
every_net = pytest.mark.parametrize("name", NETS)


def draw(names: tuple[str, ...], n: int = N, d: int = D, b: int = B, dtype: torch.dtype = torch.float64) -> Inputs:
    shapes = {"nodes": (b, n, F), "scalars": (b, n, F), "vectors": (b, n, d, C), "pairs": (b, n, n, P)}
    return {name: torch.randn(shapes[name], dtype=dtype) for name in names}


def build(name: str, dtype: torch.dtype = torch.float64) -> tuple[nn.Module, Inputs]:
    torch.manual_seed(sum(map(ord, name)))
    make, names = NETS[name]
    net, inputs = make().to(dtype), draw(names, dtype=dtype)
    call(net, inputs)
    return net, inputs


def call(net: nn.Module, inputs: Inputs) -> tuple[Tensor, ...]:
    """Every output, the ones that follow the nodes first."""
    if isinstance(net, GIN):
        inputs = {"nodes": None, "pairs": None} | inputs  # type: ignore[assignment]
    out = net(**inputs)
    return out if isinstance(out, tuple) else (out,)


def permute(inputs: Inputs, order: Tensor) -> Inputs:
    return {k: x[:, order][:, :, order] if NODE_AXES[k] == 2 else x[:, order] for k, x in inputs.items()}


def rotate(inputs: Inputs, q: Tensor) -> Inputs:
    return inputs | {"vectors": torch.einsum("de,bnec->bndc", q, inputs["vectors"])}


def orthogonal(d: int, det: int) -> Tensor:
    q = torch.linalg.qr(torch.randn(d, d, dtype=torch.float64))[0]
    return q @ torch.diag(torch.tensor([det * q.det().sign(), *[1.0] * (d - 1)], dtype=q.dtype))


def pad(inputs: Inputs, extra: int, junk: float) -> Inputs:
    padded = {}
    for k, x in inputs.items():
        shape = list(x.shape)
        for axis in range(1, 1 + NODE_AXES[k]):
            shape[axis] += extra
        padded[k] = torch.full(shape, junk, dtype=x.dtype)
        padded[k][tuple(slice(s) for s in x.shape)] = x
    b, n = next(iter(inputs.values())).shape[:2]
    return padded | {"mask": (torch.arange(n + extra) < n).expand(b, -1)}


def permutation_error(net: nn.Module, inputs: Inputs) -> float:
    order = torch.randperm(N)
    (y, *shared), (z, *same) = call(net, inputs), call(net, permute(inputs, order))
    return max((a - b).abs().max().item() for a, b in zip([y[:, order], *shared], [z, *same], strict=True))


def rotation_error(net: nn.Module, inputs: Inputs, q: Tensor) -> float:
    (scores, frame), (turned_scores, turned) = call(net, inputs), call(net, rotate(inputs, q))
    return max((turned_scores - scores).abs().max().item(), (turned - q @ frame).abs().max().item())


@every_net
def test_permutations(name: str) -> None:
    net, inputs = build(name)
    assert max(permutation_error(net, inputs) for _ in range(5)) <= 1e-10


@pytest.mark.parametrize("name", VECTOR)
@pytest.mark.parametrize("det", [1, -1])
def test_orthogonal_maps(name: str, det: int) -> None:
    net, inputs = build(name)
    assert rotation_error(net, inputs, orthogonal(D, det)) <= 1e-10


@pytest.mark.parametrize("d", [1, 2, 4, 7])
def test_any_dimension(d: int) -> None:
    net, inputs = InvariantWeights(8).double(), draw(("vectors", "pairs"), d=d)
    assert call(net, inputs)[1].shape == (B, d, d)
    assert rotation_error(net, inputs, orthogonal(d, -1)) <= 1e-10


class Indexed(nn.Module):
    """Negative control: tells nodes by their index and axes by theirs."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, **inputs: Tensor) -> tuple[Tensor, ...]:
        (y, *rest) = call(self.net, inputs)
        ramp = torch.arange(y.shape[1], dtype=y.dtype).view(1, -1, *[1] * (y.ndim - 2))
        return (y + 1e-3 * ramp, *(f + 1e-3 * torch.arange(f.shape[1], dtype=f.dtype)[:, None] for f in rest))


@every_net
def test_the_checks_reject_an_indexed_net(name: str) -> None:
    net, inputs = build(name)
    assert max(permutation_error(Indexed(net), inputs) for _ in range(5)) > 1e-4
    if name in VECTOR:
        assert rotation_error(Indexed(net), inputs, orthogonal(D, 1)) > 1e-5


@every_net
@pytest.mark.parametrize("junk", [0.0, 1e3, float("nan")])
def test_padding_changes_nothing(name: str, junk: float) -> None:
    net, inputs = build(name)
    (y, *shared), (z, *same) = call(net, inputs), call(net, pad(inputs, 3, junk))
    torch.testing.assert_close(z[:, :N], y, rtol=0, atol=1e-10)
    assert (z[:, N:] == 0).all()
    torch.testing.assert_close(same, shared, rtol=0, atol=1e-10)


@every_net
def test_neighbours_in_the_batch_do_not_matter(name: str) -> None:
    net, inputs = build(name)
    mask = torch.arange(N) < torch.tensor([[N], [2], [0]])
    whole = call(net, inputs | {"mask": mask})
    for b, n in enumerate(mask.sum(1).tolist()):
        row = {k: x[b : b + 1, :n] for k, x in inputs.items()}
        alone = call(net, {k: x[:, :, :n] if NODE_AXES[k] == 2 else x for k, x in row.items()})
        torch.testing.assert_close(whole[0][b : b + 1, :n], alone[0], rtol=0, atol=1e-10)
        torch.testing.assert_close([f[b : b + 1] for f in whole[1:]], list(alone[1:]), rtol=0, atol=1e-10)


def finite_gradients(net: nn.Module, inputs: Inputs) -> bool:
    inputs = {k: x if k == "mask" else x.clone().requires_grad_() for k, x in inputs.items()}
    outputs = call(net, inputs)
    leaves = [*net.parameters(), *(x for k, x in inputs.items() if k != "mask")]
    grads = torch.autograd.grad(sum(y.square().sum() + y.sum() for y in outputs), leaves, allow_unused=True)
    return all(t.isfinite().all().item() for t in [*outputs, *grads] if t is not None)


@every_net
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_finite_everywhere(name: str, dtype: torch.dtype) -> None:
    net, inputs = build(name, dtype)
    zeros = {k: torch.zeros_like(x) for k, x in inputs.items()}
    cases = [inputs, zeros, {k: torch.ones_like(x) for k, x in inputs.items()}]
    cases += [draw(NETS[name][1], n=n, dtype=dtype) for n in (0, 1, 2)]
    cases += [inputs | {"mask": torch.zeros(B, N, dtype=torch.bool)}, draw(NETS[name][1], b=0, dtype=dtype)]
    assert all(finite_gradients(net, case) for case in cases)
    assert all(y.dtype == dtype for y in call(net, inputs))


@every_net
def test_first_call_may_be_empty(name: str) -> None:
    make, names = NETS[name]
    net = make().double()
    call(net, draw(names, n=0))
    assert permutation_error(net, draw(names)) <= 1e-10


@every_net
def test_every_input_and_every_parameter_counts(name: str) -> None:
    net, inputs = build(name)
    for k, x in inputs.items():
        changed = call(net, inputs | {k: torch.randn_like(x)})
        assert all((y - z).abs().max() > 1e-6 for y, z in zip(call(net, inputs), changed, strict=True)), k
    weights = [torch.randn_like(y) for y in call(net, inputs)]
    sum((w * y).sum() for w, y in zip(weights, call(net, inputs), strict=True)).backward()
    assert not [n for n, p in net.named_parameters() if p.grad is None or (p.grad == 0).all()]


@every_net
def test_nothing_is_constant_over_nodes(name: str) -> None:
    net, inputs = build(name)
    assert call(net, inputs)[0].std(1).min() > 1e-4


def test_pairs_without_channels_are_one_channel() -> None:
    torch.manual_seed(0)
    adjacency, v = torch.rand(B, N, N), torch.randn(B, N, D, C)
    gin, vector = GIN(8), InvariantWeights(8)
    torch.testing.assert_close(gin(None, adjacency), gin(None, adjacency[..., None]))
    torch.testing.assert_close(vector(v, pairs=adjacency), vector(v, pairs=adjacency[..., None]))


@pytest.mark.parametrize("name", ["gin-pairs", "gin-mean-pairs", "vector-pairs"])
def test_the_diagonal_of_pairs_counts(name: str) -> None:
    net, inputs = build(name)
    loops = inputs["pairs"] + torch.diag_embed(torch.randn(B, P, N, dtype=torch.float64)).movedim(1, 3)
    assert (call(net, inputs)[0] - call(net, inputs | {"pairs": loops})[0]).abs().max() > 1e-4


@pytest.mark.parametrize("pooling", ["virtual node", "mean"])
def test_gin_tells_graphs_by_their_edges(pooling: str) -> None:
    torch.manual_seed(0)
    path = torch.diag(torch.ones(4, dtype=torch.float64), 1)
    scores = GIN(8, pooling=pooling).double()(None, (path + path.T)[None])[0, :, 0]
    torch.testing.assert_close(scores, scores.flip(0))
    assert (scores[:3, None] - scores[None, :3]).abs()[~torch.eye(3, dtype=torch.bool)].min() > 1e-4


def test_wrong_arguments() -> None:
    with pytest.raises(ValueError, match="nodes"):
        GIN()(None, None)
    with pytest.raises(ValueError, match="pooling: expected one of mean, virtual node, got 'max'"):
        GIN(pooling="max")


@pytest.mark.parametrize("name", ["gin", "gin-mean", "deepsets", "vector-all"])
def test_gradcheck(name: str) -> None:
    net, inputs = build(name)
    small = {k: x[:1, :3, :3] if NODE_AXES[k] == 2 else x[:1, :3] for k, x in inputs.items()}
    names = list(small)
    leaves = [small[k].clone().requires_grad_() for k in names]

    def outputs(*xs: torch.Tensor) -> list[torch.Tensor]:
        """Scores as a sort reads them, by their differences: what all of a graph share has no derivative."""
        found = call(net, dict(zip(names, xs, strict=True)))
        parts = list(found) if isinstance(found, tuple) else [found]
        return [parts[0] - parts[0].mean(1, keepdim=True), *parts[1:]]

    assert torch.autograd.gradcheck(outputs, leaves)
    assert torch.autograd.gradgradcheck(outputs, leaves)


@pytest.mark.parametrize("kind", [torch.bfloat16, torch.float16])
def test_the_frame_survives_half_precision(kind: torch.dtype) -> None:
    torch.manual_seed(0)
    net, v = InvariantWeights(8), torch.randn(4, N, D, C)
    whole = net(v)[1]
    half = net.to(kind)(v.to(kind))[1].float()
    assert (half - whole).norm() < 0.2 * whole.norm()


class ByPosition(nn.Module):
    """A net as `export` takes it: tensors by position."""

    def __init__(self, net: nn.Module, names: tuple[str, ...]) -> None:
        super().__init__()
        self.net = net
        self.names = names

    def forward(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        return call(self.net, dict(zip(self.names, tensors, strict=True)))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["gin", "gin-mean", "gin-mean-pairs", "deepsets", "vector-all"])
def test_what_is_exported_holds_for_any_number_of_nodes(name: str) -> None:
    """No operation has the number of nodes of the example in it."""
    net, inputs = build(name)
    nodes = torch.export.Dim("nodes", min=2, max=100)
    shapes = tuple(dict.fromkeys(range(1, NODE_AXES[key] + 1), nodes) for key in inputs)
    program = torch.export.export(
        ByPosition(net, tuple(inputs)), tuple(inputs.values()), dynamic_shapes={"tensors": shapes}
    )
    more = draw(tuple(inputs), n=N + 3)
    for found, expected in zip(program.module()(*more.values()), call(net, more), strict=True):
        torch.testing.assert_close(found, expected)


def test_scores_of_many_nodes_fit_into_float16() -> None:
    """Their shift is a mean of sizes, and a sum would not fit."""
    net = GIN(8, layers=1, pooling="mean").half()
    pairs = torch.eye(300, dtype=torch.float16)[None]
    call(net, {"pairs": pairs})
    with torch.no_grad():
        net.head.weight.mul_(1e-2)
        net.layers[0].norm.weight.mul_(1_000)
    assert call(net, {"pairs": pairs})[0].isfinite().all()
