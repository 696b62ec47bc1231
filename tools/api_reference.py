"""Write docs/api-reference.md, the reference of the Python API, from its docstrings: `make api`.

The docstrings are Google's style: a summary, then sections such as `Args:`. Signatures are taken
from the source, as their types have names there.
"""

import argparse
import ast
import inspect
import re
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import kedge_runtime

PAGE = Path(__file__).resolve().parent.parent / "docs" / "api-reference.md"
HEAD = """\
# Python API: reference

This page is generated from the docstrings by `make api`; don't edit it. [api.md](api.md) explains
the API with examples. Import every name from `kedge_runtime`.

`Source` is one image: a path, bytes, an open binary file, a Pillow image, or an array of uint8
(height, width, 3). `Colour` is "rgb" or "bgr". `Floats` is an array of float32.
"""
# What programs call. Other methods serve the commands, and may change.
METHODS = {
    "Classifier": ("open", "__call__", "each", "probabilities", "features", "close"),
    "Ensemble": ("__init__", "probabilities", "close"),
    "SecondOpinion": ("open", "probabilities", "counts", "summary", "close"),
    "Contract": ("from_json", "to_json"),
    "Prediction": ("to_dict",),
    "Result": ("label", "to_dict"),
}
SECTION = re.compile(r"^(Args|Attributes|Returns|Yields|Raises):\n((?:[ ]{4}.*\n|\n)+)", re.M)
ITEM = re.compile(r"^(\w+): ((?:.*\n)(?:[ ]+.*\n)*)", re.M)
LISTS = ("Args", "Attributes", "Raises")
TITLES = {"Args": "Arguments"}


class Docstring(NamedTuple):
    """A docstring: its text before the sections, and each section's text."""

    text: str
    sections: dict[str, str]

    def items(self, section: str) -> dict[str, str]:
        """Return the names of a section with their meanings."""
        return {name: _join(text) for name, text in ITEM.findall(self.sections.get(section, ""))}


def parse(subject: Any) -> Docstring:
    """Return a class's or a function's docstring in its parts."""
    text = (inspect.getdoc(subject) or "") + "\n"
    sections = {name: textwrap.dedent(body) for name, body in SECTION.findall(text)}
    return Docstring(SECTION.sub("", text).strip(), sections)


def members() -> Iterator[tuple[str, Any]]:
    """Yield the public names and their methods, as the page lists them."""
    for name in kedge_runtime.__all__:
        subject = getattr(kedge_runtime, name)
        yield name, subject
        for method in METHODS.get(name, ()):
            yield f"{name}.{method}", _function(inspect.getattr_static(subject, method))


def _function(found: Any) -> Any:
    return getattr(found, "fget", None) or getattr(found, "__func__", found)


def reference() -> str:
    """Return the page, in Markdown."""
    return HEAD + "".join(_section(name, subject) for name, subject in members())


def _section(name: str, subject: Any) -> str:
    heading = f"\n{'###' if '.' in name else '##'} {_shown(name)}\n"
    docstring = parse(subject)
    parts = [] if inspect.isclass(subject) else [f"```text\n{_signature(name, subject)}\n```"]
    parts += [_join(paragraph) for paragraph in docstring.text.split("\n\n")]
    for section in docstring.sections:
        parts.append(f"{TITLES.get(section, section)}:\n\n{_body(docstring, section)}")
    return heading + "".join(f"\n{part}\n" for part in parts)


def _body(docstring: Docstring, section: str) -> str:
    if section not in LISTS:
        return f"- {_join(docstring.sections[section])}"
    items = docstring.items(section).items()
    return "\n".join(f"- `{name}`: {meaning}" for name, meaning in items)


def _shown(name: str) -> str:
    """Return a heading: a classifier is called, and an ensemble made, without a method's name."""
    owner, _, method = name.partition(".")
    calls = {"__call__": f"{owner.lower()}(image)", "__init__": f"{owner}(members)"}
    return calls.get(method, name)


def _signature(name: str, function: Any) -> str:
    (node,) = ast.parse(textwrap.dedent(inspect.getsource(function))).body
    assert isinstance(node, ast.FunctionDef)
    unparsed = ast.unparse(node.args).replace("=", " = ")
    arguments = re.sub(r"^(self|cls)(, )?", "", unparsed)
    if _is_property(node):
        return f"{name}: {_type(node)}"
    owner, _, method = name.partition(".")
    called = {"__call__": owner.lower(), "__init__": owner}.get(method, name)
    return f"{called}({arguments}) -> {owner if method == '__init__' else _type(node)}"


def _is_property(node: ast.FunctionDef) -> bool:
    return any(isinstance(each, ast.Name) and each.id == "property" for each in node.decorator_list)


def _type(node: ast.FunctionDef) -> str:
    return ast.unparse(node.returns).strip("'") if node.returns else "None"


def _join(text: str) -> str:
    return " ".join(text.split())


if __name__ == "__main__":
    argparse.ArgumentParser(description=__doc__).parse_args()
    PAGE.write_text(reference(), encoding="utf-8")
