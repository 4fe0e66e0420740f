"""Energies with their forces and stresses: derivatives of an averaged energy, all of one draw of the noise."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from probsym.distributions import Noise
from probsym.estimators import Estimate, Estimator, Source
from probsym.frozen import Frozen
from probsym.kernels.precision import matmul, wide
from probsym.reps import Inputs, Leaf, Rep, as_spec, unfold
from probsym.reps.containers import Path, Spec, dotted, entries, exchange, leaves, lookup
from probsym.symmetrizer import Symmetrizer


class EnergyForces(NamedTuple):
    """Energies (B,) and the forces on the atoms, of the shape of the positions."""

    energy: Tensor
    forces: Tensor


class EnergyForcesStress(NamedTuple):
    """Energies (B,), the forces on the atoms, of the shape of the positions, and stresses (B, D, D)."""

    energy: Tensor
    forces: Tensor
    stress: Tensor


def energy_and_forces(
    phi: nn.Module,
    inputs: Any,
    *,
    positions: str = "pos",
    energy: str | int | None = None,
    stress: bool = False,
    cell: str | Tensor | None = None,
    shifts: str | Sequence[str] = (),
    unstrained: str | Sequence[str] = (),
    create_graph: bool | None = None,
    reps: Spec = None,
    output: Spec = None,
    samples: int | None = None,
    estimator: Estimator | None = None,
    tol: float | None = None,
    noise: Noise = None,
    generator: torch.Generator | None = None,
    return_estimate: bool = False,
) -> Any:
    """(energy, forces) of phi(x), with stress=True (energy, forces, stress): all of the same draw of the noise.

        E = phi(x),    F = -dE/dr,    sigma = 1/V dE/deps,    r -> r (1 + eps), eps symmetric, at eps = 0

    Forces of one draw belong to the energy of that draw; an energy of one call and forces of another do not belong
    together. The stress has the sign of ASE: positive where the crystal pulls inwards, so that the pressure is
    -trace(sigma) / 3. Units are those of the model, such as eV, eV/A and eV/A^3; ASE's six numbers are
    `stress[:, [0, 1, 2, 1, 0, 0], [0, 1, 2, 2, 2, 1]]` (xx, yy, zz, yz, xz, xy).

    **The energy** is one number per input, (B,) or (B, 1), or one per atom (declared on the axis of the atoms), which
    are added up: under a mask, in a ragged batch by its graph numbers.

    **In training** results have a graph, so that a loss of forces can be trained on. In evaluation they have none, and
    that of the energy is released; this works under `torch.no_grad` and `torch.inference_mode` as well.

    **What stretches with a crystal** is told by names: the positions, `cell` and `shifts`. Edges that cross the
    boundary come in one of two ways. Shifts in units of the lattice (integers, which the model multiplies by its cell)
    do not stretch, and are not named. Shifts in units of length, to be added to a difference of positions, stretch.
    Other inputs that turn with the positions, such as velocities, are named in `unstrained`.

    **Where the force is the gradient of the mean energy.** For Haar, Recursive and frames of space sample by sample;
    for `Learned` over SO and SE, and over orders with `ScoreFunction()`, on average over the noise. A learned order
    otherwise, and a learned handedness, leave a part out; a warning names it (docs/limitations.md, "Forces").

    Args:
        phi: a `Symmetrizer`, one that is frozen, or either of them compiled or in DistributedDataParallel. Any other
            model with `reps` and `output`.
        inputs: as phi is called: a dict of keywords, a tuple of positions, or the single argument. Atoms padded with a
            mask, ragged with a batch vector, or all inputs of one size.
        positions: name of the argument, or of the entry of a dict or `Data`, that the energy is derived by.
        energy: name or number of the output, where the model has several; by default "energy".
        stress: whether the stress is wanted, for which each input needs a `cell`.
        cell: name of the argument that holds the lattice vectors as rows (B, D, D); or these, if the model takes none.
        shifts: names of arguments in units of length that stretch with the cell.
        unstrained: names of arguments that turn with the positions and do not stretch.
        create_graph: whether results can be derived further; by default while phi trains and gradients are enabled.
        reps, output: Reps of inputs and output; those of phi unless given.
        samples, estimator, tol, noise, generator: of the call, as for phi.
        return_estimate: return an `Estimate` whose `mean` and `stderr` are energies, forces and stresses. The error is
            that of the mean over samples, or over the blocks of a design; infinite where only one was drawn, zero where
            the average is exact. Estimators that are no mean of a known number of samples (`tol`) are refused.

    Raises:
        ValueError: a name that is not declared, an energy of another shape, one that does not depend on the positions,
            a cell without volume, an input of which is not told whether it stretches.
        TypeError: positions that are no floating numbers; a bare model without `reps` and `output`.

    >>> import probsym as ps
    >>> atoms, space = ps.S("atoms"), ps.SE(3, "space")
    >>> class Energy(nn.Linear):
    ...     def forward(self, pos):
    ...         return super().forward(pos.flatten(1)).cos()
    >>> phi = ps.symmetrize(Energy(15, 1), {"pos": ps.Rep(atoms, space)}, ps.Rep(), "haar").eval()
    >>> energy, forces = energy_and_forces(phi, {"pos": torch.randn(2, 5, 3)}, samples=4)
    >>> energy.shape, forces.shape
    (torch.Size([2]), torch.Size([2, 5, 3]))
    >>> bool(forces.sum(1).abs().max() < 1e-5)                 # about the centroid, so that no net force remains
    True
    """
    # 1. What is declared, and the options of the call.
    declared, frozen = _symmetrizer(phi)
    options = {"samples": samples, "estimator": estimator, "tol": tol, "noise": noise, "generator": generator}
    options = {name: value for name, value in options.items() if value is not None}
    if declared is None:
        if reps is None or output is None:
            raise TypeError(f"expected reps and output, the Reps of inputs and energy, for a {type(phi).__name__}")
        if options or return_estimate:
            named = ", ".join([*options, *(["return_estimate"] if return_estimate else [])])
            raise TypeError(f"{named}: a {type(phi).__name__} draws no samples; symmetrize it first")
    elif declared.distribution.left_out_of_forces:
        warnings.warn(
            f"forces leave out {declared.distribution.left_out_of_forces}, so that they are not the gradient of the "
            "mean energy; take Haar, Recursive over rotations, or noise='gumbel' with relaxation=ScoreFunction() for "
            "orders",
            UserWarning,
            stacklevel=2,
        )
    outputs = as_spec(output, "output", untouched=True) if declared is None else declared.output
    if create_graph is None:
        # What is wrapped around a phi has a mode of its own, which nobody sets.
        training = phi.training if declared is None else declared.training
        create_graph = training and torch.is_grad_enabled()

    # 2. Derivatives are taken whatever the caller does with gradients.
    with torch.inference_mode(False), torch.enable_grad():
        x = _bind(declared, reps, _without_inference_tensors(inputs))
        task = _Task(
            x=x,
            energy=_energy_of(outputs, energy),
            positions=_named(x, positions, "positions"),
            strained=_strained(x, positions, cell, shifts, unstrained) if stress else None,
            volume=_volume(x, positions, cell) if stress else None,
            create_graph=create_graph,
        )
        if return_estimate:
            assert declared is not None  # refused above
            return _estimate(task, declared, frozen, options)
        moved, variables = task.with_variables(x)
        returned = phi(*moved.args, **moved.kwargs, **options)
        return task.results(x, returned, variables, 1)


# ---------------------------------------------------------------- one evaluation


@dataclass(frozen=True, eq=False)
class _Task:
    """What is derived by what.

    Args:
        x: the inputs.
        energy: where the energy stands among the outputs, and its Rep.
        positions: path of the positions. strained: paths of all that stretches; None if no stress is wanted.
        volume: of each input (B,).
        create_graph: whether results can be derived further.
    """

    x: Inputs
    energy: tuple[Path, Rep]
    positions: Path
    strained: frozenset[Path] | None
    volume: Tensor | None
    create_graph: bool

    def with_variables(self, x: Inputs) -> tuple[Inputs, list[Tensor]]:
        """A call (of copies of the inputs) at new variables: the positions and, for a stress, a strain (B, D, D)."""
        # 1. The positions. Who differentiates further may have made them depend on something.
        position = x.leaves[self.positions].value
        if not (self.create_graph and position.requires_grad):
            position = position.detach().requires_grad_()
        values = {path: leaf.value for path, leaf in x.leaves.items()}
        values[self.positions] = position
        variables = [position]

        # 2. r -> r (1 + eps) of the positions, the cell and the shifts.
        if self.strained is not None:
            size = position.shape[_coordinates(x.leaves[self.positions])]
            strain = torch.zeros(x.count, size, size, dtype=x.dtype, device=x.device, requires_grad=True)
            symmetric = (strain + strain.mT) / 2
            for path in self.strained:
                values[path] = _stretched(x, x.leaves[path], values[path], symmetric)
            variables.append(strain)

        names = {leaf.name: path for path, leaf in x.leaves.items()}
        return x.map(lambda leaf: values[names[leaf.name]]), variables

    def results(self, x: Inputs, returned: Any, variables: list[Tensor], times: int) -> Any:
        """Energy, forces and stress of an evaluation of `times` copies of the inputs."""
        path, rep = self.energy
        energy = _per_input(x, lookup(returned, path, "output "), rep)
        name = x.leaves[self.positions].name
        if not energy.requires_grad:
            raise ValueError(f"output: the energy has no gradient; does the model detach {name}, or run without one?")
        gradients = torch.autograd.grad(energy.sum(), variables, create_graph=self.create_graph, allow_unused=True)
        if gradients[0] is None:
            raise ValueError(f"output: the energy does not depend on {name}, or the model detaches it")
        if not self.create_graph:
            energy = energy.detach()

        forces = -gradients[0]
        if self.volume is None:
            return EnergyForces(energy, forces)
        volume = self.volume.repeat(times).to(gradients[1].dtype)
        return EnergyForcesStress(energy, forces, gradients[1] / volume[:, None, None])


def _per_input(x: Inputs, value: Tensor, rep: Rep) -> Tensor:
    """The energy (B,) of each input, from one number per input, atom or edge.

    Raises:
        ValueError: it has channels.
    """
    channels = tuple(value.shape[rep.batch_dims + rep.ndim :])
    if math.prod(channels) != 1:
        raise ValueError(
            f"output: expected one energy for each entry of {rep!r}, of channels () or (1,), got shape "
            f"{tuple(value.shape)}"
        )
    # A bare model writes into its padding what it likes; a phi leaves zeros there.
    for axis, places in rep.nodes:
        if axis in x.layouts:
            value = x.layouts[axis].clear(value, rep.batch_dims, *(rep.batch_dims + place for place in places))
    value = wide(value).flatten(1).sum(1) if value.ndim > 1 else wide(value)
    if rep.ragged is None:
        return value
    layout = x.layouts[rep.ragged]
    owner = layout.owner(rep.slots[0], len(value))
    return value.new_zeros(x.count).index_add(0, owner, value)


def _coordinates(leaf: Leaf) -> int:
    """The axis of coordinates: that of the points or vectors, or the last one where no space is declared."""
    for slot, place in leaf.rep.axes:
        if slot.role in ("point", "vector"):
            return leaf.rep.batch_dims + place
    return leaf.value.ndim - 1


def _stretched(x: Inputs, leaf: Leaf, value: Tensor, strain: Tensor) -> Tensor:
    """r + r eps for rows r of each input, in a ragged batch of each node or edge."""
    axis = _coordinates(leaf)
    rows = value.movedim(axis, -1)
    if rows.shape[-1] != strain.shape[-1]:
        raise ValueError(
            f"{leaf.name}: expected {strain.shape[-1]} coordinates on axis {axis}, as many as the positions have, got "
            f"shape {tuple(value.shape)}"
        )
    if leaf.rep.ragged is not None:
        strain = strain[x.owner(leaf)]
    flat = rows.reshape(len(rows), math.prod(rows.shape[1:-1]), rows.shape[-1])
    moved = flat + matmul(flat, strain).to(flat.dtype)
    return moved.reshape(rows.shape).movedim(-1, axis)


# ---------------------------------------------------------------- error bars


def _estimate(task: _Task, declared: Symmetrizer, frozen: Frozen | None, options: dict[str, Any]) -> Estimate:
    """The mean of independent estimates, with the standard error of their energies and derivatives.

    Each estimate gets a copy of the inputs, so that one backward pass gives the derivatives of all.
    """
    x = task.x
    if x.readable:
        x.check_values()
    if frozen is not None:
        options = {**options, **frozen.noise_options(x, options)}
    chosen = {name: options[name] for name in ("samples", "estimator", "tol", "noise") if name in options}
    estimator = declared.estimator_of(**chosen)
    source = Source(options.get("generator"), options.get("noise"), statistics=True)

    # 1. Energies and derivatives of all independent estimates, some at a time, (J, B), (J, B, N, D), ...
    path, rep = task.energy
    found: list[tuple[Tensor, ...]] = []
    used = torch.zeros(x.count, dtype=torch.long, device=x.device)
    for part, times, randomness in estimator.independent_parts(declared.distribution, x, source):
        copies = x.tile(times)
        moved, variables = task.with_variables(copies)
        one = part(declared.distribution, moved, declared.orbit, randomness)
        results = task.results(copies, one.mean, variables, times)
        position = x.leaves[task.positions].rep
        samples = [results.energy.unflatten(0, (times, x.count)), unfold(results.forces, position, times)]
        if task.volume is not None:
            samples.append(results.stress.unflatten(0, (times, x.count)))
        found.append(tuple(samples))
        used = used + one.samples.reshape(times, x.count).sum(0)
    kind = EnergyForces if task.volume is None else EnergyForcesStress
    every = [torch.cat([samples[place] for samples in found]) for place in range(len(found[0]))]
    mean = kind(*[value.mean(0) for value in every])

    # 2. Their spread. A single estimate is exact, or nothing is known of the error of its derivatives.
    count = len(every[0])
    if count > 1:
        return Estimate(mean, kind(*[value.detach().std(0) / math.sqrt(count) for value in every]), used)
    known = _exact_inputs(x, lookup(one.stderr, path, "output "), rep)
    error = torch.where(known, 0.0, math.inf).to(mean.energy.dtype)
    energy_error = error
    if not rep.axes and rep.ndim == 0:
        energy_error = lookup(one.stderr, path, "output ").reshape(-1).detach().to(error.dtype)
    forces_error = _per_row(x, x.leaves[task.positions], error).expand(mean.forces.shape)
    errors = [energy_error, forces_error.to(mean.forces.dtype)]
    if task.volume is not None:
        errors.append(error[:, None, None].expand(every[2].shape[1:]))
    return Estimate(mean, kind(*errors), used, one.diagnostics)


def _exact_inputs(x: Inputs, stderr: Tensor, rep: Rep) -> Tensor:
    """Which inputs (B,) have an energy whose standard errors are all zero."""
    return _per_input(x, (stderr.detach() != 0).to(torch.float32), rep) == 0


def _per_row(x: Inputs, leaf: Leaf, value: Tensor) -> Tensor:
    """Values (B,) of inputs, to be broadcast on a leaf (B, ...), in a ragged batch (sum N, ...)."""
    if leaf.rep.ragged is not None:
        value = value[x.owner(leaf)]
    return value.reshape(-1, *[1] * (leaf.value.ndim - 1))


# ---------------------------------------------------------------- what is declared


def _symmetrizer(phi: nn.Module) -> tuple[Symmetrizer | None, Frozen | None]:
    """The Symmetrizer in what torch and the library wrap around one, and what froze it on the way; None for neither."""
    frozen: Frozen | None = None
    while not isinstance(phi, Symmetrizer):
        # By its attribute: torch's class for what is compiled comes with the compiler, which is slow to import.
        compiled = getattr(phi, "_orig_mod", None)
        if isinstance(phi, Frozen):
            frozen = phi
            phi = phi.phi
        elif isinstance(phi, nn.parallel.DistributedDataParallel | nn.DataParallel):
            phi = phi.module
        elif isinstance(compiled, nn.Module):
            phi = compiled
        else:
            return None, None
    return phi, frozen


def _bind(declared: Symmetrizer | None, reps: Spec, inputs: Any) -> Inputs:
    """The call's arguments with their Reps."""
    args, kwargs = _as_call(inputs, reps if declared is None else declared.inputs)
    if declared is not None:
        return declared.bind(args, kwargs)
    return Inputs.bind(as_spec(reps, "reps", untouched=True), args, kwargs)


def _as_call(inputs: Any, declared: Spec) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """A dict of keywords, a tuple of positions, or the single argument."""
    if isinstance(inputs, dict) and isinstance(declared, dict):
        return (), inputs
    if isinstance(inputs, tuple):
        return inputs, {}
    return (inputs,), {}


def _without_inference_tensors(inputs: Any) -> Any:
    """The inputs with copies of tensors made in inference mode, which no derivative could be taken of."""
    changes: dict[Path, Tensor] = {}

    def look(value: Any, path: Path) -> None:
        if isinstance(value, Tensor):
            if value.is_inference():
                changes[path] = value.clone()
            return
        for key, child in entries(value):
            look(child, (*path, key))

    look(inputs, ())
    return exchange(inputs, changes) if changes else inputs


def _energy_of(declared: Spec, name: str | int | None) -> tuple[Path, Rep]:
    """Where the energy stands among the outputs, and its Rep.

    Raises:
        ValueError: several outputs and none of that name; a Rep along which a group acts on more than nodes.
    """
    outputs = leaves(declared)
    wanted = "energy" if name is None else name
    named = {path: rep for path, rep in outputs.items() if path and path[-1] == wanted}
    if not named and name is None and len(outputs) == 1:
        named = outputs
    if len(named) != 1:
        known = ", ".join(dotted(path, "output ") for path in outputs)
        raise ValueError(f"energy: expected the name of one declared output, got {wanted!r}; declared are {known}")
    ((path, rep),) = named.items()
    for slot, _ in rep.axes:
        if slot.role not in ("nodes", "edges"):
            raise ValueError(f"energy: expected one number per input, atom or edge, got an output declared {rep!r}")
    return path, rep


def _named(x: Inputs, name: str, option: str) -> Path:
    """The path of the declared argument, or entry of one, of this name.

    Raises:
        ValueError: there is none, or several. TypeError: it does not hold real floating numbers.
    """
    paths = [path for path in x.leaves if path[-1] == name]
    if not paths and len(x.leaves) == 1 and option == "positions":
        paths = list(x.leaves)  # the single argument
    if len(paths) != 1:
        known = ", ".join(repr(path[-1]) for path in x.leaves)
        raise ValueError(f"{option}: expected the name of one declared argument, got {name!r}; declared are {known}")
    value = x.leaves[paths[0]].value
    if not value.is_floating_point():
        hint = ""
        if option == "shifts":
            hint = "; shifts in units of the lattice do not stretch, and are not named"
        raise TypeError(f"{option}: expected real floating numbers in {name!r}, got {value.dtype}{hint}")
    return paths[0]


def _strained(
    x: Inputs, positions: str, cell: str | Tensor | None, shifts: str | Sequence[str], unstrained: str | Sequence[str]
) -> frozenset[Path]:
    """The paths of all that stretches with the cell.

    Raises:
        ValueError: an input that turns with the positions, of which is not told whether it stretches.
    """
    moving = [_named(x, positions, "positions")]
    if isinstance(cell, str):
        moving.append(_named(x, cell, "cell"))
    for name in _names(shifts):
        moving.append(_named(x, name, "shifts"))
    still = [_named(x, name, "unstrained") for name in _names(unstrained)]

    # A vector that is forgotten would give a wrong stress without a word.
    spaces = _spaces(x.leaves[moving[0]])
    for path, leaf in x.leaves.items():
        if path not in moving and path not in still and spaces & _spaces(leaf):
            raise ValueError(
                f"stress: {leaf.name} turns with the positions; name it in shifts if it stretches with the cell, or in "
                "unstrained if it does not"
            )
    return frozenset(moving)


def _names(given: str | Sequence[str]) -> Sequence[str]:
    return (given,) if isinstance(given, str) else given


def _spaces(leaf: Leaf) -> set[Any]:
    """The groups of space that act on an input."""
    return {slot.group for slot, _ in leaf.rep.axes if slot.group.isometric}


def _volume(x: Inputs, positions: str, cell: str | Tensor | None) -> Tensor:
    """The volume (B,) of each cell.

    Raises:
        ValueError: no cell, one of another shape, or one without volume. TypeError: one of integers.
    """
    if cell is None:
        raise ValueError("cell: stress=True needs the lattice vectors: the name of an argument, or a tensor (B, D, D)")
    value = x.leaves[_named(x, cell, "cell")].value if isinstance(cell, str) else cell
    if not value.is_floating_point():
        raise TypeError(f"cell: expected real floating numbers, got {value.dtype}")
    if value.ndim == 2:
        value = value.expand(x.count, *value.shape)
    moving = x.leaves[_named(x, positions, "positions")]
    size = moving.value.shape[_coordinates(moving)]
    if value.shape != (x.count, size, size):
        raise ValueError(
            f"cell: expected lattice vectors as rows, of shape ({x.count}, {size}, {size}), got {tuple(value.shape)}"
        )
    volume = torch.linalg.det(wide(value.detach())).abs()
    if x.readable and x.device.type == "cpu" and not bool((volume > 0).all()):
        first = int((volume > 0).logical_not().nonzero()[0])
        raise ValueError(
            f"cell: expected one with a volume for a stress, got {value[first].tolist()} for input {first}"
        )
    return volume


__all__ = ["EnergyForces", "EnergyForcesStress", "energy_and_forces"]
