"""Seal a foreign file with its contract, its labels, and a golden set of its own outputs.

`golden_set` makes the golden set of every sealed file, the converter's included.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kedge_runtime.arrays import Doubles, Floats, Pixels
from kedge_runtime.artefact import containers, content
from kedge_runtime.artefact.content import ModelContent, SealedParts
from kedge_runtime.artefact.contract import Contract, Geometry, Input
from kedge_runtime.artefact.file import Artefact, ends_in_digest, is_sealed, members_of
from kedge_runtime.artefact.foreign import ModelFile, is_zip, read_model
from kedge_runtime.artefact.foreign_contract import DerivedContract, derive_contract
from kedge_runtime.artefact.golden import Golden
from kedge_runtime.artefact.model_options import ModelOptions
from kedge_runtime.artefact.output_kind import run_images
from kedge_runtime.checks.verify import exact_outputs, exactly_held, walk
from kedge_runtime.classify.classifier import Classifier
from kedge_runtime.engines.base import Engine
from kedge_runtime.engines.choice import EngineOptions, open_engine
from kedge_runtime.errors import ArtefactError, EngineError, UsageError, counted
from kedge_runtime.files import write_whole
from kedge_runtime.fitting import scores
from kedge_runtime.fitting.scores import evidence, true_outputs
from kedge_runtime.frozen import dataclass
from kedge_runtime.image.decode import is_readable, read_image
from kedge_runtime.image.folder import find_images, render_images
from kedge_runtime.image.geometry import resize
from kedge_runtime.image.objects import Source
from kedge_runtime.image.opencv import cv2
from kedge_runtime.image.preprocessing import Preprocessor, dequantise
from kedge_runtime.output import quiet

GOLDEN_IMAGES = 3
# Golden images are a little larger than the crop, so that they test the resize.
GOLDEN_MARGIN = 1.125
GOLDEN_QUALITY = 70


def golden_images(geometry: Geometry, images: Sequence[Source], reference: Floats) -> list[bytes]:
    """Return small JPEGs of the images with the most confident predictions, one per class.

    `reference`: float32 [images, outputs]. Confident predictions survive quantisation, so a device
    that predicts another class is at fault.
    """
    # A lone output has a margin to 0.
    margins = np.pad(np.sort(reference, axis=1), ((0, 0), (1, 0)))
    order = np.argsort(margins[:, -2] - margins[:, -1], kind="stable")
    firsts = {int(reference[i].argmax()): i for i in reversed(order)}
    chosen = sorted(firsts.values(), key=list(order).index)[:GOLDEN_IMAGES]
    return [_shrunk(read_image(images[i], geometry.orientation), geometry) for i in chosen]


def _shrunk(pixels: Pixels, geometry: Geometry) -> bytes:
    """Return a small JPEG without the parts that a centre crop would cut away."""
    square = _square(pixels) if geometry.fit == "crop" else pixels
    side = max(geometry.height, geometry.width) / geometry.crop_fraction * GOLDEN_MARGIN
    scale = min(1.0, side / min(square.shape[:2]))
    height, width = (max(1, round(length * scale)) for length in square.shape[:2])
    small = resize(square, height, width, "pyramid")
    bgr = cv2.cvtColor(small, cv2.COLOR_RGB2BGR)
    return cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, GOLDEN_QUALITY])[1].tobytes()


def _square(pixels: Pixels) -> Pixels:
    side = min(pixels.shape[:2])
    top, left = ((length - side) // 2 for length in pixels.shape[:2])
    return np.ascontiguousarray(pixels[top : top + side, left : left + side])


def inexact_note(contract: Contract, golden: Golden) -> tuple[str, ...]:
    """Return a note where an integer file has no exact integers to compare with."""
    if golden.exact.size or not exactly_held(contract):
        return ()
    return ("no exact integers: LiteRT's reference kernels lack one of its operators",)


def golden_set(
    content: ModelContent, contract: Contract, images: list[bytes], reference: Floats
) -> Golden:
    """Run the exported model on the golden images and record what a device must reproduce.

    `images`: encoded; `reference`: float32 [images, outputs], the float model's.
    """
    artefact = Artefact(content.path, contract, b"", "")
    engine = open_engine(content)
    walks = [walk(Classifier(artefact, engine), image) for image in images]
    return Golden(
        images=tuple(images),
        pixels=np.stack([step.pixels for step in walks]),
        tensors=np.stack([step.tensor for step in walks]),
        reference=reference,
        recorded=np.stack([step.outputs for step in walks]),
        exact=_exact(content, contract, tuple(images)),
        ids=np.array([step.id for step in walks]),
        confidence=np.array([step.confidence for step in walks], np.float32),
    )


def _exact(content: ModelContent, contract: Contract, images: tuple[bytes, ...]) -> NDArray[Any]:
    """Return the exact integers, [0, 0] where the reference kernels lack an operator.

    Those of LiteRT 2.3 lack ELU and version 3 of TILE, which the default kernels have.
    """
    try:
        return exact_outputs(content, contract, images)
    except EngineError:
        return np.zeros((0, 0), np.int8)


# The model runs on so many images of a folder, evenly spread; the golden set takes a few of them.
MAX_CANDIDATES = 64


@dataclass(frozen=True)
class SealRequest:
    """The options of `kedge seal`.

    `out`: None writes beside the file. `images`: None renders them. `command`: the command without
    `options`, for the message on missing ones. `force_input`: seal even if labelled images fit
    another preprocessing better.
    """

    file: Path
    options: ModelOptions
    command: str
    images: Path | None = None
    out: Path | None = None
    in_place: bool = False
    reseal: bool = False
    force_input: bool = False


@dataclass(frozen=True)
class SealResult:
    """The written file, its size in bytes, and lines to report."""

    path: Path
    derived: DerivedContract
    digest: str
    size: int
    lines: tuple[str, ...]


def seal_file(request: SealRequest) -> SealResult:
    """Seal a foreign file. Raises UsageError, ArtefactError, EngineError, ImageError."""
    images = find_images(request.images, "--images") if request.images else []
    model = read_model(request.file)
    format = model.content.format
    out = _destination(request, format)
    if ends_in_digest(model.content.data) and not request.reseal:
        raise ArtefactError(
            f"{model.name}: is sealed already; --reseal replaces its contract and golden set"
        )
    bare, others = containers.split(format, model.content.data)
    with quiet():
        engine = open_engine(model.content, EngineOptions(isolate=True))
        derived = derive_contract(model, request.options, engine, request.command)
        if not request.force_input:
            _check_input(model.name, engine, derived.contract, images)
        notes = (engine.note,) if engine.note else ()
        sealed, lines = _seal(model, bare, others, derived.contract, engine, images)
    write_whole(out, *sealed)
    digest = sealed[-1][-content.DIGEST_BYTES :].decode()
    size = sum(map(len, sealed))
    return SealResult(out, derived, digest, size, (*derived.lines, *notes, *lines))


def _check_input(name: str, engine: Engine, contract: Contract, images: Sequence[Path]) -> None:
    """Raise UsageError where labelled images show that another input fits the model better."""
    output = contract.output
    classes = true_outputs(images, contract.labels, output)
    if classes is None:
        return

    def answered(pixels: Pixels, fed: Input) -> Doubles:
        plan = Preprocessor(fed)
        rows = [engine.run(plan.look_up(one)) for one in pixels]
        return evidence(np.stack([dequantise(row, engine.output).ravel() for row in rows]), output)

    drawn = np.random.default_rng(0).permutation(len(images))[: scores.IMAGES]
    chosen = [i for i in drawn if is_readable(images[i])]
    asked = scores.TestedModel(name, contract.input, output, answered)
    found = scores.better_input(asked, [images[i] for i in chosen], [classes[i] for i in chosen])
    if found:
        raise UsageError(found.line)


def _destination(request: SealRequest, format: str) -> Path:
    """Return the sealed file's path. Raises UsageError where it would replace another model."""
    if request.in_place and (request.out or is_zip(request.file)):
        reason = "a zip is left as it is" if is_zip(request.file) else "--out names another file"
        raise UsageError(f"--in-place: {reason}; leave --in-place out")
    if request.in_place:
        return request.file
    out = request.out or request.file.with_name(f"{request.file.stem}.sealed.{format}")
    if out.suffix.lower() != f".{format}":
        raise UsageError(f"--out: got {out}, its name must end in .{format}")
    if out.exists() and not (out.is_file() and is_sealed(out)):
        raise UsageError(f"--out: {out}: is there and carries no seal; choose another name")
    return out


def _seal(
    model: ModelFile,
    bare: memoryview,
    others: dict[str, bytes],
    contract: Contract,
    engine: Engine,
    images: Sequence[Path],
) -> tuple[SealedParts, tuple[str, ...]]:
    """Return the sealed file, and lines to report on its golden set."""
    geometry = contract.input.geometry
    candidates: Sequence[Source] = _spread(images) or render_images(geometry.height, geometry.width)
    rows = run_images(engine, contract.input, candidates)
    chosen = golden_images(geometry, candidates, rows)
    reference = run_images(engine, contract.input, chosen)
    golden = golden_set(model.content, contract, chosen, reference)
    kind = "images" if images else "rendered images"
    lines = [f"golden set: {len(chosen)} of {len(candidates)} {kind}"]
    if not images:
        lines[0] += " (--images DIR takes your own)"
    if len(candidates) > 1 and np.ptp(rows, axis=0).max() == 0:
        lines.append(
            f"warning: equal outputs for all {counted(len(candidates), 'image')}: "
            "are its weights trained, and is the input right?"
        )
    format = model.content.format
    members = members_of(format, contract, golden, others)
    return containers.parts(format, bare, members), tuple(lines)


def _spread(images: Sequence[Path]) -> list[Path]:
    chosen = np.linspace(0, len(images) - 1, min(MAX_CANDIDATES, len(images))).astype(int)
    return [images[i] for i in chosen]
