"""Symmetry breaking: each call one answer, less symmetric than the input; the answers move with the input."""

import pytest
import torch
from torch import nn

import probsym as ps


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


class Pointer(nn.Module):
    """Equivariant to rotations and to orders of the nodes: vectors weighted by invariants."""

    def __init__(self, broken: bool = False) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor([0.5, -0.3, 0.8], dtype=torch.float64))
        self.broken = broken

    def forward(self, pos, hint, mask=None, batch=None):
        if self.broken:
            hint = hint.flip(-1)
        if batch is None:
            real = torch.ones_like(pos[..., :1]) if mask is None else mask[..., None].to(pos.dtype)
            mean = (pos * real).sum(1, keepdim=True) / real.sum(1, keepdim=True)
        else:
            total = pos.new_zeros(int(batch.max()) + 1, pos.shape[-1]).index_add(0, batch, pos)
            number = torch.bincount(batch)[:, None]
            mean = (total / number)[batch]
        away = pos - mean
        size = (away * hint).sum(-1, keepdim=True).tanh()
        return self.weight[0] * away + self.weight[1] * hint + self.weight[2] * size * hint


def stored(kind: str):
    """Clouds of five, three and four points, and their axis."""
    sizes = torch.tensor([5, 3, 4])
    clouds = [torch.randn(n, 3, generator=seeded(n), dtype=torch.float64) for n in sizes.tolist()]
    if kind == "dense":
        return ps.S("nodes"), {"pos": torch.stack([cloud[:3] for cloud in clouds])}
    if kind == "padded":
        mask = torch.arange(5) < sizes[:, None]
        return ps.S("nodes", mask="mask"), {"pos": nn.utils.rnn.pad_sequence(clouds, batch_first=True), "mask": mask}
    batch = torch.arange(3).repeat_interleave(sizes)
    return ps.S("nodes", batch="batch"), {"pos": torch.cat(clouds), "batch": batch}


def broken_symmetry(nodes, distribution="haar", model=None):
    torch.manual_seed(0)
    space = ps.O(3, "space")
    return ps.SymmetryBreaking(
        model or Pointer(),
        {"pos": ps.Rep(nodes, space)},
        {"hint": (ps.Rep(nodes, space), (6, 3))},
        ps.Rep(nodes, space),
        distribution,
    ).double()


@pytest.mark.parametrize("kind", ["dense", "padded", "ragged"])
@pytest.mark.parametrize("distribution", ["haar", "learned", "canonical"])
def test_answers_move_with_the_input(kind, distribution):
    """Exactly, with the noise moved along: y(h x, h eps) = h y(x, eps). A model that is not equivariant is found."""
    nodes, call = stored(kind)
    for broken in (False, True):
        phi = broken_symmetry(nodes, distribution, Pointer(broken))
        x = ps.symmetrize(phi.model, phi.inputs, phi.output, "haar").bind((), call)
        noise = phi.draw_noise(**call, samples=2, generator=seeded())
        h = ps.Haar(x.group).transport(x, ps.Haar(x.group).noise(x, (), seeded(1)))
        moved = x.act(h)
        expected = torch.stack(
            [ps.Rep(nodes, ps.O(3, "space")).act(h, y) for y in phi.sample(**call, samples=2, noise=noise)]
        )
        found = phi.sample(**moved.kwargs, samples=2, noise=phi.distribution.move_noise(x, h, noise))
        assert torch.allclose(found, expected, atol=1e-10) is not broken


@pytest.mark.parametrize("kind", ["dense", "padded", "ragged"])
def test_samples_are_those_of_the_symmetrized_model(kind):
    """f(x, g v) = g f(g^-1 x, v), since f is equivariant."""
    nodes, call = stored(kind)
    phi = broken_symmetry(nodes)

    class Hinted(nn.Module):
        def forward(self, pos, mask=None, batch=None):
            v = phi.vectors["hint"]
            if batch is not None:
                first = torch.searchsorted(batch, batch)
                return phi.model(pos, v[torch.arange(len(batch)) - first], batch=batch)
            hint = v[: pos.shape[1]].expand(len(pos), -1, -1)
            return phi.model(pos, hint if mask is None else hint * mask[..., None], mask=mask)

    around = ps.symmetrize(Hinted(), phi.inputs, phi.output, "haar")
    noise = phi.draw_noise(**call, samples=4, generator=seeded())
    assert torch.allclose(
        phi.sample(**call, samples=4, noise=noise), around.sample(**call, samples=4, noise=noise), atol=1e-12
    )
    one = {name: tensor[:1] for name, tensor in noise["features"].items()}
    first = {"features": one, "fallback": {name: tensor[:1] for name, tensor in noise["fallback"].items()}}
    assert torch.equal(phi(**call, noise=first), phi.sample(**call, samples=1, noise=first)[0])


def test_trained_on_samples_it_chooses_where_the_mean_cannot():
    """Points at one place, one direction to give: unit length after training, any direction; the mean is zero."""
    torch.manual_seed(0)
    space = ps.O(2)

    class Direction(nn.Module):
        def forward(self, pos, hint):
            return pos.mean(1) + hint

    phi = ps.SymmetryBreaking(
        Direction(), {"pos": ps.Rep(None, space)}, {"hint": (ps.Rep(space), (2,))}, ps.Rep(space), "haar"
    )
    optimizer = torch.optim.Adam(phi.parameters(), lr=0.1)
    pos = torch.zeros(16, 3, 2)
    for step in range(80):
        optimizer.zero_grad()
        loss = (phi(pos=pos, generator=seeded(step)).norm(dim=-1) - 1).square().mean()
        loss.backward()
        optimizer.step()
    answers = phi.sample(pos=pos, samples=500, generator=seeded()).detach()
    assert torch.allclose(answers.norm(dim=-1), torch.ones(500, 16), atol=0.02)
    # 8,000 independent directions: each coordinate of their mean is normal with standard deviation 1 / sqrt(16,000);
    # five of them are a false alarm rate of 1e-6.
    assert answers.mean((0, 1)).abs().max() < 5 / 16_000**0.5


def test_complex_vectors():
    """Under U(2): the vectors are complex, learn, and move with the input exactly."""
    torch.manual_seed(0)
    basis = ps.U(2)

    class Sum(nn.Module):
        def forward(self, state, hint):
            return state.sum(1) + hint * (state.conj() * hint[:, None]).sum((1, 2)).abs()[:, None]

    rep = ps.Rep(None, basis)
    phi = ps.SymmetryBreaking(Sum(), {"state": rep}, {"hint": (ps.Rep(basis), (2,))}, ps.Rep(basis), "haar")
    state = torch.randn(3, 4, 2, generator=seeded(), dtype=torch.complex128)
    h = basis.haar((3,), generator=seeded(1), dtype=torch.float64)
    noise = phi.draw_noise(state=state, generator=seeded(2))
    x = ps.symmetrize(phi.model, phi.inputs, phi.output, "haar").bind((), {"state": state})
    moved = phi(state=x.act(h).kwargs["state"], noise=phi.distribution.move_noise(x, h, noise))
    expected = (h.matrix @ phi(state=state, noise=noise).unsqueeze(-1)).squeeze(-1)
    assert torch.allclose(moved, expected, atol=1e-12)
    phi(state=state).abs().sum().backward()
    assert float(phi.vectors["hint"].grad.abs().sum()) > 0


@pytest.mark.parametrize(("drawn", "called"), [(1, 3), (3, 1)])
def test_noise_of_another_batch_is_refused(drawn, called):
    """That of one input was used for all."""
    nodes, call = stored("dense")
    phi = broken_symmetry(nodes)
    noise = phi.draw_noise(pos=call["pos"][:drawn])
    for answer in (phi, phi.sample):
        with pytest.raises(ValueError, match=rf"noise\[.*expected shape \(K, {called}, .* got \(1, {drawn}"):
            answer(pos=call["pos"][:called], noise=noise)


def test_one_answer_is_not_made_of_several_samples():
    """The first of them was used, without a word."""
    nodes, call = stored("dense")
    phi = broken_symmetry(nodes)
    noise = phi.draw_noise(**call, samples=3)
    with pytest.raises(ValueError, match=r"noise: expected one sample, for one answer, got 3; see `sample`"):
        phi(**call, noise=noise)
    with pytest.raises(ValueError, match=r"samples: expected 3, as many as the noise has, got 2"):
        phi.sample(**call, samples=2, noise=noise)
    assert torch.equal(phi.sample(**call, noise=noise), phi.sample(**call, samples=3, noise=noise))


def test_refusals():
    space, nodes = ps.O(3, "space"), ps.S("nodes")
    inputs, output = {"pos": ps.Rep(nodes, space)}, ps.Rep(nodes, space)
    with pytest.raises(ValueError, match="expected at least one name"):
        ps.SymmetryBreaking(Pointer(), inputs, {}, output)
    with pytest.raises(ValueError, match="'pos' is an input too"):
        ps.SymmetryBreaking(Pointer(), inputs, {"pos": (ps.Rep(space), (3,))}, output)
    with pytest.raises(ValueError, match="acts on 'hint' but on no input"):
        ps.SymmetryBreaking(Pointer(), inputs, {"hint": (ps.Rep(ps.O(2)), (2,))}, output)
    with pytest.raises(ValueError, match="vectors: 'hint': expected size 3 on axis 0"):
        ps.SymmetryBreaking(Pointer(), inputs, {"hint": (ps.Rep(space), (4,))}, output)
    with pytest.raises(ValueError, match="at least 2 sizes"):
        ps.SymmetryBreaking(Pointer(), inputs, {"hint": (ps.Rep(nodes, space), (4,))}, output)
    with pytest.raises(TypeError, match="expected a Rep and a shape"):
        ps.SymmetryBreaking(Pointer(), inputs, {"hint": (space, (3,))}, output)
    with pytest.raises(ValueError, match=r"'hint' has 6 nodes along .* and an input has 7"):
        broken_symmetry(nodes)(pos=torch.randn(2, 7, 3).double())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_vectors_have_the_half_precision_of_the_inputs(dtype):
    """A model in half precision has no use for float32."""

    class Hint(nn.Linear):
        def forward(self, pos, hint):
            return super().forward(hint) + pos[:, 0]

    space = ps.SO(3)
    phi = ps.SymmetryBreaking(Hint(3, 3), {"pos": ps.Rep(None, space)}, {"hint": (ps.Rep(space), (3,))}, ps.Rep(space))
    phi = phi.to(dtype)
    answer = phi(pos=torch.randn(2, 4, 3, generator=seeded(0)).to(dtype))
    assert answer.dtype == dtype
    answer.float().sum().backward()
    assert phi.vectors["hint"].grad.abs().sum() > 0
