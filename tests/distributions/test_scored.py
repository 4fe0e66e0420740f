"""Scored: poses of a finite group by the scores of any net. The formula, its gradients, equivariance, what is odd."""

import math

import pytest
import torch
from torch import nn

import probsym as ps
from cases import randn, seeded
from probsym.distributions import ScoreNet
from probsym.learning import identity_distance
from probsym.saving import register
from probsym.testing import assert_distribution, assert_equivariant, assert_estimator

C4 = ps.C(4)
IMAGES = ps.Rep(None, C4)


@register(name="tests/Reading")
class Reading(nn.Module):
    """Any function of the flattened arguments; padding and batch vectors are not read."""

    def __init__(self, entries, outputs, seed=0):
        super().__init__()
        self.entries, self.outputs, self.seed = entries, outputs, seed
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            self.inner = nn.Linear(entries, 8, dtype=torch.float64)
            self.outer = nn.Linear(8, outputs, dtype=torch.float64)
        self.rows = 0

    def forward(self, x, mask=None):
        self.rows += len(x)
        return self.outer(self.inner(x.flatten(1).to(self.inner.weight.dtype)).tanh())


class ReadingGraphs(Reading):
    """The same for a ragged batch: a sum over nodes in which the first of each graph counts twice."""

    def forward(self, x, batch):
        first = torch.ones_like(batch)
        first[1:] += (batch[1:] == batch[:-1]).long() * -1
        rows = super().forward(x) * (1 + first).unsqueeze(1)
        return rows.new_zeros(int(batch.max()) + 1, rows.shape[1]).index_add(0, batch, rows)


def scored(x, group=C4, temperature=1.0, rep=IMAGES, outputs=3):
    """A model and a net of p on the flattened x."""
    entries = x[0].numel()
    p = ps.Scored(Reading(entries, 1, seed=1), group, temperature)
    return ps.symmetrize(Reading(entries, outputs), rep, ps.Rep(), p)


def gradients(value, module):
    return torch.cat([g.flatten() for g in torch.autograd.grad(value, list(module.parameters()))])


# ---------------------------------------------------------------- the formula


def poses(x):
    """g^-1 x for the four turns, (4, B, ...)."""
    return torch.stack([x.rot90(-turn, (-2, -1)) for turn in range(4)])


@pytest.mark.parametrize("temperature", [1.0, 0.1, 0.0])
def test_by_hand(temperature):
    x = randn(3, 2, 5, 5)
    phi = scored(x, temperature=temperature).eval()
    scores = torch.stack([phi.distribution.net(pose) for pose in poses(x)])
    if temperature:
        weights = (scores / temperature).softmax(0)
    else:
        weights = (scores == scores.amax(0)).double()
    expected = (weights * torch.stack([phi.model(pose) for pose in poses(x)])).sum(0)
    estimate = phi.estimate(x, estimator=ps.Exact())
    assert torch.allclose(estimate.mean, expected, atol=1e-12)
    assert (estimate.stderr == 0).all()


def test_log_prob_is_that_of_the_support():
    x = randn(3, 2, 5, 5)
    phi = scored(x, temperature=0.3)
    bound = phi.bind((x,), {})
    support = phi.distribution.support(bound)
    log_p = phi.distribution.log_prob(bound, support.element)
    assert torch.allclose(log_p.exp(), support.weight, atol=1e-12)
    some = phi.distribution.transport(bound, phi.draw_noise(x, samples=5, generator=seeded()))
    assert phi.distribution.log_prob(bound, some).shape == (5, 3)


def test_the_best_pose_costs_one_call_of_the_model():
    x = randn(6, 2, 5, 5)
    phi = scored(x, temperature=0.0).eval()
    phi(x)
    assert phi.model.rows == 6
    assert phi.distribution.net.rows == 4 * 6
    assert ps.Scored(phi.distribution.net, C4).default_samples == (2, None)
    assert ps.Scored(phi.distribution.net, ps.Shift(5)).default_samples == (2, 10)


# ---------------------------------------------------------------- the suites

PADDED, RAGGED = ps.S("nodes", mask="mask"), ps.S("nodes", batch="batch")
MASK = torch.tensor([[1, 1, 1], [1, 1, 0], [1, 0, 0]]).bool()
BATCH = torch.tensor([0, 0, 0, 1, 1, 2])
CASES = {
    "C(4)": (C4, IMAGES, {"x": randn(3, 2, 4, 4)}),
    "D(4)": (ps.D(4), ps.Rep(ps.D(4)), {"x": randn(3, 3, 3)}),
    "Shift": (ps.Shift((2, 3)), ps.Rep(None, ps.Shift((2, 3))), {"x": randn(3, 2, 2, 3)}),
    "Signs": (ps.Signs(3), ps.Rep(None, ps.Signs(3)), {"x": randn(3, 4, 3)}),
    "O(1)": (ps.O(1), ps.Rep(None, ps.O(1)), {"x": randn(3, 4, 1)}),
    "Finite": (ps.Finite([[1, 0, 2]]), ps.Rep(ps.Finite([[1, 0, 2]])), {"x": randn(3, 3)}),
    "voxels": (ps.Octahedral(), ps.Rep(ps.Octahedral().voxels), {"x": randn(2, 2, 2, 2)}),
    "S": (ps.S("n"), ps.Rep(ps.S("n")), {"x": randn(3, 3, 2)}),
    "padded": (PADDED, ps.Rep(PADDED), {"x": randn(3, 3, 2), "mask": MASK}),
    "ragged": (RAGGED, ps.Rep(RAGGED, None), {"x": randn(6, 2), "batch": BATCH}),
    "ragged product": (RAGGED * C4, ps.Rep(RAGGED, C4), {"x": randn(6, 2, 2), "batch": BATCH}),
}


@pytest.mark.parametrize("temperature", [1.0, 0.0])
@pytest.mark.parametrize("name", CASES)
def test_moves_with_the_input(name, temperature):
    group, rep, call = CASES[name]
    reading = ReadingGraphs if "batch" in call else Reading
    entries = call["x"][0].numel()
    p = ps.Scored(reading(entries, 1, seed=1), group, temperature)
    assert_distribution(p, call, {"x": rep})
    phi = ps.symmetrize(reading(entries, 2), {"x": rep}, ps.Rep(), p, eval_samples=ps.Exact()).eval()
    assert_equivariant(phi, call)
    if "mask" in call or "batch" in call:
        counts = [1, 1, 1] if temperature == 0 else [6, 2, 1]
        if "product" in name and temperature:
            counts = [24, 8, 4]
        assert phi.estimate(**call).samples.tolist() == counts


class FedX(ps.Scored):
    """Wrong: the net is fed x itself, and favours some elements."""

    def scores(self, x, g):
        return self.net(*x.args).T * g.turns


class FedGX(ps.Scored):
    """Wrong: the net is fed g x."""

    def scores(self, x, g):
        return super().scores(x, g.inverse())


@pytest.mark.parametrize("wrong", [FedX, FedGX])
def test_wrong_twins_fail(wrong):
    x = randn(3, 2, 4, 4)
    p = wrong(Reading(32, 1, seed=1), C4)
    with pytest.raises(AssertionError, match="transport"):
        assert_distribution(p, x, IMAGES)
    phi = ps.symmetrize(Reading(32, 3), IMAGES, ps.Rep(), p).eval()
    with pytest.raises(AssertionError, match="NOT equivariant"):
        assert_equivariant(phi, x)


def test_estimators_are_unbiased():
    x = randn(2, 2, 4, 4)
    phi = scored(x, temperature=0.2)
    assert_estimator(ps.MonteCarlo(4, design="antithetic"), phi, x, repeats=64)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_precisions(dtype):
    """Turns move pixels, so that every precision is exact: whatever the scores, poses have them in another order."""
    x = randn(3, 2, 4, 4).to(dtype)
    phi = scored(x, temperature=0.1).to(dtype).eval()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y, turned = phi(x), phi(x.rot90(1, (2, 3)))
    assert y.dtype == torch.bfloat16
    assert (y - turned).abs().max() < 0.02
    phi.train()(x[:1], samples=1).float().sum().backward()
    assert all(q.grad.isfinite().all() for q in phi.parameters())


# ---------------------------------------------------------------- gradients


def test_exact_gradient_is_that_of_finite_differences():
    x, target = randn(2, 2, 4, 4), randn(2, 3)
    phi = scored(x, temperature=0.5)
    net = phi.distribution.net

    def loss(image):
        return (phi(image, estimator=ps.Exact()) * target).sum()

    step = 1e-5
    for module in (net, phi.model):
        gradient = gradients(loss(x), module)
        direction = [randn(*q.shape, seed=i) for i, q in enumerate(module.parameters())]
        sides = []
        with torch.no_grad():
            for sign in (1, -2):
                for q, d in zip(module.parameters(), direction, strict=True):
                    q += sign * step * d
                sides.append(loss(x))
            for q, d in zip(module.parameters(), direction, strict=True):
                q += step * d
        slope = (sides[0] - sides[1]) / (2 * step)
        assert torch.isclose(slope, gradient @ torch.cat([d.flatten() for d in direction]), rtol=1e-6)
    assert torch.autograd.gradcheck(loss, (x.clone().requires_grad_(),))


@pytest.mark.parametrize("k", [1, 2, 3])
def test_sampled_gradient_has_the_exact_one_as_its_mean(k):
    """60 calls of 64 copies each. Six standard errors of 41 coordinates: a false-alarm rate of 1e-7 (normal)."""
    one = randn(1, 1, 4, 4)
    phi = scored(one, temperature=0.5)
    target = randn(1, 3, seed=4)
    exact = gradients((phi(one, estimator=ps.Exact()) * target).sum(), phi.distribution.net)
    x = one.expand(64, -1, -1, -1)
    generator = seeded()
    drawn = []
    for _ in range(60):
        mean = (phi(x, samples=k, generator=generator) * target).sum() / 64
        drawn.append(gradients(mean, phi.distribution.net))
    drawn = torch.stack(drawn)
    error = drawn.std(0) / math.sqrt(60)
    felt = exact.abs() > 1e-12  # the last bias adds the same to all scores
    assert felt.sum() > 100
    assert ((drawn.mean(0) - exact).abs()[felt] < 6 * error[felt]).all()


def test_what_all_poses_have_in_common_is_no_noise():
    """Two samples are the baseline of each other: a constant output sends nothing to the net, whatever its size."""
    x = randn(3, 2, 4, 4)
    phi = scored(x)
    with torch.no_grad():
        phi.model.outer.weight.zero_()
        phi.model.outer.bias.fill_(1e6)
    assert gradients(phi(x, samples=2).sum(), phi.distribution.net).abs().max() < 1e-9
    assert gradients(phi(x, samples=1, generator=seeded()).sum(), phi.distribution.net).abs().max() > 1


def test_chunks_and_designs_pass_the_gradient_on():
    x = randn(3, 2, 4, 4)
    phi = scored(x).train()
    net = phi.distribution.net
    whole = gradients(phi(x, samples=4, generator=seeded()).square().sum(), net)
    parts = gradients(phi(x, estimator=ps.MonteCarlo(4, chunk=1), generator=seeded()).square().sum(), net)
    assert torch.allclose(whole, parts, atol=1e-12)
    assert whole.abs().max() > 1e-3

    # of a coset the elements are products, and of a product of distributions they are joined
    nodes, space = ps.S("n"), ps.SO(3)
    rep, y = ps.Rep(nodes, space), randn(2, 3, 3)
    p = ps.Scored(Norms(), nodes) * ps.Haar(space)
    phi = ps.symmetrize(Reading(9, 2), rep, ps.Rep(), p).train()
    for estimator in (
        ps.MonteCarlo(6, design="shifts"),
        ps.MonteCarlo(24, design="octahedral"),
        ps.Hybrid(2),
    ):
        gradient = gradients(phi(y, estimator=estimator, generator=seeded()).square().sum(), p.parts[0].net)
        if getattr(estimator, "design", None) != "shifts":
            assert gradient.abs().max() > 1e-6, estimator
        assert gradient.isfinite().all()


class Norms(Reading):
    """Scores of an order that turns leave alone."""

    def __init__(self):
        super().__init__(3, 1, seed=1)

    def forward(self, x):
        return super().forward(x.norm(dim=-1))


def test_a_prior_towards_the_identity_trains():
    x = randn(3, 2, 4, 4)
    phi = scored(x)
    away = identity_distance(phi, (x,), phi.draw_noise(x, samples=4, generator=seeded()))
    assert 0 <= away <= 1
    assert gradients(away, phi.distribution.net).abs().max() > 1e-4


def test_the_best_pose_trains_and_leaves_the_inputs_alone():
    x = randn(3, 2, 4, 4).requires_grad_()
    phi = scored(x, temperature=0.0).train()
    assert gradients(phi(x).square().sum(), phi.distribution.net).abs().max() > 1e-4
    # what goes to the inputs is the gradient of the model at that pose
    (seen,) = torch.autograd.grad(phi(x).square().sum(), x)
    scores = torch.stack([phi.distribution.net(pose) for pose in poses(x)]).squeeze(-1)
    best = poses(x)[scores.argmax(0), torch.arange(3)]
    (plain,) = torch.autograd.grad(phi.model(best).square().sum(), x)
    assert torch.allclose(seen, plain, atol=1e-12)
    assert phi.estimate(x).mean.shape == (3, 3)  # statistics do not divide the weights away
    assert gradients(phi.estimate(x).mean.square().sum(), phi.distribution.net).abs().max() > 1e-4


def test_several_draws_of_the_best_pose_train_as_one_does():
    """All draws are the same, so that a mean of the others as their baseline would leave no gradient."""
    x = randn(3, 2, 4, 4)
    phi = scored(x, temperature=0.0).train()
    one = gradients(phi(x).square().sum(), phi.distribution.net)
    assert one.abs().max() > 1e-4
    for samples in (1, 4):
        several = gradients(phi(x, samples=samples).square().sum(), phi.distribution.net)
        assert torch.allclose(several, one, rtol=1e-10, atol=1e-12)
    assert torch.allclose(gradients(phi.estimate(x, samples=4).mean.square().sum(), phi.distribution.net), one)


def test_it_learns_which_pose_is_good():
    """A model that is right for upright images only: p learns to find them, by samples and exactly."""
    generator = seeded()
    label = torch.randint(2, (64,), generator=generator)
    x = 0.1 * torch.randn(64, 1, 4, 4, generator=generator, dtype=torch.float64)
    x[:, 0, 0] += 1  # a bright row on top of every upright image
    x[:, 0, 2, 2] += label
    turns = torch.randint(4, (64,), generator=generator)
    x = torch.stack([image.rot90(int(turn), (1, 2)) for image, turn in zip(x, turns, strict=True)])

    class Upright(nn.Module):
        def forward(self, x):
            logit = 10 * (x[:, 0, 2, 2] - 0.5)
            return torch.stack([-logit, logit], 1)

    for estimator in (ps.Exact(), ps.MonteCarlo(2)):
        p = ps.Scored(Reading(16, 1, seed=1), C4)
        phi = ps.symmetrize(Upright(), IMAGES, ps.Rep(), p, train_samples=estimator)
        optimizer = torch.optim.Adam(p.parameters(), 3e-2)
        for _ in range(60):
            loss = nn.functional.cross_entropy(phi(x, generator=generator), label)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        best = ps.symmetrize(Upright(), IMAGES, ps.Rep(), ps.Scored(p.net, C4, 0.0)).eval()
        assert (best(x).argmax(-1) == label).double().mean() > 0.95


# ---------------------------------------------------------------- symmetric inputs, odd scores


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_symmetric_inputs(dtype):
    """Equal up to rounding is equal: a best pose that needed the noise has an infinite standard error."""
    x = randn(3, 1, 4, 4).to(dtype)
    x[1] = x[1] + x[1].rot90(2, (1, 2))
    x[2] = poses(x[2:])[:, 0].sum(0) / 3
    phi = scored(x, temperature=0.0).to(dtype).eval()
    estimate = phi.estimate(x)
    assert estimate.aux["degenerate"] == 2
    assert (estimate.stderr[0] == 0).all()
    assert estimate.stderr[1:].isinf().all()
    bound = phi.bind((x,), {})
    drawn = phi.distribution.transport(bound, phi.draw_noise(x, samples=400, generator=seeded()))
    turns = drawn[C4].turns
    for i, poses_drawn in enumerate((1, 2, 4)):  # equally often: more than 15 standard errors
        often = turns[:, i].bincount(minlength=4)
        assert (often > 0).sum() == poses_drawn
        assert often.max() < 400 / poses_drawn + 150
    soft = scored(x).to(dtype).eval()
    bound = soft.bind((x,), {})
    weight = soft.distribution.support(bound).weight
    assert torch.allclose(weight[0, 1], weight[2, 1], atol=1e-6)
    assert torch.allclose(weight[:, 2], torch.full_like(weight[:, 2], 0.25), atol=1e-6)
    assert (soft.estimate(x).stderr == 0).all()


def test_scores_of_a_narrow_net_are_equal_sooner():
    """What the rounding of the net may have told apart counts as equal, and the tie is reported."""
    x = randn(1, 1, 4, 4)
    for dtype, degenerate in ((torch.float64, 0), (torch.float32, 0), (torch.bfloat16, 1)):
        p = ps.Scored(Fixed(lambda x, dtype=dtype: (1 + 0.01 * x[:, 0, 0, 0].tanh()).to(dtype)), C4, 0.0)
        phi = ps.symmetrize(Reading(16, 2), IMAGES, ps.Rep(), p).eval()
        assert phi.estimate(x).aux["degenerate"] == degenerate


class Fixed(nn.Module):
    """The score that a function gives."""

    def __init__(self, score):
        super().__init__()
        self.score = score

    def forward(self, x):
        return self.score(x)


@pytest.mark.parametrize("estimator", [ps.Exact(), ps.MonteCarlo(3)])
@pytest.mark.parametrize("temperature", [1.0, 0.0])
def test_nan_spoils_its_own_input(temperature, estimator):
    x = randn(3, 1, 4, 4)
    bad = x[1].amax()
    p = ps.Scored(Fixed(lambda x: torch.where(x.flatten(1).amax(1) == bad, math.nan, x[:, 0, 0, 0])), C4, temperature)
    y = ps.symmetrize(Reading(16, 2), IMAGES, ps.Rep(), p).eval()(x, estimator=estimator)
    assert y[[0, 2]].isfinite().all()
    assert y[1].isnan().all()


def test_minus_infinity_excludes_a_pose():
    x = randn(3, 1, 4, 4)
    p = ps.Scored(Fixed(lambda x: torch.where(x[:, 0, 0, 0] > x[:, 0, -1, -1], 0.0, -math.inf)), C4)
    phi = ps.symmetrize(Reading(16, 2), IMAGES, ps.Rep(), p).eval()
    estimate = phi.estimate(x)
    assert estimate.samples.tolist() == [2, 2, 2]
    allowed = [pose for pose in poses(x[:1]) if pose[0, 0, 0, 0] > pose[0, 0, -1, -1]]
    assert torch.allclose(estimate.mean[:1], torch.stack([phi.model(pose) for pose in allowed]).mean(0), atol=1e-12)
    many = phi.estimate(x, samples=2000, generator=seeded())
    assert ((many.mean - estimate.mean).abs() < 6 * many.stderr).all()


def test_an_input_alone_is_as_in_a_batch():
    x = randn(3, 2, 4, 4)
    phi = scored(x, temperature=0.3).eval()
    assert torch.allclose(phi(x[1:2]), phi(x)[1:2], atol=1e-12)
    assert phi.sample(x[:1], samples=1).shape == (1, 1, 3)


# ---------------------------------------------------------------- names, saving, refusals


@pytest.mark.parametrize("name", ["learned", "canonical"])
@pytest.mark.parametrize(
    ("rep", "x"),
    [
        (IMAGES, randn(3, 2, 8, 8)),
        (ps.Rep(C4, None), randn(3, 5, 5, 2)),
        (ps.Rep(None, ps.Shift((4, 6))), randn(3, 2, 4, 6)),
        (ps.Rep(None, ps.Signs(3)), randn(3, 4, 3)),
        (ps.Rep(None, ps.Octahedral().voxels), randn(2, 1, 4, 4, 4)),
        (ps.Rep(None, ps.Tetrahedral()), randn(3, 4, 3)),
    ],
    ids=repr,
)
def test_names_have_a_net_that_learns(name, rep, x, tmp_path):
    torch.manual_seed(0)
    phi = ps.symmetrize(Reading(x[0].numel(), 2), rep, ps.Rep(), name, example=x).double()
    assert isinstance(phi.distribution, ps.Scored)
    assert phi.distribution.temperature == float(name == "learned")
    before = {key: value.clone() for key, value in phi.distribution.state_dict().items()}
    optimizer = torch.optim.SGD(phi.distribution.parameters(), 0.1)
    for step in range(3):
        phi.train()(x, generator=seeded(step)).square().sum().backward()
    optimizer.step()
    moved = [key for key, value in phi.distribution.state_dict().items() if not torch.equal(value, before[key])]
    assert len(moved) >= len(before) - 1  # all but the last bias, which adds the same to every score
    assert_equivariant(phi.eval(), x, samples=64)
    ps.save(phi, tmp_path)
    again = ps.load(tmp_path, Reading(x[0].numel(), 2, seed=5)).eval()
    assert torch.equal(again(x, generator=seeded()), phi(x, generator=seeded()))


def test_saving_with_a_net_of_ones_own(tmp_path):
    x = randn(3, 2, 4, 4)
    phi = scored(x, temperature=0.25).eval()
    ps.save(phi, tmp_path)
    again = ps.load(tmp_path, Reading(32, 3, seed=7)).eval()
    assert torch.equal(again(x), phi(x))
    assert again.distribution.temperature == 0.25


def test_the_default_net_leaves_other_groups_alone():
    """The images of a set: the score does not depend on their order."""
    nodes = ps.S("views")
    rep, x = ps.Rep(nodes, C4), randn(2, 3, 4, 4)
    p = ps.Scored(ScoreNet(rep, C4), C4) * ps.Haar(nodes)
    phi = ps.symmetrize(Reading(48, 2), rep, ps.Rep(), p, example=x).double().eval()
    assert_distribution(phi, x)
    assert_equivariant(phi, x, samples=32)
    turned = {"x": ps.Rep(C4, ps.SO(2)), "y": ps.Rep(ps.SO(2))}
    with pytest.raises(ValueError, match=r"no default net orients by C\(4\): on every input"):
        ScoreNet(turned, C4)


def test_the_default_net_in_every_storage():
    """The views of three objects, padded, ragged and alone: the same scores, whatever stands in the padding."""
    x = randn(3, 3, 4, 4)
    plain = ps.S("views")
    nets = {}
    for name, nodes in {"padded": PADDED, "ragged": RAGGED, "alone": plain}.items():
        nets[name] = ScoreNet({"x": ps.Rep(nodes, C4)}, C4).double()
    padded = nets["padded"](x=x.masked_fill(~MASK[..., None, None], math.nan), mask=MASK)
    for other in ("ragged", "alone"):
        nets[other].load_state_dict(nets["padded"].state_dict())
    assert torch.allclose(nets["ragged"](x=x[MASK], batch=BATCH), padded, atol=1e-12)
    alone = torch.cat([nets["alone"](x=x[i : i + 1, : 3 - i]) for i in range(3)])
    assert torch.allclose(alone, padded, atol=1e-12)
    assert torch.allclose(nets["alone"](x=1e6 * x[:1]), alone[:1], atol=1e-9)  # in any unit


def test_what_is_refused():
    net = Reading(16, 1)
    with pytest.raises(TypeError, match=r"net: expected an nn.Module"):
        ps.Scored(lambda x: x, C4)
    with pytest.raises(ValueError, match=r"group: expected a finite one.*got SO\(3\): take Learned"):
        ps.Scored(net, ps.SO(3))
    with pytest.raises(ValueError, match="group: expected at most 40320 elements to score, got 65536"):
        ps.Scored(net, ps.Signs(16))
    for bad in ("1", True, None):
        with pytest.raises(TypeError, match="temperature: expected a number"):
            ps.Scored(net, C4, bad)
    for bad in (-1.0, math.inf, math.nan):
        with pytest.raises(ValueError, match="temperature: expected a number"):
            ps.Scored(net, C4, bad)
    x = randn(2, 1, 4, 4)
    phi = scored(x)
    bound = phi.bind((x,), {})
    turns = phi.distribution.support(bound).element
    with pytest.raises(ValueError, match="log_prob: at temperature zero"):
        ps.Scored(net, C4, 0).log_prob(bound, turns)
    many = ps.symmetrize(Reading(9, 1), ps.Rep(ps.S("n")), ps.Rep(), ps.Scored(Reading(9, 1), ps.S("n")))
    with pytest.raises(ValueError, match="at most 40320 elements to score, got 362880"):
        many(randn(2, 9))
    for score, kind, says in (
        (lambda x: x, ValueError, r"one score per row, of shape \(8,\) or \(8, 1\), got \(8, 1, 4, 4\)"),
        (lambda x: x.flatten(1), ValueError, "one score per row"),
        (lambda x: x.mean(), ValueError, "one score per row"),
        (lambda x: (x, x), TypeError, "tensor of scores, got tuple"),
        (lambda x: x.flatten(1).argmax(1), TypeError, "real floating scores, got torch.int64"),
        (lambda x: x[:, 0, 0, 0] * 1j, TypeError, "real floating scores, got torch.complex128"),
    ):
        wrong = ps.symmetrize(Reading(16, 1), IMAGES, ps.Rep(), ps.Scored(Fixed(score), C4))
        with pytest.raises(kind, match=says):
            wrong(x)
    keyword = ps.symmetrize(Reading(16, 1), {"x": IMAGES}, ps.Rep(), ps.Scored(nn.Linear(16, 1).double(), C4))
    with pytest.raises(TypeError, match=r"net of Scored: Linear.forward is called with the arguments of the model"):
        keyword(x=x)


@pytest.mark.parametrize("storage", ["image", "padded", "ragged"])
def test_gradient_with_respect_to_the_input_of_the_default_net(storage):
    """The scores change with the size that the input is divided by; exact averages against central differences."""
    torch.manual_seed(0)
    inputs, given = {}, {}
    mirror = ps.Finite(generators=1)
    if storage == "image":
        rep, shape = ps.Rep(None, C4), (2, 1, 4, 4)
        group = C4
    else:
        marker = {"mask": "mask"} if storage == "padded" else {"batch": "batch"}
        axis = ps.Axis("atoms", **marker)
        rep, shape = ps.Rep(axis, mirror.signed([[-1, 2]])), (2, 3, 2)
        given = {"mask": torch.tensor([[True, True, True], [True, True, False]])}
        group = mirror
        if storage == "ragged":
            shape = (5, 2)
            given = {"batch": torch.tensor([0, 0, 0, 1, 1])}
    inputs["x"] = rep

    class Bent(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.randn(shape[1:]))

        def forward(self, x, **_):
            weight = self.weight[..., -1, :] if storage == "padded" else self.weight
            return torch.tanh(x * weight + 0.3)

    x = torch.randn(shape).double()
    phi = ps.symmetrize(Bent(), inputs, rep, ps.Scored(ScoreNet(inputs, group), group), example={"x": x, **given})
    phi = phi.double()

    def energy(x):
        return phi(x=x, **given, estimator=ps.Exact()).square().sum()

    z = x.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(energy(z), z)
    step = 1e-5 * torch.randn(shape).double()
    change = (energy(x + step) - energy(x - step)) / 2
    torch.testing.assert_close((gradient * step).sum(), change, rtol=1e-5, atol=1e-11)
