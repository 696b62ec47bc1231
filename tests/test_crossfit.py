"""The noise of int8 that a forecast takes is that on images which no weights were fitted to."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

import nets
from kedge_convert.images import ImageSplit, tensors
from kedge_convert.prepare import preparation
from kedge_convert.prepare.preparation import Rounding
from kedge_convert.quantise import candidates, search
from kedge_convert.quantise.budget import Budget, noise
from kedge_convert.quantise.candidates import QuantisationOptions
from kedge_convert.quantise.crossfit import unfitted_ratio
from kedge_convert.source import Source
from kedge_convert.targets import Target
from kedge_convert.worker.progress import Progress
from kedge_runtime.artefact.contract import Geometry, Input, Label, Normalisation, Output

pytest.importorskip("tensorflow", reason="the converter needs TensorFlow")

SPEC = Input(Geometry(nets.SIDE, nets.SIDE), Normalisation("rgb", 127.5, (1.0, 1.0, 1.0)))


def test_few_images_are_fitted_more_closely_than_many() -> None:
    graph = preparation.plan(nets.make("mobile"))
    images = nets.pictures(64)
    few, many = (unfitted_ratio(graph, images[:count], Rounding(0)) for count in (4, 64))
    assert few > many >= 1.0
    assert many < 1.5


def source_of(name: str) -> Source:
    model = nets.make(name)
    labels = tuple(Label(str(i), str(i)) for i in range(model.output_shape[-1]))
    return Source(name, model, SPEC, Output("logits"), labels, "")


@pytest.mark.slow
def test_the_forecast_takes_the_noise_of_other_images(form: str, pictures: Path) -> None:
    photos: Sequence[Path] = sorted(pictures.iterdir())
    fitted, others = photos[::2], photos[1::2]
    source, target = source_of("mobile"), Target(form, "int8")
    split = ImageSplit(tuple(fitted), ())
    with Progress(silent=True) as progress:
        options = QuantisationOptions(formats=(form,))
        models = candidates.prepare(source, split, options, progress)
        plain = candidates.ranged(target, models, progress)
        found = search.search(models, Budget(min_agreement=0.9), progress).crossfit
    forecast = found.noise(target, models, plain)
    # Every calibration image counts, not the selection images alone.
    rivals = len(noise(models.logits, plain.answers).values) // len(split.selection)
    assert len(forecast.values) == rivals * len(fitted)
    answers = nets.answers(source, form, plain.content, others)
    true = noise(source.logits(tensors(others, SPEC)), answers)
    assert forecast.spread == pytest.approx(true.spread, rel=0.25)
    assert np.isfinite(forecast.values).all()
