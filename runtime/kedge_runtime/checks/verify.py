"""Does this machine give what the converter saw? Each step of a classification, held by itself.

The artefact's golden set has what every step gave when the artefact was made. Running it again here
and comparing step by step says not only that something is wrong but where.
"""

import hashlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from kedge_runtime.arrays import Floats
from kedge_runtime.artefact.content import ModelContent, read_content
from kedge_runtime.artefact.contract import Contract, Precision
from kedge_runtime.artefact.file import Artefact, artefact_of
from kedge_runtime.artefact.golden import Golden
from kedge_runtime.classify.classifier import Classifier
from kedge_runtime.classify.outputs import check_finite, probabilities
from kedge_runtime.drift.metrics import sqnr
from kedge_runtime.engines.choice import EngineOptions, open_engine
from kedge_runtime.errors import EngineError, ImageError, KedgeError, SignatureError
from kedge_runtime.image.preprocessing import Preprocessor

if TYPE_CHECKING:
    from kedge_runtime.artefact.signing import Trust

# The least signal-to-noise ratio, in dB, of the outputs here against those recorded. Engines and
# processors sum in other orders, and integer kernels round otherwise: docs/verify.md has what was
# measured. Other weights come out near 0 dB.
TOLERANCES: dict[Precision, float] = {
    "float32": 60.0,
    "float16": 30.0,
    "dynamic": 20.0,
    "int8": 12.0,
    "int16x8": 30.0,
    "mixed": 12.0,
    "unknown": 12.0,  # it may be any of them, so the widest holds
}
# Both sides come of the same recorded outputs, so only the last bits of exp differ.
CONFIDENCE_TOLERANCE = 1e-5
# The share of the exact integers that may be one step off, by the library that gives them: 32 of
# 100 000 were with tflite-runtime 2.14, which is older than those that record (docs/verify.md).
ONE_STEP_OFF = {"tflite_runtime": 0.01}


@dataclass(frozen=True)
class Walk:
    """What each step gives for one picture. Digests are the 32 bytes of a SHA-256."""

    pixels: NDArray[np.uint8]
    tensor: NDArray[np.uint8]
    raw: NDArray[Any]
    outputs: Floats
    id: str
    confidence: float


@dataclass(frozen=True)
class VerifyStage:
    """One step's verdict; `detail` says what was compared, or what is wrong.

    `serial`: the file's serial number, of a signature that holds.
    """

    name: str
    passed: bool
    detail: str
    serial: int | None = None


@dataclass(frozen=True)
class StageEvidence:
    """What the stages look at: the artefact's record and this machine's walks over it."""

    content: ModelContent
    classifier: Classifier
    walks: list[Walk]

    @property
    def artefact(self) -> Artefact:
        """The file and its contract."""
        return self.classifier.artefact

    @property
    def golden(self) -> Golden:
        """The record."""
        return self.artefact.golden


def walk(classifier: Classifier, picture: bytes) -> Walk:
    """Take one encoded picture through every step. Raises ImageError, EngineError."""
    plan = Preprocessor(classifier.contract.input)
    pixels = plan.read(picture)
    tensor = plan.tensor(pixels)
    raw = classifier.engine.run(tensor)
    outputs = check_finite(classifier.run(pixels))
    best, confidence = answer(classifier, outputs)
    return Walk(_digest(pixels), _digest(tensor), raw.reshape(-1), outputs, best, confidence)


def answer(classifier: Classifier, outputs: Floats) -> tuple[str, float]:
    """Return the best label's id and its probability, or ("", 0) for a model of features.

    The outputs are brought to a spread of 1 first: golden pictures are sure ones, and at a
    probability of 1.000 no temperature and no second softmax would show.
    """
    if classifier.contract.output.kind == "features":
        return "", 0.0
    level = outputs / max(float(outputs.std()), 1e-6)
    best = classifier.classes.result(probabilities(level, classifier.contract.output)).best
    return best.id, best.probability


def verify(path: Path, options: EngineOptions, trust: "Trust | None" = None) -> list[VerifyStage]:
    """Check an artefact on this machine; the first stage that failed is where the fault lies.

    `trust`: the signature that is demanded. Raises ArtefactError for a path that is no file, or
    none of a known format.
    """
    content = read_content(path)
    stages = []
    if trust is not None:
        stages.append(_signature(content, trust))
        if not stages[-1].passed:
            return stages
    return stages + _stages(content, options)


def _signature(content: ModelContent, trust: "Trust") -> VerifyStage:
    try:
        found = trust.check(content)
    except SignatureError as error:
        return VerifyStage("signature", False, str(error))
    detail = f"key {found.key_id}, serial number {found.serial}"
    return VerifyStage("signature", True, detail, found.serial)


def _stages(content: ModelContent, options: EngineOptions) -> list[VerifyStage]:
    try:
        artefact = artefact_of(content)
    except KedgeError as error:
        return [VerifyStage("file", False, str(error))]
    if not artefact.golden.images:
        return [VerifyStage("file", False, "it carries no golden pictures; convert again")]
    stages = [
        VerifyStage("file", True, f"unchanged since it was sealed ({artefact.digest[:19]}...)")
    ]
    try:
        evidence = _run(content, artefact, options)
    except BrokenError as broken:
        return [*stages, VerifyStage(broken.stage, False, str(broken))]
    return stages + [_stage(name, check, evidence) for name, check in CHECKS.items()]


def _run(content: ModelContent, artefact: Artefact, options: EngineOptions) -> StageEvidence:
    # The gate before a file is trusted: nothing of it runs in this process.
    with _blaming("engine"):
        engine = open_engine(content, replace(options, isolate=True))
    with _blaming("contract"):
        classifier = Classifier(artefact, engine)
    with _blaming("decode", ImageError), _blaming("engine", EngineError):
        walks = [walk(classifier, picture) for picture in artefact.golden.images]
    return StageEvidence(content, classifier, walks)


@contextmanager
def _blaming(stage: str, kind: type[KedgeError] = KedgeError) -> Iterator[None]:
    """Turn an error into a verdict on a stage."""
    try:
        yield
    except kind as error:
        raise BrokenError(str(error), stage) from None


def _stage(name: str, check: "Check", evidence: StageEvidence) -> VerifyStage:
    try:
        return VerifyStage(name, True, check(evidence))
    except (BrokenError, EngineError) as broken:
        return VerifyStage(name, False, str(broken))


class BrokenError(Exception):
    """What a check raises; the message says what is wrong and where to look.

    `stage` is given by what happens before the checks.
    """

    def __init__(self, message: str, stage: str = "") -> None:
        """Take the message."""
        super().__init__(message)
        self.stage = stage


Check = Callable[[StageEvidence], str]


def _contract(evidence: StageEvidence) -> str:
    contract = evidence.artefact.contract
    # The classifier compared them when it was opened.
    return f"the engine takes {contract.input.tensor.dtype} and gives what the contract promises"


def _decoding(evidence: StageEvidence) -> str:
    for found, recorded in zip(evidence.walks, evidence.golden.pixels, strict=True):
        if not np.array_equal(found.pixels, recorded):
            raise BrokenError(
                "the JPEG decoder gives other pixels: is OpenCV built with libjpeg-turbo?"
            )
    return f"{len(evidence.walks)} golden pictures, pixels identical"


def _preprocessing(evidence: StageEvidence) -> str:
    for found, recorded in zip(evidence.walks, evidence.golden.tensors, strict=True):
        if not np.array_equal(found.tensor, recorded):
            raise BrokenError(
                "the input tensor differs: size, crop, resize, colour order or normalisation "
                "are not those the artefact was checked with"
            )
    return f"{len(evidence.walks)} input tensors identical"


def _engine(evidence: StageEvidence) -> str:
    found = np.stack([walk.outputs for walk in evidence.walks])
    noise = sqnr(evidence.golden.recorded, found)
    least = TOLERANCES[evidence.artefact.contract.provenance.precision]
    if not noise >= least:
        raise BrokenError(
            f"the outputs are {noise:.0f} dB from those recorded, at least {least:.0f} are "
            "expected: other weights, or an engine that computes wrongly"
        )
    note = evidence.classifier.engine.note
    told = f"; {note}" if note else ""
    if np.array_equal(found, evidence.golden.recorded):
        return f"outputs identical to those recorded{told}"
    return f"outputs {noise:.0f} dB from those recorded (at least {least:.0f}){told}"


def _exactness(evidence: StageEvidence) -> str:
    if not evidence.golden.exact.size:
        return "not asked for: only integer models on LiteRT have exact kernels, for most operators"
    if evidence.artefact.contract.provenance.precision == "unknown":
        return "not compared: the contract's precision is unknown, only integers are exact"
    contract, images = evidence.artefact.contract, evidence.golden.images
    found = exact_outputs(evidence.content, contract, images, isolate=True)
    if not alike(found, evidence.golden.exact, evidence.classifier.engine.library):
        raise BrokenError(
            "the reference kernels give other integers than recorded: the model's weights "
            "are not those that were checked"
        )
    same = int((found == evidence.golden.exact).sum())
    others = f", {found.size - same} one step off" if same < found.size else ""
    return f"reference kernels: {same} integers identical{others}"


def alike(found: NDArray[Any], recorded: NDArray[Any], library: str) -> bool:
    """Tell whether the reference kernels of `library` gave the integers that were recorded."""
    if found.shape != recorded.shape:
        return False
    steps = np.abs(found.astype(np.int32) - recorded)
    return bool(steps.max() <= 1 and np.mean(steps > 0) <= ONE_STEP_OFF.get(library, 0.0))


def _answers(evidence: StageEvidence) -> str:
    golden = evidence.golden
    for found, label in zip(evidence.walks, golden.ids, strict=True):
        if found.id != label:
            raise BrokenError(
                f"answers {found.id} where {label} was recorded: are the labels shifted?"
            )
    for outputs, recorded in zip(golden.recorded, golden.confidence, strict=True):
        _, confidence = answer(evidence.classifier, outputs)
        if not abs(confidence - recorded) <= CONFIDENCE_TOLERANCE:
            raise BrokenError(
                f"a probability of {confidence:.3f} where {recorded:.3f} was recorded, both at a "
                "spread of 1: is the softmax applied twice, or not at all?"
            )
    return f"{len(evidence.walks)} labels and probabilities as recorded"


CHECKS: dict[str, Check] = {
    "contract": _contract,
    "decode": _decoding,
    "preprocess": _preprocessing,
    "engine": _engine,
    "exact": _exactness,
    "answer": _answers,
}


def exact_outputs(
    content: ModelContent,
    contract: Contract,
    pictures: tuple[bytes, ...],
    isolate: bool = False,
) -> NDArray[Any]:
    """Return the raw integers, [n, classes], of the engine's bit-exact reference kernels.

    [0, 0] for models that aren't integer throughout and for engines without such kernels. Raises
    EngineError when the kernels lack one of its operators.
    """
    if content.format != "tflite" or not exactly_held(contract):
        return np.zeros((0, 0), np.int8)
    engine = open_engine(content, EngineOptions(kernels="reference", isolate=isolate))
    plan = Preprocessor(contract.input)
    rows = [engine.run(plan.tensor(plan.read(picture))).reshape(-1) for picture in pictures]
    return np.stack(rows)


def exactly_held(contract: Contract) -> bool:
    """Whether a model is integer throughout, on an engine with exact kernels."""
    form, _, _ = contract.provenance.target.partition(":")
    return form == "tflite" and contract.provenance.precision in EXACT


EXACT = frozenset({"int8", "int16x8"})


def _digest(array: NDArray[Any]) -> NDArray[np.uint8]:
    return np.frombuffer(hashlib.sha256(array.tobytes()).digest(), np.uint8)
