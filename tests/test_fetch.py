"""`kedge fetch`: from folders and a real HTTPS server into a watched folder, or not at all."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from conftest import Run
from kedge_runtime.artefact.signing import PrivateKey
from kedge_runtime.updates import download
from kedge_runtime.updates.download import DownloadLimits
from kedge_runtime.updates.state import BadModel, Settled, VerifiedModel, write_state

pytest.importorskip("ai_edge_litert")
pytest.importorskip("cryptography", reason="signatures need keras-kedge[signing]")

from https_server import HttpsServer, dripping, endless, https_server, plain
from updated import model_file, sign


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HttpsServer]:
    with https_server(tmp_path_factory.mktemp("https")) as server:
        yield server


@pytest.fixture
def inbox(tmp_path: Path) -> Path:
    (tmp_path / "inbox").mkdir()
    return tmp_path / "inbox"


@pytest.fixture
def bird(tmp_path: Path, models: dict[str, bytes], signing_key: PrivateKey) -> Path:
    """Return a folder with `bird.tflite`, which has the serial number 7."""
    (tmp_path / "source").mkdir()
    path = model_file(tmp_path / "source" / "bird.tflite", models["tflite"])
    return sign(path, signing_key, 7)


Fetch = Callable[..., tuple[int, str, str]]


@pytest.fixture
def fetch(kedge: Run, inbox: Path, tmp_path: Path, key_pair: Path) -> Fetch:
    """Return `kedge fetch` with a key, into the inbox."""
    places = ("--updates", inbox, "--state", tmp_path / "state", "--key", f"{key_pair}.pub")
    return lambda *words: kedge("fetch", *words, *places)


def test_a_folder_gives_its_newest(
    fetch: Fetch, inbox: Path, bird: Path, models: dict[str, bytes], signing_key: PrivateKey
) -> None:
    older = model_file(bird.with_name("older.tflite"), models["tflite"], source="older")
    sign(older, signing_key, 6)
    model_file(bird.with_name("unsigned.tflite"), models["tflite"], source="unsigned")
    code, out, err = fetch(bird.parent)
    assert (code, err) == (0, "")
    assert out == f"{inbox / 'bird.tflite'}: fetched and verified, serial number 7\n"
    assert [path.name for path in inbox.iterdir()] == ["bird.tflite"]
    assert (inbox / "bird.tflite").read_bytes() == bird.read_bytes()
    assert fetch(bird.parent) == (0, f"{inbox / 'bird.tflite'}: nothing new\n", "")


def test_an_address_gives_its_file(
    fetch: Fetch,
    server: HttpsServer,
    inbox: Path,
    bird: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")
    server.answers["/bird.tflite"] = plain(b"", 302, Location="/moved", Set_Cookie="a=b")
    server.answers["/moved"] = plain(bird.read_bytes())
    server.requests.clear()
    code, out, err = fetch(f"{server.address}/bird.tflite", "--ca", server.ca)
    assert (code, err) == (0, "")
    assert out == f"{inbox / 'bird.tflite'}: fetched and verified, serial number 7\n"
    assert (inbox / "bird.tflite").read_bytes() == bird.read_bytes()
    assert len(server.requests) == 2
    assert not any("Cookie" in headers for headers in server.requests)


BAD = [
    (plain(b"", 404), "answered 404; check the address"),
    (plain(b"", 302, Location="http://127.0.0.1/x"), "a redirect away from https"),
    (plain(b"", 302, Location="/bad.tflite"), "more than 3 redirects"),
    (plain(b"", 302), "more than 3 redirects"),
    (plain(b"half", Content_Length=100), "ended after 4 of 100 bytes"),
    (plain(b"", Content_Length=1 << 40), "1099511627776 bytes or more, allowed are 1000000"),
    (endless, "bytes or more, allowed are 1000000"),
    (dripping, "took more than 1.5 s"),
    (plain(b"no artefact"), "carries no signature"),
]


@pytest.mark.parametrize(("answer", "reason"), BAD)
def test_what_a_server_does_wrong_is_one_line(
    fetch: Fetch,
    server: HttpsServer,
    inbox: Path,
    monkeypatch: pytest.MonkeyPatch,
    answer: object,
    reason: str,
) -> None:
    defaults = (1_000_000, 1.5, 1.0, 3)
    monkeypatch.setattr(download.download, "__defaults__", (DownloadLimits(*defaults),))
    server.answers["/bad.tflite"] = answer  # type: ignore[assignment]
    code, out, err = fetch(f"{server.address}/bad.tflite?token=secret", "--ca", server.ca)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert reason in err
    assert "secret" not in err
    assert list(inbox.iterdir()) == []


def test_a_server_without_a_known_authority_is_refused(
    fetch: Fetch, server: HttpsServer, inbox: Path
) -> None:
    server.requests.clear()
    code, _, err = fetch(f"{server.address}/bird.tflite")
    assert (code, err.count("\n")) == (2, 1)
    assert "certificate" in err
    assert server.requests == []


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("https://host/bird.txt", "expected https://HOST[:PORT]/PATH/NAME.tflite"),
        ("https://host/.tflite", "expected https://"),
        ("https://host/..%2Fbird.tflite", "expected https://"),
        ("https://me:secret@host/bird.tflite", "without a user"),
        ("https://host:port/bird.tflite", "no address"),
        ("http://host/bird.tflite", "no such file"),
        ("nowhere.tflite", "no such file"),
    ],
)
def test_a_wrong_source_is_one_line(fetch: Fetch, source: str, reason: str) -> None:
    code, out, err = fetch(source)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert reason in err
    assert "secret" not in err


def test_an_address_needs_a_key(kedge: Run, inbox: Path, tmp_path: Path) -> None:
    code, _, err = kedge("fetch", "https://host/bird.tflite", "--updates", inbox)
    assert (code, "needs --key" in err) == (2, True)


def test_what_fails_verify_stays_out(
    fetch: Fetch, inbox: Path, artefacts: Path, tmp_path: Path, signing_key: PrivateKey
) -> None:
    made_up = tmp_path / "bad.tflite"
    made_up.write_bytes((artefacts / "tiny.tflite").read_bytes())
    code, out, err = fetch(sign(made_up, signing_key, 9))
    assert (code, out) == (1, "")
    assert "verify failed at stage `decode`" in err
    assert list(inbox.iterdir()) == []


def test_a_roll_back_and_a_bad_model_are_refused(fetch: Fetch, bird: Path, tmp_path: Path) -> None:
    from kedge_runtime.artefact.content import read_content

    digest = read_content(bird).digest
    (tmp_path / "state").mkdir()
    used = VerifiedModel("sha256:0", "tflite", "used.tflite", 8, 1, "m")
    write_state(tmp_path / "state", Settled("sha256:0", used))
    code, _, err = fetch(bird)
    assert (code, "serial number 7, and 8 is in use" in err) == (2, True)
    used = VerifiedModel("sha256:0", "tflite", "used.tflite", 6, 1, "m")
    bad = BadModel(digest, "bird.tflite", "it crashed")
    write_state(tmp_path / "state", Settled("sha256:0", used, (bad,)))
    code, _, err = fetch(bird)
    assert (code, "was refused here before: it crashed" in err) == (2, True)
    code, _, err = fetch(bird, "--min-serial", 9)
    assert (code, "--min-serial demands 9" in err) == (2, True)


def test_a_killed_fetch_leaves_no_file_for_the_next_one(
    server: HttpsServer, fetch: Fetch, inbox: Path, bird: Path, key_pair: Path
) -> None:
    server.answers["/slow.tflite"] = dripping
    command = [sys.executable, "-m", "kedge_runtime.cli", "fetch", f"{server.address}/slow.tflite"]
    words = ["--updates", str(inbox), "--key", f"{key_pair}.pub", "--ca", str(server.ca)]
    process = subprocess.Popen([*command, *words], env=os.environ)
    end = time.monotonic() + 60
    while not list(inbox.iterdir()):
        assert time.monotonic() < end
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.wait()
    (left,) = inbox.iterdir()
    assert left.name.startswith(".kedge-")
    assert fetch(bird)[0] == 0
    assert [path.name for path in inbox.iterdir()] == ["bird.tflite"]
