"""Does MediaPipe answer as kedge does, from the same artefact? And where not, why?

Three ways to look at a photo, each compared with kedge's answer to its own crop: `same pixels` are
that crop, at the network's size already; `same region` is what it is cut from, so that MediaPipe
resizes; `whole photo` is what MediaPipe looks at by default, stretched. Two explain the rest, by
kedge's engine: `its bytes` has the same pixels put into the input as MediaPipe does, `its resize`
the same region resized as it does. Where these equal MediaPipe's answers, they are the difference.

    python benchmarks/mediapipe_agreement.py FILE.tflite... --images DIR [--contract FACTS.json]
"""

import argparse
import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

import machine
import peers
from kedge_runtime.arrays import Floats, Pixels
from kedge_runtime.artefact.content import read_content
from kedge_runtime.artefact.contract import Geometry
from kedge_runtime.artefact.foreign import ForeignFacts, read_facts
from kedge_runtime.classify.classifier import Classifier

RESULTS = Path(__file__).parent / "results"
REPLICATE = cv2.BORDER_REPLICATE

Region = tuple[float, float, float, float]  # left, top, right, bottom, in shares of the image


@dataclass(frozen=True)
class Agreement:
    """`equal`: photos with the same top-1; `largest`, `mean`: difference of scores.

    `right`: photos whose top-1 is their true class, kedge's or its engine's, then MediaPipe's.
    """

    equal: int
    photos: int
    largest: float
    mean: float
    right: tuple[int, int]


def compare(ours: Floats, theirs: Floats, truth: NDArray[np.intp]) -> Agreement:
    """Compare scores, [photos, classes] each; `truth`: [photos]."""
    first, other = ours.argmax(axis=1), theirs.argmax(axis=1)
    apart = np.abs(ours - theirs)
    right = int((first == truth).sum()), int((other == truth).sum())
    equal = int((first == other).sum())
    return Agreement(equal, len(ours), float(apart.max()), float(apart.mean()), right)


def scores(answers: Sequence[Sequence[dict[str, Any]]]) -> Floats:
    """Return MediaPipe's scores in the order of the classes, [photos, classes]."""
    rows = [sorted(each, key=lambda found: found["index"]) for each in answers]
    return np.array([[found["score"] for found in row] for row in rows], np.float32)


def region(pixels: Pixels, geometry: Geometry) -> Region:
    """Return what a centre crop to a square takes of a photo."""
    height, width = pixels.shape[:2]
    side = geometry.crop_fraction * min(height, width)
    x, y = side / width / 2, side / height / 2
    return 0.5 - x, 0.5 - y, 0.5 + x, 0.5 + y


def resized(pixels: Pixels, part: Region, geometry: Geometry) -> Pixels:
    """Return the part at the network's size as MediaPipe 1.2 resizes on a CPU.

    image_to_tensor_converter_opencv.cc: corners are mapped to corners, bilinearly, without the half
    pixel between a corner and a pixel's centre, and without smoothing.
    """
    height, width = pixels.shape[:2]
    left, top, right, bottom = np.multiply(part, (width, height, width, height))
    corners = np.array([(left, bottom), (left, top), (right, top), (right, bottom)], np.float32)
    w, h = geometry.width, geometry.height
    ends = np.array([(0, h), (0, 0), (w, 0), (w, h)], np.float32)
    turn = cv2.getPerspectiveTransform(corners, ends)
    made = cv2.warpPerspective(pixels, turn, (w, h), flags=cv2.INTER_LINEAR, borderMode=REPLICATE)
    return np.asarray(made, np.uint8)


def as_input(classifier: Classifier, fitted: Pixels) -> NDArray[Any]:
    """Return the input that MediaPipe builds: bytes as they are for uint8, else (byte - m) / s."""
    spec = classifier.contract.input
    if spec.tensor.dtype == "uint8":
        return fitted[None]
    norm = spec.normalisation
    mean, std = np.array([norm.mean, norm.std], np.float32) * np.float32(norm.divisor)
    return np.asarray((fitted - mean) / std, np.float32)[None]


def true_classes(classifier: Classifier, photos: Sequence[Path]) -> NDArray[np.intp]:
    """Return the class of photos that are named by their synset, as ImageNet's are."""
    ids = [label.id for label in classifier.classes.labels]
    return np.array([ids.index(photo.name.split("_")[0]) for photo in photos])


def measure(path: Path, photos: Sequence[Path], facts: ForeignFacts | None) -> dict[str, Any]:
    """Return the agreement of each way to look at the photos."""
    told = facts.contract(read_content(path)) if facts else None
    classifier = Classifier.open(path, contract=told)
    plan, geometry = classifier.preprocessor, classifier.contract.input.geometry
    read = [plan.read(photo) for photo in photos]
    fitted = [plan.fit(pixels) for pixels in read]
    regions = [region(pixels, geometry) for pixels in read]

    def answers(inputs: Iterable[NDArray[Any]]) -> Floats:
        return np.stack([classifier.numbers(classifier.engine.run(each)) for each in inputs])

    def fed(images: Iterable[Pixels]) -> Floats:
        return answers(as_input(classifier, each) for each in images)

    kedge = answers(map(plan.look_up, fitted))
    same, part, whole = (
        scores(peers.classify(path, *asked)) for asked in ((fitted,), (read, regions), (read,))
    )
    again = fed(resized(*each, geometry) for each in zip(read, regions, strict=True))
    pairs = {
        "same pixels": (kedge, same),
        "same region": (kedge, part),
        "whole photo": (kedge, whole),
        "its bytes": (fed(fitted), same),
        "its resize": (again, part),
    }
    truth = true_classes(classifier, photos)
    ways = {name: asdict(compare(*pair, truth)) for name, pair in pairs.items()}
    return {
        "input": classifier.engine.input.dtype,
        "output": classifier.contract.output.kind,
        "digest": classifier.artefact.digest,
        "ways": ways,
    }


def table(found: dict[str, Any]) -> str:
    """Return the figures as a Markdown table."""
    lines = [
        "| artefact | input, output | compared | same top-1 | largest difference | mean | right |",
        "| --- | --- | --- | --: | --: | --: | --- |",
    ]
    for name, each in found.items():
        ends = f"{each['input']}, {each['output']}"
        for way, row in each["ways"].items():
            right = ", ".join(map(str, row["right"]))
            lines.append(
                f"| {name} | {ends} | {way} | {row['equal']} of {row['photos']} "
                f"| {row['largest']:.2g} | {row['mean']:.2g} | {right} |"
            )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("artefacts", type=Path, nargs="+")
    parser.add_argument("--images", type=Path, required=True)
    parser.add_argument("--count", type=int, default=100)
    parser.add_argument("--contract", type=Path, help="for files that kedge didn't make")
    given = parser.parse_args()
    photos = sorted(path for path in given.images.iterdir() if path.is_file())
    chosen = photos[:: max(1, len(photos) // given.count)][: given.count]
    facts = read_facts(given.contract) if given.contract else None
    found = {path.stem: measure(path, chosen, facts) for path in given.artefacts}
    report = {"machine": machine.identity(), "peers": peers.PROGRAMS, "artefacts": found}
    name = RESULTS / f"mediapipe-agreement-{machine.slug()}"
    name.with_suffix(".json").write_text(json.dumps(report, indent=2) + "\n")
    title = f"# MediaPipe beside kedge\n\n{peers.PROGRAMS[0]}, {len(chosen)} photos"
    text = f"{title}; right: kedge's top-1, MediaPipe's.\n\n{table(found)}\n"
    name.with_suffix(".md").write_text(text)
    print(text)


if __name__ == "__main__":
    main()
