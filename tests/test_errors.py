"""Bad input to the Symmetrizer: one error that names the argument, what was expected and what came."""

import pytest
import torch
from torch import nn

import probsym as ps
from cases import SETTINGS, padded, particles

# ---------------------------------------------------------------- bad input


def flawed(**changes):
    s = particles(ps.E(3))
    return {**s.call, **changes}


POS = particles(ps.E(3)).call["pos"]


@pytest.mark.parametrize(
    ("changes", "error", "says"),
    [
        ({"pos": POS[0, 0]}, ValueError, r"pos: expected at least 3 axes.*\(3,\)"),
        ({"pos": POS[..., :2]}, ValueError, r"pos: expected size 3 on axis 2.*\(3, 4, 2\)"),
        ({"pos": POS[:, :3]}, ValueError, r"expected size 3 on axis 1.*vel|vel: expected size 3|expected size"),
        ({"pos": POS[:2]}, ValueError, "expected batch size 2|expected batch size 3"),
        ({"pos": POS.long()}, TypeError, "pos: expected a floating dtype.*int64"),
        ({"pos": POS.tolist()}, TypeError, "pos: expected a tensor.*list"),
        ({"pos": POS * float("nan")}, ValueError, "pos: expected finite values, got NaN"),
        ({"pos": POS / 0}, ValueError, "pos: expected finite values, got infinite"),
        ({"pos": None}, ValueError, "pos is missing"),
        ({"scale": torch.ones(3)}, ValueError, "'scale'.*declare it Rep()"),
    ],
)
def test_bad_arguments(changes, error, says):
    s = particles(ps.E(3))
    phi = s.symmetrized("haar")
    with pytest.raises(error, match=says):
        phi.estimate(**flawed(**changes), samples=2)


def test_bad_values_are_found_at_the_first_call():
    s = particles(ps.E(3))
    phi = ps.symmetrize(s.model, s.inputs, s.output, "haar")
    with pytest.raises(ValueError, match="got NaN"):
        phi(**flawed(pos=POS * float("nan")))


def test_bad_masks_batches_and_labels():
    s = padded(ps.E(3))
    phi = s.symmetrized("haar")
    holes = s.call["mask"].flip(1)
    for changes, says in [
        ({"mask": holes}, "'mask': expected the nodes first"),
        ({"mask": s.call["mask"].float()}, "'mask': expected a bool mask"),
        ({"mask": s.call["mask"][:, :3]}, "'mask': expected a bool mask of shape .B, 4."),
        ({"mask": None}, "'mask' is missing"),
    ]:
        with pytest.raises(ValueError, match=says):
            phi.estimate(**{**s.call, **changes})
    s = SETTINGS["ragged S x E(3)"]()
    phi = s.symmetrized("haar")
    for changes, says in [
        ({"batch": s.call["batch"].double()}, "'batch': expected the graph of each of 9 nodes"),
        ({"batch": s.call["batch"][:-1]}, "'batch': expected the graph of each of 9 nodes"),
        ({"edge_index": s.call["edge_index"] + 5}, "edge_index: expected node numbers below 9, got 13"),
        ({"edge_index": torch.tensor([[0, 1], [1, 8]])}, r"edge_index: .* one graph, got \[1, 8\] of two graphs"),
    ]:
        with pytest.raises(ValueError, match=says):
            phi.estimate(**{**s.call, **changes})
    with pytest.raises(TypeError, match="edge_index: expected integer node numbers"):
        phi.estimate(**{**s.call, "edge_index": s.call["edge_index"].double()})


def test_a_call_leaves_one_mark_on_the_model():
    """That its values have been checked; the second call leaves none."""
    s = particles(ps.E(3))
    phi = ps.symmetrize(s.model, s.inputs, s.output, "haar")
    for changed in ({"_values_checked"}, set()):
        before = {id(module): dict(vars(module)) for module in phi.modules()}
        phi(**s.call)
        after = [(module, name) for module in phi.modules() for name in vars(module)]
        assert {name for module, name in after if vars(module)[name] is not before[id(module)].get(name)} == changed


@pytest.mark.parametrize("kind", [torch.long, torch.bool])
def test_images_that_are_interpolated_are_floating(kind):
    x = torch.ones(2, 4, 4, dtype=kind)
    turned = lambda n: ps.symmetrize(nn.Identity(), ps.Rep(ps.C(n)), ps.Rep(ps.C(n)), "haar")  # noqa: E731
    assert torch.equal(turned(4).sample(x)[0], x)
    with pytest.raises(TypeError, match=r"argument \[0\]: expected a floating dtype for Rep\(C\(8\)\)"):
        turned(8)(x)


def test_noise_and_samples_agree():
    s = particles(ps.SO(3))
    phi = s.symmetrized("haar")
    noise = phi.draw_noise(**s.call, samples=24)
    assert torch.equal(phi(**s.call, noise=noise), phi(**s.call, noise=noise, samples=24))
    for options in ({"samples": 480}, {"estimator": ps.MonteCarlo(480, 24, "octahedral")}):
        with pytest.raises(ValueError, match=r"noise: expected 480 samples.*got 24"):
            phi(**s.call, noise=noise, **options)


def test_a_missing_argument_is_named():
    s = particles(ps.E(3))
    phi = s.symmetrized("haar")
    with pytest.raises(ValueError, match="vel is missing: it is declared"):
        phi(pos=POS)


def test_an_argument_that_is_given_twice_is_named():
    """As Python itself does; one of the two would be dropped."""
    phi = ps.symmetrize(torch.nn.Identity(), {"input": REP}, REP, "haar")
    with pytest.raises(TypeError, match="argument 'input': given twice"):
        phi(torch.zeros(1, 2, 3), input=torch.ones(1, 2, 3))


class Bad(nn.Module):
    def __init__(self, output):
        super().__init__()
        self.output = output

    def forward(self, **kwargs):
        return self.output


@pytest.mark.parametrize(
    ("output", "error", "says"),
    [
        (torch.zeros(3, 4, 3).double(), ValueError, r"expected 6 rows.*\(3, 4, 3\)"),
        (torch.zeros(6).double(), ValueError, r"expected 6 rows and the axes"),
        ([1.0], TypeError, "output.*expected a tensor.*list"),
    ],
)
def test_bad_outputs(output, error, says):
    s = particles(ps.E(3))
    with pytest.raises(error, match=says):
        ps.symmetrize(Bad(output), s.inputs, s.output, "haar")(**s.call, samples=2)


REP = ps.Rep(ps.S("n"), ps.O(3))


@pytest.mark.parametrize(
    ("make", "error", "says"),
    [
        (lambda m: ps.symmetrize(lambda x: x, REP, REP), TypeError, "model: expected an nn.Module"),
        (lambda m: ps.symmetrize(m, "pos", REP), TypeError, "inputs: expected a Rep"),
        (lambda m: ps.symmetrize(m, REP, 3), TypeError, "output: expected a Rep"),
        (
            lambda m: ps.symmetrize(m, REP, REP, "uniform"),
            ValueError,
            "expected one of 'learned', 'haar', 'frame', 'canonical'.*, got 'uniform'",
        ),
        (lambda m: ps.symmetrize(m, ps.Rep(), ps.Rep(None), "haar"), ValueError, "no group acts on any declared axis"),
        (lambda m: ps.symmetrize(m, REP, REP, 3), TypeError, "distribution: expected one of"),
        (lambda m: ps.symmetrize(m, REP, REP, ps.Haar(ps.O(3))), ValueError, r"S\('n'\) acts on the declared axes"),
        (
            lambda m: ps.symmetrize(m, ps.Rep(ps.O(3)), ps.Rep(ps.O(3)), ps.Haar(ps.O(3) * ps.S("n"))),
            ValueError,
            "acts on no declared axis",
        ),
        (
            lambda m: ps.symmetrize(m, REP, REP, "haar", train_samples=0),
            ValueError,
            "train_samples: expected an integer of at least 1, got 0",
        ),
        (
            lambda m: ps.symmetrize(m, REP, REP, "haar", eval_samples=2.5),
            ValueError,
            "eval_samples: expected an integer",
        ),
        (
            lambda m: ps.symmetrize(m, REP, REP, "haar")(torch.zeros(1, 2, 3), samples=0),
            ValueError,
            "samples: expected an integer of at least 1",
        ),
        (
            lambda m: ps.symmetrize(m, REP, REP, "haar").sample(torch.zeros(1, 2, 3), samples=-1),
            ValueError,
            "samples: expected",
        ),
        (
            lambda m: ps.symmetrize(m, REP, REP, "haar")(torch.zeros(1, 2, 3), tol=-1.0),
            ValueError,
            "tol: expected a positive",
        ),
        (
            lambda m: ps.symmetrize(m, REP, REP, "haar")(torch.zeros(1, 2, 3), estimator=ps.Exact()),
            TypeError,
            "MonteCarlo",
        ),
        (lambda m: ps.Haar(ps.E(3)), ValueError, "not compact.*origin='centroid'"),
        (lambda m: ps.Haar(ps.E(3), origin="corner"), ValueError, "origin: expected None or 'centroid'"),
        (lambda m: ps.Haar("O(3)"), TypeError, "expected a group"),
        (
            lambda m: ps.Learned(m, ps.O(3), noise="early"),
            ValueError,
            "noise: expected one of 'late', 'gumbel', 'input', got 'early'",
        ),
        (lambda m: ps.Learned(m, ps.O(3), scale=0), ValueError, "scale: expected a positive number"),
        (lambda m: ps.Learned(lambda x: x, ps.O(3)), TypeError, "net: expected an nn.Module"),
        (lambda m: ps.Haar(ps.O(3)) * ps.Haar(ps.O(3)), ValueError, "a product needs different groups"),
        (
            lambda m: ps.symmetrize(m, ps.Rep(ps.E(3).vector), ps.Rep(ps.E(3).vector), "haar")(torch.zeros(1, 3)),
            ValueError,
            "no input is declared as points",
        ),
    ],
)
def test_one_error_that_says_what_was_expected(make, error, says):
    with pytest.raises(error, match=says):
        make(nn.Identity())
