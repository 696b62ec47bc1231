"""The documentation is short-winded, and every path, link, option and name in it exists.

Nothing here imports TensorFlow: modules are parsed, and commands import it only when they run.
"""

import ast
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple

import click
import pytest

from cli_reference import reference
from kedge_runtime.cli import COMMANDS, kedge
from sentences import pages, percentile, sentences

ROOT = Path(__file__).parent.parent
PAGES = [*pages(), ROOT / "CHANGELOG.md"]
PACKAGES = {
    f"kedge_{name}": ROOT / name / f"kedge_{name}" for name in ("runtime", "models", "convert")
}
FOLDERS = ("runtime", "models", "convert", "docs", "examples", "tests", "tools", "benchmarks")
# Records of what was: their words for modules and options are those of their day.
HISTORY = {"decisions.md", "CHANGELOG.md"}
MEDIAN, P90 = 14, 24

FENCE = re.compile(r"^```(\w*)\n(.*?)^```", flags=re.MULTILINE | re.DOTALL)
# What a call of kedge stands behind, in a shell, a log or a CI's file.
CALL = re.compile(r"(?:^|\n|\$ |bin/|\(|run: |&& )kedge ([a-z][\w-]*)([^\n|#&;]*)")


class Page(NamedTuple):
    """A page, apart from its code blocks."""

    path: Path
    prose: str
    blocks: tuple[str, ...]

    @property
    def spans(self) -> list[str]:
        """Return the inline code."""
        return re.findall(r"`([^`\n]+)`", self.prose)

    @property
    def code(self) -> list[str]:
        """Return the inline code and the lines of the blocks."""
        return [*self.spans, *(line for block in self.blocks for line in block.splitlines())]


@cache
def page(path: Path) -> Page:
    text = path.read_text(encoding="utf-8")
    return Page(path, FENCE.sub("\n", text), tuple(block for _, block in FENCE.findall(text)))


@cache
def files() -> tuple[str, ...]:
    """Return the repository's files, from its first folder on."""
    found = (path for folder in FOLDERS for path in (ROOT / folder).rglob("*"))
    return tuple(path.relative_to(ROOT).as_posix() for path in found)


every_page = pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
living_page = pytest.mark.parametrize(
    "path", [path for path in PAGES if path.name not in HISTORY], ids=lambda path: path.name
)


# How it is written


def test_the_sentences_of_the_documentation_are_short() -> None:
    counts = [sentence.words for path in pages() for sentence in sentences(path)]
    assert len(counts) > 1000
    assert percentile(counts, 0.5) <= MEDIAN
    assert percentile(counts, 0.9) <= P90


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("One two three. Four `a b c` five.", [3, 3]),
        ("See [the page](page.md#x) at https://example.org/a?b now.\n\n# Not this\n", [6]),
        ("```\nno words here.\n```\nTwo words:\n\n- a label\n- This item is a sentence.\n", [2, 5]),
        ("| head | other |\n| --- | --: |\n| a label | A cell that speaks. |\n", [4]),
        ("It is .5 of 3.5, e.g. here. Then 2 more.", [7, 3]),
    ],
)
def test_words_are_counted_as_people_count_them(
    text: str, words: list[int], tmp_path: Path
) -> None:
    (tmp_path / "page.md").write_text(text)
    assert [sentence.words for sentence in sentences(tmp_path / "page.md")] == words


# What it names


@living_page
def test_the_files_that_a_page_names_exist(path: Path) -> None:
    missing = [name for name in named_files(page(path)) if not is_file(name)]
    assert missing == []


def named_files(where: Page) -> Iterator[str]:
    """Yield the repository's files that a page names: paths from a folder of it, and modules."""
    for code in where.code:
        for word in re.findall(r"[\w./*{}-]+", code):
            if "NAME" not in word and names_a_file(word):
                yield word


def names_a_file(word: str) -> bool:
    """Return whether a word is a path from a folder of the repository, or a module."""
    first, *rest = word.split("/")
    if rest and first in FOLDERS:
        return "." in rest[-1] or rest[0].startswith("kedge_")
    return word.endswith(".py")


def is_file(name: str) -> bool:
    """Return whether a path, a path's end or a glob is there."""
    name = name.rstrip("./")
    if "*" in name:
        return any(ROOT.glob(name))
    return any(file == name or file.endswith(f"/{name}") for file in files())


@living_page
def test_a_name_in_brackets_behind_a_module_is_in_it(path: Path) -> None:
    named = re.findall(r"`([\w/.]+\.py)` \(`(\w+)`\)", page(path).prose)
    modules = [(ROOT / module, name) for module, name in named if (ROOT / module).is_file()]
    assert [name for module, name in modules if name not in top_names(module)] == []


@every_page
def test_the_links_of_a_page_lead_somewhere(path: Path) -> None:
    targets = re.findall(r"\]\(([^)\s]+)\)", page(path).prose)
    lost = [target for target in targets if not leads_somewhere(path, target)]
    assert lost == []


def leads_somewhere(path: Path, target: str) -> bool:
    """Return whether a link's file is there, and its heading. Other sites are believed."""
    if re.match(r"\w+:", target):
        return True
    name, _, anchor = target.partition("#")
    file = path.parent / name if name else path
    return file.exists() and (not anchor or anchor in anchors(file))


def anchors(path: Path) -> list[str]:
    """Return the anchors that GitHub gives a page's headings."""
    headings = re.findall(r"^#+ +(.+)$", page(path).prose, flags=re.MULTILINE)
    plain = (re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).lower() for heading in headings)
    return [re.sub(r"[^\w\- ]", "", heading).strip().replace(" ", "-") for heading in plain]


@cache
def command(name: str) -> click.Command:
    found = kedge.get_command(click.Context(kedge), name)
    assert found is not None, f"there is no command {name}"
    return found


def options(name: str) -> set[str]:
    """Return the options of a command."""
    names = {word for item in command(name).params for word in (*item.opts, *item.secondary_opts)}
    return names | {"--help", "-h"}


@living_page
def test_the_commands_and_options_that_a_page_names_exist(path: Path) -> None:
    unknown = []
    for name, option in called(page(path)):
        if name not in COMMANDS or (option and option not in options(name)):
            unknown.append(f"kedge {name} {option}".strip())
    assert unknown == []


def called(where: Page) -> Iterator[tuple[str, str]]:
    """Yield each command that a page calls, with each of its options, and without one."""
    joined = "\n".join(where.code).replace("\\\n", " ")
    for name, rest in CALL.findall(joined):
        if re.match(r"\s*:", rest):  # a line of a log, as "kedge classify: ..."
            continue
        yield name, ""
        for option in re.findall(r"(?:^|\s)(--[a-z][\w-]*)", rest):
            yield name, option


@living_page
def test_an_option_in_the_prose_is_one_of_some_command(path: Path) -> None:
    every = set().union(*(options(name) for name in COMMANDS)) | {"--version"} | tool_options()
    spans = [span for span in page(path).spans if span.startswith("--")]
    named = [re.split(r"[ =]", span)[0].rstrip(",.") for span in spans]
    assert [name for name in named if name not in every] == []


@cache
def tool_options() -> set[str]:
    """Return what the Makefile and the scripts of tools/ and benchmarks/ take or give."""
    scripts = [ROOT / "Makefile", *ROOT.glob("tools/*.py"), *ROOT.glob("benchmarks/*.py")]
    texts = (script.read_text(encoding="utf-8") for script in scripts)
    return {option for text in texts for option in re.findall(r"--[a-z][\w-]*", text)}


@living_page
def test_the_dotted_names_of_a_page_exist(path: Path) -> None:
    names = re.findall(r"\bkedge_(?:runtime|models|convert)(?:\.\w+)+", "\n".join(page(path).code))
    assert [name for name in names if not resolves(name)] == []


def resolves(name: str) -> bool:
    """Return whether a dotted name is a package, a module, or a name at the top of one."""
    package, *rest = name.split(".")
    place = PACKAGES[package]
    while rest and (place / rest[0]).is_dir():
        place /= rest.pop(0)
    if rest and (place / f"{rest[0]}.py").is_file():
        return not rest[1:] or rest[1] in top_names(place / f"{rest[0]}.py")
    return not rest or rest[0] in top_names(place / "__init__.py")


@cache
def top_names(path: Path) -> frozenset[str]:
    """Return the names that a module defines, imports or lists as strings (lazy ones)."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            names.add(node.id)
        elif isinstance(node, ast.alias):
            names.add(node.asname or node.name)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            names.add(node.value)
    return frozenset(names)


WRONG = """\
See `runtime/kedge_runtime/nothing.py`, `nothing.py` (`FITS`) and `kedge_runtime.nothing`.
[A](nowhere.md), [B](architecture.md#nowhere), `kedge classify --nothing`, `--nothing`.

```
kedge nothing x.tflite
```
"""


def test_the_walk_finds_what_is_not_there() -> None:
    wrong = Page(ROOT / "docs" / "wrong.md", FENCE.sub("\n", WRONG), ("kedge nothing x.tflite\n",))
    names = ["runtime/kedge_runtime/nothing.py", "nothing.py"]
    assert list(named_files(wrong)) == names
    assert not any(map(is_file, names))
    targets = ("nowhere.md", "architecture.md#nowhere")
    assert not any(leads_somewhere(wrong.path, target) for target in targets)
    assert {("classify", "--nothing"), ("nothing", "")} <= set(called(wrong))
    assert not resolves("kedge_runtime.nothing")
    assert resolves("kedge_runtime.Classifier")


def test_nothing_here_imports_tensorflow() -> None:
    code = "import cli_reference as c, sys; c.reference(); sys.exit('tensorflow' in sys.modules)"
    folders = [ROOT / "tools", *(ROOT / room for room in ("runtime", "models", "convert"))]
    path = os.pathsep.join(map(str, folders))
    subprocess.run([sys.executable, "-c", code], check=True, env={**os.environ, "PYTHONPATH": path})


def test_the_reference_of_the_command_line_is_current() -> None:
    written = (ROOT / "docs" / "cli.md").read_text(encoding="utf-8")
    assert written == reference(), "run `make cli`"


def test_every_page_is_in_the_index() -> None:
    index = page(ROOT / "docs" / "README.md").prose
    listed = set(re.findall(r"\]\(([\w./-]+\.md)", index))
    docs = ROOT / "docs"
    there = {path.relative_to(docs).as_posix() for path in docs.rglob("*.md")}
    assert there - listed == {"README.md"}
