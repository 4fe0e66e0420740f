"""Which values may be looked at, asked from within everything that may follow a computation."""

import pytest
import torch
from torch.autograd import forward_ad
from torch.fx.experimental.proxy_tensor import make_fx
from torch.utils.flop_counter import FlopCounterMode

import probsym as ps
from probsym.kernels.values import apply_or, differentiated, drawn_once, may_peek, readable, recorded, vmapped

X = torch.tensor([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]])


def answers(run):
    """What the four questions were answered with, the first time that `run` calls the function that it is given."""
    found = []

    def look(x):
        found.append(
            {"recorded": recorded(), "readable": readable(x), "follows": differentiated(x), "vmapped": vmapped(x)}
        )
        return x.sin()

    run(look)
    return found[0]


def with_dual_numbers(f):
    with forward_ad.dual_level():
        f(forward_ad.make_dual(X, X))


def counted(f):
    with FlopCounterMode(display=False):
        f(X)


def exported(f, **options):
    class Model(torch.nn.Module):
        def forward(self, x):
            return f(x)

    torch.export.export(Model(), (X,), **options)


PLAIN = {"recorded": False, "readable": True, "follows": False, "vmapped": False}
WRAPPED = {"recorded": False, "readable": False, "follows": True, "vmapped": False}
FOLLOWERS = {
    "nobody": (lambda f: f(X), PLAIN),
    "autograd": (lambda f: f(X.clone().requires_grad_()), PLAIN | {"follows": True}),
    "autograd, switched off": (lambda f: torch.no_grad()(f)(X.clone().requires_grad_()), PLAIN),
    "integers": (lambda f: f(X.long()), PLAIN),
    "autocast": (lambda f: torch.autocast("cpu", torch.bfloat16)(f)(X), PLAIN),
    "inference mode": (lambda f: torch.inference_mode()(f)(X), PLAIN),
    "dual numbers": (with_dual_numbers, PLAIN | {"follows": True}),
    "flop counter": (counted, PLAIN),
    "vmap": (lambda f: torch.func.vmap(f)(X), WRAPPED | {"vmapped": True}),
    "vmap of integers": (lambda f: torch.func.vmap(f)(X.long()), WRAPPED | {"vmapped": True, "follows": False}),
    "grad": (lambda f: torch.func.grad(lambda x: f(x).sum())(X), WRAPPED),
    "jvp": (lambda f: torch.func.jvp(f, (X,), (X,)), WRAPPED),
    "jacfwd": (lambda f: torch.func.jacfwd(f)(X), WRAPPED),
    "hessian": (lambda f: torch.func.hessian(lambda x: f(x).sum())(X), WRAPPED),
    "vmap of grad": (lambda f: torch.func.vmap(torch.func.grad(lambda x: f(x).sum()))(X), WRAPPED | {"vmapped": True}),
    "beside vmap": (lambda f: torch.func.vmap(lambda x: x + f(X[0]))(X), PLAIN),
    "jit.trace": (lambda f: torch.jit.trace(f, X), PLAIN | {"recorded": True, "readable": False}),
    "make_fx": (lambda f: make_fx(f)(X), PLAIN | {"recorded": True, "readable": False}),
    "make_fx of fakes": (
        lambda f: make_fx(f, tracing_mode="fake")(X), WRAPPED | {"recorded": True}
    ),
}  # fmt: skip


@pytest.mark.parametrize("follower", FOLLOWERS)
def test_who_follows(follower):
    run, expected = FOLLOWERS[follower]
    assert answers(run) == expected


@pytest.mark.parametrize("strict", [False, True])
def test_exporters_record(strict):
    seen = []
    exported(lambda x: x.sin() if recorded() and not may_peek(x) else seen.append("eager"), strict=strict)
    assert not seen


def test_compilers_record():
    torch._dynamo.reset()
    compiled = torch.compile(lambda x: x + 1 if recorded() else x - 1, backend="eager", fullgraph=True)
    assert torch.equal(compiled(X), X + 1)
    assert not recorded()


class Doubled(torch.autograd.Function):
    """2 x, forward of which is counted."""

    calls = 0

    @staticmethod
    def forward(ctx, x):
        Doubled.calls += 1
        return 2 * x

    @staticmethod
    def backward(ctx, grad):
        return 2 * grad


def test_functions_of_our_own_give_way():
    def doubled(x):
        return apply_or(Doubled, lambda x: x + x, x)

    x = X.clone().requires_grad_()
    assert "Doubled" in str(doubled(x).grad_fn)
    for run in (torch.func.vmap(doubled), torch.func.functionalize(doubled)):
        before = Doubled.calls
        assert torch.equal(run(X), 2 * X)
        assert Doubled.calls == before
    assert torch.equal(torch.func.jvp(doubled, (X,), (X,))[1], 2 * X)
    assert torch.equal(torch.func.grad(lambda x: doubled(x).sum())(X), torch.full_like(X, 2))
    with forward_ad.dual_level():
        assert torch.equal(forward_ad.unpack_dual(doubled(forward_ad.make_dual(X, X))).tangent, 2 * X)


def test_an_error_of_another_cause_comes_through():
    def broken(x):
        raise RuntimeError("no memory left")

    class Broken(Doubled):
        @staticmethod
        def forward(ctx, x):
            return broken(x)

    with pytest.raises(RuntimeError, match="no memory left"):
        apply_or(Broken, broken, X)


def test_random_numbers_that_rows_share():
    """The same as without a transform, by seed, and the same for all rows."""
    generator = torch.Generator().manual_seed(0)
    expected = torch.randn(3, generator=generator)
    again = torch.randn(3, generator=generator)
    generator.manual_seed(0)
    found = torch.func.vmap(lambda x: 0 * x + drawn_once(lambda: torch.randn(3, generator=generator)))(X)
    assert torch.equal(found, expected.expand(2, 3))
    assert torch.equal(torch.randn(3, generator=generator), again)
    with pytest.raises(TypeError, match="of the caller"):
        drawn_once(lambda: (_ for _ in ()).throw(TypeError("of the caller")))


def test_a_torch_that_does_not_unwrap(monkeypatch):
    """Before 2.7 nobody can tell vmap from grad: a frame then fails with an error of torch, and all else is right."""
    x, space = torch.randn(2, 4, 3, dtype=torch.float64), ps.SO(3)
    frame = ps.symmetrize(torch.nn.Tanh(), ps.Rep(None, space), ps.Rep(None, space), "frame")
    monkeypatch.delattr(torch.func, "debug_unwrap", raising=False)
    assert not torch.func.vmap(lambda x: torch.tensor(vmapped(x)))(X).any()
    assert torch.allclose(torch.func.jacfwd(frame)(x), torch.autograd.functional.jacobian(frame, x))
    with pytest.raises(RuntimeError, match="Batching rule"):
        torch.func.vmap(lambda x: frame(x[None])[0])(x)


@pytest.mark.parametrize("distribution", ["learned", "haar"])
def test_recorded_branches_are_the_general_way(distribution):
    """A graph that `make_fx` recorded on generic points is right for dependent columns and equal scores as well."""
    nodes, space = ps.S("n"), ps.E(3)
    x = torch.randn(2, 4, 3, dtype=torch.float64)
    rep = ps.Rep(nodes, space)
    base = torch.nn.Sequential(torch.nn.Flatten(1), torch.nn.Linear(12, 12), torch.nn.Unflatten(1, (4, 3))).double()
    phi = ps.symmetrize(base, rep, rep, distribution, example=x).double().eval()
    noise = phi.draw_noise(x, samples=2)
    graph = make_fx(lambda x: phi(x, noise=noise))(x)
    symmetric = torch.cat([x[:, :2], x[:, :2]], 1)
    for y in (x, symmetric):
        assert torch.allclose(graph(y), phi(y, noise=noise), atol=1e-10)


def test_peeking_asks_for_a_cpu():
    assert may_peek(X, X.clone())
    assert not may_peek(X, torch.empty(2, device="meta"))
