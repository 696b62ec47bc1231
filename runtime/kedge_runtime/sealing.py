"""`kedge seal`: a foreign file gets a contract, its labels and a golden set of its own answers."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from kedge_runtime import containers, fitting
from kedge_runtime.artefact import ends_in_digest, is_sealed, seal
from kedge_runtime.contract import Contract, Input
from kedge_runtime.engines import EngineOptions, open_engine
from kedge_runtime.engines.base import Engine
from kedge_runtime.errors import ArtefactError, UsageError, counted
from kedge_runtime.files import write_whole
from kedge_runtime.fitting import true_outputs
from kedge_runtime.fitting.scores import Numbers, evidence
from kedge_runtime.foreign_words import ForeignWords, Told, told
from kedge_runtime.golden_making import golden_pictures, golden_set
from kedge_runtime.image import Pixels, Source, is_readable
from kedge_runtime.model_files import ModelFile, is_zip, read_model
from kedge_runtime.output_kind import answers
from kedge_runtime.pictures import find
from kedge_runtime.preprocessing import Preprocessor, dequantise
from kedge_runtime.quiet import quiet
from kedge_runtime.rendered import rendered

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
    stated = whole[-containers.DIGEST_BYTES :].decode()
    return Sealed(out, facts, stated, len(whole), (*facts.lines, *notes, *lines))


def _refuse_other_input(
    name: str, engine: Engine, contract: Contract, images: Sequence[Path]
) -> None:
    """Raise UsageError where labelled images show that another input fits the model better."""
    output = contract.output
    classes = true_outputs(images, contract.labels, output)
    if classes is None:
        return

    def answered(pixels: Pixels, fed: Input) -> Numbers:
        plan = Preprocessor(fed)
        rows = [engine.run(plan.look_up(one)) for one in pixels]
        return evidence(np.stack([dequantise(row, engine.output).ravel() for row in rows]), output)

    drawn = np.random.default_rng(0).permutation(len(images))[: fitting.IMAGES]
    chosen = [i for i in drawn if is_readable(images[i])]
    asked = fitting.Asked(name, contract.input, output, answered)
    found = fitting.better_input(asked, [images[i] for i in chosen], [classes[i] for i in chosen])
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
