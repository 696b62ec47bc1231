"""Print figures of the code's shape: modules, lines, lengths, double names, loose arguments.

    python tools/figures.py [ROOT]

ROOT: another checkout, to compare with.
"""

import argparse
import ast
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from statistics import median, quantiles

PACKAGES = ("runtime/kedge_runtime", "models/kedge_models", "convert/kedge_convert")
Function = ast.FunctionDef | ast.AsyncFunctionDef


def main(root: Path) -> None:
    """Print one figure a line."""
    modules = {
        path: path.read_text() for package in PACKAGES for path in (root / package).rglob("*.py")
    }
    trees = [ast.parse(text) for text in modules.values()]
    functions = [n for tree in trees for n in ast.walk(tree) if isinstance(n, Function)]
    rooms = [path for path, text in modules.items() if len(ast.parse(text).body) > 1]
    print(f"modules                    {len(modules)} ({len(rooms)} hold more than a docstring)")
    print(f"lines                      {sum(text.count(chr(10)) for text in modules.values())}")
    print(
        f"lines of a file            {_spread([text.count(chr(10)) for text in modules.values()])}"
    )
    lengths = [(node.end_lineno or 0) - node.lineno + 1 for node in functions]
    print(f"lines of a function        {_spread(lengths)}")
    print(f"class names for two things {len(_double(trees))} {' '.join(_double(trees))}")
    named = sum("name" in {each.arg for each in _arguments(node)} for node in functions)
    print(f"functions that take `name` {named}")
    loose = sum(any("dict[str, Any]" in each for each in _annotations(node)) for node in functions)
    print(f"functions of dict[str, Any] {loose}")


def _spread(values: list[int]) -> str:
    return f"median {median(values):g}, p90 {quantiles(values, n=10)[8]:g}, most {max(values)}"


def _double(trees: list[ast.Module]) -> list[str]:
    places: defaultdict[str, int] = defaultdict(int)
    for tree in trees:
        for name in {node.name for node in ast.walk(tree) if isinstance(node, ast.ClassDef)}:
            places[name] += 1
    return sorted(name for name, count in places.items() if count > 1)


def _arguments(node: Function) -> list[ast.arg]:
    return [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]


def _annotations(node: Function) -> Iterator[str]:
    """Yield the annotations of arguments, of the result, and of locals."""
    inside = [each.annotation for each in ast.walk(node) if isinstance(each, ast.AnnAssign)]
    for annotation in (*(each.annotation for each in _arguments(node)), node.returns, *inside):
        if annotation is not None:
            yield ast.unparse(annotation)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("root", nargs="?", type=Path, default=Path(__file__).parents[1])
    main(parser.parse_args().root)
