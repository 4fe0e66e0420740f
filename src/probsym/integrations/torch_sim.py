"""torch-sim: any of its models, averaged over the poses of its systems; all poses of all systems are one batch."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import torch
import torch_sim as ts
from torch import Tensor, nn
from torch_sim.models.interface import ModelInterface

from probsym.distributions import Haar
from probsym.estimators import Estimator, Source
from probsym.groups import SO, Group
from probsym.groups.whole import positive, whole_number
from probsym.integrations.poses import Space, WatchedOrbit, estimator_for, refuse_one_handed
from probsym.reps import Inputs, Rep
from probsym.reps.outputs import DeclaredOutputs
from probsym.symmetrizer import Orbit


class SymmetrizedModel(ModelInterface):
    """A model of torch-sim whose results do not depend on the orientation of the systems; with error bars.

        E(x) = 1/K sum_k E_0(R_k^-1 x),   F(x) = 1/K sum_k R_k F_0(R_k^-1 x),   S(x) = 1/K sum_k R_k S_0(R_k^-1 x) R_k^T

    The model sees K poses of every system, positions and cell turned together, as one state of K times as many systems.
    Results are turned back and averaged. All systems see the same poses, so that the energy of one does not depend on
    which others are in its batch. The output has, beside `energy` (n_systems,), `forces` (n_atoms, 3) and `stress`
    (n_systems, 3, 3), for each of them and of the same shape and unit:

        energy_rot_std, ...     the standard deviation of single poses: how much orientation matters
        energy_stderr, ...      the standard error of the average: how good the result is; infinite for a single block
                                of a design, zero where the group is finite and all of it was evaluated

    Gradients of the model's results reach the positions and the cell, as far as the model lets them.

    Args:
        model: a `ModelInterface`.
        group: what is averaged over: `SO(3)`, `O(3)`, `SO(3, about="z")`, or a finite group of 3 x 3 matrices.
        estimator: how; None takes 24 octahedral poses for SO(3), 48 with the inversion for O(3), 8 about an axis, and
            all elements of a finite group.
        seed: of the poses, which are the same at every call and in every precision, so that the energy is a smooth
            function; None draws fresh ones at each call, from torch's generator.
        tol: wanted standard error instead of an estimator, in the units of every output: poses until the worst system
            of the batch has it.
        chunk: poses that are evaluated together; bounds the memory.
        outputs: Reps of further outputs by name, with the axis of systems or atoms in front, such as
            {"energies": ps.Rep(None), "dipole": ps.Rep(None, space.vector)}. What is not declared is left out.

    Raises:
        TypeError: no model of torch-sim, no group, no estimator.
        ValueError: a group that does not turn space about the origin, a design that does not fit it or that lacks the
            inversion which the group has; at a call, an output that is missing or has another shape, numbers that are
            not finite, an entry of the state of which nothing says how it turns. Names it.

    >>> import probsym as ps
    >>> from torch_sim.models.lennard_jones import LennardJonesModel
    >>> model = SymmetrizedModel(LennardJonesModel(dtype=torch.float64, compute_stress=True), chunk=8)
    >>> state = ts.SimState(
    ...     positions=torch.randn(4, 3).double() + torch.arange(4)[:, None],
    ...     masses=torch.ones(4).double(),
    ...     cell=12 * torch.eye(3).double()[None],
    ...     pbc=True,
    ...     atomic_numbers=torch.full((4,), 18),
    ... )
    >>> {name: tuple(value.shape) for name, value in model(state).items() if "stress" in name}
    {'stress': (1, 3, 3), 'stress_rot_std': (1, 3, 3), 'stress_stderr': (1, 3, 3)}
    """

    def __init__(
        self,
        model: ModelInterface,
        group: Group = SO(3),  # noqa: B008  # frozen, without tensors
        estimator: Estimator | None = None,
        seed: int | None = 0,
        *,
        tol: float | None = None,
        chunk: int | None = None,
        outputs: Mapping[str, Rep] | None = None,
    ) -> None:
        super().__init__()
        if not isinstance(model, ModelInterface):
            raise TypeError(f"model: expected a ModelInterface of torch-sim, got {type(model).__name__}")
        self.space = Space.of(group)
        self.distribution = Haar(group)
        if chunk is not None:
            chunk = positive("chunk", chunk)
        self.estimator = estimator_for(self.distribution, estimator, tol, chunk)
        refuse_one_handed(self.distribution, self.space, self.estimator)
        for name, rep in (outputs or {}).items():
            if not isinstance(rep, Rep):
                raise TypeError(f"outputs[{name!r}]: expected a Rep, got {rep!r}")
            if rep.ndim < 1 or rep.slots[0] is not None or any(f != group for f in rep.group.factors):
                raise ValueError(
                    f"outputs[{name!r}]: expected None for the axis of systems or atoms, then slots of {group!r}, got "
                    f"{rep!r}"
                )
        self.model = model
        self.seed = None if seed is None else whole_number("seed", seed, 0)
        self.outputs = dict(outputs or {})

    # ---------------------------------------------------------------- the interface of torch-sim

    @property
    def device(self) -> torch.device:
        """That of the model."""
        return self.model.device

    @property
    def dtype(self) -> torch.dtype:
        """That of the model."""
        return self.model.dtype

    @property
    def compute_stress(self) -> bool:
        """Whether the model computes stresses; may be set where that of the model may."""
        return self.model.compute_stress

    @compute_stress.setter
    def compute_stress(self, value: bool) -> None:
        self.model.compute_stress = value

    @property
    def compute_forces(self) -> bool:
        """Whether the model computes forces; may be set where that of the model may."""
        return self.model.compute_forces

    @compute_forces.setter
    def compute_forces(self, value: bool) -> None:
        self.model.compute_forces = value

    @property
    def memory_scales_with(self) -> Any:
        """As that of the model does."""
        return self.model.memory_scales_with

    def forward(self, state: Any, **kwargs: Any) -> dict[str, Tensor]:
        """Energies, forces and stresses, averaged, with their errors.

        Args:
            state: a `SimState`, or a dict of its entries. kwargs: of the model.
        """
        if isinstance(state, Mapping):
            state = ts.SimState(**{"masses": torch.ones_like(state["positions"][:, 0]), **state})

        # 1. What turns: the batch is one input, so that all systems see the same poses. Rotations are those of double
        #    precision, the same for models of any precision.
        vector = self.space.vector
        reps = {"positions": Rep(None, vector), "cell": Rep(None, None, vector)}
        turning = {"positions": state.positions.double()[None], "cell": state.row_vector_cell.double()[None]}
        x = Inputs.bind(reps, (), turning)
        x.check_values()

        # 2. The average.
        declared: dict[str, Rep] = {"energy": Rep(None)}
        if self.compute_forces:
            declared["forces"] = Rep(None, vector)
        if self.compute_stress:
            declared["stress"] = Rep(None, vector, vector)
        declared.update(self.outputs)
        model = Poses(self.model, state, kwargs, list(declared))
        orbit = WatchedOrbit(Orbit(model, DeclaredOutputs(declared)))
        generator = None
        if self.seed is not None:
            generator = torch.Generator(device=x.device).manual_seed(self.seed)
        estimate = self.estimator(self.distribution, x, orbit, Source(generator))

        # 3. Without the axis of the one input, in the precision of the model.
        deviations = orbit.deviations()
        unknown = model.evaluated == 1 and not self.distribution.group.finite  # one pose of many tells no spread
        results: dict[str, Tensor] = {}
        for name, mean in estimate.mean.items():
            deviation = torch.full_like(deviations[name], torch.inf) if unknown else deviations[name]
            results[name] = mean.squeeze(0)
            results[f"{name}_rot_std"] = deviation.squeeze(0).to(mean.dtype)
            results[f"{name}_stderr"] = estimate.stderr[name].detach().squeeze(0)
        return results

    def extra_repr(self) -> str:
        return f"{self.distribution.group!r}, {self.estimator!r}, seed={self.seed}"


class Poses(nn.Module):
    """A model of torch-sim as a function of the rows of a batch: each row is a pose of all systems.

    Args:
        model: of torch-sim. state: whose systems these are. kwargs: of the model. wanted: names of outputs.

    Raises:
        ValueError: an entry of the state of which nothing says how it turns.
    """

    def __init__(self, model: ModelInterface, state: Any, kwargs: Mapping[str, Any], wanted: list[str]) -> None:
        super().__init__()
        self.model = model
        self.kwargs = kwargs
        self.wanted = wanted
        self.systems = len(state.cell)
        self.atoms = len(state.positions)
        self.evaluated = 0  # poses so far
        self.precision = state.positions.dtype

        # What a state has beside positions and cell does not turn, or nobody knows how.
        self.still: dict[str, Any] = {}
        for field in dataclasses.fields(ts.SimState):
            value = getattr(state, field.name)
            if field.name in ("positions", "cell"):
                continue
            if field.name != "pbc" and isinstance(value, Tensor) and value.ndim > 1:
                raise ValueError(
                    f"state.{field.name}: has shape {tuple(value.shape)}, several numbers for each system or atom, and "
                    "nothing says how they turn"
                )
            self.still[field.name] = value

    def forward(self, positions: Tensor, cell: Tensor) -> dict[str, Tensor]:
        """Outputs by name (K, systems or atoms, ...) for positions (K, atoms, 3) and cells (K, systems, 3, 3).

        Raises:
            ValueError: an output is missing, or belongs neither to systems nor to atoms; names it.
        """
        times = len(positions)
        self.evaluated += times

        # 1. One state of all poses of all systems.
        entries: dict[str, Any] = {}
        for name, value in self.still.items():
            if name == "system_idx":
                offset = self.systems * torch.arange(times, device=value.device, dtype=value.dtype)
                value = (value + offset[:, None]).flatten()
            elif name != "pbc" and isinstance(value, Tensor):
                value = value.repeat(times)
            entries[name] = value
        lattice = cell.flatten(0, 1)
        # The lattice of the vectors a, b, c is also that of -a, -b, -c. So a reflected cell is right-handed again, and
        # a volume positive.
        lattice = torch.where((torch.linalg.det(lattice) < 0)[:, None, None], -lattice, lattice)
        entries["positions"] = positions.flatten(0, 1).to(self.precision)
        entries["cell"] = lattice.mT.contiguous().to(self.precision)  # torch-sim has the vectors as columns
        returned = self.model(ts.SimState(**entries), **self.kwargs)

        # 2. Its rows as those of poses.
        outputs: dict[str, Tensor] = {}
        for name in self.wanted:
            value = returned.get(name)
            if value is None:
                raise ValueError(f"model: expected {name!r} among its outputs, got {', '.join(returned)}")
            rows = value.shape[0] if value.ndim else 0
            if rows not in (times * self.systems, times * self.atoms):
                raise ValueError(
                    f"model: expected {name!r} with a row for each of {times * self.systems} systems or "
                    f"{times * self.atoms} atoms, got shape {tuple(value.shape)}"
                )
            outputs[name] = value.unflatten(0, (times, rows // times))
        return outputs


__all__ = ["SymmetrizedModel"]
