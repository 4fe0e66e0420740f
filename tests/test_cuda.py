"""The same on a GPU: given the same noise, values and gradients are those of the CPU; skipped where there is none."""

import copy

import pytest
import torch
from torch.utils._pytree import tree_map

import probsym as ps
from cases import DISTRIBUTIONS, SETTINGS, close, seeded
from probsym.distributions.base import samples_of
from probsym.reps import Inputs

DEVICE = "cuda"
pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
TOLERANCE = {torch.float32: 1e-4, torch.float64: 1e-9}
KINDS = pytest.mark.parametrize("kind", TOLERANCE, ids=str)
DESIGNS = {
    "SO(3)": ["octahedral", "signs", "antithetic", "stratified"],
    "S": ["shifts", "antithetic", "stratified"],
    "S x E(3)": [("shifts", "full-icosahedral"), "antithetic"],
    "padded S x E(3)": ["antithetic", "stratified"],
    "ragged S x E(3)": ["antithetic", "stratified"],
}


def there(values):
    return tree_map(lambda v: v.to(DEVICE) if isinstance(v, torch.Tensor) else v, values)


def here(values):
    return tree_map(lambda v: v.detach().cpu(), values)


def on_gpu(values) -> bool:
    return all(v.device.type == DEVICE for v in torch.utils._pytree.tree_leaves(values))


def scale(values) -> float:
    return max(1.0, *(v.abs().max().item() for v in torch.utils._pytree.tree_leaves(values)))


def slopes(phi, call, **options):
    """The output, and the gradients of its squares with respect to the weights and the floating inputs."""
    call = {k: v.clone().requires_grad_() if v.is_floating_point() else v for k, v in call.items()}
    weights = [*phi.parameters(), *(v for v in call.values() if v.requires_grad)]
    y = phi(**call, **options)
    total = sum(v.square().sum() for v in torch.utils._pytree.tree_leaves(y))
    return y, tuple(g for g in torch.autograd.grad(total, weights, allow_unused=True) if g is not None)


def agree(phi, call, tolerance, **options):
    """CPU and GPU; noise among the options is moved along."""
    found, expected = slopes(copy.deepcopy(phi).to(DEVICE), there(call), **there(options)), slopes(phi, call, **options)
    assert on_gpu(found)
    for ours, theirs in zip(here(found), here(expected), strict=True):
        assert close(ours, theirs, tolerance * scale(theirs))


@KINDS
@pytest.mark.parametrize("setting", SETTINGS)
@pytest.mark.parametrize("distribution", DISTRIBUTIONS)
def test_values_and_gradients(setting, distribution, kind):
    """Frames may come in another order, so that of them the whole average is compared."""
    s = SETTINGS[setting](kind=kind)
    phi = s.symmetrized(distribution)
    noise = {} if distribution == "frame" else {"noise": phi.draw_noise(**s.call, samples=3, generator=seeded())}
    agree(phi, s.call, TOLERANCE[kind], **noise)


@pytest.mark.parametrize("setting", SETTINGS)
@pytest.mark.parametrize("distribution", DISTRIBUTIONS)
def test_equivariant_with_a_generator(setting, distribution):
    """All draws come from a generator there, which makes them repeat."""
    s = SETTINGS[setting]()
    phi, call = s.symmetrized(distribution).to(DEVICE), there(s.call)
    assert ps.testing.equivariance_error(phi, call, samples=32).passed
    a, b, c = (phi(**call, samples=5, generator=torch.Generator(DEVICE).manual_seed(i)) for i in (0, 0, 1))
    assert on_gpu(a)
    assert close(a, b, 1e-12)
    assert distribution in ("frame", "canonical") or not close(a, c)
    x = phi.bind((), call)
    noise = phi.draw_noise(**call, samples=70, generator=torch.Generator(DEVICE).manual_seed(0))
    assert samples_of(noise) == 70
    assert phi.distribution.transport(x, noise).shape == (70, x.count)


@pytest.mark.parametrize(("setting", "design"), [(s, d) for s, designs in DESIGNS.items() for d in designs])
def test_designs(setting, design):
    s = SETTINGS[setting]()
    phi = s.symmetrized("haar")
    estimator = ps.MonteCarlo(480, chunk=200, design=design)
    noise = phi.draw_noise(**s.call, samples=480, generator=seeded())
    if design != "stratified":  # which draws its own noise
        agree(phi, s.call, 1e-9, noise=noise, estimator=estimator)
    drawn = phi.to(DEVICE).estimate(**there(s.call), estimator=estimator)
    assert on_gpu((drawn.mean, drawn.stderr, drawn.samples))
    assert all(v.isfinite().all() for v in torch.utils._pytree.tree_leaves(drawn.mean))


@pytest.mark.parametrize("setting", ["SO(3)", "S", "padded S x E(3)", "ragged S x E(3)"])
@pytest.mark.parametrize("estimator", [ps.MonteCarlo(64, design="sobol"), ps.Adaptive(0.5, 256)], ids=repr)
def test_estimators_that_draw(setting, estimator):
    """Near the truth, as their errors have it."""
    s = SETTINGS[setting]()
    phi = s.symmetrized("haar")
    truth = phi(**s.call, samples=4096, generator=seeded())
    found = phi.to(DEVICE).estimate(**there(s.call), estimator=estimator)
    assert on_gpu((found.mean, found.stderr, found.samples))
    gap = tree_map(
        lambda a, b, e: ((a - b).abs() - 10 * e.clamp_min(1e-2)).max().item(), *here((found.mean, truth, found.stderr))
    )
    assert max(torch.utils._pytree.tree_leaves(gap)) < 0


@KINDS
@pytest.mark.parametrize("estimator", [ps.Exact(), ps.Hybrid(4)], ids=repr)
@pytest.mark.parametrize(("setting", "distribution"), [("S", "haar"), ("padded S x E(3)", "frame")])
def test_exact(setting, distribution, estimator, kind):
    s = SETTINGS[setting](kind=kind)
    agree(s.symmetrized(distribution), s.call, TOLERANCE[kind], estimator=estimator)


@pytest.mark.parametrize("group", [ps.C(4), ps.D(4), ps.Shift(6), ps.Signs(6)], ids=repr)
def test_finite_groups(group):
    net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(36, 3)).double()
    phi = ps.symmetrize(net, ps.Rep(group), ps.Rep(), "haar", eval_samples=ps.Exact()).eval()
    x = torch.randn(2, 6, 6, dtype=torch.float64)
    y = copy.deepcopy(phi).to(DEVICE)(x.to(DEVICE))
    assert on_gpu(y)
    assert close(y.cpu(), phi(x), 1e-9)


@pytest.mark.parametrize("n", [1, 2, 7, 16, 64, 100, 128, 129])
@pytest.mark.parametrize("relaxation", [ps.Relaxation(0.5, 0), ps.Relaxation(), ps.Relaxation(0.01, 20)], ids=repr)
@pytest.mark.parametrize("padded", [False, True])
def test_soft_permutations(n, relaxation, padded):
    """By kernels up to 128 nodes, in float32; the gradient as it comes, transposed too; entropies with theirs."""
    z = torch.randn(3, 4, n)
    z[0, 0] = 0  # where only some scores are equal, which of them has which slope is the sort's choice
    sizes = torch.tensor([n, 1, (n + 1) // 2, n])
    nodes = ps.S("nodes", mask="mask") if padded else ps.S("nodes")
    call = {"x": torch.randn(4, n, 2)} | ({"mask": torch.arange(n) < sizes[:, None]} if padded else {})
    found = []
    for move, kind in ((there, torch.float32), (here, torch.float64)):
        layout = Inputs.bind({"x": ps.Rep(nodes)}, (), move(call)).layouts[nodes]
        mask, scores = layout.padded_mask(), move(z).to(kind).requires_grad_()
        grad = move(torch.randn(3, 4, n, n, generator=seeded())).to(kind).mT
        grad = grad if mask is None else grad * (mask[..., None] & mask[..., None, :])
        soft, entropy = relaxation(scores, mask), relaxation.entropy(scores, layout)
        slopes = [torch.autograd.grad(y, scores, g)[0] for y, g in ((soft, grad), (entropy, None))]
        found.append(here((soft, relaxation.pull(scores.detach(), mask, grad), entropy, *slopes)))
    for ours, theirs in zip(*found, strict=True):
        assert close(ours.double(), theirs, 2e-5 * max(1.0, theirs.abs().max().item()))


def test_saved_there_and_loaded_here(tmp_path):
    s = SETTINGS["S x E(3)"](kind=torch.float32)
    phi = s.symmetrized("learned")
    noise = phi.draw_noise(**s.call, samples=3)
    ps.save(copy.deepcopy(phi).to(DEVICE), tmp_path / "model")
    again = ps.load(tmp_path / "model", model=s.model).eval()
    assert close(again(**s.call, noise=noise), phi(**s.call, noise=noise), 1e-5)


@pytest.mark.parametrize("estimator", [ps.Exact(), ps.Exact(chunk=3), ps.Hybrid(2)], ids=repr)
def test_frames_beside_an_axis_that_nothing_moves(estimator):
    """Elements of the axis are chosen by numbers that lie on the GPU."""

    class Model(torch.nn.Module):
        def forward(self, pos):
            return pos.sin().sum((1, 2))

    nodes, space = ps.Axis("nodes"), ps.E(3, "space")
    phi = ps.symmetrize(Model(), {"pos": ps.Rep(nodes, space)}, ps.Rep(), ps.Frame(space)).eval()
    pos = torch.randn(4, 5, 3, dtype=torch.float64)
    assert close(here(phi(pos=there(pos), estimator=estimator)), phi(pos=pos, estimator=estimator))


@KINDS
@pytest.mark.parametrize("group", [ps.D(4), ps.C(8, mask="disc"), ps.SO(2), ps.Shift((6,))], ids=repr)
def test_images_and_what_turns_with_them(group, kind):
    """Many samples of one batch, with mixed poses: pixels, flows, keypoints and signals."""
    g = group.haar((5, 3), generator=seeded(), dtype=kind)
    reps = {"image": ps.Rep(None, group.defining)}
    if not isinstance(group, ps.Shift):
        reps = {"flow": ps.Rep(group.vector, group.image), "sign": ps.Rep(group.det)}
    if isinstance(group, ps.C | ps.D):
        reps["points"] = ps.Rep(None, group.point)
    for rep in reps.values():
        sizes = []
        for slot in rep.slots:
            sizes += [4] if slot is None else [6 if size is None else size for size in slot.sizes]
        x = torch.randn(3, *sizes, generator=seeded(1), dtype=torch.float64).to(kind)
        moved = rep.act(g.map(lambda tensor, _: tensor.to(DEVICE)), x.to(DEVICE), 1)
        assert on_gpu(moved)
        assert close(here(moved), rep.act(g, x, 1), TOLERANCE[kind])
