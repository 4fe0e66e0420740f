"""Rows are owned: a base model, or the net of p, that works in place or calls `view` gets what it would get alone.

Neither the caller's tensors nor another sample's rows change, at B = 1, k = 1 and chunk = 1 too.
"""

import pytest
import torch
from torch import nn

import probsym as ps
from cases import SETTINGS, close, randn, seeded
from probsym.distributions import DefaultNet
from probsym.reps import Inputs


def spoil(values):
    """Write into every tensor in place, through `view`."""
    for value in values:
        flat = value.view(-1)
        if flat.dtype == torch.bool:
            flat.logical_not_()
        else:
            flat.fill_(5)


class Spoiling(nn.Module):
    """The same function as `model`; what it was given is spoilt afterwards."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, **kwargs):
        y = self.model(**kwargs)
        spoil(kwargs.values())
        return y


class Shifting(nn.Module):
    """model(x + 1), the sum taken in place or not."""

    def __init__(self, model, in_place):
        super().__init__()
        self.model, self.in_place = model, in_place

    def forward(self, **kwargs):
        floating = [key for key, value in kwargs.items() if value.is_floating_point()]
        for key in floating:
            kwargs[key] = kwargs[key].add_(1) if self.in_place else kwargs[key] + 1
        return self.model(**kwargs)


def first(call):
    """The first input of a batch."""
    if "batch" not in call:
        return {key: value[:1] for key, value in call.items()}
    nodes = call["batch"] == 0
    edges = nodes[call["edge_index"][0]]
    return {key: value[:, edges] if key == "edge_index" else value[nodes] for key, value in call.items()}


def copied(call):
    return {key: value.clone() for key, value in call.items()}


def same(a, b):
    return all(torch.equal(a[key], b[key]) for key in a)


ESTIMATORS = {
    "1": ps.MonteCarlo(1),
    "4": ps.MonteCarlo(4),
    "4 by 1": ps.MonteCarlo(4, chunk=1),
    "adaptive": ps.Adaptive(1.0, max_samples=4, chunk=1),
}


@pytest.mark.parametrize(
    "setting", ["S", "labels", "SO(3)", "E(3)", "padded S x E(3)", "ragged S x E(3)", "Axis x E(3)", "S x S x O(2)"]
)
@pytest.mark.parametrize("distribution", ["haar", "learned", "canonical", "frame"])
def test_a_base_that_spoils_its_arguments(setting, distribution):
    """Values, memory of the caller, and `view`, for one input and for three."""
    s = SETTINGS[setting]()
    phi = s.symmetrized(distribution)
    exact = {"exact": ps.Exact(), "exact by 1": ps.Exact(chunk=1)} if phi.distribution.has_enumerate_support else {}
    for call in (first(s.call), s.call):
        given = copied(call)
        for estimator in {**ESTIMATORS, **exact}.values():
            with torch.no_grad():
                phi.model = s.model
                expected = phi(**call, estimator=estimator, generator=seeded())
                phi.model = Spoiling(s.model)
                found = phi(**call, estimator=estimator, generator=seeded())
                drawn = phi.sample(**call, samples=2, generator=seeded())
            assert close(found, expected, 0)
            assert same(call, given)
            phi.model = s.model
            assert close(drawn, phi.sample(**call, samples=2, generator=seeded()), 0)


@pytest.mark.parametrize("setting", ["S", "labels", "E(3)", "padded S x E(3)", "ragged S x E(3)", "Axis x E(3)"])
@pytest.mark.parametrize("distribution", ["haar", "learned", "canonical", "frame"])
def test_a_base_that_works_in_place_trains(setting, distribution):
    s = SETTINGS[setting]()
    phi = s.symmetrized(distribution).train()
    for call in (s.call, first(s.call)):
        given, found = copied(call), []
        for in_place in (False, True):
            phi.model = Shifting(s.model, in_place)
            leaves = {key: v.clone().requires_grad_() if v.is_floating_point() else v for key, v in call.items()}
            y = phi(**leaves, estimator=ps.MonteCarlo(2, chunk=1), generator=seeded())
            flat = torch.cat([v.flatten() for v in outputs(y)])
            flat.mul_(2)
            weights = [*phi.parameters(), *(v for v in leaves.values() if v.requires_grad)]
            slopes = torch.autograd.grad(flat.square().sum(), weights, allow_unused=True)
            found.append((flat, *(g for g in slopes if g is not None)))
        assert close(found[0], found[1])
        assert same(call, given)


def outputs(y):
    """The tensors of an output."""
    if isinstance(y, dict):
        return tuple(y.values())
    return y if isinstance(y, tuple) else (y,)


@pytest.mark.parametrize("setting", ["S", "labels", "E(3)", "padded S x E(3)", "ragged S x E(3)", "Axis x E(3)"])
@pytest.mark.parametrize("distribution", ["learned", "learned-input", "canonical"])
def test_a_net_of_p_that_spoils_its_arguments(setting, distribution):
    """Neither the caller nor the base model, nor a second pass of the net, sees what it wrote."""
    s = SETTINGS[setting]()
    phi = s.symmetrized(distribution)
    expected = phi(**s.call, samples=3, generator=seeded())
    given = copied(s.call)
    phi.distribution.net = Spoiling(phi.distribution.net)
    with torch.no_grad():
        assert close(phi(**s.call, samples=3, generator=seeded()), expected)
    assert same(s.call, given)
    phi.train()
    leaves = {key: v.requires_grad_() if v.is_floating_point() else v for key, v in copied(s.call).items()}
    assert close(phi(**leaves, samples=3, generator=seeded()), expected)


def test_the_default_net_keeps_what_it_is_given():
    """It says so, and is given the caller's own tensors."""
    for setting in ("S", "labels", "padded S x E(3)", "ragged S x E(3)"):
        s = SETTINGS[setting]()
        net, given = DefaultNet(s.inputs, s.group).double(), copied(s.call)
        assert net.reads_only
        net(**s.call)
        assert same(s.call, given)


class Images(nn.Module):
    def forward(self, image, code):
        y = image * code[:, :1, None] + image.flip(1)
        spoil((image, code))
        return y


@pytest.mark.parametrize("group", [ps.C(4), ps.D(4), ps.C(8)], ids=repr)
@pytest.mark.parametrize("size", [8, 150])
@pytest.mark.parametrize("batch", [1, 2])
def test_images(group, size, batch):
    """300 x 300 pixels are more than the chunks of `Exact` on a CPU hold."""
    image, code = torch.rand(batch, size, size), torch.rand(batch, 3) + 1
    given = image.clone(), code.clone()
    phi = ps.symmetrize(Images(), {"image": group, "code": ps.Rep()}, group, "haar").eval()
    with torch.no_grad():
        for estimator in (ps.Exact(), ps.Exact(chunk=1), ps.MonteCarlo(1), ps.MonteCarlo(3, chunk=1)):
            y = phi(image=image, code=code, estimator=estimator, generator=seeded())
            poses = phi.sample(image=image, code=code, samples=1, generator=seeded())[0]
            assert torch.equal(image, given[0])
            assert torch.equal(code, given[1])
            if estimator == ps.MonteCarlo(1):
                assert torch.equal(y, poses)
    every = [group.numbered(torch.full((batch,), i)) for i in range(group.order())]
    rep = ps.Rep(group)
    by_hand = sum(rep.act(g, Images()(rep.act(g.inverse(), image).clone(), code.clone())) for g in every)
    exact = phi(image=image, code=code, estimator=ps.Exact(chunk=1))
    assert torch.allclose(exact, by_hand / len(every), atol=1e-5)


def test_tensors_that_the_caller_shares():
    """Expanded, views of one another, one tensor for two arguments: each argument is a tensor of its own."""
    axis, space = ps.Axis("n"), ps.O(3)

    class Two(nn.Module):
        def forward(self, a, b):
            y = a * b.sum(-1, keepdim=True)
            a.mul_(0)
            assert b.abs().sum() > 0
            spoil((a, b))
            return y

    storage = randn(2, 3, 4, 3)
    row = randn(1, 4, 3)
    pairs = [
        (row.expand(3, 4, 3), row.expand(3, 4, 3)),
        (storage[0], storage[0]),
        (storage[0], storage.flatten(0, 1)[1:4]),  # they overlap
        (row, row),
        (row[:, :1].expand(1, 4, 3), row),
        (storage[0].transpose(0, 1).contiguous().transpose(0, 1), storage[1, :, :, :1].expand(3, 4, 3)),
    ]
    for rep in (ps.Rep(axis, space), ps.Rep(axis), ps.Rep(None), ps.Rep()):
        reps = {"a": ps.Rep(axis, space), "b": rep}
        for distribution in ("haar", "frame"):
            phi = ps.symmetrize(Two(), reps, ps.Rep(axis, space), distribution).eval()
            for a, b in pairs:
                kept = a.clone(), b.clone()
                for samples in (1, 2):
                    phi(a=a, b=b, samples=samples)
                assert torch.equal(a, kept[0])
                assert torch.equal(b, kept[1])


class Contextual(nn.Module):
    """Reads and spoils what is declared None: a tensor, one in a list in a dict, and one in a tuple."""

    def forward(self, x, table, extra=None, pair=None):
        tensors = [table]
        if extra is not None:
            tensors += [extra["list"][0], pair[1]]
        y = x * sum(t.sum() for t in tensors)
        spoil(tensors)
        if extra is not None:
            extra.pop("list")
        return y


def test_arguments_that_pass_as_they_are():
    """Declared None, they are copied for every chunk; a list without tensors, to collect in, is passed on itself."""
    space = ps.O(3)
    x, table, extra, pair = randn(2, 3), randn(5, 7), {"list": [randn(4)], "flag": True}, ("name", randn(6))
    kept = table.clone(), extra["list"][0].clone(), pair[1].clone()
    inputs = {"x": space, "table": None, "extra": None, "pair": None}
    phi = ps.symmetrize(Contextual(), inputs, space, "haar").eval()
    for options in ({}, {"extra": extra, "pair": pair}):
        expected = x * sum(t.sum() for t in kept[: 1 + 2 * len(options) // 2])
        for estimator in ESTIMATORS.values():
            assert torch.allclose(phi(x=x, table=table, **options, estimator=estimator), expected)
    assert torch.equal(table, kept[0])
    assert torch.equal(extra["list"][0], kept[1])
    assert torch.equal(pair[1], kept[2])

    class Collecting(nn.Module):
        def forward(self, x, found):
            found.append(len(x))
            return x

    found = []
    ps.symmetrize(Collecting(), {"x": space}, space, "haar")(x=x, found=found, samples=3)
    assert found == [6]


def test_pyg_data():
    """Every tensor of a `Data`, its bookkeeping and its attributes stay the caller's."""
    geometric = pytest.importorskip("torch_geometric.data")
    nodes, space = ps.S("nodes", batch="batch"), ps.O(3)

    class ByData(nn.Module):
        def forward(self, data):
            y = data.pos * data.x.sum(-1, keepdim=True)
            spoil([data[key] for key in data.keys() if isinstance(data[key], torch.Tensor)])  # noqa: SIM118
            data.pos, data.x = data.pos[:1], None
            return y

    def graph(n):
        return geometric.Data(
            pos=randn(n, 3), x=randn(n, 2), edge_index=torch.tensor([[0, 1], [1, 0]]), cell=randn(1, 9)
        )

    declared = {"pos": ps.Rep(nodes, space), "x": ps.Rep(nodes), "edge_index": nodes.labels, "cell": ps.Rep()}
    for sizes in ((4,), (4, 2, 3)):
        data = geometric.Batch.from_data_list([graph(n) for n in sizes])
        kept = data.clone()
        for distribution in ("haar", "frame", "learned"):
            phi = ps.symmetrize(ByData(), (declared,), ps.Rep(nodes, space), distribution).eval().double()
            for estimator in (ps.MonteCarlo(1), ps.MonteCarlo(3, chunk=1), ps.MonteCarlo(3)):
                with torch.no_grad():
                    y = phi(data, estimator=estimator)
                assert torch.allclose(y, kept.pos * kept.x.sum(-1, keepdim=True))
                for key in ("pos", "x", "edge_index", "cell", "batch", "ptr"):
                    assert torch.equal(data[key], kept[key]), key


@pytest.mark.parametrize("k", [1, 3])
@pytest.mark.parametrize("batch", [1, 2])
def test_results_are_the_callers(k, batch):
    """The base model is the identity; writing into a result changes neither the inputs nor the next result."""
    space, axis = ps.O(3), ps.Axis("n")
    for rep in (ps.Rep(axis, space), ps.Rep(axis), ps.Rep(None), ps.Rep()):
        x = {"x": randn(batch, 4, 3), "v": randn(batch, 3)}

        class Same(nn.Module):
            def forward(self, x, v):
                return {"x": x, "v": v}

        reps = {"x": rep, "v": space}
        for distribution in ("haar", "frame", "learned"):
            phi = ps.symmetrize(Same(), reps, reps, distribution).double().eval()
            kept = copied(x)
            for y in (phi(**x, samples=k), {key: v[0] for key, v in phi.sample(**x, samples=k).items()}):
                storages = {value.untyped_storage().data_ptr() for value in x.values()}
                assert not storages & {value.untyped_storage().data_ptr() for value in y.values()}
                assert close(y, kept)
                for value in y.values():
                    value.zero_()
            assert same(x, kept)
            assert close(phi(**x, samples=k), kept)


def test_channels_last_stays():
    """Images keep their memory format where the poses have it, and are contiguous otherwise."""
    seen = []

    class Look(nn.Module):
        def forward(self, x, image):
            seen.append(x)
            return image

    image = ps.Rep(ps.C(4))
    phi = ps.symmetrize(Look(), {"x": ps.Rep(None, None, None), "image": image}, image, "haar")
    x, small = torch.randn(2, 3, 4, 4).to(memory_format=torch.channels_last), torch.randn(2, 5, 5)
    phi(x=x, image=small)
    assert seen[-1].is_contiguous(memory_format=torch.channels_last)
    assert seen[-1].data_ptr() != x.data_ptr()
    phi(x=x.contiguous().transpose(2, 3), image=small)
    assert seen[-1].is_contiguous()


def test_transforms_and_compilers():
    """A traced call copies as well: nothing that was captured writes into the caller's tensors."""
    axis, space = ps.Axis("n"), ps.O(3)

    class Place(nn.Module):
        def forward(self, h, pos):
            h += 1
            return pos * h.sum(-1, keepdim=True)

    phi = ps.symmetrize(Place(), {"h": ps.Rep(axis), "pos": ps.Rep(axis, space)}, ps.Rep(axis, space), "haar").eval()
    h, pos = torch.zeros(1, 4, 2), torch.randn(1, 4, 3)
    run = torch.compile(phi, backend="aot_eager")
    for samples in (1, 2):
        assert torch.allclose(run(h=h, pos=pos, samples=samples), 2 * pos, atol=1e-5)
        assert (h == 0).all()
    many = torch.func.vmap(lambda h, pos: phi(h=h, pos=pos, samples=1), randomness="different")
    assert torch.allclose(many(h.expand(3, 1, 4, 2), pos.expand(3, 1, 4, 3)), 2 * pos.expand(3, 1, 4, 3), atol=1e-5)
    assert (h == 0).all()


def test_tiles_share_nothing():
    """`Inputs.tile` and `Inputs.owned` give tensors of their own, whatever the Reps."""
    for setting in SETTINGS:
        s = SETTINGS[setting]()
        x = Inputs.bind(s.inputs, (), s.call)
        for other in (x.tile(1), x.tile(2), x.owned()):
            theirs = {value.untyped_storage().data_ptr() for value in s.call.values()}
            ours = [value.untyped_storage().data_ptr() for value in other.kwargs.values()]
            assert len(set(ours)) == len(ours)
            assert not theirs & set(ours)
        assert same(x.owned().kwargs, s.call)
