"""What a softmax in 8 bits costs Frigate: ties between the two best classes, and other answers.

The file is Coral's public MobileNetV2, which ends as `kedge convert --device frigate` lets files
end: logits in int8, SOFTMAX, uint8. Its logits are read from the same run.

    python benchmarks/neighbours.py --model FILE.tflite --images PHOTOS
"""

import argparse
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from ai_edge_litert.interpreter import Interpreter, OpResolverType
from numpy.typing import NDArray

import machine
from kedge_runtime.image.folder import find_images
from kedge_runtime.output import quiet

RESULTS = Path(__file__).parent / "results"
SIDE, THRESHOLD = 224, 0.8  # Frigate's


def logits_tensor(interpreter: Any) -> dict[str, Any]:
    """Return the details of the softmax's input."""
    operators = interpreter._get_ops_details()
    (softmax,) = [each for each in operators if each["op_name"] == "SOFTMAX"]
    return next(
        each for each in interpreter.get_tensor_details() if each["index"] == softmax["inputs"][0]
    )


def answers(model: Path, images: list[Path]) -> Iterator[tuple[NDArray[Any], NDArray[Any]]]:
    """Yield logits, float64, and probabilities, uint8, on pixels as Frigate scales them."""
    with quiet():
        interpreter = Interpreter(
            str(model),
            experimental_preserve_all_tensors=True,
            experimental_op_resolver_type=OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES,
        )
        interpreter.allocate_tensors()
    (taken,), (given,) = interpreter.get_input_details(), interpreter.get_output_details()
    logits = logits_tensor(interpreter)
    scale, zero = logits["quantization"]
    for path in images:
        rgb = cv2.cvtColor(cv2.imread(str(path)), cv2.COLOR_BGR2RGB)
        interpreter.set_tensor(taken["index"], cv2.resize(rgb, (SIDE, SIDE))[None])
        interpreter.invoke()
        steps = interpreter.get_tensor(logits["index"])[0].astype(np.float64)
        yield (steps - zero) * scale, interpreter.get_tensor(given["index"])[0]


def figures(model: Path, images: list[Path]) -> dict[str, float]:
    """Return the shares of the images."""
    rows = list(answers(model, images))
    logits, numbers = (np.stack(each).astype(np.float64) for each in zip(*rows, strict=True))
    shares = numbers / numbers.sum(axis=1, keepdims=True)
    exact = np.exp(logits - logits.max(axis=1, keepdims=True))
    gain = shares.max(axis=1) - 1 / exact.sum(axis=1)
    sure = shares.max(axis=1) >= THRESHOLD
    other = logits.argmax(axis=1) != shares.argmax(axis=1)
    return {
        "images": len(rows),
        "tied_logits": float(_tied(logits).mean()),
        "tied_probabilities": float(_tied(numbers).mean()),
        "other_answers": float(other.mean()),
        "reported": float(sure.mean()),
        "tied_and_reported": float((_tied(numbers) & sure).mean()),
        "other_and_reported": float((other & sure).mean()),
        "mean_gain_of_the_score": float(gain.mean()),
        "largest_gain_of_the_score": float(gain.max()),
        "reported_without_the_gain": float((shares.max(axis=1) - gain >= THRESHOLD).mean()),
    }


def _tied(rows: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Return in which rows the two largest numbers are equal."""
    two = np.partition(rows, -2, axis=1)[:, -2:]
    return np.asarray(two[:, 0] == two[:, 1])


def main() -> None:
    """Measure, print and write the figures."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--images", type=Path, required=True)
    given = parser.parse_args()
    found = figures(given.model, find_images(given.images, "--images"))
    name = RESULTS / f"neighbours-{machine.slug()}"
    report = {"machine": machine.identity(), "model": given.model.stem, **found}
    name.with_suffix(".json").write_text(json.dumps(report, indent=2) + "\n")
    lines = ["# A softmax of 8 bits in Frigate", "", "| share | value |", "| --- | --: |"]
    lines += [f"| {name.replace('_', ' ')} | {value:.4g} |" for name, value in found.items()]
    name.with_suffix(".md").write_text("\n".join(lines) + "\n")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
