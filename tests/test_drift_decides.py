"""What images can decide: a proposed gate passes, a stricter one doesn't, for every count."""

import json
from pathlib import Path

import click
import pytest

from conftest import Run
from kedge_convert.verdict import LIMITS
from kedge_runtime.commands.arguments import SHARE, read_drop
from kedge_runtime.drift import gates, sentences
from kedge_runtime.drift.gates import Gate, GateName, Pairs
from kedge_runtime.drift.statistics import most_unseen, paired_drop
from kedge_runtime.drift.summary import ENOUGH, default_limits

pytest.importorskip("hypothesis")
stats = pytest.importorskip("scipy.stats")

from hypothesis import HealthCheck, given, settings  # noqa: E402
from hypothesis import strategies as st  # noqa: E402

CELLS = st.tuples(
    st.integers(1, 5000), st.integers(0, 60), st.integers(0, 60), st.integers(0, 900)
).map(lambda cells: Pairs(*cells))
TENTH = 0.001
# A busy machine is no fault of the code.
SETTINGS = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize=True)


def _written(name: GateName, limit: float) -> float:
    """Return a limit as it comes back from the option that kedge proposes."""
    text = sentences.option(name, limit).split()[1]
    if name == "max_drop":
        return read_drop(text)
    return float(SHARE.convert(text, None, click.Context(click.Command("drift"))))


@SETTINGS
@given(CELLS)
def test_a_proposed_drop_passes_and_a_tenth_less_does_not(pairs: Pairs) -> None:
    found = gates.holds(pairs.drop, gates.share(1, 1)).max_drop
    assert found is not None
    assert gates.max_drop(_written("max_drop", found), pairs).verdict == "PASS"
    if found > TENTH:
        assert pairs.drop.high > found - TENTH - 1e-5


@SETTINGS
@given(CELLS)
def test_a_proposed_agreement_passes_and_a_tenth_more_does_not(pairs: Pairs) -> None:
    agreed, total = pairs.both, pairs.total
    found = gates.holds(None, gates.share(agreed, total)).min_agreement
    gate = gates.min_agreement(_written("min_agreement", found), agreed, total)
    assert gate.verdict == "PASS"
    assert gate.value.low < found + TENTH + 1e-5


@pytest.mark.parametrize("count", [2, 12, 105, 4000])
def test_the_bound_without_a_flip_is_the_exact_one(count: int) -> None:
    exact = stats.binomtest(0, count).proportion_ci(0.95, method="exact").high
    assert most_unseen(count) == pytest.approx(exact, rel=1e-9)


def test_the_default_asks_for_a_drop_where_images_can_show_one() -> None:
    assert default_limits(ENOUGH).max_drop == 0.01
    assert default_limits(ENOUGH - 1).min_agreement == 0.95
    # The figures of the constant's comment.
    assert paired_drop(0, 0, 380)[1] > 0.01 >= paired_drop(0, 0, 381)[1]
    assert paired_drop(4, 0, ENOUGH)[1] > 0.01 >= paired_drop(3, 0, ENOUGH)[1]


def test_the_limit_of_convert_is_the_one_that_the_sentence_names() -> None:
    assert LIMITS["int8"].agreement == sentences.CONVERT_AGREEMENT
    open_gate = gates.min_agreement(0.95, 96, 100)
    assert "from 90 % on" in str(sentences.other_limit(open_gate))
    assert sentences.other_limit(gates.min_agreement(0.95, 80, 100)) is None
    assert sentences.other_limit(gates.min_agreement(0.95, 400, 400)) is None


@pytest.mark.parametrize(
    ("needed", "said"), [(7000, "about 6 900 more images"), (130, "about 25 more images")]
)
def test_one_number_of_more_images(needed: int, said: str) -> None:
    gate = Gate("max_drop", 0.01, gates.share(1, 2), "INCONCLUSIVE", needed)
    words = sentences.needed(gate, 105).replace("\N{NO-BREAK SPACE}", " ")
    assert words.startswith(said)


def test_images_that_calibrated_the_artefact_are_counted(
    kedge: Run, artefacts: Path, tmp_path: Path
) -> None:
    import drift_references
    from kedge_runtime.artefact.provenance import calibration_mark
    from kedge_runtime.drift.journal import content_digest

    photos = tmp_path / "photos"
    photos.mkdir()
    drift_references.write_photos(photos, 40)
    files = sorted(photos.rglob("*.png"))[:7]
    marks = [calibration_mark(content_digest(path.read_bytes()).tobytes()) for path in files]
    assert len({len(mark) for mark in marks}) == 1
    artefact = drift_references.calibrated_on(
        tuple(marks), artefacts / "tiny.tflite", tmp_path / "tiny.tflite"
    )
    reference = drift_references.write_for(artefact, photos, tmp_path / "it.npz")
    words = ["drift", artefact, "--images", photos, "--against", reference]
    code, said, error = kedge(*words, "--json", "--min-agreement", ".8")
    assert json.loads(said)["drifts"][0]["calibration_images"] == 7
    assert code == 0
    assert "tiny.tflite: 7 of these 40 images also calibrated the artefact" in error
    for path in files:
        path.unlink()
    assert "calibrated the artefact" not in kedge(*words)[2]
