"""Fields of a recipe that make a model need fewer samples: what they refuse, and what they add to a loss."""

import pytest
import torch

import probsym as ps
from probsym import learning
from probsym_experiments.errors import UserError
from probsym_experiments.graphs.exp_classify import Config as Classify
from probsym_experiments.nbody.config import Config


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: Config(variance_weight=1.0), "variance_weight: expected train_samples of 2 or more"),
        (lambda: Config(train_samples=4, grow_samples=2), "grow_samples: expected at least train_samples, 4"),
        (lambda: Config(identity_weight=-1.0), "identity_weight: expected at least 0"),
        (lambda: Config(symmetrizer="fa", identity_weight=1.0), "only with symmetrizer ps or ga"),
        (
            lambda: Config(symmetrizer="fa", haar_share=0.5),
            "haar_share: expected only with symmetrizer ps or",
        ),
        (lambda: Config(symmetrizer="canonical", late_samples=2), "late_samples: expected only with symmetrizer ps or"),
        (lambda: Config(grow_samples=4, late_samples=2), "not with late_samples"),
        (lambda: Classify(grow_samples=4), "entropy_weight: expected 0"),
    ],
)
def test_fields_that_do_not_fit_are_refused(make, says):
    with pytest.raises(UserError, match=says):
        make()


def test_samples_grow_over_the_steps():
    config = Config(steps=5, train_samples=2, grow_samples=8)
    assert [config.samples_at(step) for step in range(5)] == [2, 3, 4, 6, 8]
    assert not Config().penalised


def test_the_loss_is_that_of_the_mean_and_the_penalties():
    nodes = ps.S("nodes")
    net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(8, 4))
    phi, call = ps.symmetrize(net, {"input": ps.Rep(nodes)}, ps.Rep(nodes), "haar"), {"input": torch.randn(3, 4, 2)}
    config = Config(train_samples=5, variance_weight=2.0, identity_weight=3.0)
    torch.manual_seed(0)
    mean, extra = config.outputs(phi, call, 0)
    torch.manual_seed(0)
    noise = phi.draw_noise(**call, samples=5)
    outputs = phi.sample(**call, noise=noise)
    assert torch.equal(mean, outputs.mean(0))
    expected = 2 * outputs.var(0).mean() + 3 * learning.identity_distance(phi, call, noise)
    assert torch.allclose(extra, expected)
