"""Frames of generic inputs are those of the readable reference, to 1e-12 in float64."""

import pytest
import torch

import probsym as ps
from probsym.distributions import Frame
from probsym.distributions.frames import reference
from probsym.distributions.frames.views import view_inputs
from probsym.reps import Inputs, Rep

EQUAL = {"rtol": 0, "atol": 1e-12}
NODES = ps.S("nodes")


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def symmetric(n, seed=0):
    """A weighted graph without loops, whose nodes all differ."""
    a = normal(n, n, seed=seed)
    a = a + a.mT
    return a - torch.diag(a.diagonal())


class Net(torch.nn.Module):
    """An MLP on one flattened input of shape `seen`, with an output of shape `shape`: it sees order, axes and signs."""

    def __init__(self, seen, *shape):
        super().__init__()
        torch.manual_seed(0)
        self.shape = shape
        self.net = torch.nn.Sequential(
            torch.nn.Linear(seen.numel(), 24), torch.nn.Tanh(), torch.nn.Linear(24, torch.Size(shape).numel())
        ).to(seen.dtype)

    def forward(self, x):
        return self.net(x.flatten(1)).view(-1, *self.shape)


def largest_distance(left, right):
    """The largest distance of an element of one list of matrices (M, D, D) to the nearest of the other."""
    distance = torch.cdist(left.flatten(1), right.flatten(1))
    return max(distance.min(0).values.max().item(), distance.min(1).values.max().item())


@pytest.mark.parametrize("dim", [1, 2, 3, 4])
@pytest.mark.parametrize("family", [ps.O, ps.SO, ps.E, ps.SE])
@pytest.mark.parametrize("general", [False, True], ids=["usual case", "general way"])
def test_signs_of_principal_axes(family, dim, general):
    """Also where the usual case is not taken, because a derivative is wanted."""
    space = family(dim)
    points = normal(6, dim) + 0.5
    x = Inputs.bind(Rep(None, space), (points[None].requires_grad_(general),), {})
    support = Frame(space).support(x)
    frame, origin = reference.pca_frame(points.detach(), affine=space.anchored, special=space.special)
    assert support.element.shape == (len(frame), 1)
    torch.testing.assert_close(support.weight.flatten(), torch.full((len(frame),), 1 / len(frame)).double(), **EQUAL)
    assert largest_distance(support.element.matrix[:, 0].detach(), frame) < 1e-12
    if space.anchored:
        torch.testing.assert_close(support.element.target[:, 0].detach(), origin.expand(len(frame), dim), **EQUAL)
    # negative control: axes in descending order are no element of the frame
    if dim > 1:
        assert largest_distance(support.element.matrix[:, 0].detach(), frame.flip(-1)) > 1e-2


@pytest.mark.parametrize("dim", [1, 2, 3])
@pytest.mark.parametrize("family", [ps.O, ps.SO, ps.E, ps.SE])
def test_average_over_poses(family, dim):
    space = family(dim)
    points = normal(5, dim, seed=1) + 0.3
    model = Net(points, 4, dim)
    phi = ps.symmetrize(model, Rep(None, space), Rep(None, space), "frame").eval()
    want = reference.average_over_poses(lambda x: model(x[None])[0], points, space.anchored, space.special)
    torch.testing.assert_close(phi(points[None])[0], want, **EQUAL)
    if space != ps.SO(1):  # which is the trivial group
        assert (model(points[None])[0] - want).abs().max() > 1e-3


@pytest.mark.parametrize("n", [2, 3, 6, 9])
def test_order_of_the_laplacian(n):
    adjacency = symmetric(n, seed=n)
    x = Inputs.bind(Rep(NODES, NODES), (adjacency[None],), {})
    keys = view_inputs(x, [], [NODES]).nodes[NODES].keys[0]
    want = reference.laplacian_keys(adjacency)
    torch.testing.assert_close(keys, want, **EQUAL)
    if n == 2:
        return  # its two nodes are always equal
    support = Frame(NODES).support(x)
    assert support.element.shape == (1, 1)
    assert torch.equal(support.element.index[0, 0], want.argsort().argsort())
    model = Net(adjacency, n, 2)
    phi = ps.symmetrize(model, Rep(NODES, NODES), Rep(NODES), "frame").eval()
    average = reference.average_over_orders(lambda a: model(a[None])[0], adjacency, want)
    torch.testing.assert_close(phi(adjacency[None])[0], average, **EQUAL)
    assert (model(adjacency[None])[0] - average).abs().max() > 1e-3


def graph(n, *edges):
    a = torch.zeros(n, n, dtype=torch.float64)
    for i, j in edges:
        a[i, j] = a[j, i] = 1
    return a


GRAPHS = {
    "path": graph(6, *((i, i + 1) for i in range(5))),
    "star": graph(5, *((0, i) for i in range(1, 5))),
    "cycle": graph(7, *((i, (i + 1) % 7) for i in range(7))),
    "triangle with tails": graph(6, (0, 1), (1, 2), (2, 0), (0, 3), (1, 4), (3, 5)),
    "two components": graph(6, (0, 1), (1, 2), (3, 4), (4, 5)),
    "weighted": symmetric(6),
}


@pytest.mark.parametrize("name", GRAPHS)
def test_keys_are_equal_where_the_rows_of_puny_et_al_are(name):
    adjacency = GRAPHS[name]
    rows = reference.projector_diagonals(adjacency)
    same_rows = torch.cdist(rows, rows) < 1e-9
    keys = reference.laplacian_keys(adjacency)
    assert torch.equal((keys[:, None] - keys).abs() < 1e-9, same_rows)
    x = Inputs.bind(Rep(NODES, NODES), (adjacency[None],), {})
    classes = view_inputs(x, [], [NODES]).nodes[NODES].classes[0]
    assert torch.equal(classes[:, None] == classes, same_rows)


@pytest.mark.parametrize("n", [1, 2, 5])
def test_sorted_scores(n):
    scores = normal(n, seed=n)
    model = Net(scores, n, 2)
    phi = ps.symmetrize(model, Rep(NODES), Rep(NODES), "frame").eval()
    want = reference.average_over_orders(lambda v: model(v[None])[0], scores, keys=scores)
    estimate = phi.estimate(scores[None])
    torch.testing.assert_close(estimate.mean[0], want, **EQUAL)
    assert estimate.samples.tolist() == [1]
