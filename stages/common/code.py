"""The code that a result depends on, found by following imports."""

import ast
from pathlib import Path

from stages.common.files import sha256

ROOT = Path(__file__).parents[2]
"""The folder of the repository that this code is part of."""
SHARED = ROOT / "stages/common"
"""Command line, files and progress: they decide no value."""


def module_path(name: str) -> Path:
    """The file of a module, such as `stages.pictures.views`."""
    return ROOT.joinpath(*name.split(".")).with_suffix(".py")


def imported_modules(path: Path) -> set[Path]:
    """Files of this repository that a Python file imports, directly and through others."""
    found: set[Path] = set()
    todo = [path]
    while todo:
        for node in ast.walk(ast.parse(todo.pop().read_text("utf-8"))):
            names = []
            if isinstance(node, ast.ImportFrom) and node.module:
                names = [node.module, *(f"{node.module}.{each.name}" for each in node.names)]
            elif isinstance(node, ast.Import):
                names = [each.name for each in node.names]
            new = {path for path in map(module_path, names) if path.is_file()} - found
            found |= new
            todo += new
    return found


def code_digests(module: str) -> dict[str, str]:
    """SHA-256 of a module and of all that it imports, by their paths, without those in SHARED."""
    path = module_path(module)
    files = {path} | imported_modules(path)
    return {
        file.relative_to(ROOT).as_posix(): sha256(file)
        for file in sorted(files)
        if SHARED not in file.parents
    }
