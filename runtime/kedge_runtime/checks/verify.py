"""Check step by step that this machine gives the results that the converter recorded.

The artefact's golden set holds the result of every step. Comparing each step shows where a fault
lies.
"""

import hashlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from kedge_runtime.arrays import Floats
from kedge_runtime.artefact.content import ModelContent, read_content
from kedge_runtime.artefact.contract import Contract, Output
from kedge_runtime.artefact.file import Artefact, artefact_of
from kedge_runtime.artefact.golden import Golden
from kedge_runtime.artefact.kinds import Precision
from kedge_runtime.classify.classifier import Classifier
from kedge_runtime.classify.results import Classes, check_finite, probabilities
from kedge_runtime.drift.statistics import sqnr
from kedge_runtime.engines.choice import EngineOptions, open_engine
from kedge_runtime.errors import EngineError, ImageError, KedgeError, SignatureError
from kedge_runtime.frozen import dataclass
from kedge_runtime.image.preprocessing import Preprocessor

if TYPE_CHECKING:
    from kedge_runtime.artefact.signing import Trust

# The minimum signal-to-noise ratio, in dB, of the outputs here against those recorded. Engines and
# processors differ in summation order and integer kernels in rounding: docs/verify.md has the
# measurements. Other weights give about 0 dB.
TOLERANCES: dict[Precision, float] = {
    "float32": 60.0,
    "float16": 30.0,
    "dynamic": 20.0,
    "int8": 12.0,
    "int16x8": 30.0,
    "mixed": 12.0,
    "unknown": 12.0,  # it may be any of them, so the loosest applies
}
# Both sides use the same recorded outputs, so only the last bits of exp differ.
CONFIDENCE_TOLERANCE = 1e-5
# The share of exact integers that may be one step off, by library. It was 32 of 100 000 with
# tflite-runtime 2.14, which is older than the recording libraries (docs/verify.md).
ONE_STEP_OFF = {"tflite_runtime": 0.01}


@dataclass(frozen=True)
class Walk:
    """The result of each step for one image. Digests are the 32 bytes of a SHA-256."""

    pixels: NDArray[np.uint8]
    tensor: NDArray[np.uint8]
    raw: NDArray[Any]
    outputs: Floats
    id: str
    confidence: float


@dataclass(frozen=True)
class VerifyStage:
    """The verdict on one step; `detail` says what was compared, or what is wrong.

    `serial`: the serial number of a valid signature.
    """

    name: str
    passed: bool
    detail: str
    serial: int | None = None


@dataclass(frozen=True)
class StageEvidence:
    """What the stages compare: the artefact's golden set and this machine's walks over it."""

    content: ModelContent
    classifier: Classifier
    walks: list[Walk]

    @property
    def artefact(self) -> Artefact:
        """The artefact."""
        return self.classifier.artefact

    @property
    def golden(self) -> Golden:
        """The golden set."""
        return self.artefact.golden


class FailedStageError(Exception):
    """Raised by a check; the message says what is wrong and where to look.

    `stage`: the stage that failed before the checks began.
    """

    def __init__(self, message: str, stage: str = "") -> None:
        """Take the message."""
        super().__init__(message)
        self.stage = stage


def verify(path: Path, options: EngineOptions, trust: "Trust | None" = None) -> list[VerifyStage]:
    """Check an artefact on this machine; the fault lies in the first stage that fails.

    `trust`: the demanded signature. Raises ArtefactError for a missing file or an unknown format.
    """
    content, stages = read_content(path), list[VerifyStage]()
    try:
        if trust is not None:
            stages.append(_check_signature(content, trust))
        artefact = _check_file(content)
        stages.append(
            VerifyStage("file", True, f"unchanged since it was sealed ({artefact.digest[:19]}...)")
        )
        evidence = _walk_golden_images(content, artefact, options)
    except FailedStageError as failure:
        return [*stages, VerifyStage(failure.stage, False, str(failure))]
    return stages + [_run_check(name, check, evidence) for name, check in CHECKS.items()]


def _check_signature(content: ModelContent, trust: "Trust") -> VerifyStage:
    with _failing_at("signature", SignatureError):
        signature = trust.check(content)
    detail = f"key {signature.key_id}, serial number {signature.serial}"
    return VerifyStage("signature", True, detail, signature.serial)


def _check_file(content: ModelContent) -> Artefact:
    with _failing_at("file"):
        artefact = artefact_of(content)
    if not artefact.golden.images:
        raise FailedStageError("the artefact has no golden images; convert it again", "file")
    return artefact


def _walk_golden_images(
    content: ModelContent, artefact: Artefact, options: EngineOptions
) -> StageEvidence:
    # The file isn't trusted before verify passes, so it doesn't run in this process.
    with _failing_at("engine"):
        engine = open_engine(content, replace(options, isolate=True))
    with _failing_at("contract"):
        classifier = Classifier(artefact, engine)
    with _failing_at("decode", ImageError), _failing_at("engine", EngineError):
        walks = [walk(classifier, image) for image in artefact.golden.images]
    return StageEvidence(content, classifier, walks)


@contextmanager
def _failing_at(stage: str, kind: type[KedgeError] = KedgeError) -> Iterator[None]:
    """Turn an error into the failure of a stage."""
    try:
        yield
    except kind as error:
        raise FailedStageError(str(error), stage) from None


def _run_check(name: str, check: "Check", evidence: StageEvidence) -> VerifyStage:
    try:
        return VerifyStage(name, True, check(evidence))
    except (FailedStageError, EngineError) as broken:
        return VerifyStage(name, False, str(broken))


def walk(classifier: Classifier, image: bytes) -> Walk:
    """Run every step on one encoded image. Raises ImageError, EngineError."""
    plan = Preprocessor(classifier.contract.input)
    pixels = plan.read(image)
    tensor = plan.tensor(pixels)
    raw = classifier.engine.run(tensor)
    outputs = check_finite(classifier.run(pixels))
    best, confidence = answer(classifier.classes, classifier.contract.output, outputs)
    return Walk(_digest(pixels), _digest(tensor), raw.reshape(-1), outputs, best, confidence)


def answer(classes: Classes, output: Output, outputs: Floats) -> tuple[str, float]:
    """Return the best label's id and its probability, or ("", 0) for a feature model.

    The outputs are first scaled to a standard deviation of 1. Golden images have clear answers, and
    a probability of 1.000 would hide a wrong temperature or a second softmax.
    """
    if output.kind == "features":
        return "", 0.0
    scaled = outputs / max(float(outputs.std()), 1e-6)
    best = classes.result(probabilities(scaled, output)).best
    return best.id, best.probability


Check = Callable[[StageEvidence], str]


def _contract(evidence: StageEvidence) -> str:
    contract = evidence.artefact.contract
    # Opening the classifier compared them.
    return f"the engine takes {contract.input.tensor.dtype}; all tensors match the contract"


def _decoding(evidence: StageEvidence) -> str:
    for here, recorded in zip(evidence.walks, evidence.golden.pixels, strict=True):
        if not np.array_equal(here.pixels, recorded):
            raise FailedStageError(
                "the JPEG decoder gives other pixels: check that OpenCV is built with libjpeg-turbo"
            )
    return f"{len(evidence.walks)} golden images, pixels identical"


def _preprocessing(evidence: StageEvidence) -> str:
    for here, recorded in zip(evidence.walks, evidence.golden.tensors, strict=True):
        if not np.array_equal(here.tensor, recorded):
            raise FailedStageError(
                "the input tensor differs: check size, crop, resize, colour order and normalisation"
            )
    return f"{len(evidence.walks)} input tensors identical"


def _engine(evidence: StageEvidence) -> str:
    outputs = np.stack([walk.outputs for walk in evidence.walks])
    noise = sqnr(evidence.golden.recorded, outputs)
    least = TOLERANCES[evidence.artefact.contract.provenance.precision]
    if not noise >= least:
        raise FailedStageError(
            f"the outputs are {noise:.0f} dB from those recorded, at least {least:.0f} dB are "
            "required: other weights, or an engine that computes wrongly"
        )
    note = evidence.classifier.engine.note
    remark = f"; {note}" if note else ""
    if np.array_equal(outputs, evidence.golden.recorded):
        return f"outputs identical to those recorded{remark}"
    return f"outputs {noise:.0f} dB from those recorded (at least {least:.0f}){remark}"


def _exactness(evidence: StageEvidence) -> str:
    if not evidence.golden.exact.size:
        return "skipped: only integer models on LiteRT have exact kernels, for most operators"
    if evidence.artefact.contract.provenance.precision == "unknown":
        return "skipped: the contract's precision is unknown, only integers are exact"
    contract, images = evidence.artefact.contract, evidence.golden.images
    integers = exact_outputs(evidence.content, contract, images, isolate=True)
    if not same_integers(integers, evidence.golden.exact, evidence.classifier.engine.library):
        raise FailedStageError(
            "the reference kernels give other integers than recorded: the model's weights "
            "have changed"
        )
    same = int((integers == evidence.golden.exact).sum())
    others = f", {integers.size - same} one step off" if same < integers.size else ""
    return f"reference kernels: {same} integers identical{others}"


def same_integers(integers: NDArray[Any], recorded: NDArray[Any], library: str) -> bool:
    """Compare the reference kernels' integers of `library` with those recorded."""
    if integers.shape != recorded.shape:
        return False
    steps = np.abs(integers.astype(np.int32) - recorded)
    return bool(steps.max() <= 1 and np.mean(steps > 0) <= ONE_STEP_OFF.get(library, 0.0))


def _answers(evidence: StageEvidence) -> str:
    golden, classes = evidence.golden, evidence.classifier.classes
    output = evidence.classifier.contract.output
    for here, label in zip(evidence.walks, golden.ids, strict=True):
        if here.id != label:
            raise FailedStageError(
                f"the label is {here.id}, recorded was {label}: are the labels shifted?"
            )
    for outputs, recorded in zip(golden.recorded, golden.confidence, strict=True):
        _, confidence = answer(classes, output, outputs)
        if not abs(confidence - recorded) <= CONFIDENCE_TOLERANCE:
            raise FailedStageError(
                f"the probability is {confidence:.3f}, recorded was {recorded:.3f}: "
                "softmax applied twice, or missing?"
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


EXACT = frozenset({"int8", "int16x8"})


def exactly_held(contract: Contract) -> bool:
    """Whether a model has only integer operators, on an engine with exact kernels.

    A file that ends in floats computes its last ones in float.
    """
    format, _, _ = contract.provenance.target.partition(":")
    integers = contract.output.tensor.quantisation is not None
    return format == "tflite" and contract.provenance.precision in EXACT and integers


def exact_outputs(
    content: ModelContent,
    contract: Contract,
    images: tuple[bytes, ...],
    isolate: bool = False,
) -> NDArray[Any]:
    """Return the raw integers, [n, classes], of the engine's bit-exact reference kernels.

    The shape is [0, 0] for models with float operators and for engines without such kernels.
    Raises EngineError when the kernels lack an operator.
    """
    if content.format != "tflite" or not exactly_held(contract):
        return np.zeros((0, 0), np.int8)
    engine = open_engine(content, EngineOptions(kernels="reference", isolate=isolate))
    plan = Preprocessor(contract.input)
    rows = [engine.run(plan.tensor(plan.read(image))).reshape(-1) for image in images]
    return np.stack(rows)


def _digest(array: NDArray[Any]) -> NDArray[np.uint8]:
    return np.frombuffer(hashlib.sha256(array.tobytes()).digest(), np.uint8)
