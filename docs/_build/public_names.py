"""An mkdocs hook: a public name that is missing from the API reference is a warning, and so an error of a strict build."""

from __future__ import annotations

import ast
import logging
import zlib
from pathlib import Path
from typing import Any

SOURCE = Path(__file__).parents[2] / "src"
PUBLIC = ["probsym", "probsym.groups", "probsym.reps", "probsym.estimators", "probsym.testing", "probsym.nets"]

log = logging.getLogger("mkdocs.hooks.public_names")


def on_post_build(config: Any, **_: Any) -> None:
    """Called by mkdocs when the site is written."""
    reference = documented(Path(config.site_dir) / "objects.inv")
    for package in PUBLIC:
        for name in exported(package):
            path = f"{package}.{name}"
            is_module = name in ("designs", "learning", "rotations", "testing")
            is_constant = name.isupper()
            places = {path, f"{path}.{name}"}  # the second: a function in a module of the same name
            if not is_module and not is_constant and not places & reference:
                log.warning(f"{path} is public, and the API reference does not have it: has it a docstring?")


def exported(package: str) -> list[str]:
    """The names in `__all__` of a package, read without importing it."""
    tree = ast.parse((SOURCE / package.replace(".", "/") / "__init__.py").read_text(encoding="utf-8"))
    for statement in tree.body:
        if isinstance(statement, ast.Assign) and ast.unparse(statement.targets[0]) == "__all__":
            return ast.literal_eval(statement.value)
    raise ValueError(f"{package} has no __all__")


def documented(inventory: Path) -> set[str]:
    """The names in an inventory of Sphinx's format: four lines of text, then compressed lines that begin with a name."""
    content = inventory.read_bytes()
    for _ in range(4):
        content = content[content.index(b"\n") + 1 :]
    return {line.split()[0] for line in zlib.decompress(content).decode().splitlines()}
