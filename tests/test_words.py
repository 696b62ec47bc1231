"""The vocabulary of docs/glossary.md: one word for one thing in code, messages, JSON and docs."""

import ast
import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("runtime/kedge_runtime", "models/kedge_models", "convert/kedge_convert")
MODULES = sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))
# What a decision said at its time stays.
HISTORY = {"decisions.md"}
PAGES = sorted(
    path
    for pattern in ("*.md", "*.toml", "action.yml", "Makefile", "docs/*.md")
    for path in ROOT.glob(pattern)
    if path.name not in HISTORY
)
# What must not be said -> the word for it. In identifiers a word ends at an underscore, too.
FORBIDDEN = {
    r"pictures?": "image",
    r"levell(?:ed|ing)": "prepared weights, equalisation",
    r"jury": "validation images",
    r"held[ -]out": "validation images",
    r"passed over": "skipped",
    r"shelf": "registry",
    r"float original|the original(?!s? (?:file|photo|format|paper|pixel))": "float model",
    r"mistakes? of the call": "usage error",
    r"stands for it": "replacement",
}
# In the bytes of artefacts, which don't change with our words.
IN_ARTEFACTS = ('INPUT_NAME = "picture"', "picture of {")
WORD = re.compile(
    "|".join(f"(?P<w{i}>(?<![a-z])(?:{word})(?![a-z]))" for i, word in enumerate(FORBIDDEN)),
    re.IGNORECASE,
)


def _said(text: str) -> Iterator[str]:
    """Yield each forbidden word of a text, with the one that is meant."""
    for match in WORD.finditer(text):
        index = int((match.lastgroup or "w0")[1:])
        yield f"{match[0]!r}: say {list(FORBIDDEN.values())[index]}"


def _words(path: Path) -> Iterator[str]:
    text = path.read_text(encoding="utf-8")
    for number, line in enumerate(text.splitlines(), 1):
        if any(kept in line for kept in IN_ARTEFACTS):
            continue
        yield from (f"{path.relative_to(ROOT)}:{number}: {said}" for said in _said(line))


def test_the_test_finds_a_word() -> None:
    assert list(_said("two pictures and a left_picture"))[1:] == ["'picture': say image"]
    assert not list(_said("Picamera2, a depicted image, originality"))


@pytest.mark.parametrize("package", PACKAGES)
def test_code_says_the_words_of_the_glossary(package: str) -> None:
    """Names, strings, docstrings and comments alike."""
    modules = [path for path in MODULES if path.is_relative_to(ROOT / package)]
    found = [said for path in modules for said in _words(path)]
    assert not found, "\n".join(found[:40])


def test_the_benchmarks_say_image() -> None:
    scripts = sorted((ROOT / "benchmarks").rglob("*.py"))
    kept = '(r"\\bpictures$'  # a JSON key of old versions
    lines = [(path, line) for path in scripts for line in path.read_text().splitlines()]
    assert lines
    assert [item for item in lines if "picture" in item[1].lower() and kept not in item[1]] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_pages_say_the_words_of_the_glossary(page: Path) -> None:
    found = list(_words(page))
    assert not found, "\n".join(found[:40])


def test_a_class_name_stands_for_one_thing() -> None:
    places = defaultdict(list)
    for path in MODULES:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ClassDef):
                places[node.name].append(str(path.relative_to(ROOT)))
    assert {name: where for name, where in places.items() if len(where) > 1} == {}
