"""The outcomes of `field.py`, and their page."""

from dataclasses import dataclass
from typing import Any

import numpy as np

SEEDS = 10
BUDGET = 0.3  # ms a frame


@dataclass(frozen=True)
class Outcome:
    """What became of a case. `frames`: to the alarm, None where it was missed or too early."""

    fault: str
    strength: float
    accuracy: float
    lost: float
    onset: int
    frames: list[int | None]
    named: list[str]
    estimated: float
    error: float

    @property
    def found(self) -> int:
        """The number of streams whose fault was found in time."""
        return sum(frames is not None for frames in self.frames)


def text(report: dict[str, Any], found: list[Outcome]) -> str:
    """Return the results as a page."""
    quiet_, once = report["quiet"], report["fresh"]
    lines = [
        "# Field drift: faults found, and false alarms",
        "",
        f"{report['artefact']}, {report['images']} images, 300 of them in the sketch, "
        f"the others in the streams; {SEEDS} streams a row. Stated bound: a stream without a fault "
        f"ever raises an alarm with probability {report['error']} at most.",
        "",
        "| fault | strength | accuracy | points lost | begins at | found in 300 frames | median "
        "frames | first named | estimate | error |",
        "| --- | --: | --: | --: | --: | --: | --: | --- | --: | --: |",
    ]
    for each in found:
        frames = [count for count in each.frames if count is not None]
        median = f"{np.median(frames):.0f}" if frames else "-"
        lines.append(
            f"| {each.fault} | {each.strength:g} | {each.accuracy:.3f} | {100 * each.lost:.1f} "
            f"| {each.onset} | {each.found} of {SEEDS} | {median} | {', '.join(each.named)} "
            f"| {each.estimated:.3f} | {100 * each.error:+.1f} |"
        )
    lines += [
        "",
        f"False alarms on photos drawn again and again: {len(quiet_['alarms'])} in "
        f"{quiet_['streams']} streams of {quiet_['frames']} frames "
        f"({quiet_['notices']} notices of the mix).",
    ]
    drawn = report["simulated"]
    lines.append(
        f"False alarms on simulated frames from where calibration came from: {drawn['alarms']} in "
        f"{drawn['streams']} streams of {drawn['frames']} frames."
    )
    if once:
        lines.append(
            f"False alarms on images that come once: {len(once['alarms'])} in {once['frames']} "
            f"frames ({once['notices']} notices of the mix)."
        )
    if report["mix"]:
        lines.append(
            f"One class at 40 % instead of 10 %: notices after {report['mix']['notices after']} "
            f"frames, {report['mix']['alarms']} alarms in 1000 frames each."
        )
    price = report["cost"]
    lines.append(
        f"A frame of 224x224 costs {price['median']} ms (p10 {price['p10']}, p90 {price['p90']}; "
        f"limit {BUDGET})."
    )
    return "\n".join(lines) + "\n"
