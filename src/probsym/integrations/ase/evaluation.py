"""The calculator as a model: poses in, results out, turned back; what estimators average."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from ase import Atoms
from ase.calculators.calculator import PropertyNotImplementedError
from torch import Tensor, nn

from probsym.estimators import OutputSamples
from probsym.estimators.moments import Moments
from probsym.groups import Element
from probsym.integrations.ase.quantities import QUANTITIES, expanded, quantity
from probsym.integrations.ase.space_group import Operations
from probsym.integrations.ase.structures import Structure
from probsym.integrations.poses import Space
from probsym.reps import Inputs, Rep, unfold
from probsym.reps.outputs import DeclaredOutputs, OutputStructure
from probsym.reps.unique_rows import UniqueRows

Results = Mapping[str, Any]
Batch = Callable[[list[Atoms], list[str]], Sequence[Results]]


class CalculatorModel(nn.Module):
    """A calculator as a model of rows: each row is a pose of one structure.

    Args:
        calculator_of: the calculator of ASE that evaluates a pose, by the number of the pose in this calculation.
        structure: of which rows are poses. properties: that are asked for.
        declared: Reps of further properties.
        batch: evaluates a list of structures at once; None asks the calculator for one after the other.
    """

    def __init__(
        self,
        calculator_of: Callable[[int], Any],
        structure: Structure,
        properties: Sequence[str],
        declared: Mapping[str, Rep],
        batch: Batch | None = None,
    ) -> None:
        super().__init__()
        self.calculator_of = calculator_of
        self.structure = structure
        self.properties = list(properties)
        self.declared = declared
        self.batch = batch
        self.brought: list[str] | None = None  # what the first poses brought, at least what was asked for
        self.poses = 0  # evaluated so far
        self.differentiates = torch.is_grad_enabled()  # as the calculator would find it without us

    def forward(self, **rows: Any) -> dict[str, Tensor]:
        """Properties by name (rows, ...), tensors with all their components.

        Raises:
            PropertyNotImplementedError: a property that was asked for is missing.
            ValueError: a wrong shape, or numbers that are not finite; names the property.
        """
        count = len(rows["cell"])

        # 1. One pose after the other, of which only one exists at a time, or all in one batch.
        found: list[dict[str, np.ndarray]] = []
        with torch.set_grad_enabled(self.differentiates):
            if self.batch is None:
                for row in range(count):
                    pose = self.structure.pose(rows, row)
                    calculator = self.calculator_of(self.poses + row)
                    found.append(self._read(evaluated(calculator, pose, self.properties)))
            else:
                poses = [self.structure.pose(rows, row) for row in range(count)]
                returned = self.batch(poses, self.properties)
                expected = f"batch: expected a list of {count} dicts of results, one for each structure"
                if not isinstance(returned, Sequence):
                    raise TypeError(f"{expected}, got {type(returned).__name__}")
                if len(returned) != count:
                    raise ValueError(f"{expected}, got {len(returned)}")
                for results in returned:
                    if not isinstance(results, Mapping):
                        raise TypeError(f"{expected}, got a {type(results).__name__} among them")
                    found.append(self._read(results))
        self.poses += count

        # 2. What all poses brought.
        if self.brought is None:
            self.brought = [name for name in found[0] if all(name in results for results in found)]
        columns: dict[str, Tensor] = {}
        for name in self.brought:
            values: list[np.ndarray] = []
            for results in found:
                if name not in results:
                    raise ValueError(f"calculator: {name} came for some poses of a structure and not for others")
                values.append(results[name])
            columns[name] = torch.from_numpy(np.stack(values))
        return columns

    def _read(self, results: Results) -> dict[str, np.ndarray]:
        """The properties of one pose whose rank is known."""
        atoms = len(self.structure.atoms)
        read: dict[str, np.ndarray] = {}
        for name, value in results.items():
            asked = name in self.properties
            if value is None or (name not in QUANTITIES and name not in self.declared):
                continue
            array = np.array(value, dtype=np.float64) if name in self.declared else expanded(name, value, atoms)
            if not np.isfinite(array).all():
                if not asked:
                    continue
                raise ValueError(f"calculator: {name} of a pose is not finite, got {value!r}")
            read[name] = array
        for name in self.properties:
            if name not in read:
                raise PropertyNotImplementedError(
                    f"{name}: {type(self.calculator_of(0)).__name__} has no such result for this structure"
                )
        return read


class CalculatorOrbit:
    """g -> the results at the poses g^-1 x, turned back by g; an `OrbitMap` for estimators.

    It keeps the spread of single poses as they come, so that no estimator has to hold them together.

    Args:
        model: the calculator. space: how g acts on results.
        operations: of the structure's space group, over which each pose is averaged as well; None for none.
    """

    training = False

    def __init__(self, model: CalculatorModel, space: Space, operations: Operations | None = None) -> None:
        self.model = model
        self.space = space
        self.operations = operations
        self.spread = Moments()
        self.outputs: DeclaredOutputs | None = None

    def __call__(self, x: Inputs, g: Element, active: Tensor | None = None, deduplicate: bool = False) -> OutputSamples:
        """The samples g_k f(g_k^-1 x), as `probsym.symmetrizer.Orbit` makes them."""
        times = g.shape[0]

        # 1. The poses as rows; those that nobody needs, or that equal others, are left out.
        inverse = g.inverse()
        rows = x.fold(lambda leaf: leaf.rep.act(inverse, leaf.value, leaf.rep.batch_dims), times)
        unique = None
        if active is not None:
            unique = UniqueRows(rows, active.reshape(-1), deduplicate and times > 1)
            rows = unique.inputs

        # 2. The calculator. The first poses tell what it brings.
        returned = self.model(**rows.kwargs)
        if self.outputs is None:
            self.outputs = DeclaredOutputs({name: self._rep(name, value) for name, value in returned.items()})
        structure = OutputStructure.of(returned, self.outputs, x)

        # 3. Rows become samples again, g turns them back, and the structure's own symmetry acts on each.
        samples: list[Tensor] = []
        for (name, *_), rep, value in zip(
            self.outputs.paths, self.outputs.reps, self.outputs.read(returned, rows), strict=True
        ):
            if unique is not None:
                value = unique.restore(value, rep)
            sample = rep.act(g, unfold(value, rep, times))
            if self.operations is not None:
                sample = self.operations.averaged(name, sample)
            samples.append(sample)

        # 4. The spread over poses.
        made = OutputSamples(samples, structure).weighted(g.weight)
        weights = None if active is None else active.to(samples[0].dtype)
        self.spread.add(made, weights, spread=True)
        return made

    def _rep(self, name: str, value: Tensor) -> Rep:
        declared = self.model.declared.get(name)
        if declared is not None:
            return declared
        found = quantity(name, tuple(value.shape[1:]))
        if found is None:
            raise ValueError(f"properties: nothing says how {name!r} turns")
        return found.rep(self.space)

    def deviations(self) -> dict[str, Tensor]:
        """The standard deviation of single poses, by property; infinite for one pose of many."""
        deviations: dict[str, Tensor] = {}
        squares = [square / total for square, total in zip(self.spread.squares, self.spread.totals, strict=True)]
        for name, value in self.spread.structure.build(squares).items():
            deviations[name] = value.sqrt()
        return deviations


def evaluated(calculator: Any, atoms: Atoms, properties: Sequence[str]) -> Results:
    """What a calculator says of one structure: all properties that are asked for from one calculation.

    `get_property` of ASE asks for one property at a time, and a calculator that computes no more than it is asked for
    would start again for each. So this does what it does, for all of them.
    """
    calculates = all(hasattr(calculator, name) for name in ("calculate", "check_state", "results"))
    if not calculates:
        return {name: calculator.get_property(name, atoms) for name in properties}
    changes = calculator.check_state(atoms)
    if changes:
        calculator.atoms = None
        calculator.results = {}
    missing = [name for name in properties if name not in calculator.results]
    if missing:
        calculator.calculate(atoms, missing, changes)
    return calculator.results
