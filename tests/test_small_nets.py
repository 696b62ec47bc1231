"""Trained nets of the kinds that int8 is known to hurt keep their accuracy, in both formats."""

from dataclasses import dataclass, field, replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

import nets
from kedge_convert.images import ImageSplit, tensors
from kedge_convert.load.request import SourceRequest
from kedge_convert.quantise import candidates, search
from kedge_convert.quantise.budget import Budget
from kedge_convert.quantise.candidates import CandidateModels
from kedge_convert.quantise.comparing import Candidate
from kedge_convert.source import Source, load_source
from kedge_convert.targets import Target
from kedge_convert.worker.progress import Progress, StageStarted
from kedge_models.demo.pictograms import NAMES, dataset
from kedge_runtime.arrays import Floats
from kedge_runtime.artefact.contract import Geometry
from kedge_runtime.image.input_options import InputOptions
from make_small_nets import MODELS, SIDE, hard

pytest.importorskip("tensorflow", reason="the converter needs TensorFlow")


pytestmark = pytest.mark.slow

NETS = ("mobilenetv3", "efficientnet", "se-resnet")
BAR = 0.98  # of the float accuracy: MLPerf's for mobile int8
CALIBRATION, OTHERS, SEED = 100, 400, 99


@dataclass(frozen=True)
class Prepared:
    """A trained net with its preparation, and pictures that nothing was fitted to."""

    source: Source
    sources: CandidateModels
    others: list[Path]
    classes: NDArray[np.int64]
    best: dict[str, Candidate] = field(default_factory=dict)

    def nearest(self, form: str) -> Candidate:
        """Return the best int8 candidate of a format, made once."""
        if form not in self.best:
            with Progress(silent=True) as progress:
                self.best[form] = candidates.closest_weights(
                    Target(form, "int8"), self.sources, progress
                )
        return self.best[form]

    @property
    def logits(self) -> Floats:
        """The float net's, [others, classes]."""
        return self.source.logits(tensors(self.others, self.source.input))

    def accuracy(self, logits: Floats) -> float:
        """Return the share that is right."""
        return float((logits.argmax(axis=1) == self.classes).mean())


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[Path], NDArray[np.int64]]:
    """Return pictures that no net was trained on, and their classes."""
    folder = tmp_path_factory.mktemp("hard")
    pictures, classes = dataset(CALIBRATION + OTHERS, SEED)
    (folder / "labels.txt").write_text("\n".join(NAMES))
    paths = [folder / f"{i}.png" for i in range(len(pictures))]
    for path, picture in zip(paths, hard(pictures, SEED), strict=True):
        cv2.imwrite(str(path), picture[..., ::-1])
    return paths, classes


@pytest.fixture(scope="module")
def known() -> dict[str, Prepared]:
    """Return what is prepared already: pytest goes by formats first, and would do it again."""
    return {}


@pytest.fixture(params=NETS)
def prepared(
    request: pytest.FixtureRequest,
    known: dict[str, Prepared],
    drawn: tuple[list[Path], NDArray[np.int64]],
) -> Prepared:
    if request.param not in known:
        known[request.param] = prepare(request.param, *drawn)
    return known[request.param]


def prepare(name: str, paths: list[Path], classes: NDArray[np.int64]) -> Prepared:
    labels = str(paths[0].with_name("labels.txt"))
    model = str(MODELS / f"small-{name}.keras")
    source = load_source(SourceRequest(model, pixels=InputOptions("imagenet", "tf"), labels=labels))
    geometry = Geometry(SIDE, SIDE, "nearest", "stretch")
    source = replace(source, input=replace(source.input, geometry=geometry))
    photos = ImageSplit(tuple(paths[:CALIBRATION]), tuple(paths[CALIBRATION:]))
    with Progress(silent=True) as progress:
        sources = candidates.prepare(source, photos, candidates.QuantisationOptions(0), progress)
    return Prepared(source, sources, paths[CALIBRATION:], classes[CALIBRATION:])


def test_int8_keeps_the_accuracy(prepared: Prepared, form: str) -> None:
    floats = prepared.accuracy(prepared.logits)
    assert 0.8 <= floats <= 0.99, "a net that is always or never right shows no drift"
    best = prepared.nearest(form)
    found = nets.answers(prepared.source, form, best.content, prepared.others)
    assert prepared.accuracy(found) >= BAR * floats


@pytest.mark.parametrize("prepared", ["se-resnet"], indirect=True)
@pytest.mark.parametrize(("factor", "observed"), [(0.0, 1), (1e9, 2)])
def test_stock_weights_see_all_images_only_where_they_have_a_chance(
    prepared: Prepared, monkeypatch: pytest.MonkeyPatch, factor: float, observed: int
) -> None:
    monkeypatch.setattr(candidates, "HOPELESS", factor)
    stages: list[StageStarted] = []
    with Progress(lambda e: stages.append(e) if isinstance(e, StageStarted) else None) as progress:
        unknown = replace(prepared.sources, hopeless=set())
        best = candidates.closest_weights(Target("tflite", "int8"), unknown, progress)
    totals = [each.total for each in stages if each.stage == "observe tflite:int8"]
    assert totals == [CALIBRATION] * observed
    looks = [each.total for each in stages if each.stage.startswith("export tflite:int8, ")]
    assert looks == [candidates.FEW] * 2
    assert best.recipe.method == "prepared" or observed == 2


@pytest.mark.parametrize("prepared", ["efficientnet"], indirect=True)
def test_a_budget_is_held_at_a_price(prepared: Prepared, form: str) -> None:
    """What agrees more costs more, and both hold on other pictures."""
    plain = prepared.nearest(form)
    with Progress(silent=True) as progress:
        wanted = search.search(prepared.sources, Budget(min_agreement=0.985), progress)
        chosen = next(search.rungs(Target(form, "int8"), wanted, plain, progress))
    found = nets.answers(prepared.source, form, chosen.content, prepared.others)
    agreement = float((found.argmax(axis=1) == prepared.logits.argmax(axis=1)).mean())
    assert agreement >= 0.985
    assert len(chosen.content) >= len(plain.content)
