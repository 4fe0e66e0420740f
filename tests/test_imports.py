"""The floors of docs/design.md: imports go downwards only, and `import probsym` needs torch and numpy alone."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[1]
ROOT = REPOSITORY / "src" / "probsym"
FLOORS = {
    "members": -1, "kernels": 0, "groups": 0, "nets": 0, "files": 0, "reps": 1, "distributions": 2,
    "estimators": 3, "symmetrizer": 4, "testing": 5, "integrations": 5, "saving": 5, "learning": 5, "__init__": 4,
}  # fmt: skip
BESIDE = {("groups", "kernels"), ("nets", "kernels")}  # on one floor: the first imports the second, never the reverse
LIGHT = {"torch", "numpy", "probsym"}
FILES = sorted(ROOT.rglob("*.py"))


def unit(module):
    return module.split(".")[1] if "." in module else "__init__"


def imported(path):
    """(module, whether it is imported lazily) for every import of a file."""
    module = ["probsym", *path.relative_to(ROOT).with_suffix("").parts] if path.is_relative_to(ROOT) else []
    tree = ast.parse(path.read_text())
    deep = {id(n) for f in ast.walk(tree) if isinstance(f, ast.FunctionDef) for n in ast.walk(f)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, id(node) in deep) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = module[: len(module) - node.level] if node.level else []
            name = ".".join([*base, *(node.module or "").split(".")]).rstrip(".")
            below = [f"{name}.{alias.name}" for alias in node.names] if name == "probsym" else [name]
            yield from ((found, id(node) in deep) for found in below)


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_go_down(path):
    own = path.relative_to(ROOT).with_suffix("").parts[0]
    assert own in FLOORS, f"{own} has no floor"
    if own == "__init__":
        return
    for name, _ in imported(path):
        if name.split(".")[0] != "probsym" or unit(name) == own:
            continue
        below = unit(name) if unit(name) in FLOORS else "__init__"
        assert FLOORS[below] < FLOORS[own] or (own, below) in BESIDE, (
            f"{own} (floor {FLOORS[own]}) imports {name} (floor {FLOORS[below]})"
        )


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_the_core_needs_torch_and_numpy_alone(path):
    own = path.relative_to(ROOT).with_suffix("").parts[0]
    if FLOORS[own] > 5 or own == "integrations":
        return
    outside = {name.split(".")[0] for name, lazy in imported(path) if not lazy} - set(sys.stdlib_module_names)
    assert outside <= (LIGHT | {"triton"} if path.stem.endswith("_triton") else LIGHT)  # a kernel: imported on a GPU


@pytest.mark.parametrize("folder", ["src/probsym", "tests", "benchmarks", "examples"])
def test_the_library_knows_nothing_of_the_experiments(folder):
    for path in (REPOSITORY / folder).rglob("*.py"):
        outside = {name.split(".")[0] for name, _ in imported(path)}
        assert "probsym_experiments" not in outside, path


def test_import_is_light():
    code = "import sys, probsym; print(*{m.split('.')[0] for m in sys.modules})"
    found = set(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split())
    heavy = {"lightning", "pytorch_lightning", "torch_geometric", "transformers", "timm", "matplotlib", "pandas"}
    heavy |= {"scipy", "sklearn", "jsonargparse", "hypothesis", "pytest", "tensorboard", "rich", "igraph", "networkx"}
    torch_alone = subprocess.run(
        [sys.executable, "-c", code.replace("probsym", "numpy, torch")], capture_output=True, text=True, check=True
    )
    assert not (found & heavy) - set(torch_alone.stdout.split())
    assert "probsym" in found


def test_the_walk_sees_what_it_should(tmp_path, monkeypatch):
    """A negative control: relative, absolute and nested imports are all found."""
    monkeypatch.setattr(sys.modules[__name__], "ROOT", tmp_path)
    file = tmp_path / "groups" / "bad.py"
    file.parent.mkdir()
    file.write_text(
        "import scipy.stats\nfrom probsym import Haar\nfrom ..reps import Rep\nfrom . import base\n"
        "def f():\n    import probsym.cli\n"
    )
    found = dict(imported(file))
    assert found == {
        "scipy.stats": False,
        "probsym.Haar": False,
        "probsym.reps": False,
        "probsym.groups": False,
        "probsym.cli": True,
    }
