"""`ps.energy_and_forces`: energies, forces and stresses of one draw, checked by finite differences and against ASE."""

import gc
import warnings
import weakref
from functools import cache

import pytest
import torch
from torch import Tensor, nn

import probsym as ps

ATOMS = ps.S("atoms")
PADDED = ps.S("atoms", mask="mask")
RAGGED = ps.S("atoms", batch="batch")
SPACE = ps.SE(3, "space")


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def randn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=seeded(seed), dtype=torch.float64)


class PerAtom(nn.Module):
    """A smooth energy of every atom that knows directions: without any symmetry but that of the order."""

    def __init__(self, total: bool) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.net = nn.Sequential(nn.Linear(6, 16), nn.Tanh(), nn.Linear(16, 16), nn.Tanh(), nn.Linear(16, 1)).double()
        self.total = total

    def forward(self, pos: Tensor, mask: Tensor | None = None, batch: Tensor | None = None) -> Tensor:
        if batch is not None:
            count = int(batch.max()) + 1
            number = torch.bincount(batch, minlength=count).to(pos.dtype)
            mean = pos.new_zeros(count, 3).index_add(0, batch, pos.sin()) / number[:, None]
            energy = self.net(torch.cat([pos, mean[batch]], -1)).squeeze(-1)
            return pos.new_zeros(count).index_add(0, batch, energy) if self.total else energy
        real = torch.ones_like(pos[..., :1]) if mask is None else mask[..., None].to(pos.dtype)
        mean = (pos.sin() * real).sum(-2, keepdim=True) / real.sum(-2, keepdim=True)
        energy = self.net(torch.cat([pos, mean.expand_as(pos)], -1))
        return (energy * real).sum((-2, -1)) if self.total else energy.squeeze(-1)


SIZES = (5, 3, 4)


def storage(kind: str) -> tuple[ps.Rep, ps.Rep, dict[str, Tensor]]:
    """The Reps of positions and energies per atom, and a call: three molecules, or one."""
    if kind == "one":
        return ps.Rep(ATOMS, SPACE), ps.Rep(ATOMS), {"pos": randn(1, 5, 3)}
    if kind == "dense":
        return ps.Rep(ATOMS, SPACE), ps.Rep(ATOMS), {"pos": randn(3, 5, 3)}
    if kind == "padded":
        mask = torch.arange(5) < torch.tensor(SIZES)[:, None]
        return ps.Rep(PADDED, SPACE), ps.Rep(PADDED), {"pos": randn(3, 5, 3), "mask": mask}
    batch = torch.repeat_interleave(torch.arange(3), torch.tensor(SIZES))
    return ps.Rep(RAGGED, SPACE), ps.Rep(RAGGED), {"pos": randn(12, 3), "batch": batch}


STORAGES = ("one", "dense", "padded", "ragged")


@cache
def potential(kind: str, distribution: str = "haar", total: bool = True) -> tuple[ps.Symmetrizer, dict[str, Tensor]]:
    rep, per_atom, call = storage(kind)
    p = distribution
    if distribution == "weighted":
        p = ps.WeightedFrame(SPACE) * ps.Haar(rep.slots[0].group)
    phi = ps.symmetrize(PerAtom(total), {"pos": rep}, ps.Rep() if total else per_atom, p, example=call)
    return phi.double().eval(), call


DIRECTIONS = 4


def along(pos: Tensor, forces: Tensor) -> Tensor:
    """The work of forces along a few directions."""
    return torch.stack([(forces * randn(*pos.shape, seed=i)).sum() for i in range(DIRECTIONS)])


def slopes(energy, pos: Tensor, step: float = 1e-5) -> Tensor:
    """What these works must be: minus the derivatives of the energy along the directions, by central differences."""
    found = []
    for i in range(DIRECTIONS):
        away = step * randn(*pos.shape, seed=i)
        with torch.no_grad():
            found.append((energy(pos - away) - energy(pos + away)).sum() / (2 * step))
    return torch.stack(found)


# ---------------------------------------------------------------- one draw


@pytest.mark.parametrize("kind", STORAGES)
@pytest.mark.parametrize("distribution", ["haar", "recursive", "weighted"])
def test_forces_are_the_gradient_of_the_energy_of_the_same_draw(kind: str, distribution: str) -> None:
    """And, as a control, not of that of another draw."""
    phi, call = potential(kind, distribution)
    k = 1 if kind == "one" else 2
    noise = phi.draw_noise(**call, samples=k, generator=seeded())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a recursive order leaves a part of the mean out; here the draw is held
        energy, forces = ps.energy_and_forces(phi, call, noise=noise)
        _, of_another = ps.energy_and_forces(phi, call, samples=k, generator=seeded(1))
    assert torch.equal(energy, phi(**call, noise=noise))
    expected = slopes(lambda pos: phi(**{**call, "pos": pos}, noise=noise), call["pos"])
    assert torch.allclose(along(call["pos"], forces), expected, atol=1e-8)
    assert not torch.allclose(along(call["pos"], of_another), expected, atol=1e-2)


def test_a_generator_gives_energy_and_forces_of_one_draw() -> None:
    phi, call = potential("ragged")
    energy, forces = ps.energy_and_forces(phi, call, samples=3, generator=seeded(4))
    noise = phi.draw_noise(**call, samples=3, generator=seeded(4))
    again = ps.energy_and_forces(phi, call, noise=noise)
    assert torch.equal(energy, again.energy)
    assert torch.equal(forces, again.forces)


@pytest.mark.parametrize("kind", ["dense", "padded", "ragged"])
def test_a_frozen_phi_is_a_potential(kind: str) -> None:
    phi, call = potential(kind)
    for frozen in (phi.frozen(3), phi.frozen(3, example=call)):
        energy, forces = ps.energy_and_forces(frozen, call)
        assert torch.equal(energy, frozen(**call))
        assert not forces.requires_grad  # in the mode of phi, not of what is wrapped around it
        expected = slopes(lambda pos, frozen=frozen: frozen(**{**call, "pos": pos}), call["pos"])
        assert torch.allclose(along(call["pos"], forces), expected, atol=1e-8)
        estimate = ps.energy_and_forces(frozen, call, return_estimate=True)
        assert torch.allclose(estimate.mean.forces, forces, atol=1e-12)


# ---------------------------------------------------------------- energies of atoms, padding, batches


@pytest.mark.parametrize("kind", STORAGES)
def test_energies_of_atoms_are_added_up(kind: str) -> None:
    total, call = potential(kind)
    per_atom, _ = potential(kind, total=False)
    noise = total.draw_noise(**call, samples=2, generator=seeded())
    expected = ps.energy_and_forces(total, call, noise=noise)
    found = ps.energy_and_forces(per_atom, call, noise=noise)
    assert found.energy.shape == (1 if kind == "one" else 3,)
    for value, other in zip(found, expected, strict=True):
        assert torch.allclose(value, other, atol=1e-12)


def test_padding_does_not_matter() -> None:
    """NaN in it does not reach energies, forces or stress; forces on it are zero."""
    phi, call = potential("padded")
    noise = phi.draw_noise(**call, samples=2, generator=seeded())
    cell = 5 * torch.eye(3, dtype=torch.float64).expand(3, 3, 3)
    spoilt = call["pos"].masked_fill(~call["mask"][..., None], torch.nan)
    results = []
    for pos in (call["pos"], spoilt):
        results.append(ps.energy_and_forces(phi, {**call, "pos": pos}, noise=noise, stress=True, cell=cell))
    for clean, other in zip(*results, strict=True):
        assert torch.equal(clean, other)
    assert (results[1].forces[~call["mask"]] == 0).all()


def test_padded_and_ragged_agree() -> None:
    """The same molecules under frames, which draw nothing: one after the other, padded and ragged."""
    space = ps.SE(3, "space")
    atoms = {"padded": ps.Axis("atoms", mask="mask"), "ragged": ps.Axis("atoms", batch="batch")}
    _, _, padded = storage("padded")
    calls = {"padded": padded, "ragged": {**storage("ragged")[2], "pos": padded["pos"][padded["mask"]]}}
    found = {}
    for kind, axis in atoms.items():
        p = ps.WeightedFrame(space)
        phi = ps.symmetrize(PerAtom(True), {"pos": ps.Rep(axis, space)}, ps.Rep(), p).double().eval()
        cell = 5 * torch.eye(3, dtype=torch.float64)
        found[kind] = ps.energy_and_forces(phi, calls[kind], stress=True, cell=cell)
    assert torch.allclose(found["padded"].energy, found["ragged"].energy, atol=1e-12)
    assert torch.allclose(found["padded"].forces[padded["mask"]], found["ragged"].forces, atol=1e-12)
    assert torch.allclose(found["padded"].stress, found["ragged"].stress, atol=1e-12)


def test_an_entry_of_pyg_data() -> None:
    data = pytest.importorskip("torch_geometric.data")

    class OfData(PerAtom):
        def forward(self, data):
            return super().forward(data.pos, batch=data.batch)

    rep, _, call = storage("ragged")
    phi = ps.symmetrize(OfData(True), ({"pos": rep},), ps.Rep(), "haar").double().eval()
    reference, _ = potential("ragged")
    batch = data.Data(pos=call["pos"], batch=call["batch"], y=torch.zeros(3))
    noise = reference.draw_noise(**call, samples=2, generator=seeded())
    found = ps.energy_and_forces(phi, (batch,), noise=noise)
    expected = ps.energy_and_forces(reference, call, noise=noise)
    assert torch.allclose(found.forces, expected.forces, atol=1e-12)
    assert not batch.pos.requires_grad


# ---------------------------------------------------------------- training on forces


def force_loss(phi: ps.Symmetrizer, call: dict[str, Tensor], noise, **options) -> Tensor:
    energy, forces = ps.energy_and_forces(phi, call, noise=noise, **options)
    return energy.square().sum() + (forces - 0.3).square().sum()


@pytest.mark.parametrize("kind", ["dense", "ragged"])
@pytest.mark.parametrize("chunk", [None, 1])
@pytest.mark.parametrize("distribution", ["haar", "recursive", "weighted"])
def test_a_loss_of_forces_has_the_right_gradient(kind: str, chunk: int | None, distribution: str) -> None:
    """Second derivatives, by finite differences of the loss in a weight, also where chunks are recomputed."""
    phi, call = potential(kind, distribution)
    phi.train()
    try:
        noise = phi.draw_noise(**call, samples=2, generator=seeded())
        options = {} if chunk is None else {"estimator": ps.MonteCarlo(2, chunk=chunk)}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            loss = force_loss(phi, call, noise, **options)
            weight = phi.model.net[0].weight
            (gradient,) = torch.autograd.grad(loss, weight)
            direction = randn(*weight.shape, seed=5)
            losses = []
            for step in (1e-5, -1e-5):
                with torch.no_grad():
                    weight.add_(step * direction)
                losses.append(force_loss(phi, call, noise, **options).detach())
                with torch.no_grad():
                    weight.sub_(step * direction)
    finally:
        phi.eval()
    expected = (losses[0] - losses[1]) / 2e-5
    assert torch.allclose((gradient * direction).sum(), expected, rtol=1e-6)


def test_further_derivatives_reach_the_positions() -> None:
    """The Hessian, as the derivative of forces; its negative control is a graph that was not asked for."""
    phi, call = potential("dense")
    noise = phi.draw_noise(**call, samples=2, generator=seeded())
    pos = call["pos"].clone().requires_grad_()
    forces = ps.energy_and_forces(phi, {"pos": pos}, noise=noise, create_graph=True).forces
    row = torch.autograd.grad(forces[0, 0, 0], pos)[0]
    step = torch.zeros_like(pos)
    step[0, 1, 2] = 1e-5
    ahead, behind = (ps.energy_and_forces(phi, {"pos": pos.detach() + s}, noise=noise).forces for s in (step, -step))
    assert torch.allclose(row[0, 1, 2], (ahead - behind)[0, 0, 0] / 2e-5, atol=1e-8)
    assert not ps.energy_and_forces(phi, {"pos": pos}, noise=noise).forces.requires_grad


# ---------------------------------------------------------------- evaluation


@pytest.mark.parametrize("context", [torch.no_grad, torch.inference_mode])
@pytest.mark.parametrize("kind", ["padded", "ragged"])
def test_where_gradients_are_off(context, kind: str) -> None:
    phi, call = potential(kind)
    expected = ps.energy_and_forces(phi, call, samples=2, generator=seeded())
    with context():
        inside = {name: tensor.clone() for name, tensor in call.items()}
        found = ps.energy_and_forces(phi, inside, samples=2, generator=seeded())
        estimate = ps.energy_and_forces(phi, inside, samples=2, generator=seeded(), return_estimate=True)
    for value, other in zip(found, expected, strict=True):
        assert torch.equal(value, other)
        assert not value.requires_grad
    assert torch.allclose(estimate.mean.forces, expected.forces, atol=1e-12)


class Kept:
    """A tensor that a graph keeps for its backward pass."""

    def __init__(self, tensor: Tensor) -> None:
        self.tensor = tensor


def test_evaluation_keeps_no_graph() -> None:
    """What autograd kept is released when the call returns; in training it is there."""
    phi, call = potential("padded")
    alive: weakref.WeakSet[Kept] = weakref.WeakSet()

    def pack(tensor: Tensor) -> Kept:
        kept = Kept(tensor)
        alive.add(kept)
        return kept

    for options, expected in (({}, False), ({"return_estimate": True}, False), ({"create_graph": True}, True)):
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda kept: kept.tensor):
            result = ps.energy_and_forces(phi, call, samples=2, **options)
        gc.collect()
        assert bool(alive) == expected, options
        del result


def test_chunks_bound_the_memory_of_an_evaluation() -> None:
    """With chunks nothing that the model computes is kept until the derivative is taken."""
    phi, call = potential("dense")
    rows: list[int] = []

    def pack(tensor: Tensor) -> Tensor:
        rows.append(len(tensor) if tensor.ndim else 1)
        return tensor

    for estimator, expected in ((ps.MonteCarlo(64), True), (ps.MonteCarlo(64, chunk=2), False)):
        rows.clear()
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            phi(pos=call["pos"].clone().requires_grad_(), estimator=estimator)
        assert (max(rows) > 64) == expected


# ---------------------------------------------------------------- error bars


ESTIMATORS = {
    "plain": ps.MonteCarlo(6),
    "chunks": ps.MonteCarlo(6, chunk=2),
    "octahedral": ps.MonteCarlo(72, design="octahedral"),
    "blocks in chunks": ps.MonteCarlo(72, design="octahedral", chunk=10),
    "sobol": ps.MonteCarlo(64, design="sobol"),
    "antithetic": ps.MonteCarlo(8, design="antithetic"),
}


@pytest.mark.parametrize("kind", ["one", "padded", "ragged"])
@pytest.mark.parametrize("name", ESTIMATORS)
def test_errors_are_those_of_the_samples(kind: str, name: str) -> None:
    """The mean is that of the plain call with the same draw, the error of the energy that of `phi.estimate`."""
    phi, call = potential(kind)
    estimator = ESTIMATORS[name]
    energy, forces = ps.energy_and_forces(phi, call, estimator=estimator, generator=seeded(2))
    found = ps.energy_and_forces(phi, call, estimator=estimator, generator=seeded(2), return_estimate=True)
    expected = phi.estimate(**call, estimator=estimator, generator=seeded(2))
    assert torch.allclose(found.mean.energy, energy, atol=1e-12)
    assert torch.allclose(found.mean.forces, forces, atol=1e-12)
    assert torch.allclose(found.stderr.energy, expected.stderr, atol=1e-12)
    assert torch.equal(found.samples, expected.samples)


@pytest.mark.parametrize("kind", ["one", "padded", "ragged"])
def test_errors_of_forces_and_stress(kind: str) -> None:
    """Those of forces and stresses of single samples, computed one by one."""
    phi, call = potential(kind, total=False)
    noise = phi.draw_noise(**call, samples=4, generator=seeded())
    cell = 4 * torch.eye(3, dtype=torch.float64)
    found = ps.energy_and_forces(phi, call, noise=noise, return_estimate=True, stress=True, cell=cell)

    def one(value, i):
        if isinstance(value, Tensor):
            return value[i : i + 1]
        return {key: one(part, i) for key, part in value.items()}

    single = [ps.energy_and_forces(phi, call, noise=one(noise, i), stress=True, cell=cell) for i in range(4)]
    for place in range(3):
        values = torch.stack([result[place] for result in single])
        assert torch.allclose(found.mean[place], values.mean(0), atol=1e-12)
        assert torch.allclose(found.stderr[place], values.std(0) / 2, atol=1e-12)


def test_errors_cover_the_truth() -> None:
    """Forces of 6 draws, against those of the exact mean over a finite group: 200 repetitions.

    The 48 components of these are within 4 of the errors that they state in all but 8 % of the cases (Student's t with
    5 degrees of freedom: 1.0 %); a control with errors of a third as much is far from that.
    """
    cube = ps.Octahedral()
    phi = ps.symmetrize(PerAtom(True), {"pos": ps.Rep(None, cube)}, ps.Rep(), ps.Haar(cube)).double().eval()
    pos = randn(1, 5, 3)
    exact = ps.energy_and_forces(phi, {"pos": pos}, estimator=ps.Exact(), return_estimate=True)
    assert (exact.stderr.energy == 0).all()
    assert (exact.stderr.forces == 0).all()
    many = {"pos": pos.expand(200, 5, 3)}
    found = ps.energy_and_forces(phi, many, samples=6, generator=seeded(), return_estimate=True)
    ratio = (found.mean.forces - exact.mean.forces).abs() / found.stderr.forces
    assert (ratio > 4).double().mean() < 0.08
    assert (3 * ratio > 4).double().mean() > 0.1


def test_one_block_tells_no_error_and_what_is_exact_has_none() -> None:
    phi, call = potential("ragged")
    for options in ({"samples": 1}, {"estimator": ps.MonteCarlo(24, design="octahedral")}):
        found = ps.energy_and_forces(phi, call, return_estimate=True, **options)
        assert found.stderr.energy.isinf().all()
        assert found.stderr.forces.isinf().all()

    # Exact away from a line; on it poses are drawn, and nothing is known of the error of the forces.
    phi = ps.symmetrize(PerAtom(True), {"pos": ps.Rep(None, SPACE)}, ps.Rep(), ps.WeightedFrame(SPACE)).double().eval()
    pos = randn(2, 3, 3)
    pos[1] = torch.arange(3)[:, None] * randn(3, seed=3)
    found = ps.energy_and_forces(phi, {"pos": pos}, return_estimate=True)
    assert (found.stderr.forces[0] == 0).all()
    assert found.stderr.forces[1].isinf().all()
    assert found.stderr.energy[0] == 0
    assert 0 < found.stderr.energy[1] < torch.inf
    assert found.aux["degenerate"] == 1


def test_hybrid_estimates() -> None:
    """Finite factors listed, others sampled: the spread over samples."""
    cube = ps.Signs(2, "signs")
    rep = ps.Rep(None, SPACE)

    class WithSigns(PerAtom):
        def forward(self, pos, sign):
            return super().forward(pos) + (pos[:, 0] @ torch.ones(3, 2).to(pos) * sign.exp()).sum(-1)

    phi = ps.symmetrize(WithSigns(True), {"pos": rep, "sign": ps.Rep(cube)}, ps.Rep(), "haar").double().eval()
    call = {"pos": randn(2, 5, 3), "sign": randn(2, 2)}
    found = ps.energy_and_forces(phi, call, estimator=ps.Hybrid(8), generator=seeded(), return_estimate=True)
    again = ps.energy_and_forces(phi, call, samples=4000, generator=seeded(1), return_estimate=True)
    assert (found.samples == 32).all()
    assert ((found.mean.forces - again.mean.forces).abs() < 8 * (found.stderr.forces + again.stderr.forces)).all()


def test_an_estimator_without_independent_parts_is_refused() -> None:
    phi, call = potential("ragged")
    with pytest.raises(ValueError, match=r"estimator: Adaptive.*MonteCarlo"):
        ps.energy_and_forces(phi, call, tol=0.1, return_estimate=True)
    assert ps.energy_and_forces(phi, call, tol=0.1).forces.isfinite().all()


# ---------------------------------------------------------------- where the force is the gradient of the mean


@pytest.mark.parametrize(
    ("distribution", "says"),
    [
        ("haar", ""),
        ("frame", ""),
        ("canonical", ""),
        (ps.WeightedFrame(SPACE) * ps.Haar(ATOMS), ""),
        ("learned", r"the orders of S\('atoms'\)"),
        ("recursive", r"the orders of S\('atoms'\)"),
    ],
)
def test_what_forces_leave_out_is_named(distribution, says: str) -> None:
    call = {"pos": randn(2, 5, 3)}
    phi = ps.symmetrize(PerAtom(True), {"pos": ps.Rep(ATOMS, SPACE)}, ps.Rep(), distribution, example=call)
    phi = phi.double().eval()
    if says:
        with pytest.warns(UserWarning, match=says):
            ps.energy_and_forces(phi, call)
        return
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ps.energy_and_forces(phi, call)


@pytest.mark.parametrize(
    ("distribution", "group", "says"),
    [
        ("learned", ps.SO(3), ""),
        ("learned", ps.SE(3), ""),
        ("learned", ps.O(3), "reflection"),
        ("learned", ps.E(3), "reflection"),
        ("recursive", ps.E(3), ""),
        ("haar", ps.E(3), ""),
    ],
)
def test_a_learned_handedness_is_left_out(distribution: str, group: ps.Group, says: str) -> None:
    call = {"pos": randn(2, 5, 3)}
    phi = ps.symmetrize(PerAtom(True), {"pos": ps.Rep(None, group)}, ps.Rep(), distribution, example=call)
    found = phi.distribution.left_out_of_forces
    assert (says in found) if says else found == ""


class Scores(nn.Module):
    """Scores of nodes that depend on coordinates."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.net = nn.Linear(3, 1).double()

    def forward(self, pos: Tensor) -> Tensor:
        return self.net(pos).squeeze(-1)


def order_error(relaxation) -> tuple[float, float]:
    """The force less the derivative of the mean energy, along a direction, and its standard error."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(9, 16), nn.Tanh(), nn.Linear(16, 1)).double()
    p = ps.Learned(Scores(), ATOMS, noise="gumbel", relaxation=relaxation)

    class Energy(nn.Module):
        def forward(self, pos):
            return model(2 * pos)

    phi = ps.symmetrize(Energy(), {"pos": ps.Rep(ATOMS)}, ps.Rep(), p).double().eval()
    pos, direction = randn(1, 3, 3, seed=1), randn(1, 3, 3, seed=2)
    found = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for seed in range(8):
            many = {"pos": pos.expand(5_000, 3, 3)}
            forces = ps.energy_and_forces(phi, many, samples=2, generator=seeded(seed)).forces.mean(0)
            step = 0.05 * direction
            with torch.no_grad():
                ahead = phi(pos=(pos + step).expand(5_000, 3, 3), samples=2, generator=seeded(seed)).mean()
                behind = phi(pos=(pos - step).expand(5_000, 3, 3), samples=2, generator=seeded(seed)).mean()
            found.append((forces * direction).sum() + (ahead - behind) / 0.1)
    errors = torch.stack(found)
    return float(errors.mean()), float(errors.std()) / len(errors) ** 0.5


def test_forces_of_a_learned_order_with_its_log_probability() -> None:
    """Exact on average with the score function; without it a part is missing, of many standard errors."""
    mean, error = order_error(ps.ScoreFunction())
    assert abs(mean) < 6 * error + 2e-3
    mean, error = order_error(ps.Relaxation())
    assert abs(mean) > 10 * error


# ---------------------------------------------------------------- stress, cells, edges across the boundary


class LennardJones(nn.Module):
    """Pairs within a cutoff, with the energy shifted to zero there, as ASE has it.

    Args:
        units: of the shifts, "lattice" (to be multiplied by the cell) or "length".
    """

    def __init__(self, units: str) -> None:
        super().__init__()
        self.units = units

    def forward(self, pos: Tensor, edge_index: Tensor, shift: Tensor, batch: Tensor, cell: Tensor | None = None):
        first, second = edge_index
        if self.units == "lattice":
            shift = torch.einsum("ei,eij->ej", shift.to(pos.dtype), cell[batch[first]])
        vector = pos[second] - pos[first] + shift
        ratio = vector.square().sum(-1).reciprocal() ** 3
        pair = 4 * (ratio**2 - ratio) - 4 * (CUTOFF**-12 - CUTOFF**-6)
        return 0.5 * pos.new_zeros(int(batch.max()) + 1).index_add(0, batch[first], pair)


CUTOFF = 2.5


def crystals():
    """A compressed and a stretched crystal in skewed cells, rattled: ASE's own results, and their edges."""
    build = pytest.importorskip("ase.build")
    from ase.calculators.lj import LennardJones as Reference
    from ase.neighborlist import neighbor_list

    structures = []
    for i, size in enumerate((1.4, 1.75)):
        atoms = build.bulk("Ar", "fcc", a=size) * (2, 1, 1)
        atoms.set_cell(atoms.cell[:] + 0.1 * randn(3, 3, seed=i).numpy(), scale_atoms=True)
        atoms.positions += 0.05 * randn(*atoms.positions.shape, seed=9 + i).numpy()
        atoms.calc = Reference(sigma=1.0, epsilon=1.0, rc=CUTOFF)
        structures.append(atoms)
    pos, cell, edges, shifts, batch = [], [], [], [], []
    start = 0
    for i, atoms in enumerate(structures):
        first, second, units = neighbor_list("ijS", atoms, CUTOFF)
        edges.append(start + torch.stack([torch.from_numpy(first), torch.from_numpy(second)]))
        shifts.append(torch.tensor(units))
        pos.append(torch.tensor(atoms.positions))
        cell.append(torch.tensor(atoms.cell[:]))
        batch += [i] * len(atoms)
        start += len(atoms)
    call = {
        "pos": torch.cat(pos),
        "edge_index": torch.cat(edges, 1),
        "shift": torch.cat(shifts),
        "batch": torch.tensor(batch),
        "cell": torch.stack(cell),
    }
    return structures, call


VOIGT = ([0, 1, 2, 1, 0, 0], [0, 1, 2, 2, 2, 1])


@pytest.mark.parametrize("units", ["lattice", "length"])
def test_energy_forces_and_stress_of_lennard_jones_are_those_of_ase(units: str) -> None:
    """Both ways to tell edges across the boundary, in one batch; with ASE's sign of the stress."""
    structures, call = crystals()
    inputs = {
        "pos": ps.Rep(RAGGED, SPACE),
        "edge_index": RAGGED.labels,
        "shift": ps.Rep(RAGGED.edges, None),
        "cell": ps.Rep(None, SPACE.vector),
    }
    options: dict = {"cell": "cell"}
    if units == "length":
        first = call["edge_index"][0]
        call["shift"] = torch.einsum("ei,eij->ej", call["shift"].double(), call["cell"][call["batch"][first]])
        inputs["shift"] = ps.Rep(RAGGED.edges, SPACE.vector)
        options = {"cell": call.pop("cell"), "shifts": "shift"}  # this model takes no cell: a tensor for the volume
        del inputs["cell"]
    phi = ps.symmetrize(LennardJones(units), inputs, ps.Rep(), "haar").eval()
    found = ps.energy_and_forces(phi, call, samples=2, stress=True, **options)
    forces = found.forces.split([len(atoms) for atoms in structures])
    for i, atoms in enumerate(structures):
        assert torch.allclose(found.energy[i], torch.tensor(atoms.get_potential_energy()).double(), atol=1e-9)
        assert torch.allclose(forces[i], torch.tensor(atoms.get_forces()), atol=1e-8)
        assert torch.allclose(found.stress[i][VOIGT], torch.tensor(atoms.get_stress()), atol=1e-8)
        assert torch.allclose(found.stress[i], found.stress[i].mT, atol=1e-12)
    assert found.stress[0].trace() < 0  # compressed: it pushes outwards
    assert found.stress[1].trace() > 0

    # As a control: a shift in units of length that is taken not to stretch gives another stress.
    if units == "length":
        wrong = {"cell": options["cell"], "unstrained": "shift"}
        other = ps.energy_and_forces(phi, call, samples=2, stress=True, **wrong)
        assert not torch.allclose(other.stress, found.stress, rtol=0.1)


def test_stress_of_a_model_without_symmetry_by_finite_differences() -> None:
    """Of the same draw, under a strain along every direction; and a loss of stresses can be trained on."""

    class Cell(PerAtom):
        def forward(self, pos, cell):
            return super().forward(pos) + (cell @ cell.sin()).sum((-2, -1))

    inputs = {"pos": ps.Rep(ATOMS, SPACE), "cell": ps.Rep(None, SPACE.vector)}
    phi = ps.symmetrize(Cell(True), inputs, ps.Rep(), "haar").double().eval()
    pos, cell = randn(2, 5, 3), 3 * torch.eye(3).double() + 0.3 * randn(2, 3, 3, seed=1)
    noise = phi.draw_noise(pos=pos, cell=cell, samples=2, generator=seeded())
    call = {"pos": pos, "cell": cell}
    found = ps.energy_and_forces(phi, call, noise=noise, stress=True, cell="cell", create_graph=True)
    assert found.stress.requires_grad
    (weights,) = torch.autograd.grad(found.stress.square().sum(), phi.model.net[0].weight)
    assert weights.abs().sum() > 0
    volume = torch.linalg.det(cell).abs()
    for i, j in ((0, 0), (0, 1), (2, 1)):
        strain = torch.zeros(3, 3).double()
        strain[i, j] += 0.5e-5
        strain[j, i] += 0.5e-5
        energies = []
        for sign in (1, -1):
            stretch = torch.eye(3).double() + sign * strain
            energies.append(phi(pos=pos @ stretch, cell=cell @ stretch, noise=noise))
        assert torch.allclose(found.stress[:, i, j], (energies[0] - energies[1]) / 2e-5 / volume, atol=1e-7)


# ---------------------------------------------------------------- other models, other names


def test_a_bare_model_is_declared_by_reps() -> None:
    rep, _, call = storage("ragged")
    model = PerAtom(True).eval()
    energy, forces = ps.energy_and_forces(model, call, reps={"pos": rep}, output=ps.Rep())
    assert torch.equal(energy, model(**call))
    expected = slopes(lambda pos: model(pos, batch=call["batch"]), call["pos"])
    assert torch.allclose(along(call["pos"], forces), expected, atol=1e-8)
    with pytest.raises(TypeError, match="reps and output"):
        ps.energy_and_forces(model, call)
    with pytest.raises(TypeError, match="samples, return_estimate: a PerAtom draws no samples"):
        ps.energy_and_forces(model, call, reps={"pos": rep}, output=ps.Rep(), samples=2, return_estimate=True)


@pytest.mark.slow
def test_a_bare_model_adds_up_no_padding() -> None:
    # The model gives every atom an energy, padded ones too, for it is told of no mask where it sums nothing.
    rep, per_atom, call = storage("padded")
    model = PerAtom(total=False)
    energy, forces = ps.energy_and_forces(model, call, reps={"pos": rep}, output=per_atom)
    for number, size in enumerate(SIZES):
        one = {"pos": call["pos"][number : number + 1, :size]}
        alone = ps.energy_and_forces(model, one, reps={"pos": ps.Rep(ATOMS, SPACE)}, output=ps.Rep(ATOMS))
        torch.testing.assert_close(energy[number], alone.energy[0])
        torch.testing.assert_close(forces[number, :size], alone.forces[0])
        assert not forces[number, size:].any()


def test_what_torch_wraps_around_a_phi() -> None:
    """Compiled, and in DistributedDataParallel: the same results, and gradients of a loss of forces."""
    phi, call = potential("padded")
    noise = phi.draw_noise(**call, samples=2, generator=seeded())
    expected = ps.energy_and_forces(phi, call, noise=noise)
    torch.distributed.init_process_group("gloo", store=torch.distributed.HashStore(), rank=0, world_size=1)
    try:
        parallel = nn.parallel.DistributedDataParallel(phi)
        for wrapped in (parallel, torch.compile(phi, backend="eager")):
            found = ps.energy_and_forces(wrapped, call, noise=noise)
            assert not found.forces.requires_grad
            for value, other in zip(found, expected, strict=True):
                assert torch.allclose(value, other, atol=1e-12)
        phi.train()
        force_loss(parallel, call, noise).backward()
        assert all(parameter.grad is not None for parameter in phi.parameters())
    finally:
        phi.eval()
        phi.zero_grad()
        torch.distributed.destroy_process_group()


def test_errors_of_a_frozen_phi_in_what_torch_wraps_around_it() -> None:
    """The noise is that of the seed there too: the mean is the energy that the same module returns."""
    phi, call = potential("dense")
    wrapped = nn.DataParallel(phi.frozen(3))
    found = ps.energy_and_forces(wrapped, call, return_estimate=True)
    assert torch.allclose(found.mean.energy, wrapped(**call), atol=1e-12)
    with pytest.raises(TypeError, match="generator: a frozen phi has its own noise, of seed 3"):
        ps.energy_and_forces(wrapped, call, generator=seeded(), return_estimate=True)


def test_no_inputs_at_all() -> None:
    phi, call = potential("padded")
    cell = torch.eye(3).double()
    nothing = {name: tensor[:0] for name, tensor in call.items()}
    found = ps.energy_and_forces(phi, nothing, samples=2, stress=True, cell=cell)
    assert [tuple(value.shape) for value in found] == [(0,), (0, 5, 3), (0, 3, 3)]


def test_one_of_several_outputs() -> None:
    class Both(PerAtom):
        def forward(self, pos):
            return {"energy": super().forward(pos), "charge": pos.sum((1, 2))}

    output = {"energy": ps.Rep(), "charge": ps.Rep()}
    phi = ps.symmetrize(Both(True), {"pos": ps.Rep(ATOMS, SPACE)}, output, "haar").double().eval()
    call = {"pos": randn(2, 5, 3)}
    noise = phi.draw_noise(**call, samples=2)
    assert torch.equal(ps.energy_and_forces(phi, call, noise=noise).energy, phi(**call, noise=noise)["energy"])
    other = ps.energy_and_forces(phi, call, noise=noise, energy="charge")
    assert torch.equal(other.energy, phi(**call, noise=noise)["charge"])


def test_what_is_wrong_is_named() -> None:
    phi, call = potential("dense")
    eye = torch.eye(3).double()
    cases = [
        ({"energy": "E"}, "energy: expected the name of one declared output, got 'E'"),
        ({"stress": True}, "cell: stress=True needs the lattice vectors"),
        ({"stress": True, "cell": "box"}, "cell: expected the name of one declared argument, got 'box'"),
        ({"stress": True, "cell": eye[:2]}, r"cell: expected lattice vectors as rows, of shape \(3, 3, 3\)"),
        ({"stress": True, "cell": eye[:2, :2]}, r"of shape \(3, 3, 3\), got \(3, 2, 2\)"),
        ({"stress": True, "cell": 0 * eye}, "cell: expected one with a volume .* for input 0"),
        ({"stress": True, "cell": eye, "shifts": "s"}, "shifts: expected the name of one declared argument"),
    ]
    for options, says in cases:
        with pytest.raises(ValueError, match=says):
            ps.energy_and_forces(phi, call, **options)
    with pytest.raises(TypeError, match=r"cell: expected real floating numbers, got torch\.int64"):
        ps.energy_and_forces(phi, call, stress=True, cell=eye.long())


def test_inputs_of_which_is_not_told_whether_they_stretch() -> None:
    class Moving(PerAtom):
        def forward(self, pos, velocity, shift):
            return super().forward(pos) + velocity.square().sum((1, 2)) + shift.sum((1, 2))

    inputs = {"pos": ps.Rep(ATOMS, SPACE), "velocity": ps.Rep(ATOMS, SPACE.vector), "shift": ps.Rep(None, None)}
    phi = ps.symmetrize(Moving(True), inputs, ps.Rep(), "haar").double().eval()
    call = {"pos": randn(2, 5, 3), "velocity": randn(2, 5, 3), "shift": torch.ones(2, 4, 3, dtype=torch.long)}
    cell = torch.eye(3).double()
    with pytest.raises(ValueError, match=r"velocity turns with the positions; name it in shifts .* or in unstrained"):
        ps.energy_and_forces(phi, call, stress=True, cell=cell)
    assert ps.energy_and_forces(phi, call, stress=True, cell=cell, unstrained="velocity").stress.isfinite().all()
    with pytest.raises(TypeError, match=r"shifts: expected real floating .* got torch.int64; shifts in units of"):
        ps.energy_and_forces(phi, call, stress=True, cell=cell, unstrained="velocity", shifts="shift")
    with pytest.raises(ValueError, match=r"positions: .* got 'x'; declared are 'pos', 'velocity', 'shift'"):
        ps.energy_and_forces(phi, call, positions="x")


def test_an_energy_of_another_shape_or_without_a_gradient() -> None:
    class Returns(nn.Module):
        def __init__(self, function):
            super().__init__()
            self.function = function

        def forward(self, pos):
            return self.function(pos)

    rep = {"pos": ps.Rep(ATOMS, SPACE)}
    pos = randn(2, 5, 3)
    for function, output, says in (
        (lambda pos: pos.sum(1), ps.Rep(), "output: expected one energy for each entry of"),
        (lambda pos: pos.detach().sum((1, 2)), ps.Rep(), "the model detach argument pos|the model detach pos"),
        (lambda pos: pos, ps.Rep(ATOMS, SPACE.vector), "energy: expected one number per input, atom or edge"),
    ):
        phi = ps.symmetrize(Returns(function), rep, output, "haar").eval()
        with pytest.raises(ValueError, match=says):
            ps.energy_and_forces(phi, {"pos": pos})
    parameter = nn.Parameter(torch.ones(2).double())
    phi = ps.symmetrize(Returns(lambda pos: parameter.expand(len(pos) // 2, 2).reshape(-1)), rep, ps.Rep(), "haar")
    with pytest.raises(ValueError, match="the energy does not depend on pos"):
        ps.energy_and_forces(phi, {"pos": pos}, samples=1)
