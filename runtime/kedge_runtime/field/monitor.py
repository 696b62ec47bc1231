"""Watch a stream's frames against the sketch of its artefact; report what changed as events."""

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from kedge_runtime.arrays import Floats, Pixels
from kedge_runtime.artefact.contract import Contract, Input
from kedge_runtime.artefact.file import Artefact
from kedge_runtime.classify.results import Classes, Result
from kedge_runtime.errors import ArtefactError, UsageError
from kedge_runtime.field.evidence import FieldTests, MeasuredFrame
from kedge_runtime.field.finding import FieldFinding, describe
from kedge_runtime.field.measure import image_statistics, joined
from kedge_runtime.field.sketch import Sketch
from kedge_runtime.field.state import read_state, write_state
from kedge_runtime.field.thinning import Pace, Thinning
from kedge_runtime.image.preprocessing import Preprocessor
from kedge_runtime.streams.events import Event
from kedge_runtime.streams.sources import Clock

# Seconds between two writes of the state: an SD card has a bounded number of them.
SAVE = 600.0


def sketch_in(artefact: Artefact) -> Sketch:
    """Return the sketch of an artefact. Raises ArtefactError where it has none that fits."""
    sketch, temperature = artefact.sketch, artefact.contract.output.temperature
    if sketch is None:
        raise ArtefactError(
            f"{artefact.path}: has no sketch of its calibration images: convert it again with "
            "--calibrate DIR"
        )
    outputs = len(artefact.contract.labels) + artefact.contract.output.label_offset
    if len(sketch.classes) != outputs:
        raise ArtefactError(
            f"{artefact.path}: its sketch has {len(sketch.classes)} outputs, its contract "
            f"{outputs}: convert it again"
        )
    if abs(sketch.temperature[0] - temperature) > 1e-6 * temperature:
        raise ArtefactError(
            f"{artefact.path}: its sketch was made at temperature {sketch.temperature[0]:g}, its "
            f"contract has {temperature:g}: convert it again"
        )
    return sketch


def frame_of(fitted: Pixels, result: Result, classes: Classes, moment: float) -> MeasuredFrame:
    """Measure a frame of the network's size, RGB uint8 [h, w, 3], and its result."""
    return measured_frame(image_statistics(fitted), result, classes, moment)


def measured_frame(image: Floats, result: Result, classes: Classes, moment: float) -> MeasuredFrame:
    """Join the statistics of an image, of `image_statistics`, with those of its result."""
    numbers = result.best.probability, result.margin, result.entropy
    best = result.best.index + classes.offset
    named = tuple(each.index + classes.offset for each in result.predictions)
    hits = named if classes.multi_label else (best,)
    return MeasuredFrame(joined(numbers, image), best, hits, moment)


class Fitter:
    """Brings frames to the network's size as the model gets them."""

    def __init__(self, spec: Input) -> None:
        """Plan the preprocessing of a contract's input."""
        self._size = (spec.geometry.height, spec.geometry.width)
        self._preprocessor = Preprocessor(spec)

    def __call__(self, pixels: Pixels) -> Pixels:
        """Return RGB uint8 [height, width, 3] of a frame, RGB uint8 [h, w, 3]."""
        return self._preprocessor.fit(pixels)


@dataclass(frozen=True)
class MonitorOptions:
    """`state`: a file that holds the tests over a restart; `pace`: which frames count."""

    state: Path | None = None
    pace: Pace = Pace()
    clock: Clock = time.time


class Monitor:
    """Observes a stream (streams/events.py): holds its frames against an artefact's sketch.

    A state that can't be used is reported as an event with the first frame, and the tests begin
    anew; so does one that can't be written, once.
    """

    def __init__(self, artefact: Artefact, options: MonitorOptions = MonitorOptions()) -> None:
        """Open the state. Raises ArtefactError for an artefact without a sketch that fits."""
        self._options, self._digest = options, artefact.digest
        self._contract: Contract = artefact.contract
        self._classes = Classes.of(artefact.contract.labels, artefact.contract.output)
        self._fit, self.thinning = Fitter(artefact.contract.input), Thinning(options.pace)
        self._sketch, self._pending = sketch_in(artefact), list[Event]()
        self._saved, self._unwritable = options.clock(), False
        self.evidence = self._opened()

    def observe(self, pixels: Pixels, result: Result) -> Iterator[Event]:
        """Return the events of one frame, RGB uint8 [h, w, 3]; most frames don't count."""
        now = self._options.clock()
        if self.thinning(pixels, now):
            seen = frame_of(self._fit(pixels), result, self._classes, now)
            for turn in self.evidence.add(seen):
                finding = describe(self.evidence, turn, self._classes.labels)
                self._pending.append(event_of(finding, self.evidence, now))
        if not 0 <= now - self._saved < SAVE:
            self._save(now)
        pending, self._pending = self._pending, []
        yield from pending

    def close(self) -> None:
        """Write the state."""
        self._save(self._options.clock())

    def _opened(self) -> FieldTests:
        path, seed = self._options.state, int(self._digest[-8:] or "0", 16)
        if path is None or not path.exists():
            return FieldTests(self._sketch, seed)
        try:
            return read_state(path, self._sketch, self._digest, seed)
        except ArtefactError as error:
            text = f"field state {path}: {error}; the tests begin anew"
            self._pending.append(Event(self._options.clock(), "field-state", text))
            return FieldTests(self._sketch, seed)

    def _save(self, now: float) -> None:
        if self._options.state is None:
            return
        self._saved = now
        try:
            write_state(self._options.state, self.evidence, self._digest)
            self._unwritable = False
        except UsageError as error:
            # A full disk must not end the stream.
            if not self._unwritable:
                self._pending.append(Event(now, "field-state", f"field state {error}"))
            self._unwritable = True


KINDS = {"alarm": "field-alarm", "mix": "field-mix", "over": "field-over"}


def event_of(finding: FieldFinding, evidence: FieldTests, now: float) -> Event:
    """Return a finding as an event; times are seconds since 1970."""
    text = finding.text(clock_time(finding.time, now))
    if finding.look and finding.kind != "over":
        rows = [frame % len(evidence.memory.times) for frame in finding.look]
        moments = ", ".join(clock_time(evidence.memory.times[row], now) for row in rows)
        text = f"{text}; frames to look at: {moments}"
    figures = {"since": finding.time, "shift": finding.shift}
    if finding.accuracy:
        figures["accuracy_lost"] = finding.accuracy.lost
    return Event(now, KINDS[finding.kind], text, figures)


def clock_time(moment: float, now: float) -> str:
    """Return the local time of day, with the date where it is not within the last day."""
    style = "%H:%M:%S" if 0 <= now - moment < 86_400 else "%Y-%m-%d %H:%M"
    return time.strftime(style, time.localtime(moment))
