"""Run the code cells of a notebook in order: `python notebook_cells.py NOTEBOOK` prints JSON lines.

Each line is what a cell shows: `text`, and `html` where the value has it. `!` starts a command, as
in IPython, but here one that fails ends the run. IPython itself is not needed: a stand-in gives
`IFrame`.
"""

import ast
import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any


class IFrame:
    """A page inside a notebook: it must be there."""

    def __init__(self, src: str, width: str, height: int) -> None:
        """Read the page."""
        self.page = Path(src).read_text(encoding="utf-8")

    def _repr_html_(self) -> str:
        return self.page


def code_cells(notebook: Path) -> list[str]:
    """Return the source of each code cell."""
    cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    return ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]


def as_python(cell: str) -> str:
    """Return a cell whose commands are calls of `_shell`, with {names} filled in."""
    lines = cell.splitlines()
    return "\n".join(f"_shell(f{x[1:]!r})" if x.startswith("!") else x for x in lines)


def run(cell: str, names: dict[str, Any]) -> Any:
    """Run a cell; return the value of its last line if that is an expression."""
    tree = ast.parse(as_python(cell))
    last = tree.body.pop() if isinstance(tree.body[-1], ast.Expr) else None
    exec(compile(tree, "cell", "exec"), names)
    if not isinstance(last, ast.Expr):
        return None
    return eval(compile(ast.Expression(last.value), "cell", "eval"), names)


def _shell(command: str) -> None:
    subprocess.run(command, shell=True, check=True, stdout=sys.stderr)


def main(notebook: Path) -> None:
    """Run all cells and print what they show."""
    display = ModuleType("IPython.display")
    display.IFrame = IFrame  # type: ignore[attr-defined]
    sys.modules |= {"IPython": ModuleType("IPython"), "IPython.display": display}
    names: dict[str, Any] = {"_shell": _shell}
    stdout, sys.stdout = sys.stdout, sys.stderr  # Keras prints its progress
    for cell in code_cells(notebook):
        shown = run(cell, names)
        if shown is not None:
            page = shown._repr_html_() if hasattr(shown, "_repr_html_") else ""
            print(json.dumps({"text": repr(shown), "html": page}), file=stdout)


if __name__ == "__main__":
    main(Path(sys.argv[1]).resolve())
