"""Frames in training: the model sees the rows that it sees in evaluation, and the gradients are those of all rows."""

import pytest
import torch

import probsym as ps
from probsym.reps import Rep

SIZES = (3, 4, 5, 4)


class Net(torch.nn.Module):
    """Reads every node by its place in its graph; counts the graphs that it sees; has statistics if asked."""

    def __init__(self, norm=False):
        super().__init__()
        torch.manual_seed(0)
        self.first, self.last = torch.nn.Linear(4, 8), torch.nn.Linear(8, 1)
        self.norm = torch.nn.BatchNorm1d(8, affine=False) if norm else torch.nn.Identity()
        self.rows = 0

    def forward(self, pos, batch=None, mask=None):
        if batch is None:
            self.rows += len(pos)
            place = torch.arange(pos.shape[1]).to(pos).expand(len(pos), -1)
            nodes = torch.cat([pos, place[..., None]], -1)
            hidden = torch.tanh(self.first(nodes))
            if mask is not None:
                hidden = hidden * mask[..., None]
            return self.last(self.norm(hidden.sum(1)))
        graphs = int(batch.max()) + 1
        self.rows += graphs
        place = torch.arange(len(batch)) - torch.searchsorted(batch, batch)
        hidden = torch.tanh(self.first(torch.cat([pos, place.to(pos)[:, None]], 1)))
        pooled = pos.new_zeros(graphs, 8).index_add(0, batch, hidden)
        return self.last(self.norm(pooled))


def cloud(n, seed):
    return torch.randn(n, 3, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def setting(storage, make, norm=False):
    """Four clouds of which one is a tetrahedron: 24 frames beside 8."""
    sizes = SIZES if storage != "dense" else (4,) * len(SIZES)
    parts = [cloud(n, i) for i, n in enumerate(sizes)]
    parts[1] = torch.tensor([[1, 1, 1], [1, -1, -1], [-1, 1, -1], [-1, -1, 1]], dtype=torch.float64)
    most = max(sizes)
    if storage == "ragged":
        nodes = make("nodes", batch="batch")
        batch = torch.repeat_interleave(torch.arange(len(sizes)), torch.tensor(sizes))
        data = {"pos": torch.cat(parts), "batch": batch}
    elif storage == "padded":
        nodes = make("nodes", mask="mask")
        padded = [torch.nn.functional.pad(p, (0, 0, 0, most - len(p))) for p in parts]
        data = {"pos": torch.stack(padded), "mask": torch.arange(most) < torch.tensor(sizes)[:, None]}
    else:
        nodes, data = make("nodes"), {"pos": torch.stack(parts)}
    space = ps.E(3)
    phi = ps.symmetrize(Net(norm).double(), {"pos": Rep(nodes, space)}, Rep(), "frame")
    return phi, data


def all_rows(phi, data):
    """The mean over the padded table of frames, rows of weight zero included."""
    x = phi.bind((), data)
    support = phi.distribution.support(x)
    poses = [x.act(support.element.select(m).inverse()) for m in range(len(support.weight))]
    y = torch.stack([phi.model(**pose.kwargs) for pose in poses])
    return (support.weight[..., None] * y).sum(0)


@pytest.mark.parametrize("make", [ps.Axis, ps.S])
@pytest.mark.parametrize("storage", ["dense", "padded", "ragged"])
@pytest.mark.parametrize("estimator", [None, ps.Exact(chunk=5)])
def test_training_sees_the_rows_of_evaluation(storage, make, estimator):
    phi, data = setting(storage, make)
    seen, gradients = [], []
    for mode in (True, False):
        phi.train(mode)
        phi.model.rows = 0
        with torch.no_grad():
            phi(**data, estimator=estimator)
        seen.append(phi.model.rows)
    listed = int(phi.estimate(**data).samples.sum())
    assert seen[0] == seen[1] == listed == 8 * 3 + 24
    phi.train()
    for run in (lambda: phi(**data, estimator=estimator), lambda: all_rows(phi, data)):
        phi.zero_grad()
        run().square().sum().backward()
        gradients.append(torch.cat([p.grad.flatten() for p in phi.model.parameters()]))
    torch.testing.assert_close(*gradients, rtol=1e-12, atol=1e-12)
    assert gradients[0].abs().max() > 1e-3


def test_batch_norm_does_not_see_rows_of_weight_zero():
    """Its statistics are those of the frames; with the padding of the table they are others."""
    phi, data = setting("dense", ps.Axis, norm=True)
    x = phi.bind((), data)
    support = phi.distribution.support(x)
    inverse = support.element.inverse()
    rows = x.leaves[("kwargs", "pos")].rep.act(inverse, data["pos"], 1)

    def mean_of(poses):
        hidden = torch.tanh(phi.model.first(torch.cat([poses, torch.arange(4.0).expand(len(poses), 4)[..., None]], -1)))
        return hidden.sum(1).mean(0)

    phi.train()(**data)
    found = phi.model.norm.running_mean / 0.1
    torch.testing.assert_close(found, mean_of(rows[support.weight > 0]), rtol=1e-10, atol=1e-10)
    assert (found - mean_of(rows.flatten(0, 1))).abs().max() > 1e-3
