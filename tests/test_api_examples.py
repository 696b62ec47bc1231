"""The examples of docs/api.md and README.md are run, each in a folder that holds what they name."""

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from kedge_runtime.artefact.contract import Contract
from kedge_runtime.artefact.file import seal
from kedge_runtime.artefact.golden import Golden

pytest.importorskip("ai_edge_litert")

ROOT = Path(__file__).parent.parent
_BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def _blocks(document: str, language: str) -> Iterator[str]:
    for found, body in _BLOCK.findall((ROOT / document).read_text()):
        if found == language:
            yield body


EXAMPLES = [
    pytest.param(code, id=f"{document}-{i}")
    for document in ("docs/api.md", "README.md")
    for i, code in enumerate(_blocks(document, "python"), 1)
]


@pytest.fixture
def desk(
    tmp_path: Path, contracts: dict[str, Contract], models: dict[str, bytes], golden: Golden
) -> Path:
    """Return a folder with every file that an example opens."""
    contract = contracts["tflite"]
    features = replace(contract, output=replace(contract.output, kind="features"), labels=())
    model = seal("tflite", models["tflite"], contract, golden)
    contents = {
        "model.tflite": model,
        "flowers.int8.tflite": model,
        "embedding.tflite": seal("tflite", models["tflite"], features, golden),
        "foreign.tflite": models["tflite"],
        "names.txt": b"red\ngreen\nblue\ndark\n",
        "facts.json": _facts(contract),
        "photo.jpg": _photo(),
        "photos/rose.jpg": _photo(),
    }
    for name, content in contents.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return tmp_path


def _facts(contract: Contract) -> bytes:
    """Return the document's own example with the tiny model's size and head."""
    (text,) = _blocks("docs/api.md", "json")
    facts = json.loads(text)
    size = contract.input.geometry.height
    facts["input"]["geometry"] |= {"height": size, "width": size}
    facts["output"] = {"kind": "logits"}
    return json.dumps(facts).encode()


def _photo() -> bytes:
    return cv2.imencode(".jpg", np.full((60, 80, 3), (40, 30, 220), np.uint8))[1].tobytes()


@pytest.mark.parametrize("code", EXAMPLES)
def test_an_example_runs(desk: Path, code: str) -> None:
    command = [sys.executable, "-W", "error", "-c", code]
    done = subprocess.run(command, cwd=desk, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_the_examples_are_found() -> None:
    assert len(EXAMPLES) >= 10
    assert any("README" in str(example.id) for example in EXAMPLES)


def test_the_documented_contract_is_one(desk: Path) -> None:
    (text,) = _blocks("docs/api.md", "json")
    contract = Contract.from_json(json.dumps({**json.loads(text), "labels": []}))
    assert contract.output.label_offset == 1
