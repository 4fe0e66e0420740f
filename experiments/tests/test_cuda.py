"""Symmetrized graph models on a GPU: given the same noise, values and gradients are those of the CPU."""

import copy

import pytest
import torch

from probsym_experiments.graphs.models import METHODS, Design, build, inputs

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")


def values_and_slopes(phi, call, **options):
    """The output and the gradients of its squares with respect to the weights, all on the CPU."""
    y = phi(**call, **options)
    slopes = torch.autograd.grad(y.square().sum(), list(phi.parameters()), allow_unused=True)
    return [value.detach().cpu() for value in (y, *slopes) if value is not None]


@pytest.mark.parametrize("method", METHODS)
def test_methods_of_the_graph_experiments(method):
    """A model that was trained there is the same here: fixed noise too, which the model draws itself."""
    mask = torch.arange(7) < torch.tensor([[7], [5]])
    edges = (torch.rand(2, 7, 7) < 0.5).triu(1).float() * mask[:, None] * mask[..., None]
    data = {"adjacency": edges + edges.mT, "nodes": torch.randn(2, 7, 2) * mask[..., None], "mask": mask}
    phi = build("mlp", method, data, Design(hidden=(8,), out=1, walks=4, scale=0.5, temperature=1.0), (3, 3)).eval()
    call = inputs(data)
    there = {name: value.cuda() for name, value in call.items()}
    moved = copy.deepcopy(phi).cuda()
    if method in ("ga", "ps-soft"):  # these draw noise on their device
        assert moved(**there).device.type == "cuda"
        return
    noise = {}
    noise_there = {}
    if method == "ps":
        eps = phi.draw_noise(**call, samples=3)
        noise = {"noise": eps}
        noise_there = {"noise": torch.utils._pytree.tree_map(lambda t: t.cuda(), eps)}
    expected = values_and_slopes(phi, call, **noise)
    found = values_and_slopes(moved, there, **noise_there)
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4 * max(1.0, theirs.abs().max().item()))
