"""Is the int8 of a network the same, whatever its file was made by?

Saves one Keras classifier as a SavedModel, as a TF-Hub module, as a float .tflite file, as an .onnx
file of tf2onnx with planar images and, with an interpreter that has Keras 2, as its .h5 file.
Converts each of them and the Keras file (other files of the same network: --source) with half of
the images. The other half, to which nothing was fitted, tells each artefact's agreement with the
Keras model, and the mean divergence (KL) of the probabilities. A conversion whose artefacts are
there already is not run again. The .onnx file is also quantised by onnxruntime alone, per channel
and by min and max.

    python benchmarks/same_network.py --model FILE.keras --images DIR --out OUT \\
        --keras2 PYTHON --application MobileNet --alpha .25

Writes results/same-network-<name>-<machine>.json and fails where agreements differ by more than
.003.
"""

import argparse
import json
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import keras
import numpy as np
import onnxruntime
import tensorflow as tf
import tf2onnx
from onnxruntime import quantization

import machine
from hub_module import Module
from kedge_convert.images import tensors
from kedge_convert.load import output_activation
from kedge_runtime.arrays import Floats
from kedge_runtime.artefact.content import read_content
from kedge_runtime.artefact.file import Artefact, read_artefact
from kedge_runtime.classify.classifier import Classifier
from kedge_runtime.classify.results import probabilities
from kedge_runtime.engines.choice import open_engine
from kedge_runtime.files import write_whole
from kedge_runtime.output import quiet

HERE = Path(__file__).parent
TARGETS = ("tflite:int8", "onnx:int8")
REFERENCE = "tflite:float32"  # of the Keras file
WEIGHTS = "weights.npz"
MOST = 0.003  # difference in agreement between the sources


@dataclass(frozen=True)
class Figures:
    """One int8 artefact beside the float model; `method`: of its weights."""

    source: str
    format: str
    method: str
    agreement: float
    kl: float
    size: int


def main() -> int:
    arguments = _arguments()
    out = arguments.out
    half, rest = _halves(arguments.images, out / "calibration")
    sources = _saved(arguments.model, out) | dict(map(_pair, arguments.source))
    if arguments.keras2:
        sources["keras2"] = _of_keras2(arguments, out)
    figures, stocks = [], []
    for name, path in sources.items():
        targets = (REFERENCE, *TARGETS) if path == arguments.model else TARGETS
        _convert(path, half, out / name, targets, arguments.calibrate)
        reference = _probabilities(next((out / "keras").glob("*.float32.tflite")), rest)
        for file in sorted((out / name).glob("*.int8.*")):
            figures.append(_figures(name, file, reference, rest))
            print(figures[-1], flush=True)
        if path.suffix == ".onnx":
            stocks.append(_stock(path, half, out / name, rest))
            print(stocks[-1], flush=True)
    place = HERE / "results" / f"same-network-{arguments.model.stem}-{machine.slug()}.json"
    write_whole(
        place, f"{json.dumps([asdict(each) for each in (*figures, *stocks)], indent=1)}\n".encode()
    )
    return int(_spread(figures) > MOST)


def _spread(figures: Sequence[Figures]) -> float:
    """Return the largest difference in agreement within one format."""
    formats = {each.format for each in figures}
    agreements = ([each.agreement for each in figures if each.format == one] for one in formats)
    return max(max(each) - min(each) for each in agreements)


def _halves(images: Path, folder: Path) -> tuple[Path, list[Path]]:
    """Link every second image into a folder; return it and the other images."""
    paths = sorted(images.iterdir())
    folder.mkdir(parents=True, exist_ok=True)
    for path in paths[::2]:
        if not (folder / path.name).exists():
            (folder / path.name).symlink_to(path.resolve())
    return folder, paths[1::2]


def _saved(path: Path, out: Path) -> dict[str, Path]:
    """Save the model in every way, and its weights; return the files by name."""
    saved, hub, file = (out / kind / path.stem for kind in ("saved-files", "hub-files", "files"))
    file = file.with_suffix(".tflite")
    if not file.exists():
        file.parent.mkdir(parents=True)
        with quiet():
            model = keras.models.load_model(path, compile=False)
            np.savez(out / WEIGHTS, *model.get_weights())
            model.export(saved, verbose=False)
            module = Module(output_activation.find(model).model, "logits")
            tf.saved_model.save(module, str(hub), signatures=module.run)
            file.write_bytes(tf.lite.TFLiteConverter.from_saved_model(str(saved)).convert())
    planar = file.with_suffix(".onnx")
    if not planar.exists():
        with quiet():
            model = output_activation.find(keras.models.load_model(path, compile=False)).model
            tf2onnx.convert.from_function(
                Module(model, "logits").run,
                input_signature=[tf.TensorSpec((None, *model.inputs[0].shape[1:]))],
                opset=17,
                inputs_as_nchw=["images"],
                output_path=str(planar),
            )
    return {"keras": path, "saved": saved, "hub": hub, "tflite": file, "onnx": planar}


def _of_keras2(arguments: argparse.Namespace, out: Path) -> Path:
    """Save the model's weights in the same application of Keras 2; return the .h5 file."""
    file: Path = out / "files" / f"{arguments.model.stem}.h5"
    command = [arguments.keras2, HERE / "keras2_application.py", "--name", arguments.application]
    command += ["--weights", out / WEIGHTS, "--out", file]
    command += [] if arguments.alpha is None else ["--alpha", arguments.alpha]
    if not file.exists():
        subprocess.run(list(map(str, command)), check=True, env={})
    return file


def _pair(text: str) -> tuple[str, Path]:
    name, _, path = text.partition("=")
    return name, Path(path)


def _convert(path: Path, images: Path, out: Path, targets: Sequence[str], count: int) -> None:
    if len(list(out.glob("*.int8.*"))) == len(TARGETS):
        return
    command = [sys.executable, "-m", "kedge_runtime.cli", "convert", str(path)]
    command += ["--to", ",".join(targets), "--calibrate", str(images), "--out", str(out)]
    command += ["--calibrate-count", str(count), "--check-count", "20", "--force-input"]
    command += ["--labels", "imagenet", "--preprocess", "imagenet", "--normalisation", "tf"]
    subprocess.run(command, check=True)


def _probabilities(file: Path, images: Sequence[Path]) -> Floats:
    artefact = read_artefact(file)
    classifier = _classifier(file, artefact)
    rows = np.stack([classifier.outputs(image) for image in images])
    return np.stack([probabilities(row[None], artefact.contract.output)[0] for row in rows])


def _stock(path: Path, half: Path, out: Path, rest: Sequence[Path]) -> Figures:
    """Quantise a planar float file by onnxruntime alone, on the pixels that kedge feeds."""
    artefact = read_artefact(next(out.glob("*.int8.onnx")))
    reference = _probabilities(next((out.parent / "keras").glob("*.float32.tflite")), rest)
    name = onnxruntime.InferenceSession(path).get_inputs()[0].name
    file = out / "stock" / path.name
    file.parent.mkdir(exist_ok=True)
    calibration = [{name: each} for each in _planar(sorted(half.iterdir()), artefact)]
    if not file.exists():
        quantization.quant_pre_process(str(path), str(file), skip_symbolic_shape=True)
        quantization.quantize_static(
            str(file), str(file), _Reader(iter(calibration)), per_channel=True
        )
    session = onnxruntime.InferenceSession(file)
    rows = np.concatenate([session.run(None, {name: each})[0] for each in _planar(rest, artefact)])
    answers = probabilities(rows, artefact.contract.output)
    return _compared("onnx", "stock onnxruntime", reference, answers, file)


def _planar(images: Sequence[Path], artefact: Artefact) -> list[Floats]:
    inputs = tensors(images, artefact.contract.input)
    return [np.ascontiguousarray(each.transpose(0, 3, 1, 2)) for each in inputs]


class _Reader(quantization.CalibrationDataReader):  # type: ignore[misc]
    """The calibration images, as onnxruntime asks for them."""

    def __init__(self, feeds: Iterator[dict[str, Floats]]) -> None:
        self._feeds = feeds

    def get_next(self) -> dict[str, Floats] | None:
        return next(self._feeds, None)


def _classifier(file: Path, artefact: Artefact) -> Classifier:
    with quiet():
        return Classifier(artefact, open_engine(read_content(file)))


def _figures(source: str, file: Path, reference: Floats, images: Sequence[Path]) -> Figures:
    method = read_artefact(file).contract.provenance.method
    return _compared(source, method, reference, _probabilities(file, images), file)


def _compared(source: str, method: str, reference: Floats, answers: Floats, file: Path) -> Figures:
    logs = np.log(np.maximum(reference, 1e-12)) - np.log(np.maximum(answers, 1e-12))
    return Figures(
        source,
        file.suffix[1:],
        method,
        float((answers.argmax(axis=1) == reference.argmax(axis=1)).mean()),
        float((reference * logs).sum(axis=1).mean()),
        file.stat().st_size,
    )


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, required=True, help="a Keras file")
    parser.add_argument("--images", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True, help="a folder for files and artefacts")
    parser.add_argument("--calibrate", type=int, default=200, help="calibration images")
    parser.add_argument("--keras2", help="an interpreter that has Keras 2")
    parser.add_argument("--application", help="its name in keras.applications, for --keras2")
    parser.add_argument("--alpha", type=float, help="its width, for --keras2")
    parser.add_argument("--source", action="append", default=[], metavar="NAME=PATH")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
