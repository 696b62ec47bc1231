"""Which model files that people have does kedge convert, and are the artefacts right?

Converts every file that tests/helpers/make_model_files.py made, one at a time, as a user would:
with the options that its description states. Each artefact is judged twice against the answers of
the file's own framework: fed with the framework's own tensors, through LiteRT or onnxruntime
without kedge; and end to end, from the image files.

    python benchmarks/model_files.py --files OUT

Writes results/model-files-<machine>.json after each file, and the table docs/model-files.md.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

import machine
import model_files_table
from kedge_runtime.arrays import Floats
from kedge_runtime.artefact.contract import Contract
from kedge_runtime.artefact.file import read_artefact
from kedge_runtime.classify.classifier import Classifier
from kedge_runtime.classify.results import probabilities
from kedge_runtime.files import write_whole
from kedge_runtime.image.preprocessing import (
    dequantise,
    quantise,
)
from kedge_runtime.output import quiet
from model_files_table import (
    Judged,
    Row,
)

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent / "tests" / "helpers"))

from people_files import IMAGES, Described, read_all  # noqa: E402

TARGETS = ("tflite:float32", "tflite:int8", "onnx:float32")
MEMORY, TIME = "6G", "10m"


def main() -> None:
    arguments = _arguments()
    found = {each.name: each for each in read_all(arguments.files)}
    rows = _known(arguments.results)
    missing = [name for name in found if name not in rows]
    for name in missing if arguments.missing else arguments.only or found:
        rows[name] = _row(found[name], arguments.files)
        print(f"{name}: {rows[name].verdict} {rows[name].refusal}", file=sys.stderr, flush=True)
        _write(arguments.results, [rows[each] for each in sorted(rows)])
    table = model_files_table.markdown([rows[each] for each in sorted(rows)])
    arguments.table.write_text(table)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--files", type=Path, required=True, help="OUT of make_model_files.py")
    default = HERE / "results" / f"model-files-{machine.slug()}.json"
    parser.add_argument("--results", type=Path, default=default)
    parser.add_argument("--table", type=Path, default=HERE.parent / "docs" / "model-files.md")
    some = parser.add_mutually_exclusive_group()
    some.add_argument("--only", nargs="*", metavar="NAME", help="run these, keep other rows")
    some.add_argument("--missing", action="store_true", help="run those without a row")
    return parser.parse_args()


def _known(results: Path) -> dict[str, Row]:
    """Return the rows of an earlier run, by name."""
    if not results.exists():
        return {}
    rows = {}
    for fields in json.loads(results.read_text())["files"]:
        fields.pop("verdict")
        targets = {name: Judged(**each) for name, each in fields.pop("targets").items()}
        rows[fields["name"]] = Row(**fields, targets=targets)
    return rows


def _write(results: Path, rows: list[Row]) -> None:
    files = [asdict(row) | {"verdict": row.verdict} for row in rows]
    record = {"machine": machine.identity(), "targets": TARGETS, "files": files}
    write_whole(results, f"{json.dumps(record, indent=1)}\n".encode())


def _row(described: Described, folder: Path) -> Row:
    """Convert one file and judge what came of it."""
    with tempfile.TemporaryDirectory(prefix="kedge-files-") as out:
        ran = _convert(described, folder, Path(out))
        targets = _targets(ran.stdout, described, folder, out)
    refusal = "" if targets else _last_line(ran.stderr, folder)
    said = (described.preprocess, described.normalisation, described.colour)
    return Row(
        name=described.name,
        shape=described.shape,
        program=described.program,
        container=described.container,
        pixels=", ".join(each for each in said if each),
        limit=described.limit,
        exit_code=ran.returncode,
        refusal=refusal,
        targets=targets,
    )


def _convert(described: Described, folder: Path, out: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "kedge_runtime.cli", "convert", *described.arguments(folder)]
    command += ["--to", ",".join(TARGETS), "--calibrate", str(folder / IMAGES), "--out", str(out)]
    command += ["--memory-limit", MEMORY, "--time-limit", TIME, "--json"]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def _last_line(stderr: str, folder: Path) -> str:
    lines = [line for line in stderr.splitlines() if line.strip()] or ["no word on stderr"]
    return lines[-1].replace(f"{folder}/", "")


def _targets(stdout: str, described: Described, folder: Path, out: str) -> dict[str, Judged]:
    if not stdout.strip():
        return {}
    artefacts = json.loads(stdout)["artefacts"]
    return {each["target"]: _judge(each, described, folder, out) for each in artefacts}


def _judge(artefact: dict[str, Any], described: Described, folder: Path, out: str) -> Judged:
    if not artefact["passed"]:
        # The page names no place of the machine that wrote it.
        return Judged(False, "; ".join(artefact["reasons"]).replace(f"{out}/", ""))
    path, expected = Path(artefact["path"]), described.answers(folder)
    direct = _on_tensors(path, described.tensors(folder))
    classifier = Classifier.open(path)
    images = [folder / IMAGES / name for name in described.images]
    given = np.stack([classifier.probabilities(image) for image in images])
    return Judged(
        True,
        model_error=float(np.abs(direct - expected).max()),
        model_agreement=_agreement(direct, expected),
        pixel_error=float(np.abs(given - expected).max()),
        agreement=_agreement(given, expected),
    )


def _agreement(given: Floats, expected: Floats) -> float:
    return float((given.argmax(-1) == expected.argmax(-1)).mean())


def _on_tensors(path: Path, tensors: Floats) -> Floats:
    """Return probabilities for the framework's own tensors; kedge reads the contract only."""
    contract = read_artefact(path).contract
    rows = ENGINES[path.suffix](path, contract, tensors)
    numbers = dequantise(rows.reshape(len(rows), -1), contract.output.tensor)
    return probabilities(numbers, contract.output)


def _shaped(contract: Contract, tensor: Floats, shape: tuple[int, ...]) -> Any:
    """Return one tensor in the dtype and layout that the file takes."""
    spec = contract.input.tensor
    if spec.layout == "nchw" and tensor.ndim == 3:
        tensor = tensor.transpose(2, 0, 1)
    return quantise(np.ascontiguousarray(tensor), spec).reshape(shape)


def _litert(path: Path, contract: Contract, tensors: Floats) -> Any:
    from ai_edge_litert.interpreter import Interpreter

    with quiet():
        interpreter = Interpreter(str(path), num_threads=1)
        interpreter.allocate_tensors()
    (taken,), (given,) = interpreter.get_input_details(), interpreter.get_output_details()
    rows = []
    for tensor in tensors:
        interpreter.set_tensor(taken["index"], _shaped(contract, tensor, tuple(taken["shape"])))
        interpreter.invoke()
        rows.append(interpreter.get_tensor(given["index"]))
    return np.concatenate(rows)


def _onnxruntime(path: Path, contract: Contract, tensors: Floats) -> Any:
    from onnxruntime import InferenceSession

    session = InferenceSession(str(path), providers=["CPUExecutionProvider"])
    (taken,) = session.get_inputs()
    shape = tuple(size if isinstance(size, int) else 1 for size in taken.shape)
    each = [session.run(None, {taken.name: _shaped(contract, one, shape)})[0] for one in tensors]
    return np.concatenate(each)


ENGINES: dict[str, Any] = {".tflite": _litert, ".onnx": _onnxruntime}


if __name__ == "__main__":
    main()
