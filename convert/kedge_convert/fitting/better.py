"""Compare a Keras model's preprocessing with every known one (`kedge_runtime.fitting`)."""

from collections.abc import Sequence
from pathlib import Path

from kedge_convert.fitting.subject import answers
from kedge_convert.source import Source
from kedge_runtime.fitting import scores
from kedge_runtime.fitting.scores import InputFinding


def true_outputs(paths: Sequence[Path], source: Source) -> list[int] | None:
    """Return the index of each image's true output; None without ground truth for all."""
    return scores.true_outputs(paths, source.labels, source.output)


def better_input(
    source: Source, paths: Sequence[Path], classes: Sequence[int] | None
) -> InputFinding | None:
    """Return the known preprocessing that fits significantly better than the source's, or None.

    Takes about five times as long as the float model's answers to the images.
    """
    model = scores.TestedModel(
        source.name,
        source.input,
        source.output,
        lambda pixels, spec: answers(source.model, source.output, pixels, spec),
    )
    return scores.better_input(model, paths, classes)
