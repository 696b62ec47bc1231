"""Hold a Keras model against every known preprocessing (`kedge_runtime.fitting`)."""

from collections.abc import Sequence
from pathlib import Path

from kedge_convert.fitting.subject import answers
from kedge_convert.source import Source
from kedge_runtime.fitting import finding
from kedge_runtime.fitting.finding import InputFinding


def true_outputs(paths: Sequence[Path], source: Source) -> list[int] | None:
    """Return the index of each image's true output; None where nothing tells that of all."""
    return finding.true_outputs(paths, source.labels, source.output)


def better_input(
    source: Source, paths: Sequence[Path], classes: Sequence[int] | None
) -> InputFinding | None:
    """Return the known input that fits significantly better than `source.input`, or None.

    Takes about five times as long as the float model's answers to the images.
    """
    asked = finding.Asked(
        source.name,
        source.input,
        source.output,
        lambda pixels, fed: answers(source.model, source.output, pixels, fed),
    )
    return finding.better_input(asked, paths, classes)
