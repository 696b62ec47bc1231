"""Names from files on a terminal and in a CI log: every command, on raw bytes."""

import json
import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from conftest import Run, tiny_contract
from kedge_runtime.artefact.contract import Label
from kedge_runtime.artefact.file import seal
from kedge_runtime.artefact.golden import Golden
from kedge_runtime.artefact.labels import parse
from kedge_runtime.errors import ContractError, UsageError
from kedge_runtime.output import json_text
from kedge_runtime.printable import LIMIT, WORD, is_printable, message, printable

pytest.importorskip("ai_edge_litert")

# Each would do something: colour, clear, ring, forge a line, command a CI system, turn the text.
HOSTILE = {
    "colour": "a\x1b[32mPASS",
    "clear": "a\x1b[2J\x1b[H",
    "title": "a\x1b]0;owned\x07",
    "C1": "a\x9b31m\x85b",
    "newline": "a\nPASS  agreement 100.0%",
    "return": "a\rPASS",
    "github": "::error::forged",
    "github after blanks": "  ::set-output name=x::y",
    "github after a newline": "a\n::error file=x::forged",
    "github, older": "##[error]forged",
    "azure": "a ##vso[task.complete result=Succeeded]",
    "teamcity": "##teamcity[buildStatus status='SUCCESS']",
    "bidi": "a\u202egnp.exe",
    "isolates": "a\u2066b\u2069",
    "marks": "\u200ea\u200f\u061c",
    "zero width": "a\u200bb\u2060c\ufeff",
    "joiner between letters": "pay\u200dpal",
    "separators": "a\u2028b\u2029c",
    "tag": "a\U000e0041",
    "no UTF-8": os.fsdecode(b"a\xff\xfe"),
    "delete": "a\x7f",
}
HARMLESS = (
    "Müller straße.jpg",
    "犬　と猫.png",
    "кот ё.png",
    "👩\u200d🚀 🏳️\u200d🌈.png",
    "\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645",
    "C:\\photos\\new.jpg",
    "a:b::c [x] #1",
)
_ACTING = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u2069\ufeff]"
)


def harmless(written: bytes) -> str:
    """Hold what a command wrote to the rules; return it as text."""
    text = written.decode()
    assert not _ACTING.search(text), ascii(text)
    assert not re.search(r"(?m)^\s*::", text), text
    assert not re.search(r"##\w*\[", text), text
    assert not re.search(r"(?m)^PASS  agreement", text), text
    return text


@pytest.mark.parametrize("kind", HOSTILE)
def test_a_hostile_name_is_one_harmless_line(kind: str) -> None:
    shown = printable(HOSTILE[kind])
    assert shown != HOSTILE[kind]
    assert "\n" not in harmless(shown.encode())
    assert printable(shown) == shown


@pytest.mark.parametrize("name", HARMLESS)
def test_names_of_all_languages_stay(name: str) -> None:
    assert (printable(name), is_printable(name)) == (name, True)


def test_an_escape_names_its_character() -> None:
    assert printable("a\x1b\n\u202e\udcff\U000e0041") == r"a\x1b\n\u202e\udcff\U000e0041"


def test_a_long_name_keeps_both_ends() -> None:
    shown = printable("begin" + "x" * 5000 + "end", 80)
    assert (len(shown), shown[:5], shown[-3:], shown.count("…")) == (80, "begin", "end", 1)


def test_a_message_keeps_its_words_around_a_long_name() -> None:
    said = message(f"{'x' * 5000}: no such file; give another")
    assert re.fullmatch(r"x+…x+: no such file; give another", said)
    assert len(said) < WORD + 40
    assert len(message("a b " * 5000)) == LIMIT


def test_json_is_exact_and_ascii() -> None:
    values = [*HOSTILE.values(), *HARMLESS]
    text = json_text(values)
    assert json.loads(text) == values
    assert text.isascii()
    harmless(text.encode())


REFUSED = [name for kind, name in HOSTILE.items() if not is_printable(name)]


@pytest.mark.parametrize("name", REFUSED)
def test_such_a_label_is_refused_where_it_is_made_and_read(name: str) -> None:
    for label in ({"id": name, "name": "a"}, {"id": "a", "name": name}):
        with pytest.raises(ContractError, match="labels have no control characters"):
            Label(**label)
        contract = json.loads(tiny_contract("onnx").to_json())
        contract["labels"][1] = label
        with pytest.raises(ContractError, match="labels have no control characters"):
            type(tiny_contract("onnx")).from_json(json.dumps(contract))


@pytest.mark.parametrize("line", ["b\x1b[31m", "b\tc\td", "b\u202e", "\x0cb", "b\x85"])
def test_a_label_file_is_refused_with_the_line(line: str) -> None:
    with pytest.raises(UsageError, match=r"^labels.txt:2: label b?.*control characters"):
        parse(f"a\n{line}\nc\n", "labels.txt")


@pytest.fixture(scope="module")
def desk(
    tmp_path_factory: pytest.TempPathFactory, golden: Golden, models: dict[str, bytes]
) -> Path:
    """Return a folder with hostile images, classes, artefacts and settings."""
    folder = tmp_path_factory.mktemp("desk")
    _, png = cv2.imencode(".png", np.random.default_rng(0).integers(0, 255, (20, 20, 3), np.uint8))
    for i, name in enumerate(HOSTILE.values()):
        held = folder / "classes" / name
        held.mkdir(parents=True)
        (held / f"{name}.png").write_bytes(png.tobytes() + bytes(i))
    (folder / "broken").mkdir()
    for name in HOSTILE.values():
        (folder / "broken" / f"{name}.png").write_bytes(b"no image")
    for form, model in models.items():
        for i, name in enumerate(HOSTILE.values()):
            contract = tiny_contract(form)
            made = replace(contract.provenance, source=name, device=name, tools={name: name})
            contract = replace(contract, provenance=made)
            (folder / f"{i}{name}.{form}").write_bytes(seal(form, model, contract, golden))
            (folder / f"{i}{name}.labels").write_text(f"a\n{name}\n", errors="surrogateescape")
            (folder / f"{i}{name}.keras").write_bytes(b"no model")
    evil = models["onnx"].replace(b"ReduceMean", b"\x1b[2m\n::err")
    assert evil != models["onnx"]
    (folder / "layers.onnx").write_bytes(evil)
    return folder


def _kedge(desk: Path, *words: str) -> str:
    """Run the command as a program of its own; return both outputs, which are harmless."""
    command = [sys.executable, "-m", "kedge_runtime.cli", *words]
    done = subprocess.run(command, capture_output=True, check=False, cwd=desk)
    assert done.returncode in (0, 1, 2, 3), done.stderr
    assert all(len(line) < 2 * LIMIT for line in done.stderr.splitlines())
    if "--json" in words and done.stdout:
        json.loads(done.stdout)
    return harmless(done.stdout) + harmless(done.stderr)


def _names(desk: Path, suffix: str) -> list[str]:
    return [path.name for path in sorted(desk.iterdir()) if path.name.endswith(suffix)]


@pytest.mark.parametrize("extra", [(), ("--top", "1"), ("--json",), ("--sheet", "s.png")])
def test_classify(desk: Path, extra: tuple[str, ...]) -> None:
    said = _kedge(desk, "classify", *_names(desk, ".tflite")[:1], "classes", "broken", *extra)
    assert "forged" in said


def test_classify_compares_artefacts(desk: Path) -> None:
    artefacts = _names(desk, ".tflite")
    assert r"\x1b" in _kedge(desk, "classify", *artefacts, "classes")


@pytest.mark.parametrize("suffix", [".tflite", ".onnx"])
def test_artefacts_with_hostile_names_and_contracts(kedge: Run, desk: Path, suffix: str) -> None:
    for name in _names(desk, suffix):
        for words in (("inspect",), ("inspect", "--json"), ("verify",), ("verify", "--json")):
            code, out, err = kedge(words[0], desk / name, *words[1:])
            assert code in (0, 1)
            harmless(out.encode() + err.encode())


def test_bench(desk: Path) -> None:
    words = ("--rounds", "2", "--warm-up", "0")
    some = [name for name in _names(desk, ".tflite") if "\x1b" in name or "::" in name][:2]
    assert r"\x1b" in _kedge(desk, "bench", *some, "classes", *words)
    _kedge(desk, "bench", *_names(desk, ".tflite"), "broken", *words)


def test_drift(desk: Path) -> None:
    first, second = _names(desk, ".tflite")[:2]
    for labels in ("none", "folders", desk / "classes" / HOSTILE["newline"]):
        words = ("drift", first, "--against", second, "--images", "classes")
        _kedge(desk, *words, "--truth", str(labels))
        _kedge(desk, *words, "--truth", str(labels), "--json")


def test_seal_and_foreign_files(desk: Path, models: dict[str, bytes]) -> None:
    words = ("--preprocess", "image_dataset", "--normalisation", "tf", "--head", "logits")
    for labels in _names(desk, ".labels"):
        said = _kedge(desk, "classify", "layers.onnx", "classes", "--labels", labels, *words)
        assert "PASS  agreement" not in said or "\n" not in said.partition("PASS")[0]
        (desk / f"{labels}.raw.onnx").write_bytes(models["onnx"])
        _kedge(desk, "seal", f"{labels}.raw.onnx", "--labels", labels, *words)
    assert r"\x1b[2m\n::err" in _kedge(desk, "inspect", "layers.onnx")


@pytest.mark.parametrize("command", ["convert", "fit-input", "build"])
def test_commands_of_the_converter(desk: Path, kedge: Run, command: str) -> None:
    pytest.importorskip("tensorflow")
    more = ("--images", desk / "classes") if command == "fit-input" else ()
    for name in HOSTILE.values():
        settings = desk / f"{name}.toml"
        settings.write_text(f"[[model]]\n{json.dumps(name)} = 1\n", errors="surrogateescape")
        given = desk / f"0{name}.keras" if command != "build" else settings
        for words in ([command, given], [command, f"--{name}"], [command, name], [name]):
            code, out, err = kedge(*words, *more)
            *stages, last = err.splitlines()
            assert (code, out, last[:7], stages[1:]) == (2, "", "kedge: ", [])
            harmless(err.encode("utf-8", "backslashreplace"))
