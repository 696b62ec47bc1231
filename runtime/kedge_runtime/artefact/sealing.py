"""Seal a foreign file: contract, labels, and a golden set of its own answers.

`golden_set` makes the golden set of every sealed file, the converter's too.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from kedge_runtime.arrays import Doubles, Floats, Pixels
from kedge_runtime.artefact import containers, content
from kedge_runtime.artefact.content import ModelContent
from kedge_runtime.artefact.contract import Contract, Geometry, Input
from kedge_runtime.artefact.file import Artefact, ends_in_digest, is_sealed, seal
from kedge_runtime.artefact.foreign import ModelFile, is_zip, read_model
from kedge_runtime.artefact.foreign_contract import ForeignWords, Told, told
from kedge_runtime.artefact.golden import Golden
from kedge_runtime.artefact.output_kind import answers
from kedge_runtime.checks.verify import exact_outputs, exactly_held, walk
from kedge_runtime.classify.classifier import Classifier
from kedge_runtime.engines.base import Engine
from kedge_runtime.engines.choice import EngineOptions, open_engine
from kedge_runtime.errors import ArtefactError, EngineError, UsageError, counted
from kedge_runtime.files import write_whole
from kedge_runtime.fitting import finding
from kedge_runtime.fitting.finding import true_outputs
from kedge_runtime.fitting.scores import evidence
from kedge_runtime.image.decode import Source, is_readable, read_image
from kedge_runtime.image.decode import Source as ImageSource
from kedge_runtime.image.folder import find, rendered
from kedge_runtime.image.geometry import resize
from kedge_runtime.image.preprocessing import Preprocessor, dequantise
from kedge_runtime.output import quiet

GOLDEN_IMAGES = 3
# Golden pictures stay a little larger than what is cut out of them, so that they test the resize.
GOLDEN_MARGIN = 1.125
GOLDEN_QUALITY = 70


def golden_pictures(
    geometry: Geometry, photos: Sequence[ImageSource], reference: Floats
) -> list[bytes]:
    """Return small JPEGs of the photos that the model is surest of, one per class.

    Sure answers survive quantisation, so that a device which gives another one is at fault.
    """
    # A lone output is held against nothing.
    margins = np.pad(np.sort(reference, axis=1), ((0, 0), (1, 0)))
    order = np.argsort(margins[:, -2] - margins[:, -1], kind="stable")
    firsts = {int(reference[i].argmax()): i for i in reversed(order)}
    chosen = sorted(firsts.values(), key=list(order).index)[:GOLDEN_IMAGES]
    return [_shrunk(read_image(photos[i], geometry.orientation), geometry) for i in chosen]


def _shrunk(pixels: Pixels, geometry: Geometry) -> bytes:
    """Return a small JPEG; what a centre crop would cut away is not carried along."""
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


def inexact(contract: Contract, golden: Golden) -> tuple[str, ...]:
    """Return a note where an integer file has no exact integers to be held against."""
    if golden.exact.size or not exactly_held(contract):
        return ()
    return ("no exact integers: LiteRT's reference kernels lack one of its operators",)


def golden_set(
    content: ModelContent, contract: Contract, pictures: list[bytes], reference: Floats
) -> Golden:
    """Run the exported model on the golden pictures and record what a device must reproduce."""
    artefact = Artefact(content.path, contract, Golden.none(), "")
    engine = open_engine(content)
    walks = [walk(Classifier(artefact, engine), picture) for picture in pictures]
    return Golden(
        images=tuple(pictures),
        pixels=np.stack([step.pixels for step in walks]),
        tensors=np.stack([step.tensor for step in walks]),
        reference=reference,
        recorded=np.stack([step.outputs for step in walks]),
        exact=_exact(content, contract, tuple(pictures)),
        ids=np.array([step.id for step in walks]),
        confidence=np.array([step.confidence for step in walks], np.float32),
    )


def _exact(content: ModelContent, contract: Contract, pictures: tuple[bytes, ...]) -> NDArray[Any]:
    """Return the exact integers, [0, 0] where the reference kernels can't run what others can.

    LiteRT 2.3's lack ELU and version 3 of TILE, which its default kernels have.
    """
    try:
        return exact_outputs(content, contract, pictures)
    except EngineError:
        return np.zeros((0, 0), np.int8)


# Of a folder of images so many are asked, evenly spread: the golden set takes a few of them.
ASKED = 64


@dataclass(frozen=True)
class Order:
    """What the user asks: `out` None is beside the file, `images` None are rendered ones.

    `command`: the call as far as it needs no facts, for the message on missing ones. `force_input`:
    whether it is sealed even if labelled images fit another preprocessing better.
    """

    file: Path
    words: ForeignWords
    command: str
    images: Path | None = None
    out: Path | None = None
    in_place: bool = False
    reseal: bool = False
    force_input: bool = False


@dataclass(frozen=True)
class Sealed:
    """What was written, and a line for each thing that was taken."""

    path: Path
    told: Told
    digest: str
    size: int
    lines: tuple[str, ...]


def seal_file(order: Order) -> Sealed:
    """Seal a foreign file. Raises UsageError, ArtefactError, EngineError, ImageError."""
    images = find(order.images, "--images") if order.images else []
    model = read_model(order.file)
    form = model.content.format
    out = _place(order, form)
    if ends_in_digest(model.content.data) and not order.reseal:
        raise ArtefactError(
            f"{model.name}: is sealed already; --reseal replaces its contract and golden set"
        )
    bare, others = containers.split(form, model.content.data)
    with quiet():
        engine = open_engine(model.content, EngineOptions(isolate=True))
        facts = told(model, order.words, engine, order.command)
        if not order.force_input:
            _refuse_other_input(model.name, engine, facts.contract, images)
        notes = (engine.note,) if engine.note else ()
        whole, lines = _whole(model, bare, others, facts, engine, images)
    write_whole(out, whole)
    stated = whole[-content.DIGEST_BYTES :].decode()
    return Sealed(out, facts, stated, len(whole), (*facts.lines, *notes, *lines))


def _refuse_other_input(
    name: str, engine: Engine, contract: Contract, images: Sequence[Path]
) -> None:
    """Raise UsageError where labelled images show that another input fits the model better."""
    output = contract.output
    classes = true_outputs(images, contract.labels, output)
    if classes is None:
        return

    def answered(pixels: Pixels, fed: Input) -> Doubles:
        plan = Preprocessor(fed)
        rows = [engine.run(plan.look_up(one)) for one in pixels]
        return evidence(np.stack([dequantise(row, engine.output).ravel() for row in rows]), output)

    drawn = np.random.default_rng(0).permutation(len(images))[: finding.IMAGES]
    chosen = [i for i in drawn if is_readable(images[i])]
    asked = finding.TestedModel(name, contract.input, output, answered)
    found = finding.better_input(asked, [images[i] for i in chosen], [classes[i] for i in chosen])
    if found:
        raise UsageError(found.line)


def _place(order: Order, form: str) -> Path:
    """Return where the sealed file goes. Raises UsageError where it would replace another model."""
    if order.in_place and (order.out or is_zip(order.file)):
        reason = "a zip is left as it is" if is_zip(order.file) else "--out names another place"
        raise UsageError(f"--in-place: {reason}; leave --in-place out")
    if order.in_place:
        return order.file
    out = order.out or order.file.with_name(f"{order.file.stem}.sealed.{form}")
    if out.suffix.lower() != f".{form}":
        raise UsageError(f"--out: got {out}, its name must end in .{form}")
    if out.exists() and not (out.is_file() and is_sealed(out)):
        raise UsageError(f"--out: {out}: is there and carries no seal; choose another name")
    return out


def _whole(
    model: ModelFile,
    bare: bytes,
    others: dict[str, bytes],
    facts: Told,
    engine: Engine,
    images: Sequence[Path],
) -> tuple[bytes, tuple[str, ...]]:
    """Return the sealed file's bytes, and what is to be said of its golden set."""
    contract = facts.contract
    geometry = contract.input.geometry
    candidates: Sequence[Source] = _spread(images) or rendered(geometry.height, geometry.width)
    rows = answers(engine, contract.input, candidates)
    pictures = golden_pictures(geometry, candidates, rows)
    reference = answers(engine, contract.input, pictures)
    golden = golden_set(model.content, contract, pictures, reference)
    kind = "images" if images else "rendered images"
    lines = [f"golden set: {len(pictures)} of {len(candidates)} {kind}"]
    if not images:
        lines[0] += " (--images DIR takes your own)"
    if len(candidates) > 1 and np.ptp(rows, axis=0).max() == 0:
        lines.append(
            f"warning: it answers all {counted(len(candidates), 'image')} alike: "
            "are its weights trained, and is the input right?"
        )
    return seal(model.content.format, bare, contract, golden, others), tuple(lines)


def _spread(images: Sequence[Path]) -> list[Path]:
    chosen = np.linspace(0, len(images) - 1, min(ASKED, len(images))).astype(int)
    return [images[i] for i in chosen]
