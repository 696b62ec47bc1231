"""`kedge watch --updates`: a newer model is verified, run beside the old one, and switched to."""

import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import updated
from conftest import Run
from full_disk import fill, small_file_system
from kedge_runtime.artefact.content import read_content
from kedge_runtime.artefact.signing import PrivateKey
from kedge_runtime.engines.choice import EngineOptions
from kedge_runtime.errors import ArtefactError
from kedge_runtime.updates import beginning
from kedge_runtime.updates import state as states
from kedge_runtime.updates.shadow import ShadowLimits
from kedge_runtime.updates.state import BadModel, OnTrial, Settled, VerifiedModel
from kedge_runtime.updates.store import ModelStore
from kedge_runtime.updates.updater import UpdatePlan
from kedge_runtime.updates.verifying import RefusedUpdateError, UntriedError
from messages import soon
from updated import CRASHING, Watched, model_file, put, sign, watched

pytest.importorskip("ai_edge_litert")

QUICK = ("--shadow", 5)
LIMITS = ShadowLimits(5)


@pytest.fixture(scope="module")
def model(models: dict[str, bytes]) -> bytes:
    return models["tflite"]


@pytest.fixture
def base(tmp_path: Path, model: bytes) -> Path:
    return model_file(tmp_path / "base.tflite", model)


@pytest.fixture
def inbox(tmp_path: Path) -> Path:
    (tmp_path / "inbox").mkdir()
    return tmp_path / "inbox"


Watch = Callable[..., Watched]


@pytest.fixture
def watch(base: Path, inbox: Path, tmp_path: Path) -> Iterator[Watch]:
    """Return a function that runs `kedge watch` on base and inbox."""
    from contextlib import ExitStack

    with ExitStack() as stack:
        words = (base, "--updates", inbox, "--state", tmp_path / "state", *QUICK)
        yield lambda *more: stack.enter_context(watched(*words, *more))


def test_a_newer_model_is_tried_switched_to_and_kept_across_a_restart(
    watch: Watch, base: Path, inbox: Path, tmp_path: Path, model: bytes
) -> None:
    running = watch()
    assert running.until("answer")["artefacts"] == [str(base)]
    new = put(model_file(tmp_path / "new.tflite", model, ("red", "green", "blue", "x")), inbox)
    assert running.until("update-shadow")["text"].startswith(f"{new}: verified; it runs beside")
    assert "agreement 100.0 % on 5 frames" in running.until("update-switched")["text"]
    running.until("update-kept")
    assert running.until("answer")["artefacts"] == [str(new)]
    running.stop()
    frames = [line["frame"] for line in running.lines if "frame" in line]
    assert all(line["label"] == "red" for line in running.lines if "frame" in line)
    # Each frame of the camera was answered, but for those that a busy machine was late for.
    dropped = [line["dropped"] for line in running.lines if "frame" in line]
    # A signal that meets Python in the write of a line has it written again at the end.
    if frames[-2:-1] == frames[-1:]:
        frames.pop()
    assert frames == sorted(set(frames))
    assert frames[-1] + 1 - len(frames) <= dropped[-1]
    new.unlink()
    again = watch()
    assert again.until("answer")["artefacts"] == [str(new)]
    assert again.kinds == []


def test_a_model_that_fails_verify_is_refused_once(
    watch: Watch, base: Path, inbox: Path, artefacts: Path, tmp_path: Path
) -> None:
    running = watch()
    running.until("answer")
    put(artefacts / "tiny.tflite", inbox)  # its golden set is made up
    refused = running.until("update-refused")
    assert "verify failed at stage `decode`" in refused["text"]
    running.stop()
    state = states.read_state(tmp_path / "state")
    assert isinstance(state, Settled)
    assert [Path(each.name).name for each in state.bad] == ["tiny.tflite"]
    again = watch()
    for _ in range(40):
        assert again.until("answer")["artefacts"] == [str(base)]
    assert again.kinds == []


def test_a_model_that_disagrees_is_refused(
    watch: Watch, base: Path, inbox: Path, tmp_path: Path, model: bytes
) -> None:
    running = watch()
    running.until("answer")
    put(model_file(tmp_path / "turned.tflite", model, ("blue", "green", "red", "dark")), inbox)
    text = running.until("update-refused")["text"]
    assert "it agrees with the old model on 0 of 2 frames; at least 80.0 % of 5" in text
    assert running.until("answer")["artefacts"] == [str(base)]


def test_a_model_that_ends_the_process_is_bad_in_the_next_one(
    watch: Watch, base: Path, inbox: Path, tmp_path: Path, model: bytes
) -> None:
    running = watch()
    running.until("answer")
    names = ("red", "green", "blue", CRASHING)
    deadly = put(model_file(tmp_path / "deadly.tflite", model, names), inbox)
    running.until_end()
    assert running.process.wait(30) == -9
    assert isinstance(states.read_state(tmp_path / "state"), OnTrial)
    again = watch()
    answer = again.until("answer")
    assert answer["artefacts"] == [str(base)]
    reverted = again.until("update-reverted")["text"]
    assert reverted == (f"{deadly}: the process ended while it was on trial; {base} answers again")
    for _ in range(40):
        again.until("answer")
    assert again.kinds == ["update-reverted"]


def test_signatures_decide_what_is_newer(
    watch: Watch,
    base: Path,
    inbox: Path,
    tmp_path: Path,
    model: bytes,
    signing_key: PrivateKey,
    key_pair: Path,
) -> None:
    sign(base, signing_key, 5)
    running = watch("--key", f"{key_pair}.pub")
    running.until("answer")
    older, unsigned, newer = (
        model_file(tmp_path / f"{name}.tflite", model, source=name)
        for name in ("older", "unsigned", "newer")
    )
    put(sign(older, signing_key, 4), inbox)
    put(unsigned, inbox)
    assert "unsigned.tflite: carries no signature" in running.until("update-refused")["text"]
    put(sign(newer, signing_key, 6), inbox)
    switched = running.until("update-switched")
    assert (switched["text"].partition(":")[0], switched["figures"]) == (
        str(inbox / "newer.tflite"),
        {"serial": 6},
    )
    running.until("update-kept")
    running.stop()
    assert running.kinds.count("update-shadow") == 1


def test_a_second_process_needs_a_folder_of_its_own(watch: Watch) -> None:
    watch().until("answer")
    err = watch().ended()
    assert err.count("\n") == 1
    assert "--updates: another kedge uses" in err
    assert "give each a folder of its own with --state" in err


def test_a_base_that_fails_verify_never_answers(
    kedge: Run, artefacts: Path, inbox: Path, tmp_path: Path
) -> None:
    words = ("--camera", "0", "--updates", inbox, "--state", tmp_path / "state")
    code, out, err = kedge("watch", artefacts / "tiny.tflite", *words)
    assert (code, out) == (2, "")
    assert "verify failed at stage `decode`" in err


@pytest.mark.parametrize(
    ("error", "bad"), [(UntriedError("no process"), 0), (RefusedUpdateError("stage `x`"), 1)]
)
def test_a_model_that_could_not_be_tried_is_not_bad(
    base: Path,
    inbox: Path,
    tmp_path: Path,
    model: bytes,
    monkeypatch: pytest.MonkeyPatch,
    error: Exception,
    bad: int,
) -> None:
    new = read_content(model_file(tmp_path / "new.tflite", model, source="new"))
    store, plan = ModelStore(tmp_path / "state"), UpdatePlan(inbox, None, EngineOptions(), LIMITS)
    copy = store.put(new)
    used = VerifiedModel(new.digest, "tflite", str(new.path), None, 1, "other software")
    store.write(Settled(read_content(base).digest, used))

    def verify(path: Path, *_: object, nice: int) -> None:
        if path == copy:
            raise error

    monkeypatch.setattr(beginning, "verify_apart", verify)
    begun = beginning.begin(base, store, plan)
    store.close()
    assert begun.state.in_use.name == str(base)
    assert len(begun.state.bad) == bad
    assert f"{base} answers again" in begun.lines[0]


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["--video", "walk.avi", "--updates", "."], "needs --camera"),
        (["--camera", "0", "--updates", ".", "--ensemble"], "takes one artefact"),
        (["--camera", "0", "--updates", ".", "--delegate", "edgetpu"], "one model at a time"),
        (["--camera", "0", "--updates", "nowhere"], "no such folder; create it"),
        (["--camera", "0", "--updates", ".", "--labels", "x.txt"], "omit --labels"),
        (["--camera", "0", "--shadow", "9"], "are for --updates DIR"),
    ],
)
def test_options_that_do_not_fit(kedge: Run, base: Path, words: list[str], reason: str) -> None:
    code, _, err = kedge("watch", base, *words)
    assert code == 2
    assert reason in err


MODEL = VerifiedModel("sha256:" + "0" * 64, "tflite", "old.tflite", 3, 17, "m")
NEW = VerifiedModel("sha256:" + "1" * 64, "tflite", "new.tflite", None, 18, "m")


@pytest.mark.parametrize(
    "state",
    [
        Settled("sha256:b", MODEL),
        Settled("sha256:b", MODEL, (BadModel("sha256:c", "bad.tflite", "why"),)),
        OnTrial("sha256:b", NEW, MODEL),
    ],
)
def test_a_state_is_read_as_it_was_written(state: states.UpdateState, tmp_path: Path) -> None:
    assert states.read_state(tmp_path) is None
    states.write_state(tmp_path, state)
    assert states.read_state(tmp_path) == state


def test_a_damaged_state_is_an_error(tmp_path: Path) -> None:
    whole = states.to_bytes(Settled("sha256:b", MODEL))
    for cut in range(0, len(whole), 7):
        with pytest.raises(ArtefactError, match="damaged"):
            states.from_bytes(whole[:cut])
    with pytest.raises(ArtefactError, match="damaged"):
        states.from_bytes(whole.replace(b"old", b"odd"))


def test_states_follow_each_other() -> None:
    settled = Settled("sha256:b", MODEL)
    trial = settled.trying(NEW)
    assert trial.passed() == Settled("sha256:b", NEW)
    assert trial.interrupted() == settled
    assert trial.failed("why") == settled.refusing(BadModel(NEW.digest, NEW.name, "why"))
    full = settled
    for number in range(states.MOST_BAD + 9):
        full = full.refusing(BadModel(str(number), "", ""))
    assert len(full.bad) == states.MOST_BAD
    assert full.bad[-1].digest == str(states.MOST_BAD + 8)


def test_updates_wait_for_a_disk_and_answers_go_on(
    watch: Watch, inbox: Path, tmp_path: Path, model: bytes
) -> None:
    running = watch()
    running.until("answer")
    copies = tmp_path / "state" / "models"
    away = copies.rename(tmp_path / "away")
    new = put(model_file(tmp_path / "new.tflite", model, source="new"), inbox)
    assert running.process.stderr is not None
    assert "updates wait: " in running.process.stderr.readline()
    running.until("answer")
    away.rename(copies)
    running.until("update-kept")
    assert running.until("answer")["artefacts"] == [str(new)]
    assert running.kinds == ["update-shadow", "update-switched", "update-kept"]


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    with small_file_system(tmp_path / "small") as folder:
        yield folder


@pytest.mark.parametrize("known", [True, False], ids=["a second start", "the first start"])
def test_a_start_on_a_full_disk_answers_and_updates_wait(
    base: Path, inbox: Path, tmp_path: Path, model: bytes, small_disk: Path, known: bool
) -> None:
    words = (base, "--updates", inbox, "--state", small_disk, *QUICK)
    if known:
        with watched(*words) as running:
            running.until("answer")
            running.process.kill()
        (small_disk / "updates.json").write_bytes(b"damaged")  # so that it is to be written
    filler = fill(small_disk)
    with watched(*words) as running:
        assert running.until("answer")["artefacts"] == [str(base)]
        new = put(model_file(tmp_path / "new.tflite", model, source="new"), inbox)
        filler.unlink()
        running.until("update-kept")
        assert running.until("answer")["artefacts"] == [str(new)]
        assert "updates wait: " in running.stop()


def test_serve_tells_its_page_and_its_log(
    base: Path, inbox: Path, tmp_path: Path, model: bytes
) -> None:
    pytest.importorskip("starlette", reason="the server needs keras-kedge[serve]")
    from served import encoded, served

    words = (base, "--camera", 0, "--updates", inbox, "--state", tmp_path / "state", *QUICK)
    path = {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    with served(*words, env=path, program=[updated.__file__]) as server:
        assert server.ask("/v1/state").json()["artefacts"] == [str(base)]
        put(model_file(tmp_path / "newer.tflite", model, ("red", "y", "z", "x")), inbox)

        def history() -> list[str]:
            rows = server.ask("/v1/state").json()["history"]
            return [row["kind"] for row in reversed(rows) if "kind" in row]

        soon(lambda: "update-kept" in history(), 240)
        assert server.ask("/v1/state").json()["artefacts"] == [str(inbox / "newer.tflite")]
        answer = server.ask("/v1/classify", "POST", encoded((0, 255, 0))).json()
        assert answer["best"]["name"] in ("red", "y", "z", "x")
        code, err = server.end()
    assert "newer.tflite: kept after 5 frames" in err
    assert code == 0
