"""Penalties and schedules: right values, gradients that point the right way."""

import pytest
import torch

import probsym as ps
from cases import SETTINGS, particles, sets
from probsym.learning import SampleSchedule, distance, identity_distance, mean, variance


def test_variance_of_structured_outputs():
    a, b = torch.randn(5, 3, 2), torch.randn(5, 4)
    expected = a.var(0).mean() + b.var(0).mean()
    assert torch.allclose(variance((a, b)), expected)
    assert torch.allclose(variance({"a": a, "b": (b,)}), expected)
    assert torch.equal(mean({"a": a, "b": (b,)})["b"][0], b.mean(0))
    assert variance(a[:1]) == 0


def test_variance_is_unbiased_and_predicts_the_error():
    """E variance / k is the squared standard error of k samples."""
    s = particles(ps.E(3))
    phi = s.symmetrized("haar")
    with torch.no_grad():
        penalty = torch.stack([variance(phi.sample(**s.call, samples=4)) for _ in range(300)])
        truth = phi.estimate(**s.call, samples=5000).stderr.square().mean() * 5000
    assert (penalty.mean() - truth).abs() < 6 * penalty.std() / 300**0.5


def test_descending_the_variance_makes_the_model_equivariant():
    s = sets()
    phi = ps.symmetrize(s.model, s.inputs, s.output, "haar")
    optimizer = torch.optim.Adam(phi.parameters(), 1e-2)
    draw = lambda: torch.Generator().manual_seed(0)  # noqa: E731
    start = float(variance(phi.sample(**s.call, samples=16, generator=draw())))
    for _ in range(150):
        optimizer.zero_grad()
        variance(phi.sample(**s.call, samples=8)).backward()
        optimizer.step()
    assert float(variance(phi.sample(**s.call, samples=16, generator=draw()))) < 0.1 * start


def test_distance():
    for group in (ps.SO(3), ps.O(2), ps.E(3), ps.S(5), ps.D(4), ps.Shift(3), ps.Signs(3)):
        options = {} if isinstance(group, ps.D | ps.Shift | ps.Signs) else {"dtype": torch.float64}
        assert distance(group.identity((2,), **options)).abs().max() < 1e-12
        if not group.anchored:
            far = distance(group.haar((50,)))
            assert ((far >= -1e-6) & (far <= 1 + 1e-6)).all()
            assert far.max() > 0.5
    swap = ps.S(4).project(torch.tensor([1.0, 0, 2, 3]), torch.zeros(4))
    assert distance(swap) == 0.5
    product = ps.S(4).identity(()), ps.O(2).identity(()).map(lambda t, _: -t)
    assert distance((ps.S(4) * ps.O(2)).join(*product)) == 1.0


def test_ragged_and_padded_nodes_count_their_own():
    mask = torch.tensor([[True, True, False, False], [True] * 4])
    nodes, batch = ps.S(mask="mask"), ps.S(batch="batch")
    x = ps.reps.Inputs.bind({"x": ps.Rep(nodes)}, (), {"x": torch.zeros(2, 4, 1), "mask": mask})
    z = torch.tensor([[1.0, 0, 0, 0], [0.0, 1, 2, 3]])
    assert distance(x.stored(nodes).project(z, torch.zeros(2, 4))).tolist() == [1.0, 0.0]
    x = ps.reps.Inputs.bind(
        {"x": ps.Rep(batch)}, (), {"x": torch.zeros(6, 1), "batch": torch.tensor([0, 0, 1, 1, 1, 1])}
    )
    assert distance(x.stored(batch).project(z.flatten()[[0, 1, 4, 5, 6, 7]], torch.zeros(6))).tolist() == [
        1.0,
        0.0,
    ]


@pytest.mark.parametrize("setting", ["S x E(3)", "SO(3)", "padded S x E(3)", "ragged S x E(3)"])
def test_descending_the_distance_brings_p_home(setting):
    """On the training poses p moves towards the identity, and stays equivariant."""
    s = SETTINGS[setting]()
    phi = ps.symmetrize(s.model, s.inputs, s.output, "learned").double()
    phi(**s.call)
    optimizer = torch.optim.Adam(phi.distribution.parameters(), 1e-2)
    fixed = phi.draw_noise(**s.call, samples=64, generator=torch.Generator().manual_seed(0))
    start = float(identity_distance(phi, s.call, fixed))
    for _ in range(120):
        optimizer.zero_grad()
        identity_distance(phi, s.call, phi.draw_noise(**s.call, samples=8)).backward()
        optimizer.step()
    assert float(identity_distance(phi, s.call, fixed)) < start - 0.05
    ps.testing.assert_distribution(phi.distribution.eval(), s.call, s.inputs)


def test_growing():
    schedule = SampleSchedule(100, first=2, last=32)
    counts = [schedule(step) for step in range(-5, 120)]
    assert counts == sorted(counts)
    assert (counts[0], counts[-1]) == (2, 32)
    assert SampleSchedule(1, last=8)(0) == 1
    for bad, says in (
        ({"total": 0}, "total: expected an integer of at least 1, got 0"),
        ({"total": 5, "first": 1.5}, "first: expected an integer of at least 1, got 1.5"),
        ({"total": 5, "first": 9, "last": 8}, "first <= last"),
    ):
        with pytest.raises(ValueError, match=says):
            SampleSchedule(**bad)
