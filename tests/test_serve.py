"""`kedge serve` by HTTP: answers, labels, figures, who may ask, and hostile requests."""

import asyncio
import http.client
import json
import re
import signal
import socket
import time
import weakref
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from conftest import Run
from kedge_runtime.artefact.contract import Label
from messages import answer, soon
from served import BLUE, PALE, RED, Served, encoded, served, write_video

pytest.importorskip("starlette", reason="the server needs keras-kedge[serve]")
pytest.importorskip("ai_edge_litert")

TOKEN = "a-token-of-many-signs"


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("video") / "walk.avi"
    return write_video(path, [RED] * 3 + [PALE] * 3 + [BLUE] * 3)


@pytest.fixture(scope="module")
def unsure(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("images") / "unsure"


@pytest.fixture(scope="module")
def server(artefacts: Path, video: Path, unsure: Path) -> Iterator[Served]:
    """Run a server whose video has ended: three red frames, three unsure ones, three blue."""
    words = ("--video", video, "--save-unsure", unsure, "--min-confidence", ".8")
    with served(artefacts / "tiny.tflite", *words) as server:
        soon(lambda: server.ask("/v1/state").json()["number"] == 9)
        yield server


def classify(server: Served, body: bytes, path: str = "/v1/classify", **headers: str) -> Any:
    reply = server.ask(path, "POST", body, {"Content-Type": "image/jpeg", **headers})
    return reply.status, reply.json()


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp", ".bmp"])
def test_an_image_is_answered_as_the_command_line_does(
    server: Served, artefacts: Path, tmp_path: Path, kedge: Run, suffix: str
) -> None:
    content = encoded(RED, suffix)
    (tmp_path / f"red{suffix}").write_bytes(content)
    status, answer = classify(server, content)
    command = ("classify", artefacts / "tiny.tflite", tmp_path / f"red{suffix}", "--json")
    code, out, _ = kedge(*command, "--min-confidence", ".8")
    (row,) = json.loads(out)["results"]
    del row["image"], row["artefact"]
    assert (code, status) == (0, 200)
    assert answer == {"schema": 1, "command": "serve", **row}


def test_top_bounds_the_classes(server: Served) -> None:
    _, answer = classify(server, encoded(RED), "/v1/classify?top=2")
    assert [each["name"] for each in answer["predictions"]] == ["red", "dark"]


def test_an_unsure_image_is_unknown(server: Served) -> None:
    _, answer = classify(server, encoded(PALE))
    assert (answer["label"], answer["unknown"]) == (None, True)


# 50 kB that take 140 MiB to decode.
PNG_BOMB = encoded(RED, ".png", 4900)
REFUSED = [
    (b"", 400, "the body is empty"),
    (b"words", 422, "no readable JPEG, PNG, WebP or BMP image"),
    (encoded(RED)[:300], 422, "cut short or damaged"),
    (b"\xff\xd8\xff" + b"\0" * 5000, 422, "cut short or damaged"),
    (PNG_BOMB, 422, "a PNG of 4900x4900 pixels takes "),
    (encoded(RED, ".bmp")[:18] + b"\xff\xff\xff\x7f" * 2 + b"\0" * 90, 422, "BMP"),
    (b"GIF89a" + b"\0" * 100, 422, "no readable JPEG"),
    (b"<svg onload='alert(1)'/>", 422, "no readable JPEG"),
]


@pytest.mark.parametrize(("body", "status", "text"), REFUSED)
def test_what_is_no_image_is_an_error_of_the_client(
    server: Served, body: bytes, status: int, text: str
) -> None:
    code, answer = classify(server, body)
    assert (code, list(answer)) == (status, ["error"])
    assert text in answer["error"]


@pytest.mark.parametrize(
    ("path", "headers", "status", "text"),
    [
        ("/v1/classify?top=0", {}, 400, "top: allowed are 1 to 1000"),
        ("/v1/classify?top=%C2%B2", {}, 400, "top: allowed are"),
        ("/v1/classify?top=1e9", {}, 400, "top: allowed are"),
        ("/v1/classify?top=0000000019999", {}, 400, "top: allowed are"),
        (f"/v1/classify?top=000000001{'9' * 5000}", {}, 400, "top: allowed are"),
        ("/v1/classify", {"Content-Type": "multipart/form-data; boundary=x"}, 415, "--data-binary"),
        ("/v1/classify", {"Content-Type": "application/json"}, 415, "--data-binary"),
        ("/v1/classify", {"Content-Length": "99999999"}, 413, "allowed are 16777216"),
        ("/v1/classify", {"Origin": "http://evil.example"}, 403, "another site"),
        ("/v1/classify", {"Sec-Fetch-Site": "cross-site"}, 403, "another site"),
        ("/v1/classify", {"Host": "evil.example"}, 403, "use localhost"),
        ("/v1/classify", {"Host": "[::1"}, 403, "use localhost"),
        ("/v1/other", {}, 404, "Not Found"),
        ("/healthz", {}, 405, "Method Not Allowed"),
    ],
)
def test_a_wrong_request_is_an_error_of_the_client(
    server: Served, path: str, headers: dict[str, str], status: int, text: str
) -> None:
    code, answer = classify(server, encoded(RED), path, **headers)
    assert (code, list(answer)) == (status, ["error"])
    assert text in answer["error"]


def raw(server: Served, request: bytes, seconds: float = 30) -> bytes:
    """Send bytes; return all that comes back until the server ends the connection."""
    answer = b""
    with socket.create_connection((server.host, server.port), timeout=seconds) as wire:
        wire.sendall(request)
        while data := wire.recv(1 << 16):
            answer += data
    return answer


HEAD = b"POST /v1/classify HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (HEAD + b"Transfer-Encoding: chunked\r\n\r\n5\r\nwords\r\n0\r\n\r\n", 411),
        (HEAD + b"Content-Length: " + b"9" * 300 + b"\r\n\r\n", 400),
        (HEAD + b"Content-Length: -5\r\n\r\n", 400),
        (HEAD + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\nwords", 400),
        (b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"x" * 17_000, 400),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" * 9, 400),
        (b"GET /../../etc/passwd HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n", 404),
        (b"GET /%00%ff HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n", 404),
        (b"BREW / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n", 405),
        (b"GET /v1/state?after=%E2%82%AC HTTP/1.0\r\nHost: localhost\r\n\r\n", 400),
        (b"GET /v1/unsure/..%2f..%2fx.jpg HTTP/1.0\r\nHost: localhost\r\n\r\n", 404),
    ],
)
def test_bytes_that_are_no_request_are_refused(
    server: Served, request_: bytes, status: int
) -> None:
    first = raw(server, request_).partition(b"\r\n")[0].split()
    assert int(first[1]) == status
    assert server.ask("/healthz").status == 200


def test_a_client_that_leaves_early_harms_nobody(server: Served) -> None:
    for sent in (b"", b"POST /v1/cl", HEAD, HEAD + b"Content-Length: 900\r\n\r\nwords"):
        with socket.create_connection((server.host, server.port)) as wire:
            wire.sendall(sent)
    assert classify(server, encoded(RED))[0] == 200


@pytest.mark.parametrize("path", ["/v1/unsure/a.jpg/label", "/login", "/v1/classify"])
def test_a_client_that_leaves_writes_nothing_to_the_log(
    artefacts: Path, tmp_path: Path, path: str
) -> None:
    words = ("--save-unsure", tmp_path, "--min-confidence", ".8")
    with served(artefacts / "tiny.tflite", *words, env={"KEDGE_TOKEN": TOKEN}) as server:
        head = f"POST {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {TOKEN}\r\n"
        with socket.create_connection((server.host, server.port)) as wire:
            wire.sendall(f"{head}Content-Length: 900\r\n\r\nwords".encode())
            time.sleep(0.3)
        soon(lambda: server.ask("/healthz").status == 200)
        assert server.end() == (0, "")


def test_a_bug_is_one_line_in_the_log(capsys: pytest.CaptureFixture[str]) -> None:
    from starlette.requests import Request
    from starlette.routing import Route

    from kedge_runtime.serve import app

    async def broken(_: Request) -> None:
        raise ValueError("of a kind that nobody foresaw")

    answer = asyncio.run(app._answered(Route("/", broken), Request({"type": "http"})))
    (line,) = capsys.readouterr().err.splitlines()
    assert answer.status_code == 500
    assert "internal error: ValueError: of a kind that nobody foresaw" in line


@pytest.mark.slow
def test_a_client_that_never_ends_its_head_is_left(server: Served) -> None:
    began = time.monotonic()
    assert raw(server, b"GET / HTTP/1.1\r\nHost: local") == b""
    assert 8 < time.monotonic() - began < 20


@pytest.mark.slow
def test_a_client_that_never_ends_its_body_is_left(server: Served) -> None:
    answer = raw(server, HEAD + b"Content-Length: 900\r\n\r\nwords", 40)
    assert answer.startswith(b"HTTP/1.1 408 ")


@pytest.mark.slow
def test_a_login_that_never_ends_is_left(guarded: Served) -> None:
    head = b"POST /login HTTP/1.1\r\nHost: localhost\r\nContent-Length: 900\r\n\r\nwords"
    began = time.monotonic()
    assert raw(guarded, head, 60) == b""
    assert 25 < time.monotonic() - began < 50


def test_fifty_at_once_are_answered(server: Served) -> None:
    bodies = [encoded(RED), b"words", encoded(BLUE, ".png"), PNG_BOMB, encoded(RED)[:200]] * 10
    expected = [200, 422, 200, 422, 422] * 10
    with ThreadPoolExecutor(50) as pool:
        statuses = list(pool.map(lambda body: classify(server, body)[0], bodies))
    assert statuses == expected


def test_a_kept_connection_answers_without_delay(server: Served) -> None:
    """With Nagle's algorithm each answer takes 40 ms."""
    connection, seconds = http.client.HTTPConnection(server.host, server.port, timeout=30), []
    for _ in range(30):
        began = time.monotonic()
        connection.request("GET", "/healthz")
        connection.getresponse().read()
        seconds.append(time.monotonic() - began)
    connection.close()
    assert sorted(seconds)[10] < 0.03


# The page's own requests


def test_the_state_has_the_result_and_the_history(server: Served) -> None:
    state = server.ask("/v1/state").json()
    assert state["result"]["label"] == "blue"
    assert [row["label"] for row in state["history"]] == ["blue"] * 3 + [None] * 3 + ["red"] * 3
    assert server.ask("/v1/state?after=7").json()["history"] == state["history"][:2]


def test_the_history_keeps_no_frame() -> None:
    from kedge_runtime.serve.view import View

    view, frames = View(), weakref.WeakSet[Any]()
    for index in range(50):
        message = answer(index)
        frames.add(message.frame)
        view.put(message)
        del message
    assert len(frames) == 0
    assert len(view.state(0)["history"]) == 50


def test_the_live_image_is_the_newest_frame(server: Served) -> None:
    still = server.ask("/live.jpg")
    assert (still.status, still.headers["content-type"]) == (200, "image/jpeg")
    with socket.create_connection((server.host, server.port), timeout=10) as wire:
        wire.sendall(b"GET /live.mjpg HTTP/1.1\r\nHost: localhost\r\n\r\n")
        data = b""
        while still.body not in data:
            data += wire.recv(1 << 16)
    assert b"multipart/x-mixed-replace; boundary=frame" in data
    assert b"--frame\r\nContent-Type: image/jpeg\r\n" in data


def test_every_answer_keeps_a_browser_from_other_hosts(server: Served) -> None:
    for path in ("/", "/page.js", "/page.css", "/v1/state", "/nothing"):
        headers = server.ask(path).headers
        assert headers["content-security-policy"].startswith("default-src 'none'; img-src 'self'")
        assert headers["x-content-type-options"] == "nosniff"
    for path in ("/", "/page.js", "/page.css", "/icon.svg"):
        hosts = set(re.findall(rb"https?://[^\s\"'<>]+", server.ask(path).body))
        assert hosts <= {b"http://www.w3.org/2000/svg"}  # the name of a language, not an address


def test_labels_move_images_into_folders(server: Served, unsure: Path) -> None:
    listed = server.ask("/v1/unsure").json()
    assert listed["count"] == len(listed["images"]) == 3
    assert [each["name"] for each in listed["classes"]] == ["red", "green", "blue", "dark"]
    first, second, third = listed["images"]
    content = server.ask(f"/v1/unsure/{first}").body
    assert content == (unsure / first).read_bytes()
    body = json.dumps({"label": "t2"}).encode()
    reply = server.ask(f"/v1/unsure/{first}/label", "POST", body)
    assert (reply.status, reply.json()["folder"]) == (200, "blue")
    labelled = unsure.parent / "labelled"
    assert (labelled / "blue" / first).read_bytes() == content
    # A second click, another class, a class that isn't, and what is no request.
    path = f"/v1/unsure/{second}/label"
    wrong = [
        (f"/v1/unsure/{first}/label", body, 404),
        ("/v1/unsure/..%2fx.jpg/label", body, 404),
        (path, b'{"label": "t9"}', 400),
        (path, b'{"label": 3}', 400),
        (path, b"[" * 4000, 400),
        (path, b"x" * 5000, 400),
    ]
    assert [server.ask(p, "POST", b).status for p, b, _ in wrong] == [s for _, _, s in wrong]
    assert server.ask(f"/v1/unsure/{third}", "DELETE").status == 204
    assert server.ask(f"/v1/unsure/{third}", "DELETE").status == 404
    assert server.ask("/v1/unsure").json()["images"] == [second]
    assert [path.name for path in labelled.rglob("*.jpg")] == [first]


def test_a_label_never_replaces_an_image_or_leaves_the_folder(tmp_path: Path) -> None:
    from kedge_runtime import ImageError, UsageError
    from kedge_runtime.serve.labelling import UnsureLabelling, folder_name

    unsure, labelled = tmp_path / "unsure", tmp_path / "labelled"
    unsure.mkdir()
    labels = [
        Label("n1", "grey heron"),
        Label("n2", "../../etc"),
        Label("..", ".."),
        Label("n4", "a/b"),
    ]
    assert [folder_name(each) for each in labels] == ["grey heron", "n2", "__", "n4"]
    moving = UnsureLabelling(unsure, labelled, labels)
    (unsure / "a.jpg").write_bytes(b"new")
    (labelled / "grey heron").mkdir(parents=True)
    (labelled / "grey heron" / "a.jpg").write_bytes(b"old")
    with pytest.raises(UsageError, match="can't be written"):
        moving.label("a.jpg", "n1")
    assert (labelled / "grey heron" / "a.jpg").read_bytes() == b"old"
    assert (unsure / "a.jpg").read_bytes() == b"new"
    (unsure / "link.jpg").symlink_to("/etc/passwd")
    for name in ("link.jpg", "../a.jpg", ".a.jpg", "a.png", "", "a\0.jpg"):
        with pytest.raises(ImageError, match="no such image"):
            moving.read(name)


# What programs ask


def test_the_description_names_each_path_and_each_error(server: Served) -> None:
    described = server.ask("/openapi.json").json()
    assert described["openapi"].startswith("3.1")
    for path, verbs in described["paths"].items():
        if "get" in verbs and path != "/live.mjpg":
            assert server.ask(path).status == 200, path
    responses = described["paths"]["/v1/classify"]["post"]["responses"]
    jsonschema = pytest.importorskip("jsonschema")
    for body in (encoded(RED), *(each[0] for each in REFUSED)):
        status, answer = classify(server, body)
        schema = responses[str(status)]["content"]["application/json"]["schema"]
        jsonschema.Draft202012Validator.check_schema(schema)
        jsonschema.validate(answer, schema)


def test_the_figures_are_those_of_the_stream(server: Served) -> None:
    text = server.ask("/metrics").body.decode()
    figures = dict(re.findall(r"^(kedge_\w+) ([\d.]+)$", text, flags=re.MULTILINE))
    assert figures["kedge_frames_total"] == figures["kedge_classified_total"] == "9.0"
    assert figures["kedge_saved_total"] == "3.0"
    assert figures["kedge_source_up"] == "1.0"
    assert 'kedge_request_seconds_count{path="/healthz",status="200"}' in text
    assert "process_resident_memory_bytes" in text
    # A client can't make up names.
    server.ask("/made-up-by-a-client")
    assert "made-up" not in server.ask("/metrics").body.decode()


# Who may ask


@pytest.fixture(scope="module")
def guarded(artefacts: Path) -> Iterator[Served]:
    with served(artefacts / "tiny.tflite", env={"KEDGE_TOKEN": TOKEN}) as server:
        yield server


def test_a_token_is_asked_for(guarded: Served) -> None:
    for path in ("/", "/v1/state", "/metrics", "/live.jpg", "/openapi.json", "/page.js"):
        assert guarded.ask(path).status == 401, path
        for wrong in ("Bearer wrong-token-of-signs", "Bearer", f"Basic {TOKEN}", "Bearer \xff"):
            assert guarded.ask(path, headers={"Authorization": wrong}).status == 401, wrong
    assert guarded.ask("/healthz").json() == {"status": "ok", "source": True}
    bearer = {"Authorization": f"Bearer {TOKEN}"}
    assert guarded.ask("/v1/state", headers=bearer).status == 200
    assert classify(guarded, encoded(RED), **bearer)[0] == 200
    assert classify(guarded, encoded(RED))[0] == 401


def test_a_browser_is_led_to_the_login_and_back(guarded: Served) -> None:
    page = guarded.ask("/", headers={"Accept": "text/html"})
    assert (page.status, page.headers["location"]) == (303, "/login")
    assert guarded.ask("/login", "POST", b"wrong").status == 401
    assert guarded.ask("/login", "POST", b"x" * 9999).status == 413
    login = guarded.ask("/login", "POST", TOKEN.encode())
    cookie = login.headers["set-cookie"]
    assert login.status == 204
    assert "HttpOnly" in cookie and "SameSite=strict" in cookie
    assert guarded.ask("/", headers={"Cookie": cookie.partition(";")[0]}).status == 200


def test_a_rate_is_held(artefacts: Path) -> None:
    with served(artefacts / "tiny.tflite", "--rate", 5) as server:
        statuses = [server.ask("/v1/state").status for _ in range(30)]
        assert {200, 429} == set(statuses)
        assert statuses.count(200) <= 15
        time.sleep(1.1)
        assert server.ask("/v1/state").status == 200


MISTAKES = [
    (["--host", "é..b"], {"KEDGE_TOKEN": TOKEN}, "--port 0: can't listen there (no host name)"),
    (["--host", "0.0.0.0"], {}, "others can reach it, so it needs a token"),
    (["--host", "0.0.0.0"], {"KEDGE_TOKEN": "short"}, "at least 16 printable ASCII characters"),
    (["--token-file", "missing"], {}, "--token-file: missing: no such file"),
    (["--labelled", "x"], {}, "--labelled: takes the images of --save-unsure"),
    (["--mqtt", "mqtt://h"], {}, "--mqtt: is for a stream; give --camera or --video, too"),
    (["--motion", "0"], {}, "--motion: is for a stream"),
    (["--camera", "97"], {}, "camera 97: can't be opened"),
    (["--save-unsure", "x"], {}, "--save-unsure needs --min-confidence"),
]


@pytest.mark.parametrize(("words", "env", "message"), MISTAKES)
def test_a_mistake_is_one_line(
    artefacts: Path,
    kedge: Run,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    words: list[str],
    env: dict[str, str],
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    for name, value in env.items():
        monkeypatch.setenv(name, value)
    code, out, err = kedge("serve", artefacts / "tiny.tflite", "--port", 0, *words)
    (line,) = err.splitlines()
    assert (code, out) == (2, "")
    assert message in line


def test_a_port_in_use_is_one_line(artefacts: Path, kedge: Run, server: Served) -> None:
    code, _, err = kedge("serve", artefacts / "tiny.tflite", "--port", server.port)
    assert (code, err.count("\n")) == (2, 1)
    assert "can't listen there (address already in use" in err


def test_without_the_extra_the_command_is_named(
    artefacts: Path, kedge: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "uvicorn", None)
    for name in ("running", "server"):
        monkeypatch.delitem(sys.modules, f"kedge_runtime.serve.{name}", raising=False)
    code, _, err = kedge("serve", artefacts / "tiny.tflite")
    assert (code, err.count("\n")) == (2, 1)
    assert "uvicorn isn't installed: pip install 'keras-kedge[serve]'" in err


# How it ends


@pytest.mark.parametrize("end", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_it_well(artefacts: Path, video: Path, end: signal.Signals) -> None:
    # OpenCV reads a file as it does a camera; kedge opens it again at its end.
    with served(artefacts / "tiny.tflite", "--camera", video) as server:
        soon(lambda: server.ask("/v1/state").json()["number"] > 3)
        with socket.create_connection((server.host, server.port)) as wire:
            wire.sendall(b"GET /live.mjpg HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert wire.recv(99)  # someone looks on
            began = time.monotonic()
            code, err = server.end(end)
    assert code == 0
    assert time.monotonic() - began < 10
    assert err.count("\n") == 1, err
    assert err.endswith(" frames per second\n")


def test_a_stream_that_fails_ends_the_server() -> None:
    from kedge_runtime import ImageError
    from kedge_runtime.serve.address import Address
    from kedge_runtime.serve.server import Work, run

    async def app(scope: Any, receive: Any, send: Any) -> None: ...

    def stream() -> None:
        time.sleep(0.3)
        raise ImageError("camera 0: its driver has hung")

    stopped: list[bool] = []
    with Address(port=0).bind() as listening, pytest.raises(ImageError, match="has hung"):
        run(app, listening, Work(stream, lambda: None, lambda: stopped.append(True)))
    assert stopped == [True]
