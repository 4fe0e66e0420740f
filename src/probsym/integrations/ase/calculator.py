"""`SymmetrizedCalculator`: any calculator of ASE, averaged over poses of the structure."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from ase import Atoms
from ase.calculators.calculator import Calculator, PropertyNotImplementedError, all_changes
from ase.outputs import Properties, all_outputs
from torch import Tensor

from probsym.distributions import Haar
from probsym.estimators import Estimator, Source
from probsym.groups import SO, Finite, Group
from probsym.groups.whole import positive, whole_number
from probsym.integrations.ase.evaluation import Batch, CalculatorModel, CalculatorOrbit
from probsym.integrations.ase.quantities import QUANTITIES, contracted
from probsym.integrations.ase.space_group import Operations
from probsym.integrations.ase.structures import Declared, Structure
from probsym.integrations.poses import Space, estimator_for, refuse_one_handed
from probsym.reps import Rep

IDENTITY = Finite([np.eye(3).tolist()], "identity")
SETTINGS = ("group", "estimator", "seed", "tol", "chunk", "space_group", "properties", "arrays", "info", "copies")


class SymmetrizedCalculator(Calculator):
    """A calculator of ASE whose results do not depend on the orientation of the structure; with error bars.

        E(x) = 1/K sum_k E_0(R_k^-1 x),   F(x) = 1/K sum_k R_k F_0(R_k^-1 x),   S(x) = 1/K sum_k R_k S_0(R_k^-1 x) R_k^T

    The calculator sees K poses of the structure: positions, cell, momenta, magnetic moments that are vectors, and
    whatever `arrays` and `info` declare are turned together; charges, constraints, tags and periodicity stay. Its
    results are turned back and averaged. Beside each property `results` holds two more, of the same shape and unit:

        energy_rot_std, forces_rot_std, ...     the standard deviation of single poses: how much orientation matters
        energy_stderr, forces_stderr, ...       the standard error of the average: how good the result is

    The standard error is zero where the group is finite and all of it was evaluated, and infinite where nothing is
    known: a design gives one number per block, so that a single block has no error bar. Two blocks have a poor one,
    eight a fair one, 32 a good one (docs/atoms.md).

    | mode | arguments | the energy is |
    |---|---|---|
    | frozen poses | an estimator, a `seed` | one smooth function; the forces are its gradient if the calculator's are |
    | fresh poses | `seed=None` | a new draw at each calculation, from torch's generator; for augmentation |
    | an accuracy | `tol=` | that of as many poses as are needed; it may step where their number changes |
    | the crystal's symmetry | `space_group=` | unchanged; forces, stress and moments become exactly as symmetric |

    One set of frozen poses is not exactly invariant: what is left is what the standard error says. A coset of the
    octahedral group removes every part of the energy that is of degree 1 to 3 in the rotation, and with it of forces
    and stress if they are its derivatives; of forces that a calculator predicts by themselves 1 to 2, of stress 1.

    The poses do not depend on the structure, so the same seed takes the same ones for all.

    Some calculators keep something from step to step: a list of neighbours, the density of the step before. One
    calculator that sees pose after pose loses it each time; a copy for each frozen pose keeps it.

    A change of the inner calculator's `parameters`, where those of ASE hold their settings, is seen at the next
    calculation. After a change of anything else of it call `reset()`.

    Args:
        calculator: any calculator of ASE.
        group: what is averaged over: `SO(3)`, `O(3)`, `SO(3, about="z")`, or a finite group of 3 x 3 matrices, which is
            averaged over exactly. None for the structure itself alone, with `space_group`.
        estimator: how; None takes 24 octahedral poses for SO(3), 48 with the inversion for O(3), 8 about an axis, and
            all elements of a finite group. `ps.MonteCarlo(96, chunk=8, design="octahedral")` and all others.
        seed: of the poses; None draws fresh ones at each calculation.
        tol: wanted standard error of all properties that are computed, each in ASE's unit (eV, eV/Angstrom, ...),
            instead of an estimator: `ps.Adaptive(tol)`, which has further options.
        chunk: poses that are evaluated together, if the estimator does not say; bounds the memory.
        space_group: how far, in Angstrom, an operation of the space group may move an atom from its place (`symprec` of
            spglib; 1e-5 is usual). Results are averaged over these operations as well, at no further evaluation.
        properties: Reps of further properties by name, such as {"polarizability": ps.Rep(space.vector, space.vector)}.
        arrays, info: Reps of entries of `atoms.arrays` with several numbers an atom, and of `atoms.info` with several
            numbers; None for one that stays.
        batch: (list of poses, names of properties) -> a dict of results for each pose. Unless given, the method
            `calculate_batch` of the calculator, if it has one; else poses are evaluated one after the other.
        copies: one calculator for each frozen pose: True for deep copies, which hold weights as many times; or a
            function that makes another, such as `lambda: MyCalculator(network)` around one network. It costs their
            memory. False, the default, suits calculators that keep nothing.

    Attributes:
        poses: evaluated in the last calculation.

    Raises:
        TypeError: something else than a calculator, a group or an estimator; a calculator that cannot be copied.
        ValueError: a group that does not turn space about the origin, a design that does not fit it or that lacks the
            inversion which the group has; at a calculation, degenerate cells, numbers that are not finite, results of
            the wrong shape, arrays of which nothing says how they turn; copies of a calculator without frozen poses, or
            of one that evaluates a batch. Names it.
        PropertyNotImplementedError: a property that the calculator lacks, or of which nothing says how it turns.

    >>> from ase.build import molecule
    >>> from ase.calculators.emt import EMT
    >>> atoms = molecule("H2O")
    >>> atoms.calc = SymmetrizedCalculator(EMT())
    >>> difference = atoms.get_potential_energy() - EMT().get_potential_energy(molecule("H2O"))
    >>> bool(abs(difference) < 1e-9)                           # EMT knows no axes: nothing to mend
    True
    >>> atoms.calc.poses, sorted(atoms.calc.results)[:3]
    (24, ['energies', 'energies_rot_std', 'energies_stderr'])
    """

    def __init__(
        self,
        calculator: Any,
        group: Group | None = SO(3),  # noqa: B008  # frozen, without tensors
        estimator: Estimator | None = None,
        seed: int | None = 0,
        *,
        tol: float | None = None,
        chunk: int | None = None,
        space_group: float | None = None,
        properties: Mapping[str, Rep] | None = None,
        arrays: Declared | None = None,
        info: Declared | None = None,
        batch: Batch | None = None,
        copies: bool | Callable[[], Any] = False,
    ) -> None:
        _refuse_what_is_no_calculator("calculator", calculator)
        self.calculator = calculator
        self.batch = batch
        self.poses = 0
        self._of_poses: list[Any] = []  # copies of the calculator, one for each frozen pose
        self._evaluated: tuple[Any, dict[str, Any]] | None = None  # the calculator and its settings at the last results
        super().__init__(
            group=group,
            estimator=estimator,
            seed=seed,
            tol=tol,
            chunk=chunk,
            space_group=space_group,
            properties=dict(properties or {}),
            arrays=dict(arrays or {}),
            info=dict(info or {}),
            copies=copies,
        )

    @property
    def implemented_properties(self) -> list[str]:  # type: ignore[override]
        """Those of the calculator whose rank is known or declared."""
        names: list[str] = []
        for name in self.calculator.implemented_properties:
            if name in QUANTITIES or name in self.parameters["properties"]:
                names.append(name)
        return names

    def set(self, **changes: Any) -> dict[str, Any]:
        """Change arguments of the constructor by name; results are forgotten.

        Raises:
            TypeError: an unknown name. ValueError, TypeError: as of the constructor.
        """
        for name in changes:
            if name not in SETTINGS:
                raise TypeError(f"{name}: expected one of {', '.join(SETTINGS)}")
        wanted = {**self.parameters, **changes}
        _checked(wanted)
        if wanted["copies"] and self._batch() is not None:
            raise ValueError(
                f"copies: expected False, since {_name(self.calculator)} evaluates poses together, got "
                f"{wanted['copies']!r}"
            )
        changed = {name: value for name, value in changes.items() if not _same(self.parameters.get(name), value)}
        self.parameters.update(changes)
        if changed:
            self.reset()
        return changed

    def todict(self, skip_default: bool = True) -> dict[str, Any]:
        """The arguments as text and numbers, for databases: a record, from which nothing is built again."""
        described: dict[str, Any] = {"calculator": _name(self.calculator)}
        inner = self.calculator.todict() if hasattr(self.calculator, "todict") else {}
        if inner:
            described["calculator_parameters"] = inner
        for name, value in self.parameters.items():
            if skip_default and (value is None or value is False or value == {}):
                continue
            described[name] = value if value is None or isinstance(value, int | float) else repr(value)
        return described

    def export_properties(self) -> Properties:
        """The properties of ASE among the results, without deviations and errors."""
        return Properties({name: value for name, value in self.results.items() if name in all_outputs})

    def reset(self) -> None:
        """Forget results, and the calculators of single poses."""
        super().reset()
        self._of_poses = []

    def check_state(self, atoms: Atoms, tol: float = 1e-15) -> list[str]:
        """What has changed since the last calculation.

        Beside what ASE looks at: the arrays and entries of `info` that are declared, and "calculator" for the settings
        of the inner one.
        """
        changes = super().check_state(atoms, tol)
        if self.atoms is None:
            return changes
        if self._calculator_changed():
            changes.append("calculator")
        for name in self.parameters["arrays"]:
            if not _equal(self.atoms.arrays.get(name), atoms.arrays.get(name)):
                changes.append(name)
        for name in self.parameters["info"]:
            if not _equal(self.atoms.info.get(name), atoms.info.get(name)):
                changes.append(name)
        return changes

    def get_property(self, name: str, atoms: Atoms | None = None, allow_calculation: bool = True) -> Any:
        """A property; see `ase.calculators.calculator.Calculator`."""
        if name not in self.implemented_properties:
            inner = _name(self.calculator)
            if name in self.calculator.implemented_properties:
                raise PropertyNotImplementedError(
                    f"{name}: {inner} has it, and nothing says how it turns: declare properties="
                    f"{{{name!r}: ps.Rep(...)}}"
                )
            raise PropertyNotImplementedError(f"{name}: {inner} does not implement it")
        return super().get_property(name, atoms, allow_calculation)

    def calculate(
        self,
        atoms: Atoms | None = None,
        properties: Sequence[str] = ("energy",),
        system_changes: Sequence[str] = tuple(all_changes),
    ) -> None:
        """Average the properties that are asked for, and all others of known rank that come with them."""
        if atoms is None:
            atoms = self.atoms
        if atoms is None:
            raise ValueError("atoms: expected a structure, got None")
        for name in properties:
            if name not in self.implemented_properties:
                self.get_property(name)  # which says why not
        settings = self.parameters
        if self._calculator_changed():
            self.reset()

        # 1. What turns, and what the structure has of symmetry itself. A failure must not leave results of another one.
        if self.check_state(atoms):
            self.results = {}
        structure = Structure(atoms, settings["group"] or IDENTITY, settings["arrays"], settings["info"])
        super().calculate(structure.atoms, list(properties), list(system_changes))
        p = Haar(settings["group"] or IDENTITY)
        operations = None
        if settings["space_group"] is not None:
            operations = Operations(structure, settings["space_group"])

        # 2. The estimate: the library's own, of a model that is the calculator.
        calculator_of = self._copy if settings["copies"] else self._calculator_itself
        model = CalculatorModel(calculator_of, structure, properties, settings["properties"], self._batch())
        orbit = CalculatorOrbit(model, Space.of(p.group), operations)
        generator = None
        if settings["seed"] is not None:
            generator = torch.Generator().manual_seed(settings["seed"])
        estimator = estimator_for(p, settings["estimator"], settings["tol"], settings["chunk"])
        with torch.no_grad():
            estimate = estimator(p, structure.inputs, orbit, Source(generator))

        # 3. As ASE writes it.
        self.poses = model.poses
        results: dict[str, Any] = {}
        unknown = model.poses == 1 and not p.group.finite  # one pose of many tells no spread
        deviations = orbit.deviations()
        for name, mean in estimate.mean.items():
            deviation = deviations[name]
            if unknown:
                deviation = torch.full_like(deviation, torch.inf)
            results[name] = _as_written(name, mean)
            results[f"{name}_rot_std"] = _as_written(name, deviation)
            results[f"{name}_stderr"] = _as_written(name, estimate.stderr[name])
        self.results = {**self.results, **results}
        self._evaluated = (self.calculator, _settings_of(self.calculator))

    # ---------------------------------------------------------------- calculators of poses

    def _batch(self) -> Batch | None:
        """What evaluates many poses together; None if nothing does."""
        return self.batch or getattr(self.calculator, "calculate_batch", None)

    def _calculator_itself(self, pose: int) -> Any:
        """The same for every pose."""
        return self.calculator

    def _copy(self, pose: int) -> Any:
        """The copy that evaluates the pose of this number, at each calculation.

        Each copy compares a structure with the last one that it has seen, as the calculator does. So results are right
        whatever number a pose gets.

        Raises:
            TypeError: the calculator cannot be copied, or the function makes something else.
        """
        while len(self._of_poses) <= pose:
            make = self.parameters["copies"]
            if make is True:
                try:
                    made = copy.deepcopy(self.calculator)
                except Exception as error:  # whatever stands in the way of a foreign object
                    raise TypeError(
                        f"copies: {_name(self.calculator)} cannot be copied ({type(error).__name__}: {error}); give a "
                        "function that makes another, copies=lambda: ..."
                    ) from error
            else:
                made = make()
                if made is self.calculator or any(made is other for other in self._of_poses):
                    raise ValueError("copies: expected a function that makes another calculator at each call")
                _refuse_what_is_no_calculator("copies", made)
            self._of_poses.append(made)
        return self._of_poses[pose]

    def _calculator_changed(self) -> bool:
        """Whether the last results are those of another inner calculator, or of other settings of it."""
        if self._evaluated is None:
            return False
        calculator, before = self._evaluated
        now = _settings_of(self.calculator)
        if calculator is not self.calculator or before.keys() != now.keys():
            return True
        return any(value is not now[name] and not _same(value, now[name]) for name, value in before.items())

    def __getstate__(self) -> dict[str, Any]:
        # Copies can be made again: neither pickles nor copies of this calculator carry them.
        return {**self.__dict__, "_of_poses": []}


def _refuse_what_is_no_calculator(argument: str, value: Any) -> None:
    is_calculator = hasattr(value, "get_property") and hasattr(value, "implemented_properties")
    if isinstance(value, type) or not is_calculator:
        raise TypeError(f"{argument}: expected a calculator of ASE, got {type(value).__name__} {value!r}")


def _settings_of(calculator: Any) -> dict[str, Any]:
    """What ASE's calculators keep in `parameters`; nothing of others."""
    settings = getattr(calculator, "parameters", None)
    return dict(settings) if isinstance(settings, Mapping) else {}


def _as_written(name: str, value: Tensor) -> Any:
    return contracted(name, value[0].numpy().copy())


def _checked(settings: Mapping[str, Any]) -> None:
    """Refuse arguments that no structure could be averaged with; see `SymmetrizedCalculator`."""
    # 1. Numbers.
    if settings["seed"] is not None:
        whole_number("seed", settings["seed"], 0)
    if settings["chunk"] is not None:
        positive("chunk", settings["chunk"])
    precision = settings["space_group"]
    if precision is not None:
        if isinstance(precision, bool) or not isinstance(precision, int | float):
            raise TypeError(f"space_group: expected a length in Angstrom, got {precision!r}")
        if not precision > 0:
            raise ValueError(f"space_group: expected a positive length in Angstrom, got {precision}")

    # 2. The group, and an estimator that fits it.
    group, estimator = settings["group"], settings["estimator"]
    if group is None and precision is None:
        raise ValueError("group: expected a group, or None together with space_group")
    space = Space.of(IDENTITY if group is None else group)
    p = Haar(IDENTITY if group is None else group)
    refuse_one_handed(p, space, estimator_for(p, estimator, settings["tol"], settings["chunk"]))

    # 3. Copies keep what belongs to one pose, which must come again.
    copies = settings["copies"]
    if not (isinstance(copies, bool) or callable(copies)):
        raise TypeError(f"copies: expected True, False or a function that makes a calculator, got {copies!r}")
    if copies and settings["seed"] is None and not p.group.finite:
        raise ValueError(
            "copies: expected frozen poses, seed=0 for example, got seed=None, which draws others each time"
        )

    # 4. Reps of groups that act here.
    for argument in ("properties", "arrays", "info"):
        for name, rep in settings[argument].items():
            if rep is None and argument != "properties":
                continue
            if not isinstance(rep, Rep):
                raise TypeError(f"{argument}[{name!r}]: expected a Rep, got {rep!r}")
            for factor in rep.group.factors:
                if factor != p.group:
                    raise ValueError(f"{argument}[{name!r}]: expected slots of {p.group!r}, got {rep!r}")


def _name(calculator: Any) -> str:
    return getattr(calculator, "name", None) or type(calculator).__name__


def _same(first: Any, second: Any) -> bool:
    """Whether two arguments are equal; what cannot be compared is not."""
    try:
        return bool(first == second)
    except (TypeError, ValueError):
        return False


def _equal(first: Any, second: Any) -> bool:
    """Whether two entries of a structure are equal."""
    if first is None or second is None:
        return first is second
    return np.array_equal(first, second)
