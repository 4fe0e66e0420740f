"""`probsym audit`: a calculator by its name, structures from files, and what the library's audit says of them."""

from __future__ import annotations

import ast
import importlib
import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from .errors import UserError
from .figures import save

if TYPE_CHECKING:
    from ase import Atoms

    from probsym.integrations.audit import AuditReport

# Calculators outside of ASE by a short name; each must be installed.
KNOWN = {"chgnet": "chgnet.model.dynamics:CHGNetCalculator", "tblite": "tblite.ase:TBLite"}
MOST_STRUCTURES = 50
ARRAYS = ("numbers", "positions", "momenta", "masses", "tags", "initial_magmoms", "initial_charges")
JSON = "audit.json"
FIGURE = "audit.png"


def run_audit(
    names: list[str],
    calculator: str,
    keywords: list[str],
    tolerances: tuple[float, float, float],
    options: dict[str, Any],
    out: Path,
    overwrite: bool,
) -> AuditReport:
    """Audits, prints the tables, writes `audit.json` and `audit.png` into `out`.

    Raises:
        UserError: ASE is missing, a calculator or structure that cannot be had, files that exist, bad options.
    """
    try:
        import ase  # noqa: F401

        from probsym.files import write
        from probsym.integrations.audit import AuditError, Tolerances, audit, draw
    except ModuleNotFoundError as error:
        raise UserError(f"audit needs {error.name}: pip install {error.name}") from error

    # 1. What can go wrong goes wrong before the long work.
    for name in (JSON, FIGURE):
        if (out / name).exists() and not overwrite:
            raise UserError(f"{out / name} exists: name another folder with --out, or say --overwrite")
    structures: list[Atoms] = []
    for name in names:
        structures += read_structures(name)
    if len(structures) > MOST_STRUCTURES:
        raise UserError(
            f"expected at most {MOST_STRUCTURES} structures; got {len(structures)}: choose with FILE@START:STOP:STEP"
        )
    made = make_calculator(calculator, keywords)

    # 2. The audit, with a bar where somebody looks.
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    try:
        limits = Tolerances(*tolerances)
        seen = sys.stderr is not None and sys.stderr.isatty()
        with Progress(*columns, console=Console(stderr=True), transient=True, disable=not seen) as bar:
            task = bar.add_task("audit", total=None)

            def show(done: int, planned: int, what: str) -> None:
                bar.update(task, completed=done, total=planned, description=what)

            report = audit(made, structures, tolerances=limits, progress=show, **options)
    except (AuditError, ValueError, TypeError) as error:
        raise UserError(str(error)) from error

    # 3. What it found.
    from .runner import commit

    print(report)
    command = {"calculator": calculator, "kwargs": keywords, "structures": names}
    content = {**report.to_dict(), "command": command, "commit": commit()}
    write(out / JSON, json.dumps(content, indent=1, allow_nan=False) + "\n")
    save(draw(report), out / FIGURE)
    print(f"{out / JSON}, {out / FIGURE}")
    return report


# ---------------------------------------------------------------- structures


def read_structures(name: str) -> list[Atoms]:
    """All structures of a file that ASE reads, those of FILE@INDEX, or `molecule:NAME` and `bulk:NAME` from ase.build.

    Raises:
        UserError: no such file, a format that ASE does not know, an index out of range, an unknown name.
    """
    from ase.build import bulk, molecule
    from ase.io import read

    kind, _, built = name.partition(":")
    try:
        if kind == "molecule" and built:
            return [molecule(built)]
        if kind == "bulk" and built:
            return [bulk(built)]
        path, _, index = name.partition("@")
        if not Path(path).is_file():
            raise UserError(f"{path}: no such file; or molecule:NAME, bulk:NAME for a structure of ase.build")
        found = read(path, index=index or ":")
    except UserError:
        raise
    except Exception as error:  # readers of ASE raise what they like
        raise UserError(f"{name}: ASE cannot read it: {type(error).__name__}: {error}") from error
    if not isinstance(found, list):
        found = [found]
    if not found:
        raise UserError(f"{name}: expected at least one structure; got none")
    for atoms in found:
        keep_known(atoms)
    return found


def keep_known(atoms: Atoms) -> None:
    """Takes off what a file says besides: results, and columns of which nothing tells how they turn."""
    atoms.calc = None
    for name in list(atoms.arrays):
        if name not in ARRAYS:
            del atoms.arrays[name]
    for name, value in list(atoms.info.items()):
        if not isinstance(value, str | bool | int | float):
            del atoms.info[name]


# ---------------------------------------------------------------- calculators


def make_calculator(name: str, keywords: list[str]) -> Any:
    """A calculator by name: one of ASE's, one of `KNOWN`, or MODULE:NAME of anything that can be imported.

    The object of MODULE:NAME is called with the keywords, unless it is a calculator already. What comes of it is a
    calculator, or a function of `Atoms`.

    Raises:
        UserError: it cannot be imported, found or made; says why.
    """
    options = parse_keywords(keywords)
    place = KNOWN.get(name.lower(), name)
    if ":" in place:
        factory = imported(place)
        if hasattr(factory, "get_potential_energy") and not isinstance(factory, type):
            if options:
                raise UserError(f"--kwargs: {place} is a calculator already, and takes none")
            return factory
    else:
        factory = of_ase(place)
    if not callable(factory):
        raise UserError(f"--calculator {name}: expected a class, a function or a calculator; got {factory!r}")
    try:
        return factory(**options)
    except Exception as error:  # whatever a foreign constructor raises
        raise UserError(f"--calculator {name}: {type(error).__name__}: {error}") from error


def imported(place: str) -> Any:
    """The object MODULE:NAME. The current folder is searched too. This runs the module's code."""
    module, _, attribute = place.partition(":")
    here = os.getcwd()
    if here not in sys.path:
        sys.path.insert(0, here)
    try:
        found: Any = importlib.import_module(module)
        for part in attribute.split("."):
            found = getattr(found, part)
    except Exception as error:  # an import runs foreign code
        raise UserError(f"--calculator {place}: {type(error).__name__}: {error}") from error
    return found


def of_ase(name: str) -> Any:
    """One of ASE's calculators by its name there, such as emt or lj."""
    from ase.calculators.calculator import get_calculator_class, names

    if name.lower() not in names:
        if Path(name).is_dir():
            raise UserError(
                f"--calculator {name}: expected MODULE:NAME or a calculator of ASE; got a folder, which does not say "
                "how its model reads a structure: write a function that returns a TorchCalculator of "
                "ps.load(FOLDER, ...) and name it MODULE:NAME (docs/atoms.md, 'Audit a potential')"
            )
        raise UserError(
            f"--calculator: expected MODULE:NAME, {', '.join(KNOWN)}, or a calculator of ASE (emt, lj, morse, ...); "
            f"got {name!r}"
        )
    try:
        return get_calculator_class(name.lower())
    except Exception as error:
        raise UserError(f"--calculator {name}: {type(error).__name__}: {error}") from error


def parse_keywords(pairs: list[str]) -> dict[str, Any]:
    """KEY=VALUE pairs; values are Python literals where they can be read as such, else text.

    >>> parse_keywords(["rc=12.0", "device=cpu", "smooth=True"])
    {'rc': 12.0, 'device': 'cpu', 'smooth': True}
    """
    found: dict[str, Any] = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals or not key.isidentifier():
            raise UserError(f"--kwargs: expected KEY=VALUE; got {pair!r}")
        if key in found:
            raise UserError(f"--kwargs: {key} is given twice")
        try:
            found[key] = ast.literal_eval(value)
        except (ValueError, SyntaxError):
            found[key] = value
    return found
