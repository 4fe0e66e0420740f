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
    "estimators": 3, "frozen": 4, "symmetrizer": 4, "symmetry_breaking": 4, "testing": 5, "integrations": 5,
    "saving": 5, "learning": 5, "forces": 5, "__init__": 4,
}  # fmt: skip
# On one floor: the first imports the second, never the reverse.
BESIDE = {("groups", "kernels"), ("nets", "kernels"), ("symmetrizer", "frozen"), ("integrations", "forces")}
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


OTHERS = {"torch", "transformers", "config", "os", "self", "cls"}  # packages, and what is a test's own


def private_members(path):
    """Names with one underscore that a file reads of something else than `self`, imports, or patches."""

    def is_private(name):
        return isinstance(name, str) and name.startswith("_") and not name.startswith("__")

    tree = ast.parse(path.read_text())
    own = {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.ClassDef)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and is_private(node.attr) and node.attr not in own:
            root = node.value
            while isinstance(root, ast.Attribute) and root.attr not in OTHERS:
                root = root.value
            if (root.id if isinstance(root, ast.Name) else getattr(root, "attr", None)) not in OTHERS:
                yield node.attr
        elif isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] not in OTHERS:
            yield from (alias.name for alias in node.names if is_private(alias.name))
        elif isinstance(node, ast.Call) and getattr(node.func, "attr", getattr(node.func, "id", "")) == "setattr":
            names = [argument.value for argument in node.args if isinstance(argument, ast.Constant)]
            yield from (name for name in names if isinstance(name, str) and is_private(name.split(".")[-1]))


@pytest.mark.parametrize("folder", ["tests", "examples", "experiments/tests"])
def test_no_test_reaches_into_private_members(folder):
    found = {str(path): list(private_members(path)) for path in (REPOSITORY / folder).rglob("*.py")}
    assert {path: names for path, names in found.items() if names} == {}


def test_private_members_are_seen(tmp_path):
    """A negative control: read, imported, patched; those of torch, of `self` and with two underscores are not meant."""
    file = tmp_path / "bad.py"
    file.write_text(
        "from probsym.groups.base import _size\nfrom torch.utils._pytree import tree_map\nphi.model._inner\n"
        "torch._dynamo.reset()\nself._own\nphi.__dict__\nf()._called\n"
        "monkeypatch.setattr(x, '_patched', 1)\nmonkeypatch.setattr('probsym.groups._there', 1)\n"
    )
    names = ["_size", "_inner", "_called", "_patched", "probsym.groups._there"]
    assert sorted(private_members(file)) == sorted(names)


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
