"""A second opinion: the margin and its bound, and the pair on tiny models with real engines."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest

from conftest import Run
from drift_references import BROKEN, write_photos
from kedge_runtime.arrays import Floats, Pixels
from kedge_runtime.artefact.confidence import SecondRule
from kedge_runtime.artefact.content import read_content
from kedge_runtime.artefact.contract import Contract, Output, Quantisation, Tensor
from kedge_runtime.artefact.file import read_artefact
from kedge_runtime.artefact.identity import identity
from kedge_runtime.artefact.reseal import resealed, write_resealed
from kedge_runtime.artefact.signing import PrivateKey, signed
from kedge_runtime.classify.classifier import Classifier
from kedge_runtime.classify.results import softmax
from kedge_runtime.classify.second_opinion import SecondOpinion, closeness
from kedge_runtime.confidence.binomial import least_share
from kedge_runtime.confidence.second import ALWAYS, MARGINS, PairAnswers, choose, enough
from kedge_runtime.drift.journal import ImageFolder, content_digest
from kedge_runtime.drift.reference import Recorded, ReferenceFacts, write_reference
from kedge_runtime.errors import ContractError, UsageError
from messages import soon
from served import RED, encoded, served, write_video

WRONG = 0.15  # logits: the first artefact flips answers below it


def drawn(count: int, seed: int, second: float = 0.9995) -> PairAnswers:
    """Return answers of a pair: flips of the first are likelier at small margins."""
    random = np.random.default_rng(seed)
    close = random.exponential(3, count).astype(np.float32)
    first = random.random(count) > 0.5 * np.exp(-close / WRONG)
    return PairAnswers(close, first, random.random(count) < second)


def agreement(margin: float) -> float:
    """Return the true agreement of the pair, of two million images."""
    return float(TRUTH.agreed(margin).mean())


TRUTH = drawn(400_000, 99)


def test_the_bound_that_was_promised_holds_in_19_of_20_draws() -> None:
    chosen = [choose(drawn(1500, seed), 0.99).margin for seed in range(100)]
    held = [agreement(margin) >= 0.99 for margin in chosen]
    assert np.mean(held) >= 0.95
    asked = [float(TRUTH.asked(margin).mean()) for margin in chosen]
    assert np.mean(asked) < 0.15, "the margin is not needlessly wide"


def test_a_smaller_margin_would_not_pass() -> None:
    answers = drawn(1500, 1)
    chosen = choose(answers, 0.99)
    smaller = MARGINS[MARGINS.index(chosen.margin) + 1]
    count = int(answers.agreed(smaller).sum())
    assert least_share(count, 1500) < 0.99
    assert least_share(int(answers.agreed(chosen.margin).sum()), 1500) >= 0.99
    assert chosen.asked[1] <= chosen.asked[0] <= chosen.asked[2]


def test_calls_that_are_allowed_are_used() -> None:
    answers = drawn(1500, 1)
    least, more = choose(answers, 0.99), choose(answers, 0.99, 0.15)
    assert least.asked[0] < 0.1 < more.asked[0] <= 0.15
    assert agreement(more.margin) > agreement(least.margin)
    assert choose(answers, 0.99, least.asked[0] / 2) == least, "the bound comes first"


def test_too_few_images_say_how_many_would_do() -> None:
    answers = drawn(200, 0, second=1)
    with pytest.raises(
        UsageError, match=r"200 of 200 images, which is sure for 98\.5.%: 598 images"
    ):
        choose(answers, 0.995)
    # .995**598 is the first power below 5 %.
    assert enough(200, 200, 0.995) == 598
    assert choose(drawn(598, 1, second=1), 0.995)


def test_a_second_artefact_that_differs_too_often_is_refused() -> None:
    with pytest.raises(UsageError, match="differs too often; ask for less"):
        choose(drawn(2000, 0, second=0.97), 0.99)


def test_always_asks_every_image() -> None:
    answers = replace(drawn(50, 0), closeness=np.full(50, 1e6, np.float32))
    assert answers.asked(ALWAYS).all()
    assert not answers.asked(MARGINS[1]).any()


def test_closeness_is_the_distance_to_another_answer() -> None:
    logits = np.array([2.0, -1.0, 0.5], np.float32)
    assert closeness(logits, Output()) == pytest.approx(1.5)
    assert closeness(logits, Output(temperature=3.0)) == pytest.approx(1.5)
    assert closeness(softmax(logits), Output("softmax")) == pytest.approx(1.5, abs=1e-5)
    multi = Output(activation="sigmoid", thresholds=(0.5, 0.5, 0.7))
    assert closeness(logits, multi) == pytest.approx(abs(0.5 - np.log(7 / 3)), abs=1e-6)
    step = Output("softmax", Tensor("int8", Quantisation(1 / 256, -128)))
    tie = np.array([0.5, 0.5, 0.0], np.float32)
    assert closeness(tie, step) == 0
    rows = np.stack([logits, logits + 1])
    np.testing.assert_allclose(closeness(rows, Output()), [1.5, 1.5], atol=1e-6)


@pytest.mark.parametrize("change", [{"margin": -1.0}, {"agree": 1.5}, {"asked": (0, 0, 2)}])
def test_an_impossible_rule_is_refused(change: dict[str, object]) -> None:
    rule = SecondRule("sha256:0", 0.5, 0.99, (1, 0.99, 1), (0.1, 0, 0.2), 100, ("00",))
    with pytest.raises(ContractError):
        SecondRule(**{**vars(rule), **change})


@pytest.fixture(scope="session")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("photos")
    write_photos(folder, 200)
    (folder / BROKEN).unlink()
    return folder


class Pair:
    """A tiny artefact, a better one of the same network, and the recorded float model."""

    def __init__(self, sealed: Path, folder: Path, photos: Path) -> None:
        self.first, self.photos = sealed, photos
        self.second = Path(shutil.copy(sealed, folder / f"better{sealed.suffix}"))
        self.record = folder / "reference.npz"
        classifier = Classifier.open(sealed)
        names = ImageFolder.of(photos).names
        contents = [(photos / name).read_bytes() for name in names]
        outputs = np.stack([classifier.outputs(content) for content in contents])
        digests = np.stack([content_digest(content) for content in contents])
        part = Recorded(names, digests, outputs)
        write_reference(self.record, ReferenceFacts.of(classifier.contract), lambda: [part])

    @property
    def words(self) -> tuple[object, ...]:
        reference = ("--against", self.record, "--images", self.photos)
        return ("calibrate", self.first, "--second", self.second, *reference)


@pytest.fixture
def pair(sealed: Path, tmp_path: Path, photos: Path) -> Pair:
    return Pair(sealed, tmp_path, photos)


def _with_rule(pair: Pair, margin: float) -> None:
    """Give the first artefact a margin that no calibration chose."""
    second = read_artefact(pair.second).contract
    rule = SecondRule(
        identity(read_content(pair.second), second),
        margin,
        0.9,
        (0.95, 0.9, 1.0),
        (0.5, 0.4, 0.6),
        200,
        (),
    )
    classifier = Classifier.open(pair.first)
    contract = replace(classifier.contract, second=rule)
    write_resealed(pair.first, resealed(read_content(pair.first), contract))


def test_a_margin_is_chosen_and_stored(kedge: Run, pair: Pair) -> None:
    code, out, err = kedge(*pair.words, "--agree", "98%", "--json")
    assert code == 0, err
    report = json.loads(out)
    rule = read_artefact(pair.first).contract.second
    assert rule
    assert (rule.agree, rule.images, report["margin"]) == (0.98, 200, rule.margin)
    assert rule.margin == MARGINS[-1], "equal answers need no second opinion"
    times = report["latency"]
    share = report["asked"][0]
    assert times["pair_ms"] == pytest.approx(times["first_ms"] + share * times["second_ms"])
    code, out, _ = kedge("verify", pair.first)
    assert code == 0, out
    code, out, _ = kedge("classify", pair.first, pair.photos, "--second", pair.second)
    assert code == 0


def test_the_default_says_that_images_are_too_few(kedge: Run, pair: Pair) -> None:
    before = pair.first.read_bytes()
    code, _, err = kedge(*pair.words)
    assert code == 2
    assert "200 of 200 images" in err
    assert "images would do" in err
    assert pair.first.read_bytes() == before


def test_only_near_ties_are_asked_again(pair: Pair) -> None:
    first = Classifier.open(pair.first)
    images = sorted(pair.photos.rglob("*.png"))
    close = closeness(np.stack([first.outputs(image) for image in images]), first.contract.output)
    margin = float(np.median(close))
    _with_rule(pair, margin)
    asked = []

    class Listening(Classifier):
        def prepared_pixels(self, pixels: Pixels) -> Callable[[], Floats]:
            asked.append(pixels)
            return lambda: np.array([0, 0, 0, 1], np.float32)

    first, second = Classifier.open(pair.first), Classifier.open(pair.second)
    listening = Listening(second.artefact, second.engine)
    with SecondOpinion.open(pair.first, pair.second, threads=1) as opened:
        assert opened(images[0]).best.index == first(images[0]).best.index
    with SecondOpinion(first, listening, read_content(pair.second)) as both:
        answers = [result.best.index for result in both(images)]
        near = close < np.float32(margin)
        assert len(asked) == both.asked == near.sum()
        assert both.images == 200
        assert "asked better" in both.summary()[0]
    plain = [result.best.index for result in Classifier.open(pair.first)(images)]
    np.testing.assert_array_equal(answers, np.where(near, 3, plain))


@pytest.mark.parametrize("wrong", [None, 1, b"x", [], object()])
def test_a_wrong_type_is_a_usage_error(pair: Pair, wrong: Any) -> None:
    classifier = Classifier.open(pair.first)
    content, words = read_content(pair.second), cast(int, "2")
    calls: dict[str, Callable[[], object]] = {
        "first": lambda: SecondOpinion.open(wrong, pair.second),
        "second": lambda: SecondOpinion.open(pair.first, wrong),
        "threads": lambda: SecondOpinion.open(pair.first, pair.second, threads=words),
        "classifier": lambda: SecondOpinion(classifier, wrong, content),
    }
    for call in calls.values():
        with pytest.raises(UsageError):
            call()


def test_another_file_is_no_second_opinion(
    kedge: Run, pair: Pair, signing_key: PrivateKey, contracts: dict[str, Contract]
) -> None:
    words = ("classify", pair.first, pair.photos, "--second", pair.second)
    code, _, err = kedge(*words)
    assert code == 2
    assert "has no margin for it: `kedge calibrate" in err
    _with_rule(pair, 0.5)
    pair.second.write_bytes(signed(read_content(pair.second), signing_key, 1))
    assert kedge(*words)[0] == 0, "a signature changes no network"
    classifier = Classifier.open(pair.second)
    spec = classifier.contract.input
    turned = replace(spec, geometry=replace(spec.geometry, resize="area"))
    contract = replace(classifier.contract, input=turned)
    write_resealed(pair.second, resealed(read_content(pair.second), contract))
    code, _, err = kedge(*words)
    assert code == 2
    assert "is not the model that the margin was chosen for" in err


MISTAKES = {
    "no reference": (["--second", "x.tflite"], "--second: needs --against NPZ"),
    "no second": (["--agree", "99%"], "--agree: is for a second opinion"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_options_of_the_other_calibration_are_refused(
    kedge: Run, sealed: Path, photos: Path, name: str
) -> None:
    words, reason = MISTAKES[name]
    code, _, err = kedge("calibrate", sealed, "--images", photos, *words)
    assert code == 2
    assert reason in err


def test_classify_says_how_many_were_asked_again(kedge: Run, pair: Pair) -> None:
    _with_rule(pair, 1e9)
    words = ("classify", pair.first, pair.photos, "--second", pair.second, "--json")
    code, out, err = kedge(*words)
    assert code == 0
    assert "for 200 of 200 images (100.0" in err
    report = json.loads(out)
    assert report["artefacts"] == [str(pair.first), str(pair.second)]
    assert {row["artefact"] for row in report["results"]} == {str(pair.first)}
    code, _, err = kedge(*words, "--ensemble")
    assert code == 2
    assert "--second: is for the answers of one artefact" in err


def test_it_prepares_an_image_as_every_predictor(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Threads decode ahead; the engines run only where the prepared function is called."""
    _with_rule(pair, 1e9)
    images = sorted(pair.photos.rglob("*.png"))[:3]
    with SecondOpinion.open(pair.first, pair.second, threads=1) as both:
        ready = [both.prepared(image) for image in images]
        assert both.counts() == {"second_images": 0, "second_asked": 0}
        monkeypatch.setattr(both.first.preprocessor, "read", None)
        rows = [row() for row in ready]
        assert both.counts() == {"second_images": 3, "second_asked": 3}
    plain = Classifier.open(pair.second)
    np.testing.assert_array_equal(rows, [plain.probabilities(image) for image in images])


def _walk(pair: Pair, folder: Path) -> Path:
    """Give the pair a rule that asks again for each image, and return a video of 9 frames."""
    _with_rule(pair, 1e9)
    return write_video(folder / "walk.avi", [RED] * 9)


def test_watch_says_how_many_frames_were_asked_again(
    kedge: Run, pair: Pair, tmp_path: Path
) -> None:
    video = _walk(pair, tmp_path)
    code, _, err = kedge("watch", pair.first, "--second", pair.second, "--video", video)
    assert code == 0
    assert err.splitlines()[-1].endswith(
        f"asked {pair.second.name} for 9 of 9 images (100.0 %, expected 50.0 %)"
    )


def test_serve_counts_the_frames_that_were_asked_again(pair: Pair, tmp_path: Path) -> None:
    pytest.importorskip("starlette", reason="the server needs keras-kedge[serve]")
    video = _walk(pair, tmp_path)
    with served(pair.first, "--second", pair.second, "--video", video) as server:
        soon(lambda: server.ask("/v1/state").json()["number"] == 9)
        text = server.ask("/metrics").body.decode()
        code, err = server.end()
    assert {"kedge_second_images_total 9.0", "kedge_second_asked_total 9.0"} <= set(
        text.splitlines()
    )
    assert code == 0
    assert "for 9 of 9 images (100.0 %" in err


def test_serve_without_a_stream_says_it_of_uploads(pair: Pair) -> None:
    pytest.importorskip("starlette", reason="the server needs keras-kedge[serve]")
    _with_rule(pair, 1e9)
    with served(pair.first, "--second", pair.second) as server:
        kind = {"Content-Type": "image/png"}
        assert server.ask("/v1/classify", "POST", encoded(RED, ".png"), kind).status == 200
        code, err = server.end()
    assert code == 0
    assert "for 1 of 1 image (100.0 %" in err
    assert "frames per second" not in err
