"""Several classifiers that answer as one: the mean of their probabilities, and nothing mixed up."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from kedge_runtime.artefact.contract import Contract, Label
from kedge_runtime.artefact.file import seal
from kedge_runtime.artefact.golden import Golden
from kedge_runtime.classify.classifier import Classifier
from kedge_runtime.classify.ensemble import Ensemble
from kedge_runtime.classify.results import Result, Rule
from kedge_runtime.errors import ImageError, UsageError

pytest.importorskip("ai_edge_litert")
pytest.importorskip("onnxruntime")

PICTURE = np.full((20, 20, 3), (200, 90, 30), np.uint8)


@pytest.fixture
def members(artefacts: Path) -> list[Classifier]:
    """Return the same four classes by an int8 network of 16x16 and a float one of 8x8."""
    return [Classifier.open(artefacts / f"tiny.{form}", threads=1) for form in ("tflite", "onnx")]


def test_an_ensemble_averages_probabilities(members: list[Classifier]) -> None:
    first, second = (member.probabilities(PICTURE) for member in members)
    assert abs(first - second).max() > 0.01  # else an average would prove nothing
    expected = (first.astype(np.float64) + second) / 2
    np.testing.assert_allclose(Ensemble(members).probabilities(PICTURE), expected, rtol=1e-6)


def test_an_ensemble_is_called_as_a_classifier_is(members: list[Classifier]) -> None:
    ensemble = Ensemble(members)
    result = ensemble(PICTURE, top=2)
    values = ensemble.probabilities(PICTURE)
    assert result.best.name == "red"
    assert [p.probability for p in result.predictions] == sorted(values.tolist())[::-1][:2]
    assert ensemble([PICTURE, PICTURE], top=2) == [result, result]
    assert ensemble(PICTURE[..., ::-1], top=2, colour="bgr") == result
    assert ensemble(PICTURE, rule=Rule(min_confidence=1.0)).unknown
    bad, good = ensemble.each([b"none", PICTURE], top=2)
    assert isinstance(bad, ImageError)
    assert good == result


def test_an_ensemble_of_one_is_that_one(members: list[Classifier]) -> None:
    assert Ensemble(members[:1])(PICTURE) == members[0](PICTURE)


def test_members_that_see_alike_share_one_decoded_picture(
    members: list[Classifier], monkeypatch: pytest.MonkeyPatch
) -> None:
    reads: list[Classifier] = []
    read = Classifier.read

    def counted(self: Classifier, *arguments: object) -> object:
        reads.append(self)
        return read(self, *arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(Classifier, "read", counted)
    result = Ensemble([members[0], members[0], members[1]])(PICTURE)
    assert isinstance(result, Result)
    assert reads == members


def _other_labels(contract: Contract) -> Contract:
    return replace(contract, labels=contract.labels[::-1])


def _other_kind(contract: Contract) -> Contract:
    return replace(contract, output=replace(contract.output, activation="sigmoid"))


def _background(contract: Contract) -> Contract:
    output = replace(contract.output, label_offset=1)
    return replace(contract, output=output, labels=contract.labels[1:])


def _features(contract: Contract) -> Contract:
    return replace(contract, output=replace(contract.output, kind="features"), labels=())


REFUSED: dict[str, tuple[Callable[[Contract], Contract], str]] = {
    "other labels": (_other_labels, "has other classes than"),
    "a background": (_background, "has other classes than"),
    "other kind": (_other_kind, "has another type of output than"),
    "features": (_features, "outputs features, not classes"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_averaged_is_refused_in_one_line(
    case: str,
    members: list[Classifier],
    contracts: dict[str, Contract],
    models: dict[str, bytes],
    golden: Golden,
    tmp_path: Path,
) -> None:
    change, message = REFUSED[case]
    path = tmp_path / "other.onnx"
    path.write_bytes(seal("onnx", models["onnx"], change(contracts["onnx"]), golden))
    other = Classifier.open(path, threads=1)
    with pytest.raises(UsageError, match=message) as caught:
        Ensemble([members[0], other])
    assert "\n" not in str(caught.value)
    assert "other.onnx" in str(caught.value)


def test_an_ensemble_of_none_is_refused() -> None:
    with pytest.raises(UsageError, match="give at least one"):
        Ensemble([])


def test_labels_are_compared_whole(members: list[Classifier]) -> None:
    members[1].classes = replace(
        members[1].classes, labels=(*members[1].classes.labels[:3], Label("t3", "black"))
    )
    with pytest.raises(UsageError, match="other classes"):
        Ensemble(members)
