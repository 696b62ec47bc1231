"""How the commands use a terminal: colours, width, wrapping, and how much they say."""

import os
import pty
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from conftest import Run
from kedge_runtime import terminal
from kedge_runtime.errors import UsageError, about, counted
from kedge_runtime.output import say
from kedge_runtime.terminal import is_coloured, wrapped, wrapped_command

pytest.importorskip("ai_edge_litert")

IMAGE = Path(__file__).parent.parent / "models/kedge_models/demo/samples/star_0.jpg"
TINY = Path(__file__).parent / "models/tiny.tflite"
SETTINGS = ("NO_COLOR", "FORCE_COLOR", "CLICOLOR", "CLICOLOR_FORCE", "COLUMNS", "TERM")


def _environment(settings: dict[str, str]) -> dict[str, str]:
    return {name: each for name, each in os.environ.items() if name not in SETTINGS} | settings


def _command(arguments: tuple[object, ...]) -> list[str]:
    return [sys.executable, "-m", "kedge_runtime.cli", *map(str, arguments)]


def on_terminal(*arguments: object, **settings: str) -> str:
    """Return what `kedge` writes to a terminal, with lines that end in a newline alone."""
    side, stream = pty.openpty()
    environment = _environment({"TERM": "xterm"} | settings)
    with subprocess.Popen(
        _command(arguments), stdout=stream, stderr=stream, env=environment
    ) as process:
        os.close(stream)
        written = b"".join(_parts(side))
    os.close(side)
    assert process.returncode in (0, 1, 2), written
    return written.decode().replace("\r\n", "\n")


def _parts(side: int) -> Iterator[bytes]:
    while True:
        try:
            part = os.read(side, 65536)
        except OSError:  # Linux: nobody writes any more
            return
        if not part:
            return
        yield part


def in_pipe(*arguments: object, **settings: str) -> "subprocess.CompletedProcess[str]":
    """Return what `kedge` writes to pipes."""
    return subprocess.run(
        _command(arguments),
        capture_output=True,
        text=True,
        check=False,
        env=_environment(settings),
    )


@pytest.fixture
def artefact(artefacts: Path) -> Path:
    return artefacts / "tiny.tflite"


# Settings -> whether a terminal, and whether a pipe, gets colours.
COLOURS: dict[str, tuple[dict[str, str], bool, bool]] = {
    "nothing": ({}, True, False),
    "NO_COLOR": ({"NO_COLOR": "1"}, False, False),
    "empty NO_COLOR": ({"NO_COLOR": ""}, True, False),
    "FORCE_COLOR": ({"FORCE_COLOR": "1"}, True, True),
    "CLICOLOR_FORCE": ({"CLICOLOR_FORCE": "1"}, True, True),
    "CLICOLOR_FORCE=0": ({"CLICOLOR_FORCE": "0"}, True, False),
    "CLICOLOR=0": ({"CLICOLOR": "0"}, False, False),
    "both": ({"NO_COLOR": "1", "FORCE_COLOR": "1"}, False, False),
    "dumb": ({"TERM": "dumb"}, False, False),
}


@pytest.mark.parametrize("name", COLOURS)
def test_verify_and_doctor_are_coloured_where_the_user_wants_it(name: str, artefact: Path) -> None:
    settings, live, piped = COLOURS[name]
    assert ("\x1b[31m" in on_terminal("verify", artefact, **settings)) is live
    assert ("\x1b[32m" in in_pipe("doctor", **settings).stdout) is piped


def test_colours_change_no_word(artefact: Path) -> None:
    plain = in_pipe("verify", artefact).stdout
    assert "FAILED" in plain
    assert on_terminal("verify", artefact, NO_COLOR="1") == plain


@pytest.mark.parametrize("columns", [60, 80, 120])
def test_an_error_wraps_between_words_on_a_terminal(
    columns: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    model = Path("m.tflite")
    model.write_bytes(TINY.read_bytes())
    whole = in_pipe("classify", model, IMAGE, COLUMNS=str(columns)).stderr
    shown = on_terminal("classify", model, IMAGE, COLUMNS=str(columns))
    assert max(len(line) for line in shown.splitlines() if " " in line.strip()) <= columns
    assert shown.replace("\\\n", " ").split() == whole.split()
    assert whole.count("\n") == 1


def test_the_command_to_copy_is_a_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    model = Path("my model.tflite")
    model.write_bytes(TINY.read_bytes())
    shown = on_terminal("classify", model, IMAGE, COLUMNS="80")
    command = shown[shown.index("  kedge classify") :].replace("kedge", "printf '%s\\n'", 1)
    words = subprocess.run(["sh", "-c", command], capture_output=True, text=True, check=True)
    assert words.stdout.splitlines()[:3] == ["classify", "my model.tflite", "IMAGE"]
    assert words.stdout.splitlines()[-2:] == ["--head", "KIND"]


def test_counts_are_grouped_as_other_numbers() -> None:
    assert [counted(n, "image") for n in (1, 999, 1000)] == [
        "1 image",
        "999 images",
        "1 000 images",
    ]


def test_an_image_and_its_class_fit_a_narrow_terminal(artefact: Path) -> None:
    """In a pipe the path stays where it was."""
    words = ("classify", artefact, IMAGE, "--top", "1")
    printed = [on_terminal(*words, COLUMNS=text) for text in ("80", "120")]
    printed.append(in_pipe(*words).stdout)
    assert [text.index(str(IMAGE)) for text in printed] == [25, 41, 41]


def test_a_long_word_stays_whole() -> None:
    assert wrapped(f"no such file: {'x' * 30} here", 20) == ["no such file:", "x" * 30, "here"]


def test_a_number_stays_beside_its_unit() -> None:
    assert wrapped("an agreement of 94.6 % on it", 20) == ["an agreement of", "94.6 % on it"]
    assert wrapped("they have 456 718 bytes", 15) == ["they have", "456 718 bytes"]


def test_a_command_is_broken_between_its_options() -> None:
    options = "--normalisation 'scale=1/255 mean=.5' --to tflite:int8"
    lines = wrapped_command(f"kedge convert 'my model.keras' {options}", 50)
    assert lines == [
        "  kedge convert 'my model.keras' \\",
        "    --normalisation 'scale=1/255 mean=.5' \\",
        "    --to tflite:int8",
    ]


def test_a_command_keeps_its_place_in_an_error_that_gets_a_name() -> None:
    with pytest.raises(UsageError) as caught, about("m.keras"):
        raise UsageError("give --fit. Then run:", run="kedge x --fit crop")
    assert str(caught.value) == "m.keras: give --fit. Then run: kedge x --fit crop"
    assert caught.value.run == "kedge x --fit crop"


def test_a_message_is_one_line_in_a_pipe(capfd: pytest.CaptureFixture[str]) -> None:
    say("many words " * 30)
    assert capfd.readouterr().err.count("\n") == 1


def test_help_uses_the_width(artefact: Path) -> None:
    narrow, wide = (in_pipe("classify", "--help", COLUMNS=str(n)).stdout for n in (60, 120))
    assert max(map(len, narrow.splitlines())) <= 60
    assert max(map(len, wide.splitlines())) > 80


@pytest.mark.parametrize("flag", ["-V", "--version"])
def test_the_version(kedge: Run, flag: str) -> None:
    code, out, _ = kedge(flag)
    assert (code, out.startswith("kedge, version ")) == (0, True)


# An unknown command -> what is suggested.
NEAR = {"clasify": "classify", "int": "inspect", "benchmark": "bench", "input": "fit-input"}


@pytest.mark.parametrize("word", NEAR)
def test_an_unknown_command_gets_the_nearest(kedge: Run, word: str) -> None:
    code, _, err = kedge(word)
    assert code == 2
    assert err.startswith(f"kedge: No such command '{word}'. Did you mean ")
    assert NEAR[word] in err


@pytest.mark.parametrize("arguments", [("-q", "classify"), ("classify", "-q")])
def test_quiet_leaves_the_results(
    kedge: Run, artefact: Path, tmp_path: Path, arguments: tuple[str, ...]
) -> None:
    words = (artefact, IMAGE, "--sheet", tmp_path / "s.png")
    _, loud, err = kedge("classify", *words)
    assert err == f"kedge: wrote {tmp_path / 's.png'}: contact sheet of 1 image\n"
    assert kedge(*arguments, *words) == (0, loud, "")


def test_quiet_leaves_errors(kedge: Run) -> None:
    code, out, err = kedge("-q", "verify", "none.tflite")
    assert (code, out) == (2, "")
    assert err.startswith("kedge: none.tflite")


def test_quiet_and_verbose_exclude_each_other(kedge: Run) -> None:
    code, _, err = kedge("-q", "doctor", "-v")
    assert code == 2
    assert "--quiet and --verbose: give one of them only" in err


def test_quiet_ends_with_the_command(kedge: Run) -> None:
    kedge("-q", "doctor")
    kedge("models")
    assert not terminal.VERBOSITY.quiet


def test_verbose_shows_what_a_library_says(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    from kedge_runtime.output import quiet

    for verbose, expected in ((False, ""), (True, "from C\nfrom Python\n")):
        monkeypatch.setattr(terminal.VERBOSITY, "verbose", verbose)
        with quiet():
            os.write(1, b"from C\n")
            sys.stdout.write("from Python\n")
            sys.stdout.flush()
        out, err = capfd.readouterr()
        assert (out, err) == ("", expected)


def test_a_stream_that_is_none_has_no_colours() -> None:
    assert not is_coloured(None)
