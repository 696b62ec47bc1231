"""A mistake of the call is one line on stderr with exit code 2, in every command."""

import shlex
from importlib import import_module
from pathlib import Path

import click
import pytest

from conftest import Run
from kedge_runtime.cli import COMMANDS, refuse_repeated
from kedge_runtime.commands.paths import FILE, FOLDER, PLACE, PlaceType

MISTAKES = {
    "convert": "kedge: Missing argument 'MODEL'. (see kedge convert --help)",
    "convert x --hed softmax": "kedge: No such option '--hed'. (Did you mean one of: '--head',",
    "convert x --head foo": "kedge: Invalid value for '--head': 'foo' is not one of 'softmax', ",
    "convert demo --calibrate-count 2 --to tflite:int8": "--calibrate-count 2: too few for tflite",
    "convert x --min-agreement 99": "is not in the range 0<=x<=1: give a share, as .99 (see kedge",
    "convert x --min-mapped all": "'all' is not a valid share: give a share, as .99 (see",
    "drift a --images b --against c --min-agreement 99": "0<=x<=1: give a share, as .99 (see",
    "drift a --images b --against c --max-drop 5": "5 would be 500 points: give 5pp or .05 (see",
    "convert x --max-drop 1": "'--max-drop': 1 would be 100 points: give 1pp or .01 (see kedge",
    "convert x --max-drop much": "'much' is no drop: allowed are 0pp to 100pp, as 0.5pp or .005",
    "drift a --images b": "kedge: Missing option '--against'",
    "classify": "kedge: Missing argument 'ARTEFACT... IMAGE...'.",
    "convert x --min-agreement 101%": "1.01 is not in the range 0<=x<=1: give a share, as .99",
    "classify nothing.tflite b --threshold 50%": "kedge: nothing.tflite: no such file",
    "convert demo --memory-limit " + "9" * 400 + "G": "allowed are e.g. 8G, 500M, 80%, none",
    "classify a b --threshold 50": "0<=x<=1: give a share, as .99 (see",
    "verify": "kedge: Missing argument",
    "inspect": "kedge: Missing argument",
    "bench": "kedge: Missing argument",
    "build --foo": "kedge: No such option '--foo'",
    "models too many": "kedge: Got unexpected extra argument",
    "doctor --foo": "kedge: No such option '--foo'",
    "classifie": "kedge: No such command 'classifie'.",
}


@pytest.mark.parametrize("words", MISTAKES)
def test_a_mistake_of_the_call_is_one_line(kedge: Run, words: str) -> None:
    code, out, error = kedge(*words.split())
    assert (code, out, error.count("\n")) == (2, "", 1), error
    assert error.startswith("kedge: ")
    assert MISTAKES[words] in error


def options_of(name: str) -> tuple[click.Command, list[click.Option]]:
    module, _, attribute = COMMANDS[name][0].partition(":")
    command: click.Command = getattr(import_module(module), attribute)
    return command, [each for each in command.params if isinstance(each, click.Option)]


def twice(option: click.Option) -> list[str]:
    return 2 * [max(option.opts, key=len), *([] if option.is_flag else ["1"])]


def repeatable(option: click.Option) -> bool:
    return option.multiple or (option.is_flag and not option.secondary_opts)


@pytest.mark.parametrize("name", COMMANDS)
def test_an_option_of_one_value_is_given_once(kedge: Run, name: str) -> None:
    for option in options_of(name)[1]:
        if not repeatable(option):
            code, out, error = kedge(name, *twice(option))
            refused = f"kedge: --{option.opts[-1].strip('-')}: given 2 times, allowed is one value"
            assert (code, out, error) == (2, "", f"{refused}; give it once\n")


def test_lists_and_switches_may_be_repeated() -> None:
    free = [
        (command, option)
        for command, options in map(options_of, COMMANDS)
        for option in filter(repeatable, options)
    ]
    assert {"--to", "--json", "--quiet"} <= {option.opts[-1] for _, option in free}
    for command, option in free:
        refuse_repeated(command, twice(option))


def test_options_that_contradict_are_one_repeated_option(kedge: Run) -> None:
    code, _, error = kedge("convert", "x", "--no-exif", "--exif")
    assert (code, "--exif: given 2 times" in error) == (2, True)


def test_no_command_at_all_shows_the_help(kedge: Run) -> None:
    _, out, error = kedge()
    assert "Usage: kedge" in out + error


# An unset variable of the shell: as a path, it would be the current folder.
EMPTY = {
    "convert ''": "the argument after convert is empty",
    "convert demo --out ''": "--out is empty",
    "convert demo --out=": "--out is empty",
    "classify m.tflite ''": "the argument after m.tflite is empty",
    "drift m.tflite --images '' --against x.keras": "--images is empty",
    "drift m.tflite --images= --against x.keras": "--images is empty",
    "inspect ''": "the argument after inspect is empty",
    "verify ''": "the argument after verify is empty",
    "init demo ''": "the argument after demo is empty",
    "build ''": "the argument after build is empty",
    "seal ''": "the argument after seal is empty",
    "fit-input demo --images ''": "--images is empty",
}


@pytest.mark.parametrize("words", EMPTY)
def test_an_empty_word_is_a_usage_error(kedge: Run, words: str) -> None:
    code, out, error = kedge(*shlex.split(words))
    assert (code, out) == (2, "")
    assert error == f"kedge: {EMPTY[words]}: give a value, or leave it out\n"


@pytest.mark.parametrize("option", ["--sheet", "--csv", "--labels", "--contract", "--key"])
def test_a_folder_is_no_file(kedge: Run, tmp_path: Path, option: str) -> None:
    code, out, error = kedge("classify", "m.tflite", "i.jpg", option, str(tmp_path))
    assert (code, out, error.count("\n")) == (2, "", 1)
    assert f"{option}': {tmp_path} is a folder; give a file" in error


@pytest.mark.parametrize("option", ["--state", "--save-unsure"])
@pytest.mark.parametrize("command", ["watch", "serve"])
def test_a_folder_that_is_a_device_is_called_so(kedge: Run, command: str, option: str) -> None:
    code, out, error = kedge(command, "m.tflite", "--camera", "0", option, "/dev/null")
    assert (code, out, error.count("\n")) == (2, "", 1)
    assert f"{option}': /dev/null is no folder; give a folder" in error


@pytest.mark.parametrize("kind", [PLACE, FILE, FOLDER])
def test_a_path_that_nobody_can_look_at_goes_on_to_its_use(
    kind: PlaceType, monkeypatch: pytest.MonkeyPatch
) -> None:
    long = Path("n" * 300)  # ENAMETOOLONG
    assert kind.convert(str(long), None, None) == long

    def forbid(*_: object) -> bool:
        raise PermissionError("the folder may not be searched")

    for look in ("exists", "is_dir"):
        monkeypatch.setattr(Path, look, forbid)
    monkeypatch.setattr("os.path.lexists", forbid)
    assert kind.convert("private/x.csv", None, None) == Path("private/x.csv")
