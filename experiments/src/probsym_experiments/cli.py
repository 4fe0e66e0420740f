"""The `probsym` command. Heavy packages are imported by the commands that need them."""

from __future__ import annotations

import argparse
import inspect
import math
import os
import shutil
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn

from .errors import UserError
from .interruption import Interrupted, interruptible
from .registry import EXPERIMENTS, experiment, summary
from .terminal import CLOSED_PIPE, degrade, discard, flush

Command = Callable[[argparse.Namespace, list[str]], int | None]  # an exit code; None is 0
EXAMPLES = """\
examples:
  probsym list                                           what can be run
  probsym demo                                           see it work: three minutes, no data needed
  probsym run nbody --preset gnn-ps                      train, test, write runs/nbody/gnn-ps/seed1
  probsym run nbody --preset gnn-ps --seed 2 --lr 1e-3   change fields of a preset
  probsym run nbody --preset gnn-ps --symmetrizer ga     another method with the same recipe: runs/nbody/gnn-ga/seed1
  probsym run nbody --preset gnn-ps --resume             go on after an interruption, with the same result
  probsym run nbody --preset gnn-ps --trainer.devices 4 --trainer.strategy ddp
  probsym run nbody --help                               all fields of an experiment
  probsym queue --dry-run                                runs that wait for a GPU, and how far they are
  probsym table                                          our results beside published ones
  probsym figures                                        our results as figures/EXPERIMENT/*.png and *.csv
  probsym audit bulk:Cu --calculator emt                 which symmetries an interatomic potential has
"""
AUDIT = """\
examples:
  probsym audit bulk:Cu --calculator emt
  probsym audit frames.xyz@::100 --calculator chgnet --kwargs use_device=cpu --out audits/chgnet
  probsym audit slab.cif water.xyz --calculator my_model:make --kwargs weights=best.pt --energy-tol 1
  probsym audit molecule:CH3CH2OH --calculator lj --kwargs rc=20 --rattle 0.1 --poses 100

MODULE:NAME imports MODULE, from the current folder too, and so runs its code. NAME is a calculator, or
is called with the --kwargs and returns an ASE calculator or a function of ase.Atoms that returns a dict
with energy (eV), forces (eV/A) and stress (eV/A^3).

Of a file, atoms, cell, momenta, masses, tags, charges, magnetic moments, and single numbers and words of a
frame count. Other columns are left out.

rows of the table:
  same again    two calls with the same structure
  rounding      the same structure, displaced by a millionth of its size
  rotation      everything turned, the cell included         reflection   mirror images, handedness alone
  translation   all atoms shifted                            permutation  atoms in another order
  images        atoms at other periodic images               cell choice  another basis of the same lattice
  supercell     twice the cell: energy per cell, forces      curl of F    forces round closed loops
  F = -dE/dx    energies along lines against the work of the forces
  stress=dE/de  energies along strains against the work of the stress
verdict: exact to rounding, within the tolerance, or VIOLATED: one move beyond both the tolerance and ten
times the rounding. Single precision passes at its rounding.

exit code: 0 no violation, 1 a violation, 2 something to put right in the command
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit code: 0, 1 where an audit finds a violation, 2 with one line on stderr for whatever the user can put right,
    128 + n after signal n."""
    degrade()
    parser = build_parser()
    try:
        with interruptible():
            try:
                given, rest = parser.parse_known_args(arguments)
                if rest and given.command is not run:
                    raise UserError(f"unrecognized arguments: {' '.join(rest)}")
                code = given.command(given, rest)
            finally:
                flush()
    except UserError as error:
        return fail(str(error))
    except BrokenPipeError:
        discard()
        return CLOSED_PIPE
    except OSError as error:
        discard()
        return fail(f"{error.filename or 'input or output'}: {error.strerror or error}")
    except (MemoryError, RuntimeError) as error:
        if not short_of_memory(error):
            raise
        return fail(f"out of memory: try a smaller model or batch_size ({error})")
    except Interrupted as stop:
        notes = getattr(stop, "__notes__", [])
        print("; ".join([f"probsym: interrupted by {stop}", *notes]), file=sys.stderr)
        return stop.code
    return code or 0


def short_of_memory(error: Exception) -> bool:
    """Whether an error is that of numpy, of torch on the CPU, or of torch on a GPU, where memory is short."""
    if isinstance(error, MemoryError):
        return True
    for words in ("allocate memory", "not enough memory", "out of memory"):
        if words in str(error):
            return True
    return False


def fail(message: str) -> int:
    """Says what is wrong in one line."""
    print("probsym: error:", " ".join(message.split()), file=sys.stderr)
    return 2


class Parser(argparse.ArgumentParser):
    """A parser whose complaints are one line, like all others."""

    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message} (see {self.prog} --help)")


def build_parser() -> Parser:
    """The commands and their options; fields of experiments are left to `config`."""
    parser = Parser(
        prog="probsym",
        description="Symmetrize any model: list, run and compare the experiments.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.set_defaults(command=lambda given, rest: parser.print_help())
    commands = parser.add_subparsers(metavar="COMMAND")

    def add(command: Command, usage: str, epilog: str = EXAMPLES, **options: Any) -> Parser:
        text = inspect.getdoc(command) or ""
        added = commands.add_parser(
            command.__name__.removesuffix("_"),
            help=text.partition("\n")[0],
            description=text,
            usage=f"probsym {usage}",
            epilog=epilog,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
            **options,
        )
        added.set_defaults(command=command)
        return added

    add(list_, "list")

    subparser = add(demo, "demo [--out DIR]")
    subparser.add_argument("--out", type=Path, default=Path("."), help="where the figure goes")

    subparser = add(
        run, "run EXPERIMENT --preset NAME [--FIELD VALUE ...] [--data DIR] [--out DIR] [--resume]", add_help=False
    )
    subparser.add_argument("experiment", nargs="?", metavar="EXPERIMENT", help=", ".join(EXPERIMENTS))
    subparser.add_argument("--preset", metavar="NAME", help="see probsym list")
    subparser.add_argument(
        "--data", type=Path, metavar="DIR", help="data folder; default: $PROBSYM_DATA, else ~/.cache/probsym"
    )
    subparser.add_argument("--out", type=Path, metavar="DIR", help="default: runs/EXPERIMENT/PRESET/seedN")
    subparser.add_argument("--resume", action="store_true", help="go on with the run that --out holds")
    subparser.add_argument("-h", "--help", action="store_true", help="this; with EXPERIMENT also its fields")
    subparser.set_defaults(parser=subparser)

    subparser = add(queue, "queue [--minutes M] [--dry-run] [--data DIR] [--runs DIR] [--results DIR] [--list FILE]")
    subparser.add_argument("--minutes", type=float, default=8.0, metavar="M", help="after which it ends; default: 8")
    subparser.add_argument("--dry-run", action="store_true", help="check the list and show it; nothing is run")
    subparser.add_argument("--data", type=Path, metavar="DIR", help="data folder, as for probsym run")
    subparser.add_argument("--runs", type=Path, default=Path("runs"), help="where they run; default: runs")
    subparser.add_argument("--results", type=Path, default=Path("results"), help="for what is done; default: results")
    subparser.add_argument("--list", type=Path, metavar="FILE", help="another list than that of the package")

    subparser = add(table, "table [--runs DIR] [--results DIR]")
    subparser.add_argument(
        "--runs", type=Path, default=Path("runs"), help="folders that probsym run wrote; default: runs"
    )
    subparser.add_argument("--results", type=Path, help="EXPERIMENT/PRESET/*.json; default: results")

    subparser = add(figures, "figures [--runs DIR] [--results DIR] [--out DIR]")
    subparser.add_argument("--results", type=Path, help="EXPERIMENT/PRESET/*.json; default: results")
    subparser.add_argument(
        "--runs", type=Path, default=Path("runs"), help="folders that probsym run wrote; default: runs"
    )
    subparser.add_argument("--out", type=Path, default=Path("figures"), help="default: figures")

    subparser = add(audit, "audit STRUCTURE ... --calculator NAME [--kwargs KEY=VALUE ...] [options]", epilog=AUDIT)
    subparser.add_argument(
        "structures",
        nargs="+",
        metavar="STRUCTURE",
        help="FILE or FILE@START:STOP:STEP in any format of ASE (all frames unless chosen); molecule:NAME, bulk:NAME",
    )
    subparser.add_argument(
        "--calculator", required=True, metavar="NAME", help="of ASE (emt, lj, ...), chgnet, tblite, or MODULE:NAME"
    )
    subparser.add_argument(
        "--kwargs", nargs="+", action="extend", default=[], metavar="KEY=VALUE", help="arguments of the calculator"
    )
    subparser.add_argument("--energy-tol", type=float, default=0.1, metavar="X", help="meV/atom; default: 0.1")
    subparser.add_argument("--forces-tol", type=float, default=1.0, metavar="X", help="meV/A, rms; default: 1")
    subparser.add_argument("--stress-tol", type=float, default=0.1, metavar="X", help="meV/A^3, rms; default: 0.1")
    subparser.add_argument("--poses", type=int, default=24, metavar="N", help="moves of each symmetry; default: 24")
    subparser.add_argument("--paths", type=int, default=6, metavar="N", help="lines, loops, strains; default: 6")
    subparser.add_argument(
        "--spectrum",
        choices=("auto", "always", "never"),
        default="auto",
        help="by degree of the rotation group, and what averaging leaves; auto: where rotations are violated",
    )
    subparser.add_argument(
        "--blocks", type=int, default=4, metavar="N", help="420 evaluations of the spectrum each; default: 4"
    )
    subparser.add_argument(
        "--rattle", type=float, default=0.05, metavar="X", help="A, random displacements at first; default: 0.05"
    )
    subparser.add_argument("--seed", type=int, default=0, metavar="N", help="of all that is random; default: 0")
    subparser.add_argument("--out", type=Path, default=Path("."), metavar="DIR", help="for audit.json and audit.png")
    subparser.add_argument("--overwrite", action="store_true", help="replace those of an earlier audit")
    return parser


def list_(given: argparse.Namespace, rest: list[str]) -> None:
    """experiments and presets, one line each"""
    for one in EXPERIMENTS.values():
        print(f"{one.name}: {one.help}")
        width = max(len(name) for name in one.presets)
        for name, path in one.presets.items():
            print(f"  {name:{width}}  {summary(path)}")


def demo(given: argparse.Namespace, rest: list[str]) -> None:
    """train a small model with and without symmetrization, check both, draw a figure"""
    from rich.console import Console

    from .demo import demo as show

    show(Console(), given.out)


def run(given: argparse.Namespace, rest: list[str]) -> None:
    """train and test one preset of an experiment"""
    if given.help:
        given.parser.print_help()
        if given.experiment:
            from .config import fields_help

            print(f"\nfields of {given.experiment}:\n{fields_help(experiment(given.experiment))}")
        return
    if not given.experiment:
        raise UserError(f"run: expected an experiment ({', '.join(EXPERIMENTS)}); got none")
    if not given.preset:
        raise UserError(f"run {given.experiment}: expected --preset NAME; probsym list shows them")
    try:
        from .runner import run as start

        result = start(given.experiment, given.preset, rest, given.data or data_folder(), given.out, given.resume)
    except Interrupted as stop:
        stop.add_note("the same command with --resume goes on")
        raise
    print(headline(result))


def queue(given: argparse.Namespace, rest: list[str]) -> None:
    """go through the runs that wait for a GPU, for some minutes; a later call goes on"""
    from .queue import FILE, next_batch, read, work

    if not given.minutes > 0:
        raise UserError(f"--minutes: expected a positive number; got {given.minutes}")
    jobs = read(given.list or FILE)
    if not given.dry_run:
        work(jobs, given.minutes, given.runs, given.results, given.data)
        return
    upcoming = next_batch(jobs, given.runs, given.results)
    told = None
    for job in jobs:
        if job.settles != told:
            print(job.settles)
            told = job.settles
        mark = " <- next" if job in upcoming else ""
        name = job.folder(Path()).parent.name
        print(f"  {job.state(given.runs, given.results):5}  {job.experiment} {name} seed {job.seed}{mark}")


def headline(result: dict[str, Any]) -> str:
    """The number of a run with its errors.

    >>> headline({"metric": "test MSE", "value": 0.005, "stderr": 1e-5, "stderr_test": 3e-4, "samples": 20})
    'test MSE 0.005 ± 1e-05 (samples) ± 0.0003 (test set) at k = 20'
    """
    value = result["value"]
    if value is None:
        value = math.nan  # which JSON does not know
    words = [result.get("metric", "value"), f"{value:.5g}"]
    if result["stderr"] is not None:
        words.append(f"± {result['stderr']:.1g} (samples)")
    if result.get("stderr_test") is not None:
        words.append(f"± {result['stderr_test']:.1g} (test set)")
    words.append(f"at k = {result['samples']}")
    return " ".join(words)


def data_folder() -> Path:
    """$PROBSYM_DATA, else the user's cache folder."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return Path(os.environ.get("PROBSYM_DATA") or cache / "probsym")


def table(given: argparse.Namespace, rest: list[str]) -> None:
    """our results beside published ones, with seeds, standard errors and devices

    Results are those in --results and every result.json under --runs. Run it at the root of the repository to see
    the published results, or name the folder; an installed package holds none.
    "unverified" marks published numbers that nobody here has seen at their source.
    """
    from .layout import tables

    print("\n".join(tables(given.runs, given.results, columns())), end="")


def columns() -> int:
    """How wide the output is: $COLUMNS, else the terminal; 200 for a file or a pipe."""
    if sys.stdout.isatty() or os.environ.get("COLUMNS"):
        return shutil.get_terminal_size(fallback=(200, 24)).columns
    return 200


def figures(given: argparse.Namespace, rest: list[str]) -> None:
    """all our results as figures and CSV files

    One figure each, from results/ and every run under --runs, of those results that hold what it shows:
      error_by_samples         test error against the number of samples k of a prediction
      equivariance_by_samples  how far phi(g x) is from g phi(x), both with k samples
      samples_for_tolerance    how many test inputs need at most k samples for a given standard error
      error_by_cost            test error against the operations of the training
      learning_curve           the metric of the validation set while training
    A run's own folder holds the figures of that run.
    """
    from .report import figures as draw

    made = draw(given.runs, given.out, given.results)
    if not made:
        where = given.results or "results"
        raise UserError(f"--runs {given.runs}: expected results of probsym run there or in {where}; there are none")
    for path in made:
        print(path)


def audit(given: argparse.Namespace, rest: list[str]) -> int:
    """which symmetries an interatomic potential has, with error bars

    Moves structures by rotations, reflections, translations, orders of the atoms, periodic images and other choices of
    the cell, and tells how far energy, forces and stress are from following; whether the forces are a gradient; the
    violation by degree of the rotation group; and what averaging over 12 to 300 poses would leave of it.
    """
    from .audit import run_audit

    names = ("poses", "paths", "spectrum", "blocks", "rattle", "seed")
    options = {name: getattr(given, name) for name in names}
    tolerances = (given.energy_tol, given.forces_tol, given.stress_tol)
    report = run_audit(
        given.structures, given.calculator, given.kwargs, tolerances, options, given.out, given.overwrite
    )
    return 0 if report.passed else 1


if __name__ == "__main__":
    sys.exit(main())
