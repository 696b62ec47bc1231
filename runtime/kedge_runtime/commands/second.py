"""Choose the margin of a second opinion: `kedge calibrate FILE --second FILE2 --against NPZ`."""

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np

from kedge_runtime.arrays import Doubles, Floats
from kedge_runtime.artefact.confidence import SecondRule
from kedge_runtime.artefact.content import read_content
from kedge_runtime.artefact.contract import Contract, Output
from kedge_runtime.artefact.identity import identity
from kedge_runtime.artefact.provenance import calibration_mark
from kedge_runtime.artefact.reseal import is_signed, resealed, write_resealed
from kedge_runtime.classify.classifier import Classifier
from kedge_runtime.classify.ensemble import check_classes
from kedge_runtime.classify.results import check_finite, label_sets, probabilities
from kedge_runtime.classify.second_opinion import closeness
from kedge_runtime.confidence.second import ChosenMargin, PairAnswers, choose, latency
from kedge_runtime.confidence.sentences import interval
from kedge_runtime.drift.journal import content_digest
from kedge_runtime.drift.reference import Reference
from kedge_runtime.engines.choice import EngineOptions
from kedge_runtime.errors import ImageError, UsageError, counted
from kedge_runtime.image.decode import read_bytes
from kedge_runtime.output import echo, echo_json, note, percent, quiet, say
from kedge_runtime.progress import Bar

Tick = Callable[[], None]
Pair = tuple[Classifier, Classifier]


@dataclass(frozen=True)
class SecondRequest:
    """What `kedge calibrate --second` is asked for; `folder`: of the images of `reference`."""

    file: Path
    second: Path
    reference: Path
    folder: Path
    agree: float
    calls: float
    count: int
    out: Path
    engine: EngineOptions


@dataclass(frozen=True)
class PairMeasured:
    """The answers of a pair, the seconds of each, [n], and which images they are of."""

    answers: PairAnswers
    seconds: tuple[Doubles, Doubles]
    marks: tuple[str, ...]
    left_out: dict[str, int]


def run_pair(request: SecondRequest, *, as_json: bool) -> int:
    """Choose a margin, store it in the first file, and print the price; return the exit code."""
    contents = [read_content(path) for path in (request.file, request.second)]
    with quiet():
        first, second = (Classifier.of(content, request.engine) for content in contents)
    for classifier in (first, second):
        classifier.check_answers()
    check_classes(first, second, "a second opinion")
    reference = Reference(request.reference)
    reference.check(first.contract, request.file)
    measured = _measured(request, (first, second), reference)
    for reason, count in sorted(measured.left_out.items()):
        note(f"left out {counted(count, 'image')}: {reason}")
    chosen = choose(measured.answers, request.agree, request.calls)
    rule = _rule(request, identity(contents[1], second.contract), chosen, measured)
    contract = replace(first.contract, second=rule)
    digest = write_resealed(request.out, resealed(contents[0], contract))
    signed = is_signed(contents[0])
    times = latency(*measured.seconds, rule.asked[0])
    if as_json:
        echo_json({**_plain(request, rule, times), "digest": digest, "signature_removed": signed})
    else:
        echo(str(request.out), *(f"  {x}" for x in _lines(request, rule, measured, times)))
    if signed:
        say(f"{request.out}: its signature is gone; sign it again with `kedge sign`")
    return 0


@dataclass
class _Rows:
    """Collects the answers of a pair, image by image."""

    close: list[float] = field(default_factory=list)
    agreed: tuple[list[bool], list[bool]] = field(default_factory=lambda: ([], []))
    seconds: tuple[list[float], list[float]] = field(default_factory=lambda: ([], []))
    marks: list[str] = field(default_factory=list)
    left_out: Counter[str] = field(default_factory=Counter)

    def measured(self) -> PairMeasured:
        """Return the rows as arrays. Raises UsageError where there is none."""
        if not self.marks:
            reasons = ", ".join(self.left_out)
            raise UsageError(f"--images: no image is left ({reasons}); give others")
        first, second = (np.array(each) for each in self.agreed)
        answers = PairAnswers(np.array(self.close, np.float32), first, second)
        seconds = (np.array(self.seconds[0]), np.array(self.seconds[1]))
        return PairMeasured(answers, seconds, tuple(self.marks), dict(self.left_out))


def _measured(request: SecondRequest, pair: Pair, reference: Reference) -> PairMeasured:
    """Run both artefacts on the images of the reference that neither was made from."""
    used, rows = _used(pair[0].contract) | _used(pair[1].contract), _Rows()
    names = _drawn(reference, request.count)
    with Bar(f"{request.file.name} and {request.second.name}", len(names)) as bar:
        for name in names:
            bar.advance(1)
            try:
                content = read_bytes(request.folder / name)
                mark = calibration_mark(content_digest(content).tobytes())
                if mark in used or mark in rows.marks:
                    what = "images of the conversion" if mark in used else "repeated images"
                    rows.left_out[what] += 1
                    continue
                expected = reference.outputs(name, content_digest(content))
                with quiet():
                    _add(rows, pair, content, (expected, reference))
            except ImageError:
                rows.left_out["unreadable images"] += 1
            else:
                rows.marks.append(mark)
    return rows.measured()


def _drawn(reference: Reference, count: int) -> list[str]:
    order = np.random.default_rng(0).permutation(len(reference.names))[:count]
    return [reference.names[i] for i in sorted(order)]


def _used(contract: Contract) -> frozenset[str]:
    """Return the marks of images that chose the artefact's integers, or its answers."""
    provenance = contract.provenance
    fitted = contract.confidence.images if contract.confidence else ()
    answers = fitted if contract.output.multi_label else ()
    return frozenset((*provenance.calibration_images, *provenance.validation_images, *answers))


def _add(rows: _Rows, pair: Pair, content: bytes, known: tuple[Floats, Reference]) -> None:
    """Add what both artefacts say of an image. Raises ImageError."""
    expected, reference = known
    pixels = [classifier.preprocessor.read(content) for classifier in pair]
    truth = _answer(expected, reference.output(pair[0].contract.output))
    for i, classifier in enumerate(pair):
        began = perf_counter()
        outputs = check_finite(classifier.run(pixels[i]))
        rows.seconds[i].append(perf_counter() - began)
        output = classifier.contract.output
        rows.agreed[i].append(bool(np.array_equal(_answer(outputs, output), truth)))
        if i == 0:
            rows.close.append(float(closeness(outputs, output)))


def _answer(outputs: Floats, output: Output) -> Any:
    """Return the label of the best class, or which independent classes are labels."""
    if output.multi_label:
        return label_sets(probabilities(outputs, output), output)[output.label_offset :]
    return int(outputs.argmax()) - output.label_offset


def _rule(
    request: SecondRequest, model: str, chosen: ChosenMargin, measured: PairMeasured
) -> SecondRule:
    return SecondRule(
        model=model,
        margin=chosen.margin,
        agree=request.agree,
        agreement=chosen.agreement,
        asked=chosen.asked,
        images=len(measured.marks),
        marks=tuple(sorted(measured.marks)),
    )


Times = tuple[float, float, float]


def _plain(request: SecondRequest, rule: SecondRule, times: Times) -> dict[str, Any]:
    """Return the documented object (docs/json.md)."""
    data = asdict(rule)
    del data["marks"]
    names = ("first_ms", "second_ms", "pair_ms")
    return {
        "schema": 1,
        "command": "calibrate",
        "artefact": str(request.out),
        "second": str(request.second),
        **data,
        "latency": dict(zip(names, times, strict=True)),
    }


def _lines(
    request: SecondRequest, rule: SecondRule, measured: PairMeasured, times: Times
) -> Iterator[str]:
    """Yield the margin, what the pair holds, and its price."""
    alone = percent(float(measured.answers.first.mean()))
    first, second, pair = times
    yield f"asks {request.second.name} again below a margin of {rule.margin:g} logits"
    yield (
        f"agreement with the float model {interval(rule.agreement)}, alone {alone}, on "
        f"{counted(rule.images, 'image')}"
    )
    yield f"at least {percent(rule.agree, 2)} on other images, but for an error of 5 %"
    yield (
        f"price: {interval(rule.asked)} of images asked again; {first:.1f} and {second:.1f} ms, "
        f"together {pair:.1f} ms an image here"
    )
