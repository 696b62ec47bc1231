"""kill -9 at any moment of an update leaves a device that answers with a verified model."""

import json
import os
import random
import time
from pathlib import Path

import pytest

from kedge_runtime.artefact.file import seal
from kedge_runtime.artefact.golden import Golden
from kedge_runtime.artefact.signing import PrivateKey
from updated import Watched, model_file, put, sign, watched

pytest.importorskip("ai_edge_litert")

MOMENTS = int(os.environ.get("KEDGE_MOMENTS", "6"))  # a process each; 20 take minutes
EVIL = "evil"


@pytest.fixture
def evil(models: dict[str, bytes], golden: Golden) -> bytes:
    """Return an artefact that can't be verified, with classes of its own."""
    from dataclasses import replace

    from conftest import tiny_contract
    from kedge_runtime.artefact.contract import Label

    labels = tuple(Label(f"{EVIL}{index}", EVIL) for index in range(4))
    return seal("tflite", models["tflite"], replace(tiny_contract("tflite"), labels=labels), golden)


def moments(*words: object) -> list[float]:
    """Return MOMENTS times in seconds after the first answer, in random order: from none to three
    times as long as one update takes here, one from each of as many equal spans.

    The process is killed as soon as it says that it keeps the update.
    """
    with watched(*words) as running:
        running.until("answer")
        start = time.monotonic()
        running.until("update-kept")
        longest = 3 * (time.monotonic() - start)
    chance = random.Random(19)
    times = [(span + chance.random()) * longest / MOMENTS for span in range(MOMENTS)]
    return chance.sample(times, MOMENTS)


def killed(running: Watched, seconds: float) -> None:
    """Kill a process after its first answer and some seconds; read what it wrote till then."""
    running.until("answer")
    time.sleep(seconds)
    running.process.kill()
    out, _ = running.process.communicate()
    whole = out.rpartition("\n")[0]
    running.lines += map(json.loads, whole.splitlines())


@pytest.mark.slow
def test_every_answer_is_of_a_verified_model(
    tmp_path: Path, models: dict[str, bytes], evil: bytes, signing_key: PrivateKey, key_pair: Path
) -> None:
    inbox = tmp_path / "inbox"
    inbox.mkdir()
    base = sign(model_file(tmp_path / "base.tflite", models["tflite"]), signing_key, 1)
    state = ("--state", tmp_path / "state", "--shadow", 5)
    words = (base, "--updates", inbox, "--key", f"{key_pair}.pub", *state)
    first = sign(model_file(tmp_path / "first.tflite", models["tflite"]), signing_key, 2)
    good, seen = {str(put(first, inbox))}, set[str]()
    for number, seconds in enumerate(moments(*words)):
        new = tmp_path / f"v{number}.tflite"
        if number % 4 == 3:
            new.write_bytes(evil)
        else:
            model_file(new, models["tflite"], source=f"v{number}")
            good.add(str(inbox / new.name))
        put(sign(new, signing_key, 3 + number), inbox)
        with watched(*words) as running:
            killed(running, seconds)
        answers = [line for line in running.lines if "frame" in line]
        assert answers
        assert all(line["artefacts"][0] in good and line["label"] == "red" for line in answers)
        seen |= {line["artefacts"][0] for line in answers}
    assert len(seen) > 1  # some updates were complete, beside the first one, which was kept
    put(sign(model_file(tmp_path / "last.tflite", models["tflite"]), signing_key, 99), inbox)
    with watched(*words) as running:
        running.until("update-kept")
        assert running.until("answer")["artefacts"] == [str(inbox / "last.tflite")]
