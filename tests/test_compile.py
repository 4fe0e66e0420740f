"""A core that compilers, exporters and function transforms accept, in every precision, from any thread."""

import copy
import importlib.util
import pickle
import subprocess
import sys
import threading
import warnings

import pytest
import torch
from torch import nn
from torch._dynamo.testing import CompileCounterWithBackend

import probsym as ps
from cases import NODES, SETTINGS, particles, randn, rotated, sets
from probsym.distributions import ScoreNet

DENSE = [("S x E(3)", "learned"), ("SO(3)", "haar")]
MORE = [
    ("S x E(3)", "haar"), ("S x E(3)", "learned-input"), ("S x E(3)", "canonical"), ("padded S x E(3)", "learned"),
    ("labels", "learned"), ("Axis x E(3)", "learned"),
]  # fmt: skip
slow = pytest.mark.slow


def flat(y) -> list[torch.Tensor]:
    return list(y.values()) if isinstance(y, dict) else list(y) if isinstance(y, tuple) else [y]


def agree(a, b, atol: float = 1e-9) -> bool:
    return all(torch.allclose(s, t, atol=atol) for s, t in zip(flat(a), flat(b), strict=True))


def prepared(setting: str, distribution: str, samples: int = 3):
    s = SETTINGS[setting]()
    phi = s.symmetrized(distribution)
    torch._dynamo.reset()
    return phi, s.call, phi.draw_noise(**s.call, samples=samples, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    ("setting", "distribution"), [DENSE[1], *(pytest.param(*c, marks=slow) for c in [DENSE[0], *MORE])]
)
def test_full_graph(setting, distribution):
    """One graph, forward and backward, with the noise as an input."""
    phi, call, noise = prepared(setting, distribution)
    compiled = torch.compile(phi.train(), backend="aot_eager", fullgraph=True)
    slopes = []
    for module in (compiled, phi):
        phi.zero_grad()
        y = module(**call, noise=noise)
        sum(t.square().sum() for t in flat(y)).backward()
        slopes.append([p.grad.clone() for p in phi.parameters() if p.grad is not None])
    assert agree(compiled(**call, noise=noise), phi(**call, noise=noise))
    assert agree(tuple(slopes[0]), tuple(slopes[1]), 1e-8)


@pytest.mark.parametrize("rep", [ps.Rep(None, ps.O(3)), ps.Rep(ps.S("n"), ps.E(3)), ps.Rep(ps.S("n"), None)], ids=repr)
def test_full_graph_of_the_default_net(rep):
    """Without declared pairs; the same as eager, by seed."""
    torch._dynamo.reset()
    x = torch.randn(4, 5, 3)
    phi = ps.symmetrize(nn.Linear(3, 3), rep, rep, "learned", example=x).train()
    found = []
    for module in (torch.compile(phi, backend="eager", fullgraph=True), phi):
        torch.manual_seed(0)
        found.append(module(x))
    assert agree(*found, atol=1e-5)


def test_full_graph_that_draws_its_noise():
    phi, call, _ = prepared("S x E(3)", "haar")
    compiled = torch.compile(phi, backend="eager", fullgraph=True)
    torch.manual_seed(0)
    a, b = (compiled(**call, samples=2) for _ in range(2))
    assert a.isfinite().all()
    assert not torch.allclose(a, b)


POINTS = ps.Rep(ps.S("n"), ps.E(3, "s"))
ANY_BATCH = [
    (ps.Rep(ps.S("n"), ps.O(3, "s")), (5, 3), "haar", 3),
    (ps.Rep(ps.D(4)), (4, 4), "haar", 3),
]
ANY_BATCH_TOO = [
    (POINTS, (5, 3), "learned", 3),
    (POINTS, (5, 3), "canonical", None),
    (ps.Rep(ps.Signs(3), ps.C(8)), (3, 4, 4), "haar", ps.MonteCarlo(4, chunk=3)),
]


@pytest.mark.parametrize(
    ("rep", "shape", "distribution", "samples"),
    ANY_BATCH + [pytest.param(*case, marks=slow) for case in ANY_BATCH_TOO],
    ids=repr,
)
def test_batches_of_any_size_draw_their_noise(rep, shape, distribution, samples):
    """Compiled once, then called with a smaller batch, with a larger one and with one input: as eager, by seed."""
    torch._dynamo.reset()
    phi = ps.symmetrize(nn.Identity(), rep, rep, distribution, samples, samples, example=torch.randn(2, *shape))
    phi = phi.eval().requires_grad_(False)
    compiled = torch.compile(phi, backend="eager")
    for batch in (4, 3, 7, 1):
        x = torch.randn(batch, *shape)
        found = []
        for module in (compiled, phi):
            torch.manual_seed(batch)
            found.append(module(x))
        assert found[0].shape == x.shape
        assert agree(*found, atol=1e-5)


def test_full_graph_of_a_design_and_of_d4():
    phi, call, noise = prepared("SO(3)", "haar", 24)
    estimator = ps.MonteCarlo(24, design="octahedral")
    compiled = torch.compile(phi, backend="eager", fullgraph=True)
    assert agree(compiled(**call, noise=noise, estimator=estimator), phi(**call, noise=noise, estimator=estimator))
    net = nn.Sequential(nn.Flatten(), nn.Linear(36, 2)).double()
    phi = ps.symmetrize(net, ps.Rep(ps.D(4)), ps.Rep(), "haar", eval_samples=ps.Exact()).eval()
    x = torch.randn(2, 6, 6, dtype=torch.float64)
    assert agree(torch.compile(phi, backend="eager", fullgraph=True)(x), phi(x))


@pytest.mark.parametrize("estimator", [ps.MonteCarlo(16, design="stratified"), ps.MonteCarlo(16, 5)], ids=repr)
def test_full_graph_of_strata_and_chunks(estimator):
    """Drawn inside, from the same seed."""
    phi, call, _ = prepared("SO(3)", "haar")
    found = []
    for module in (phi, torch.compile(phi, backend="eager", fullgraph=True)):
        torch.manual_seed(0)
        found.append(module(**call, estimator=estimator))
    assert agree(*found)


class Named(nn.Module):
    """What a model returns, in a dict; `broken` breaks the graph."""

    def __init__(self, net, broken):
        super().__init__()
        self.net, self.broken = net, broken

    def forward(self, x):
        y = self.net(x)
        if self.broken:
            torch._dynamo.graph_break()
        return {"y": y}


@pytest.mark.parametrize("broken", [False, pytest.param(True, marks=slow)])
@pytest.mark.parametrize("estimator", [ps.MonteCarlo(4, chunk=2), ps.Exact(chunk=3)], ids=repr)
def test_a_training_step_in_chunks(estimator, broken):
    """Gradients and statistics as in eager, where chunks are evaluated again in backward, and count once."""
    torch._dynamo.reset()
    found = []
    for compiled in (False, True):
        torch.manual_seed(0)
        net = nn.Sequential(nn.Flatten(), nn.Linear(16, 3), nn.BatchNorm1d(3), nn.Linear(3, 2)).double()
        phi = ps.symmetrize(Named(net, broken), ps.Rep(ps.C(4)), {"y": ps.Rep()}, "haar", estimator).train()
        call = torch.compile(phi, backend="aot_eager", fullgraph=not broken) if compiled else phi
        noise = {} if isinstance(estimator, ps.Exact) else {"noise": phi.draw_noise(randn(3, 4, 4), samples=4)}
        call(randn(3, 4, 4), **noise, estimator=estimator)["y"].square().sum().backward()
        found.append((*(p.grad for p in phi.parameters()), *phi.buffers()))
    assert found[0][-1] == 2
    assert agree(*found)


@slow
@pytest.mark.parametrize(("setting", "distribution"), [("ragged S x E(3)", "learned"), ("S x E(3)", "frame")])
def test_shapes_that_depend_on_data_break_the_graph_but_not_the_result(setting, distribution):
    phi, call, noise = prepared(setting, distribution)
    assert agree(torch.compile(phi, backend="eager")(**call, noise=noise), phi(**call, noise=noise))


class Called(nn.Module):
    """A symmetrized model whose keywords are one argument, as the exporter wants it for sizes that may change."""

    def __init__(self, phi: nn.Module) -> None:
        super().__init__()
        self.phi = phi

    def forward(self, call, noise):
        return self.phi(**call, noise=noise)


# What differs in what an export has to follow: one learned pose, labels, and noise at the input of the net of p.
OTHERS = [("S x E(3)", "canonical"), ("labels", "learned"), ("S x E(3)", "learned-input")]


@pytest.mark.parametrize(
    ("setting", "distribution"),
    [("padded S x E(3)", "learned"), ("SO(3)", "haar"), *(pytest.param(*case, marks=slow) for case in OTHERS)],
)
def test_export_for_batches_of_any_size(setting, distribution):
    phi, call, noise = prepared(setting, distribution)
    batch = torch.export.Dim("batch", min=2)
    shapes = {key: {0: batch} for key in call}, torch.utils._pytree.tree_map(lambda t: {1: batch}, noise)
    program = torch.export.export(Called(phi), (call, noise), dynamic_shapes=shapes, strict=False)
    call = {key: torch.cat([value, value[:2].flip(0)]) for key, value in call.items()}
    noise = phi.draw_noise(**call, samples=3)
    assert agree(program.module()(call, noise), phi(**call, noise=noise))


EXPORT_FIRST = """
import torch, probsym as ps
x = torch.randn(2, 3, 3, dtype=torch.float64)
net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(9, 2)).double()
phi = ps.symmetrize(net, {}, ps.Rep(), "haar", eval_samples={}).eval()
exported = torch.export.export(phi, (x,), strict=False).module()(x)
with torch.inference_mode():
    assert torch.allclose(phi(x), exported)
phi(x.requires_grad_()).sum().backward()
"""


@pytest.mark.parametrize(
    ("rep", "estimator"),
    [("ps.Rep(ps.D(4))", "ps.Exact()"), ("ps.Rep(None, ps.SO(3))", "ps.MonteCarlo(24, design='octahedral')")],
)
def test_tracing_leaves_nothing_behind(rep, estimator):
    """Export, then inference mode, as the first calls of a process: later calls meet no tensors of theirs.

    Both estimators are exact for a linear net, so that nothing depends on what is drawn.
    """
    subprocess.run([sys.executable, "-c", EXPORT_FIRST.format(rep, estimator)], check=True)


class Quarters(nn.Module):
    """Equivariant scores over the quarter turns of an image."""

    def __init__(self):
        super().__init__()
        self.score = nn.Linear(32, 1).double()

    def forward(self, x):
        return torch.cat([self.score(x.rot90(-k, (2, 3)).flatten(1)) for k in range(4)], 1)


EXPORTED = {
    "canonical turns": lambda: (ps.Rep(None, ps.C(4)), ps.Canonical(Quarters(), ps.C(4)), (2, 4, 4)),
    "all turns": lambda: (ps.Rep(None, ps.D(4)), "haar", (2, 4, 4)),
    "all orders": lambda: (ps.Rep(NODES), "haar", (4, 8)),
    "canonical orders": lambda: (ps.Rep(NODES), "canonical", (4, 8)),
    "canonical pose": lambda: (ps.Rep(NODES, ps.E(2)), "canonical", (16, 2)),
}


@pytest.mark.parametrize(
    ("name", "chunk"),
    [(name, None) for name in EXPORTED] + [pytest.param(name, 3, marks=slow) for name in ("all turns", "all orders")],
)
def test_exact_averages_are_exported_for_batches_of_any_size(name, chunk):
    rep, p, shape = EXPORTED[name]()
    f = nn.Sequential(nn.Flatten(), nn.Linear(32, 2)).double()
    phi = ps.symmetrize(f, rep, ps.Rep(), p, eval_samples=ps.Exact(chunk), example=randn(2, *shape)).double().eval()
    phi.requires_grad_(False)
    program = torch.export.export(
        phi, (randn(4, *shape),), dynamic_shapes=(({0: torch.export.Dim("batch", min=2)},),), strict=False
    )
    for b in (2, 5):
        x = randn(b, *shape, seed=b)
        torch.testing.assert_close(program.module()(x), phi(x))


ONNX = all(importlib.util.find_spec(name) for name in ("onnxscript", "onnxruntime"))


@pytest.mark.skipif(not ONNX, reason="torch's ONNX exporter needs onnxscript, and its result onnxruntime to be run")
@pytest.mark.parametrize(
    ("setting", "distribution"),
    [("S x E(3)", "learned"), *(pytest.param(*case, marks=slow) for case in (("SO(3)", "haar"), MORE[3]))],
)
def test_onnx(setting, distribution, tmp_path):
    """The exported graph gives the same outputs for inputs and noise that it has not seen."""
    import onnxruntime

    s = SETTINGS[setting](kind=torch.float32)  # onnxruntime has no determinant in float64
    phi, call = s.symmetrized(distribution), s.call
    noise = phi.draw_noise(**call, samples=3)
    torch.onnx.export(phi, (), kwargs={**call, "noise": noise}, dynamo=True).save(tmp_path / "phi.onnx")
    session = onnxruntime.InferenceSession(str(tmp_path / "phi.onnx"), providers=["CPUExecutionProvider"])
    call = {name: value + torch.randn_like(value) if name != "mask" else value for name, value in call.items()}
    noise = phi.draw_noise(**call, samples=3, generator=torch.Generator().manual_seed(5))
    values = [*call.values(), *torch.utils._pytree.tree_leaves(noise)]
    names = [entry.name for entry in session.get_inputs()]
    found = session.run(None, {name: value.numpy() for name, value in zip(names, values, strict=True)})
    assert agree(tuple(map(torch.from_numpy, found)), phi(**call, noise=noise), 1e-5)


def positions(phi, call, noise):
    def f(pos: torch.Tensor) -> torch.Tensor:
        return flat(phi(**{**call, "pos": pos}, noise=noise))[0]

    return f


@pytest.mark.parametrize(
    ("setting", "distribution"), [("S x E(3)", "haar"), ("S x E(3)", "learned"), ("padded S x E(3)", "canonical")]
)
def test_function_transforms(setting, distribution):
    phi, call, noise = prepared(setting, distribution)
    f, x = positions(phi, call, noise), call["pos"]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        batch = torch.func.vmap(f)(torch.stack([x, 2 * x]))
    assert agree(batch, torch.stack([f(x), f(2 * x)]))
    jacobian = torch.func.jacrev(lambda v: f(v).sum(0))(x)
    assert agree(jacobian, torch.autograd.functional.jacobian(lambda v: f(v).sum(0), x))


def test_function_transforms_of_exact():
    """Under `vmap` no pose is left out for being equal to another: which are, is not the same in every slice."""
    net = nn.Sequential(nn.Flatten(), nn.Linear(36, 8), nn.Tanh(), nn.Linear(8, 2)).double()
    phi = ps.symmetrize(net, ps.Rep(ps.D(4)), ps.Rep(), "haar", eval_samples=ps.Exact()).eval()
    x = torch.randn(3, 2, 6, 6, dtype=torch.float64)
    x[1] = x[1] + x[1].flip(-1)
    assert agree(torch.func.vmap(phi)(x), torch.stack([phi(part) for part in x]))
    jacobian = torch.func.jacrev(lambda v: phi(v).sum(0))(x[1])
    assert agree(jacobian, torch.autograd.functional.jacobian(lambda v: phi(v).sum(0), x[1]))


@slow
@pytest.mark.parametrize(("setting", "distribution"), [("ragged S x E(3)", "learned"), ("S x E(3)", "frame")])
def test_shapes_that_depend_on_data_are_refused_by_export_and_vmap(setting, distribution):
    phi, call, noise = prepared(setting, distribution)
    with pytest.raises(Exception, match="data-dependent"):
        torch.export.export(phi, (), {**call, "noise": noise}, strict=False)
    with pytest.raises((RuntimeError, ValueError), match=r"vmap|[Bb]atching rule"):
        torch.func.vmap(positions(phi, call, noise))(call["pos"][None])


@pytest.mark.parametrize("kind", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("distribution", ["haar", "learned", "canonical", "frame"])
def test_autocast(kind, distribution):
    """The model runs in half precision, p in single: its elements are those without autocast."""
    s = particles(ps.E(3), kind=torch.float32)
    phi = s.symmetrized(distribution)
    x = phi.bind((), s.call)
    noise = phi.draw_noise(**s.call, samples=3)
    seen = []
    phi.model.layers[0].register_forward_hook(lambda module, args, out: seen.append(out.dtype))
    with torch.autocast("cpu", dtype=kind):
        y = phi(**s.call, noise=noise)
        g = phi.distribution.transport(x, noise)
    assert seen == [kind]
    reference = phi.distribution.transport(x, noise)
    for f in phi.group.factors:
        part, other = g[f], reference[f]
        for name, tensor in part.tensors.items():
            if name not in ("relaxed", "reverse"):
                assert torch.allclose(tensor, other.tensors[name], atol=1e-5)
    assert (y - phi(**s.call, noise=noise)).abs().max() < 0.05
    y.square().mean().backward()
    assert all(p.grad.isfinite().all() for p in phi.parameters() if p.grad is not None)


@pytest.mark.parametrize("distribution", ["haar", "learned", "learned-input", "canonical", "frame"])
def test_copies_and_precisions(distribution):
    """A deep copy gives the same bits; float32 and float64 agree; nothing is kept on self by a call."""
    s, narrow = particles(ps.E(3)), particles(ps.E(3), kind=torch.float32)
    phi = s.symmetrized(distribution)
    before = {name: dict(vars(m)) for name, m in phi.named_modules()}
    draw = lambda: torch.Generator().manual_seed(4)  # noqa: E731
    y = phi(**s.call, samples=3, generator=draw())
    assert {name: dict(vars(m)) for name, m in phi.named_modules()} == before
    assert torch.equal(copy.deepcopy(phi)(**s.call, samples=3, generator=draw()), y)
    noise = phi.draw_noise(**s.call, samples=2, generator=draw())
    single = torch.utils._pytree.tree_map(lambda t: t.float(), noise)
    assert torch.allclose(
        copy.deepcopy(phi).float()(**narrow.call, noise=single).double(), phi(**s.call, noise=noise), atol=1e-3
    )


def test_threads_share_one_model():
    """Four threads on one model, each with inputs of its own: the results are those of one after the other."""
    settings = [sets(b) for b in (1, 2, 3, 4)]
    phi = settings[0].symmetrized("learned")
    results: list = [None] * 4

    def work(i: int) -> None:
        for _ in range(5):
            results[i] = phi(**settings[i].call, samples=3, generator=torch.Generator().manual_seed(i))

    threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for i, s in enumerate(settings):
        assert agree(results[i], phi(**s.call, samples=3, generator=torch.Generator().manual_seed(i)))


def test_a_symmetrized_model_inside_another():
    inner = rotated(ps.SO(3))
    once = inner.symmetrized("frame")
    outer = ps.symmetrize(once, inner.inputs, inner.output, "haar", eval_samples=2).eval()
    assert agree(outer(**inner.call), once(**inner.call))


def test_a_net_that_is_not_built_is_refused_with_the_way_out():
    """Lazy layers cannot be made while a compiler follows."""
    nodes = ps.S("nodes")
    x = torch.randn(2, 3, 3)
    phi = ps.symmetrize(torch.nn.Identity(), ps.Rep(nodes), ps.Rep(nodes), "learned")
    with pytest.raises(ValueError, match=r"not built yet.*pass example="):
        torch.compile(phi, backend="eager")(x)


@pytest.mark.parametrize("temperature", [1.0, 0.0])
def test_scores_of_poses_have_no_graph_break(temperature):
    turns = ps.C(4)
    rep = ps.Rep(None, turns)
    x = torch.randn(3, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    p = ps.Scored(ScoreNet(rep, turns), turns, temperature)
    phi = ps.symmetrize(nn.Sequential(nn.Flatten(), nn.Linear(64, 2)), rep, ps.Rep(), p, example=x).eval()
    with torch.no_grad():
        assert torch.allclose(torch.compile(phi, backend="eager", fullgraph=True)(x), phi(x), atol=1e-6)
        mapped = torch.func.vmap(lambda image: phi(image[None])[0], randomness="different")(x)
        assert torch.allclose(mapped, phi(x), atol=1e-6)


# ---------------------------------------------------------------- phi.compile()

PARTS = 3  # what is compiled: the elements, their action on inputs, and that on the output


class Head(nn.Module):
    """A small model of 5 points; `graph_break` breaks the graph of who compiles it."""

    def __init__(self, outputs: int = 15, graph_break: bool = False):
        super().__init__()
        self.net = nn.Linear(15, outputs).double()
        self.graph_break = graph_break

    def forward(self, x, mask=None):
        if self.graph_break:
            torch._dynamo.graph_break()
        return self.net(x.flatten(1)).unflatten(1, (5, -1))


def in_place(nodes, space, distribution: str, backend: str = "aot_eager"):
    """phi with compiled parts, the counter of its compilations, and a copy that is not compiled."""
    torch._dynamo.reset()
    counter = CompileCounterWithBackend(backend)
    reps = {"x": ps.Rep(nodes, space)}
    example = {"x": randn(2, 5, 3)}
    if nodes.mask is not None:
        reps["mask"] = None
        example["mask"] = torch.ones(2, 5, dtype=torch.bool)
    model = Head(graph_break=True)
    phi = ps.symmetrize(model, reps, ps.Rep(nodes, space), distribution, example=example).double().train()
    plain = copy.deepcopy(phi)
    phi.compile(backend=counter, fullgraph=True)
    return phi, plain, counter


def step(phi, call: dict, **options):
    """Output and slopes of all weights."""
    phi.zero_grad()
    y = phi(**call, generator=torch.Generator().manual_seed(3), **options)
    y.square().sum().backward()
    return (y.detach(), *(p.grad.clone() for p in phi.parameters() if p.grad is not None))


def call_of(nodes, b: int) -> dict:
    call = {"x": randn(b, 5, 3, seed=b)}
    if nodes.mask is not None:
        call["mask"] = torch.arange(5) < torch.arange(b)[:, None] % 5 + 1
    return call


def in_place_agrees(nodes, space, distribution: str, modes: tuple[bool, ...]) -> None:
    """Outputs and slopes as without, and one compilation of each part for all batches but those of one input.

    A part that does not ask for the mode, such as an action, is not compiled again for the next one.
    """
    phi, plain, counter = in_place(nodes, space, distribution)
    for training in modes:
        phi.train(training)
        plain.train(training)
        for sizes in ((2, 7, 33), (1, 1)):
            before = counter.frame_count
            counts = []
            for b in sizes:
                call = call_of(nodes, b)
                assert agree(step(phi, call, samples=2), step(plain, call, samples=2))
                counts.append(counter.frame_count - before)
            assert len(set(counts)) == 1
            assert 0 < counts[0] <= PARTS


def test_compiled_in_place():
    """Beside a model that breaks a graph; what is copied is not compiled."""
    in_place_agrees(ps.S("n"), ps.SO(3, "s"), "haar", (True,))


@slow
def test_a_learned_p_compiled_in_place():
    """In training and in evaluation."""
    in_place_agrees(ps.S("n"), None, "learned", (True, False))


@slow
def test_compiled_in_place_breaks_the_graph_of_a_ragged_batch_but_not_the_result():
    phi, call, noise = prepared("ragged S x E(3)", "learned")
    expected = phi(**call, noise=noise)
    phi.compile(backend="eager")
    assert agree(phi(**call, noise=noise), expected)


def test_what_is_copied_stays_compiled_itself(tmp_path):
    """All parts, after a copy, a pickle and a file were made of it."""
    nodes = ps.S("n")
    phi, plain, counter = in_place(nodes, ps.SO(3, "s"), "haar", backend="eager")
    copy.deepcopy(phi)
    pickle.dumps(phi)
    ps.save(phi, tmp_path / "phi")
    call = call_of(nodes, 2)
    assert agree(step(phi, call, samples=2), step(plain, call, samples=2))
    assert counter.frame_count == PARTS


def test_what_is_compiled_in_place_is_not_copied_nor_saved(tmp_path):
    """A copy, a pickle and a file give the same without a compiler, and so do calls that it does not follow."""

    def forbidden(graph, example_inputs):
        raise AssertionError("compiled")

    phi = ps.symmetrize(nn.Identity(), ps.Rep(None, ps.SO(3)), ps.Rep(None, ps.SO(3)), "haar").eval()
    x = torch.randn(2, 5, 3)
    noise = phi.draw_noise(x, samples=3)
    expected = phi(x, noise=noise)
    phi.compile(backend=forbidden)
    with pytest.raises(Exception, match="compiled"):
        phi(x, noise=noise)
    ps.save(phi, tmp_path / "phi")
    for other in (copy.deepcopy(phi), pickle.loads(pickle.dumps(phi)), ps.load(tmp_path / "phi", model=nn.Identity())):
        assert torch.equal(other.eval()(x, noise=noise), expected)
    mapped = torch.vmap(lambda image: phi(image[None], noise=phi.draw_noise(image[None]))[0], randomness="different")(x)
    assert agree(mapped, x, atol=1e-5)
    with pytest.raises(TypeError, match=r"options by keyword, got \('inductor',\)"):
        phi.compile("inductor")
