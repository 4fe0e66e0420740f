"""`SymmetrizedModel` of torch-sim: averages, errors, derivatives, batches; runs of torch-sim's own.

torch-sim is no requirement of the tests. Where it is missing, what the integration asks of it stands here as a copy of
its contract (`SimState`, `ModelInterface` of torch-sim 0.3); where it is installed, the same tests run with both.
"""

import dataclasses
import importlib.util
import sys
import types
from abc import ABC, abstractmethod
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import probsym as ps
import probsym.integrations


@dataclasses.dataclass
class SimState:
    """As torch-sim has it: systems one after the other, lattice vectors as columns."""

    positions: Tensor
    masses: Tensor
    cell: Tensor
    pbc: bool
    atomic_numbers: Tensor
    system_idx: Tensor | None = None

    def __post_init__(self) -> None:
        if self.system_idx is None:
            self.system_idx = torch.zeros(len(self.positions), dtype=torch.int64)

    @property
    def row_vector_cell(self) -> Tensor:
        return self.cell.mT


class ModelInterface(nn.Module, ABC):
    """The members of torch-sim's interface: four properties of which no setter need work, and `forward`."""

    @property
    def device(self):
        return self._device

    @device.setter
    def device(self, value):
        raise NotImplementedError

    @property
    def dtype(self):
        return self._dtype

    @dtype.setter
    def dtype(self, value):
        raise NotImplementedError

    @property
    def compute_stress(self):
        return self._compute_stress

    @compute_stress.setter
    def compute_stress(self, value):
        raise NotImplementedError

    @property
    def compute_forces(self):
        return self._compute_forces

    @compute_forces.setter
    def compute_forces(self, value):
        raise NotImplementedError

    @property
    def memory_scales_with(self):
        return getattr(self, "_memory_scales_with", "n_atoms_x_density")

    @abstractmethod
    def forward(self, state, **kwargs): ...


@dataclasses.dataclass
class Library:
    """torch-sim, or the copy of its contract, and the integration made with it."""

    SimState: type
    ModelInterface: type
    SymmetrizedModel: type


@pytest.fixture(params=["contract", "torch-sim"])
def library(request, monkeypatch) -> Library:
    if request.param == "torch-sim":
        ts = pytest.importorskip("torch_sim")
        from torch_sim.models.interface import ModelInterface as Interface

        from probsym.integrations.torch_sim import SymmetrizedModel

        return Library(ts.SimState, Interface, SymmetrizedModel)

    whole, models, interface = (types.ModuleType(name) for name in ("torch_sim", "models", "interface"))
    whole.SimState, interface.ModelInterface = SimState, ModelInterface
    monkeypatch.setitem(sys.modules, "torch_sim", whole)
    monkeypatch.setitem(sys.modules, "torch_sim.models", models)
    monkeypatch.setitem(sys.modules, "torch_sim.models.interface", interface)
    path = Path(probsym.integrations.__path__[0]) / "torch_sim.py"
    spec = importlib.util.spec_from_file_location("integration_with_the_contract", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return Library(SimState, ModelInterface, module.SymmetrizedModel)


# ---------------------------------------------------------------- a model that knows directions


def randn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def directional(library: Library, dtype: torch.dtype = torch.float64, degree: int = 5, **flags) -> nn.Module:
    """Energies along the axes of the laboratory, of positions and cells, with forces and stresses to match."""

    class Directional(library.ModelInterface):
        def __init__(self):
            super().__init__()
            self._device, self._dtype = torch.device("cpu"), dtype
            self._compute_forces, self._compute_stress = flags.get("forces", True), flags.get("stress", True)
            self.weight = nn.Parameter(randn(3, 4).to(dtype))
            self.calls: list[int] = []

        def forward(self, state, **kwargs):
            self.calls.append(len(state.cell))
            with torch.enable_grad():
                strain = torch.zeros(len(state.cell), 3, 3, dtype=dtype, requires_grad=True)
                stretch = torch.eye(3, dtype=dtype) + (strain + strain.mT) / 2
                positions = state.positions
                if not positions.requires_grad:
                    positions = positions.detach().requires_grad_()
                stretched = (positions[:, None] @ stretch[state.system_idx]).squeeze(1)
                cell = state.row_vector_cell @ stretch
                part = (stretched @ self.weight).sin().sum(-1) + stretched[:, 0] ** degree / 40
                energies = part * state.atomic_numbers * kwargs.get("scale", 1.0)
                energy = torch.zeros(len(cell), dtype=dtype).index_add(0, state.system_idx, energies)
                energy = energy + cell[:, 0, 0] ** 3 / 100
                keep = torch.is_grad_enabled() and state.positions.requires_grad
                gradients = torch.autograd.grad(energy.sum(), [positions, strain], create_graph=keep)
            outputs = {"energy": energy, "energies": energies}
            if self.compute_forces:
                outputs["forces"] = -gradients[0]
            if self.compute_stress:
                outputs["stress"] = gradients[1] / torch.linalg.det(state.cell)[:, None, None]
            return outputs if keep else {name: value.detach() for name, value in outputs.items()}

    return Directional()


SIZES = (3, 1, 4)


def systems(library: Library, dtype: torch.dtype = torch.float64, seed: int = 0, **changes):
    """Three systems in skewed cells."""
    index = torch.repeat_interleave(torch.arange(3), torch.tensor(SIZES))
    entries = {
        "positions": randn(8, 3, seed=seed).to(dtype),
        "masses": torch.ones(8, dtype=dtype),
        "cell": (4 * torch.eye(3).double() + 0.3 * randn(3, 3, 3, seed=seed + 1)).mT.contiguous().to(dtype),
        "pbc": True,
        "atomic_numbers": torch.tensor([1, 6, 8, 1, 6, 6, 1, 8]),
        "system_idx": index,
        **changes,
    }
    return library.SimState(**entries)


def turned(library: Library, state, matrix: Tensor):
    """The systems with positions and lattice vectors moved by a matrix."""
    entries = {field.name: getattr(state, field.name) for field in dataclasses.fields(library.SimState)}
    entries["positions"] = state.positions @ matrix.mT
    entries["cell"] = matrix @ state.cell
    return library.SimState(**entries)


# ---------------------------------------------------------------- averages


@pytest.mark.parametrize("chunk", [None, 7])
def test_the_average_over_a_finite_group(library: Library, chunk: int | None) -> None:
    """Against a plain loop over the 24 rotations of the cube: mean, spread of single poses, no error."""
    cube = ps.Octahedral()
    model = directional(library)
    symmetrized = library.SymmetrizedModel(model, cube, chunk=chunk, outputs={"energies": ps.Rep(None)})
    state = systems(library)
    found = symmetrized(state)
    assert max(model.calls) == 3 * (chunk or 24)  # all poses of all systems, or those of a chunk, are one batch
    assert sum(model.calls) == 3 * 24

    columns: dict[str, list[Tensor]] = {"energy": [], "forces": [], "stress": [], "energies": []}
    for matrix in octahedral():
        pose = model(turned(library, state, matrix.mT))
        columns["energy"].append(pose["energy"])
        columns["energies"].append(pose["energies"])
        columns["forces"].append(pose["forces"] @ matrix.mT)
        columns["stress"].append(matrix @ pose["stress"] @ matrix.mT)
    for name, values in columns.items():
        samples = torch.stack(values)
        assert torch.allclose(found[name], samples.mean(0), atol=1e-10)
        assert torch.allclose(found[f"{name}_rot_std"], samples.std(0, correction=0), atol=1e-10)
        assert (found[f"{name}_stderr"] == 0).all()


def octahedral() -> list[Tensor]:
    """The 24 rotations of the cube."""
    found = []
    for order in ((0, 1, 2), (1, 2, 0), (2, 0, 1), (0, 2, 1), (2, 1, 0), (1, 0, 2)):
        for number in range(8):
            signs = torch.tensor([1.0 - 2.0 * (number >> i & 1) for i in range(3)]).double()
            matrix = torch.diag(signs)[list(order)]
            if torch.linalg.det(matrix) > 0:
                found.append(matrix)
    return found


def test_invariance_and_what_is_left_of_it(library: Library) -> None:
    """Degree 3 goes away with one octahedral coset, in every orientation; the model, a control, depends on it."""
    model = directional(library, degree=3)
    with torch.no_grad():
        model.weight.zero_()  # no sines: what is left is of degree 1 to 3 in the rotation
    symmetrized = library.SymmetrizedModel(model)
    state = systems(library)
    g = ps.SO(3).haar((), generator=torch.Generator().manual_seed(3), dtype=torch.float64).matrix
    moved = turned(library, state, g)
    there, here = symmetrized(moved), symmetrized(state)
    assert torch.allclose(there["energy"], here["energy"], atol=1e-10)
    assert torch.allclose(there["forces"], here["forces"] @ g.mT, atol=1e-9)
    assert torch.allclose(there["stress"], g @ here["stress"] @ g.mT, atol=1e-9)
    assert here["energy_stderr"].isinf().all()  # one block tells no error
    assert not torch.allclose(model(moved)["energy"], model(state)["energy"], atol=1e-2)


@pytest.mark.parametrize(
    "estimator", [None, ps.MonteCarlo(8), ps.MonteCarlo(32, design="sobol"), ps.MonteCarlo(6, chunk=4)]
)
def test_a_system_does_not_depend_on_its_batch(library: Library, estimator) -> None:
    """And a second call gives the same; with seed=None neither does, as a control."""
    state = systems(library)
    last = library.SimState(
        state.positions[-4:], state.masses[-4:], state.cell[-1:], True, state.atomic_numbers[-4:], torch.zeros(4).long()
    )
    frozen = library.SymmetrizedModel(directional(library), estimator=estimator)
    together, alone = frozen(state), frozen(last)
    assert torch.allclose(together["energy"][-1:], alone["energy"], atol=1e-12)
    assert torch.allclose(together["stress"][-1:], alone["stress"], atol=1e-12)
    assert torch.allclose(together["forces"][-4:], alone["forces"], atol=1e-12)
    fresh = library.SymmetrizedModel(directional(library), estimator=estimator, seed=None)
    assert not torch.allclose(fresh(last)["energy"], fresh(last)["energy"], atol=1e-6)


def test_the_same_poses_in_every_precision(library: Library) -> None:
    single = library.SymmetrizedModel(directional(library, torch.float32), estimator=ps.MonteCarlo(3))
    double = library.SymmetrizedModel(directional(library), estimator=ps.MonteCarlo(3))
    found, expected = single(systems(library, torch.float32)), double(systems(library))
    assert {value.dtype for value in found.values()} == {torch.float32}
    for name, value in expected.items():
        assert torch.allclose(found[name].double(), value, rtol=1e-4, atol=1e-4), name


def test_standard_errors_cover_the_truth(library: Library) -> None:
    """100 seeds of 8 poses against 3,000: within 1.96 errors in 82 to 99 % (Student's t with 7 degrees: 91 %)."""
    state = systems(library)
    truth = library.SymmetrizedModel(directional(library), estimator=ps.MonteCarlo(3000))(state)["energy"]
    inside = []
    for seed in range(100):
        found = library.SymmetrizedModel(directional(library), estimator=ps.MonteCarlo(8), seed=seed)(state)
        inside.append((found["energy"] - truth).abs() < 1.96 * found["energy_stderr"])
    share = torch.stack(inside).double().mean()
    assert 0.82 < share < 0.99


# ---------------------------------------------------------------- derivatives


def test_forces_and_stress_belong_to_the_frozen_energy(library: Library) -> None:
    """By finite differences; those of fresh poses, a control, do not."""
    state = systems(library)
    model = library.SymmetrizedModel(directional(library), estimator=ps.MonteCarlo(3))
    found = model(state)
    step, strain = 1e-5 * randn(8, 3, seed=7), 1e-5 * (randn(3, 3, seed=8) + randn(3, 3, seed=8).mT)
    moved = [systems(library, positions=state.positions + sign * step) for sign in (1, -1)]
    work = model(moved[0])["energy"].sum() - model(moved[1])["energy"].sum()
    assert torch.allclose(work, -2 * (found["forces"] * step).sum(), rtol=1e-6)
    eye = torch.eye(3).double()
    stretched = [turned(library, state, eye + sign * strain) for sign in (1, -1)]
    work = model(stretched[0])["energy"] - model(stretched[1])["energy"]
    volume = torch.linalg.det(state.cell)
    assert torch.allclose(work, 2 * volume * (found["stress"] * strain).sum((1, 2)), rtol=1e-5)
    fresh = library.SymmetrizedModel(directional(library), estimator=ps.MonteCarlo(3), seed=None)
    work = fresh(moved[0])["energy"].sum() - fresh(moved[1])["energy"].sum()
    assert not torch.allclose(work, -2 * (found["forces"] * step).sum(), rtol=0.5)


@pytest.mark.parametrize("chunk", [None, 2])
def test_gradients_reach_the_positions_and_the_weights(library: Library, chunk: int | None) -> None:
    positions = randn(8, 3).requires_grad_()
    inner = directional(library)
    model = library.SymmetrizedModel(inner, estimator=ps.MonteCarlo(4, chunk=chunk))
    found = model(systems(library, positions=positions))
    (gradient,) = torch.autograd.grad(found["energy"].sum(), positions, retain_graph=True)
    assert torch.allclose(-gradient, found["forces"], atol=1e-10)
    (weights,) = torch.autograd.grad(found["forces"].square().sum(), inner.weight)
    assert weights.abs().sum() > 0
    assert not found["forces_stderr"].requires_grad


# ---------------------------------------------------------------- reflections, states, what is wrong


def test_reflected_cells_are_right_handed(library: Library) -> None:
    """The model sees positive volumes, so that the sign of its stress is right, and the average has the inversion."""
    inner = directional(library)
    seen: list[Tensor] = []
    inner.register_forward_pre_hook(lambda module, args: seen.append(torch.linalg.det(args[0].cell)))
    model = library.SymmetrizedModel(inner, ps.O(3))
    state = systems(library)
    here = model(state)
    assert all((volume > 0).all() for volume in seen)
    assert sum(len(volume) for volume in seen) == 3 * 48
    inverted = systems(library, positions=-state.positions)  # the same lattice
    there = model(inverted)
    assert torch.allclose(there["forces"], -here["forces"], atol=1e-10)
    with pytest.raises(ValueError, match=r"estimator: .*lacks the inversion.*full-octahedral"):
        library.SymmetrizedModel(inner, ps.O(3), ps.MonteCarlo(24, design="octahedral"))


def test_a_dict_of_entries_and_options_of_the_model(library: Library) -> None:
    state = systems(library)
    model = library.SymmetrizedModel(directional(library), estimator=ps.MonteCarlo(2))
    entries = {field.name: getattr(state, field.name) for field in dataclasses.fields(library.SimState)}
    del entries["masses"]
    assert torch.equal(model(entries)["energy"], model(state)["energy"])
    assert not torch.allclose(model(state, scale=2.0)["energy"], model(state)["energy"])


def test_the_state_is_left_as_it_is(library: Library) -> None:
    state = systems(library)
    before = {field.name: getattr(state, field.name) for field in dataclasses.fields(library.SimState)}
    copies = {name: value.clone() for name, value in before.items() if isinstance(value, Tensor)}
    library.SymmetrizedModel(directional(library))(state)
    for name, value in copies.items():
        assert getattr(state, name) is before[name]
        assert torch.equal(before[name], value)


def test_what_is_computed_is_what_the_model_computes(library: Library) -> None:
    model = library.SymmetrizedModel(directional(library, stress=False), estimator=ps.MonteCarlo(1))
    assert (model.compute_stress, model.compute_forces, model.dtype) == (False, True, torch.float64)
    found = model(systems(library))
    names = {name for name in found if "_" not in name}
    assert names == {"energy", "forces"}
    assert found["energy_rot_std"].isinf().all()  # one pose tells no spread
    with pytest.raises(NotImplementedError):
        model.compute_stress = True


def test_accuracy_instead_of_an_estimator(library: Library) -> None:
    model = library.SymmetrizedModel(directional(library, stress=False), tol=0.5)
    found = model(systems(library))
    assert 0 < found["energy_stderr"].max() < 0.6


def test_what_is_wrong_is_named(library: Library) -> None:
    inner = directional(library)
    make = library.SymmetrizedModel
    cases = [
        (lambda: make(nn.Linear(3, 1)), TypeError, "model: expected a ModelInterface of torch-sim, got Linear"),
        (lambda: make(inner, ps.SE(3)), ValueError, r"group: .* take the group without translations"),
        (lambda: make(inner, ps.SO(2)), ValueError, "group: .* whose vectors have 2 components"),
        (lambda: make(inner, ps.Signs(2)), ValueError, "group: expected one that turns space"),
        (lambda: make(inner, estimator=4), TypeError, "estimator: expected one such as"),
        (lambda: make(inner, estimator=ps.MonteCarlo(2), tol=0.1), ValueError, "tol, estimator: expected one of them"),
        (lambda: make(inner, chunk=0), ValueError, "chunk"),
        (lambda: make(inner, seed=-1), ValueError, "seed"),
        (lambda: make(inner, outputs={"dipole": ps.Rep(ps.O(3))}), ValueError, r"outputs\['dipole'\]: expected None"),
        (lambda: make(inner, outputs={"dipole": 3}), TypeError, r"outputs\['dipole'\]: expected a Rep"),
        (
            lambda: make(inner, outputs={"charges": ps.Rep(None)})(systems(library)),
            ValueError,
            "model: expected 'charges' among its outputs, got energy, energies",
        ),
        (
            lambda: make(inner)(systems(library, masses=torch.ones(8, 3))),
            ValueError,
            r"state.masses: has shape \(8, 3\)",
        ),
        (
            lambda: make(inner)(systems(library, positions=torch.full((8, 3), torch.nan).double())),
            ValueError,
            "positions",
        ),
    ]
    for call, kind, says in cases:
        with pytest.raises(kind, match=says):
            call()


# ---------------------------------------------------------------- torch-sim itself


@pytest.fixture
def argon():
    """Two rattled clusters of argon, and torch-sim's own Lennard-Jones potential.

    Clusters, because in torch-sim 0.3 pair potentials take the matrix of lattice vectors for its transpose where a pair
    crosses the boundary: the energy of a crystal changes when it is turned with its cell (the last test below).
    """
    ts = pytest.importorskip("torch_sim")
    build = pytest.importorskip("ase.build")
    from torch_sim.models.lennard_jones import LennardJonesModel

    clusters = []
    for i, size in enumerate((5.2, 5.4)):
        cluster = build.bulk("Ar", "fcc", a=size, cubic=True)
        cluster.rattle(0.1, seed=i)
        cluster.pbc = False
        clusters.append(cluster)
    model = LennardJonesModel(sigma=3.4, epsilon=0.0104, cutoff=20.0, dtype=torch.float64)
    return ts, ts.io.atoms_to_state(clusters, torch.device("cpu"), torch.float64), model


def test_torch_sim_validates_it(argon) -> None:
    from torch_sim.models.interface import ModelInterface as Interface
    from torch_sim.models.interface import validate_model_outputs

    from probsym.integrations.torch_sim import SymmetrizedModel

    ts, state, lennard_jones = argon
    for inner in (lennard_jones, directional(Library(ts.SimState, Interface, SymmetrizedModel))):
        symmetrized = SymmetrizedModel(inner, estimator=ps.MonteCarlo(2))
        validate_model_outputs(symmetrized, torch.device("cpu"), torch.float64)
    bare, found = lennard_jones(state), SymmetrizedModel(lennard_jones, estimator=ps.MonteCarlo(2))(state)
    for name in ("energy", "forces"):  # built invariant: a control
        assert torch.allclose(found[name], bare[name], atol=1e-9)
        assert found[f"{name}_rot_std"].abs().max() < 1e-9


def test_torch_sim_integrates_and_relaxes_with_it(argon) -> None:
    """20 steps of NVE keep the energy of frozen poses; FIRE lowers it and its forces."""
    from torch_sim.models.interface import ModelInterface as Interface

    from probsym.integrations.torch_sim import SymmetrizedModel

    ts, state, lennard_jones = argon
    inner = directional(Library(ts.SimState, Interface, SymmetrizedModel), stress=False)

    def total(model, state):
        kinetic = 0.5 * (state.momenta.square().sum(-1) / state.masses)
        return model(state)["energy"].sum() + kinetic.sum()

    spread = {}
    for seed in (0, None):
        model = SymmetrizedModel(inner, estimator=ps.MonteCarlo(2), seed=seed)
        start, update = ts.nve(model, dt=torch.tensor(1e-4).double(), kT=torch.tensor(0.01).double(), seed=1)
        moving = start(state.clone())
        trace = []
        for _ in range(20):
            moving = update(moving)
            trace.append(total(model, moving))
        spread[seed] = max(trace) - min(trace)
    assert 100 * spread[0] < spread[None]  # fresh poses, a control

    symmetrized = SymmetrizedModel(lennard_jones, estimator=ps.MonteCarlo(2))
    run = ts.integrate(state.clone(), symmetrized, integrator=ts.nve, n_steps=3, temperature=10, timestep=0.001)
    assert run.forces.shape == (8, 3)
    relaxed = ts.optimize(
        state.clone(), symmetrized, optimizer=ts.optimizers.fire, max_steps=100,
        convergence_fn=ts.generate_force_convergence_fn(force_tol=0.005, include_cell_forces=False),
    )  # fmt: skip
    before, after = symmetrized(state), symmetrized(relaxed)
    assert (after["energy"] < before["energy"]).all()
    assert after["forces"].abs().max() < 0.01 < before["forces"].abs().max()


def test_the_spread_tells_of_a_model_that_depends_on_the_pose() -> None:
    """Lennard-Jones crystals of torch-sim 0.3 are not invariant: their energy changes by more than an eV.

    Where a later version has mended it, the spread is zero, and the same test says so.
    """
    ts = pytest.importorskip("torch_sim")
    build = pytest.importorskip("ase.build")
    from torch_sim.models.lennard_jones import LennardJonesModel

    from probsym.integrations.torch_sim import SymmetrizedModel

    crystal = build.bulk("Ar", "fcc", a=5.2, cubic=True)
    crystal.rattle(0.05, seed=1)
    model = LennardJonesModel(sigma=3.4, epsilon=0.0104, cutoff=5.0, dtype=torch.float64)
    energies = []
    for pose in (crystal, crystal.copy()):
        if energies:
            pose.rotate(30, (1, 2, 3), rotate_cell=True)
        energies.append(model(ts.io.atoms_to_state([pose], torch.device("cpu"), torch.float64))["energy"])
    found = SymmetrizedModel(model)(ts.io.atoms_to_state([crystal], torch.device("cpu"), torch.float64))
    depends = not torch.allclose(energies[0], energies[1], atol=1e-6)
    assert bool(found["energy_rot_std"] > 1e-3) == depends


def test_its_example_runs() -> None:
    pytest.importorskip("torch_sim")
    import doctest

    from probsym.integrations import torch_sim

    assert doctest.testmod(torch_sim).failed == 0
