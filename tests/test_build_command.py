"""`kedge build` from end to end: the demo, converted once for two builds that begin together."""

import json
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import jsonschema
import pytest

import build_reports
import clusters
import drift_references
import lost_cells
from conftest import Run
from kedge_convert.matrix import evidence, make, run
from kedge_convert.matrix.record import schema
from kedge_convert.testing import assert_no_drift
from kedge_convert.worker import supervisor
from kedge_models.demo import pictograms
from kedge_runtime.artefact.file import read_artefact
from kedge_runtime.checks import bench
from kedge_runtime.drift.journal import ImageFolder, content_digest
from kedge_runtime.drift.reference import Reference
from kedge_runtime.errors import LostError, UsageError

CONFIG = """
[defaults]
targets = ["tflite:float32"]
images = "photos"
attribute = 2
by_layer = 2

[defaults.gates]
max_drop = 0.2

[options]
effort = "fast"
calibrate_count = 10
check_count = 10

[[model]]
name = "demo"
"""
NAME = "demo.float32.tflite"
PICTURES = 30
KEDGE = [sys.executable, "-m", "kedge_runtime.cli"]

pytestmark = pytest.mark.slow


def write_desk(folder: Path) -> Path:
    """Write a `kedge.toml` and photos in folders by class."""
    (folder / "photos").mkdir(parents=True)
    pictograms.write(folder / "photos", PICTURES, seed=11)
    for path in list((folder / "photos").iterdir()):
        place = folder / "photos" / path.stem.rpartition("_")[0]
        place.mkdir(exist_ok=True)
        path.rename(place / path.name)
    (folder / "kedge.toml").write_text(CONFIG)
    return folder


@dataclass(frozen=True)
class Desk:
    """Two folders, their cache, and what two builds at once printed."""

    first: Path
    second: Path
    cache: Path
    printed: tuple[str, str]

    def words(self, folder: Path, *more: object) -> list[object]:
        return ["build", folder / "kedge.toml", "--cache", self.cache, *more]

    def copy(self, folder: Path, change: Callable[[str], str] = str) -> Path:
        """Return a desk of the same images with a changed `kedge.toml`."""
        shutil.copytree(self.first, folder, ignore=shutil.ignore_patterns("out", "*.lock.toml"))
        (folder / "kedge.toml").write_text(change(CONFIG))
        return folder


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Desk:
    pytest.importorskip("tensorflow", reason="the converter needs TensorFlow")
    folder = tmp_path_factory.mktemp("build")
    places = [write_desk(folder / name) for name in ("first", "second")]
    cache = folder / "cache"
    builds = [
        subprocess.Popen(
            [*KEDGE, "build", place / "kedge.toml", "--cache", cache],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for place in places
    ]
    ended = [build.communicate() for build in builds]
    assert [build.returncode for build in builds] == [0, 0], ended
    return Desk(places[0], places[1], cache, (ended[0][0], ended[1][0]))


def report(folder: Path) -> dict[str, object]:
    found: dict[str, object] = json.loads((folder / "out" / "report.json").read_text())
    return found


def test_of_two_builds_at_once_one_works_and_both_have_the_result(desk: Desk) -> None:
    built = sorted("  built" in printed for printed in desk.printed)
    assert built == [False, True]
    contents = [(place / "out" / NAME).read_bytes() for place in (desk.first, desk.second)]
    assert contents[0] == contents[1]
    assert len(list((desk.cache / "work").iterdir())) == 0


def test_the_artefact_is_sealed_and_the_reports_lie_beside_it(desk: Desk) -> None:
    out = desk.first / "out"
    names = {"report.json", "report.md", "report.html", "junit.xml"}
    assert {path.name for path in out.iterdir()} == {NAME, *names}
    found = json.loads((out / "report.json").read_text())
    jsonschema.Draft202012Validator(schema()).validate(found)
    (cell,) = found["cells"]
    assert cell["digest"] == read_artefact(out / NAME).digest
    assert (cell["verdict"], cell["drift"]["images"]) == ("PASS", PICTURES)
    assert [gate["name"] for gate in cell["gates"]] == ["conversion", "max_drop"]
    seconds = cell["converting"], cell["measuring"]  # none where the other build made it
    assert seconds == (0, 0) or min(seconds) > 0
    assert cell["drift"]["attribution"]["images"] == cell["by_layer"]["images"] == 2


# A build that changes nothing needs neither TensorFlow nor Keras, nor another process.
AGAIN = """
import subprocess, sys
from kedge_runtime import cli

def refused(*_, **__):
    raise AssertionError("a process was started")

subprocess.Popen.__init__ = refused
import multiprocessing.process
multiprocessing.process.BaseProcess.start = refused
sys.argv = ["kedge", *sys.argv[1:]]
try:
    cli.main()
finally:
    heavy = {"tensorflow", "keras", "onnx", "tf2onnx"} & set(sys.modules)
    assert not heavy, heavy
"""


def test_an_unchanged_rerun_does_no_conversion(desk: Desk) -> None:
    before, stamp = report(desk.first), (desk.first / "out" / NAME).stat().st_mtime_ns
    words = [*map(str, desk.words(desk.first)), "--json"]
    again = [sys.executable, "-c", AGAIN, *words]
    done = subprocess.run(again, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    after = json.loads(done.stdout)
    assert after == report(desk.first)
    assert _of_this_build(after) == [True, 0.0, 0.0]
    _of_this_build(before)
    assert after == before
    assert (desk.first / "out" / NAME).stat().st_mtime_ns == stamp


def _of_this_build(found: Any) -> list[object]:
    """Remove the date and what a rerun has otherwise from the only cell; return the latter."""
    found.pop("date")
    (cell,) = found["cells"]
    return [cell.pop(name) for name in ("cached", "converting", "measuring")]


@pytest.fixture
def idle(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let nothing be converted or measured."""

    def refused(*_: object, **__: object) -> None:
        raise AssertionError("work was done")

    monkeypatch.setattr(supervisor, "convert", refused)
    monkeypatch.setattr(make, "measure_apart", refused)


@pytest.mark.usefixtures("idle")
@pytest.mark.parametrize(
    ("gate", "code", "suffix"),
    [
        ("max_bytes = 1\nmax_drop = 0.2", 1, ".rejected"),
        ("min_agreement = 0.95", 3, ".inconclusive"),
        ("max_bytes = 900_000\nmax_drop = 0.2", 0, ""),
    ],
)
def test_another_gate_judges_the_same_artefact(
    kedge: Run, desk: Desk, tmp_path: Path, gate: str, code: int, suffix: str
) -> None:
    place = desk.copy(tmp_path / "place", lambda text: text.replace("max_drop = 0.2", gate))
    # What an earlier run called good mustn't stand beside what this one says.
    for old in ("", ".rejected", ".inconclusive"):
        (place / "out").mkdir(exist_ok=True)
        (place / "out" / f"{NAME}{old}").write_text("old")
    found, printed, _ = kedge(*desk.words(place))
    assert found == code
    assert [path.name for path in (place / "out").glob("demo*")] == [NAME + suffix]
    assert gate.partition(" ")[0] in printed or code == 0


@pytest.mark.usefixtures("idle")
def test_latency_and_device_are_asked_once(
    kedge: Run, desk: Desk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    more = 'max_drop = 0.2\nmax_latency_ratio = 50.0\ndevice = "coral"'
    place = desk.copy(tmp_path / "place", lambda text: text.replace("max_drop = 0.2", more))
    first = {gate["name"]: gate for gate in _gates(place, kedge, desk)}
    assert first["max_latency_ratio"]["verdict"] == "PASS"
    assert first["max_latency_ratio"]["value"]["value"] == 1  # type: ignore[index]
    assert first["device"]["verdict"] == "FAIL"
    assert "input is float32" in str(first["device"]["message"])
    monkeypatch.setattr(bench, "measure_apart", None)
    monkeypatch.setattr(evidence, "inspect", None)
    assert {gate["name"]: gate for gate in _gates(place, kedge, desk)} == first


@pytest.mark.usefixtures("idle")
def test_a_baseline_is_written_and_held(kedge: Run, desk: Desk, tmp_path: Path) -> None:
    place = desk.copy(tmp_path / "place")
    assert kedge(*desk.words(place, "--update-baseline"))[0] == 0
    lock = place / "kedge.lock.toml"
    digest = read_artefact(place / "out" / NAME).digest
    assert f'[cell."{NAME}"]\ndigest = "{digest}"' in lock.read_text()
    gates = {gate["name"]: gate for gate in _gates(place, kedge, desk)}
    assert gates["baseline"]["message"] == "the accepted artefact"
    lock.write_text(lock.read_text().replace(digest, "sha256:" + "0" * 64))
    code, printed, _ = kedge(*desk.words(place))
    assert code == 0
    assert "differs from the accepted artefact (sha256:00000000..., +0 bytes)" in printed


def _gates(place: Path, kedge: Run, desk: Desk) -> list[dict[str, object]]:
    _, printed, _ = kedge(*desk.words(place, "--json"))
    found: list[dict[str, object]] = json.loads(printed)["cells"][0]["gates"]
    return found


@pytest.mark.parametrize(
    ("change", "line"),
    [
        (("images =", "photos ="), "unknown key 'photos'"),
        (('"photos"', '"none"'), "none: no such file"),
        (('"demo"', '"none"'), "none: no such file"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_two(
    kedge: Run, desk: Desk, tmp_path: Path, change: tuple[str, str], line: str
) -> None:
    place = desk.copy(tmp_path / "place", lambda text: text.replace(*change))
    code, printed, said = kedge(*desk.words(place))
    assert (code, printed) == (2, "")
    assert line in said
    assert said.count("\n") == 1


def test_a_model_that_can_not_be_read_fails_its_own_cells(
    kedge: Run, desk: Desk, tmp_path: Path
) -> None:
    broken = '[[model]]\nname = "broken"\nsource = "broken.keras"\n'
    place = desk.copy(tmp_path / "place", lambda text: text + broken)
    (place / "broken.keras").write_text("no model")
    code, _, _ = kedge(*desk.words(place))
    assert code == 1
    verdicts = {cell["name"]: cell["verdict"] for cell in report(place)["cells"]}  # type: ignore[attr-defined]
    assert verdicts == {NAME: "PASS", "broken.float32.tflite": "FAIL"}
    assert "broken.keras" in (place / "out" / "report.md").read_text().replace("\\", "")


def _timeless(cell: Any) -> Any:
    """Return a cell without what may be another in each run, and whether it was there before."""
    cell["drift"].pop("latency")
    for name in ("cached", "converting", "measuring"):
        cell.pop(name)
    return cell


def test_a_cluster_that_loses_a_worker_gives_the_same(
    kedge: Run, desk: Desk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, stamp = report(desk.first), (desk.first / "out" / NAME).stat().st_mtime_ns
    monkeypatch.setattr(run, "make", partial(lost_cells.made, tmp_path / "flag"))
    monkeypatch.chdir(desk.first)
    with clusters.cluster(tmp_path) as address:
        places = ["--cache", tmp_path / "cache", "--reports", tmp_path / "reports"]
        code, printed, error = kedge("build", "--scheduler", address, *places, "--json")
    assert code == 0, error
    assert (tmp_path / "flag").exists()
    pair: Any = json.loads(printed)["cells"], before["cells"]
    (found,), (expected,) = pair
    assert _timeless(found)["digest"] == expected["digest"]
    assert (desk.first / "out" / NAME).stat().st_mtime_ns == stamp
    for each in (found, expected):
        for place in ("path", "folder"):
            each[place] = Path(each[place]).name
        each["drift"]["artefact"].pop("path")
    assert found == _timeless(expected)


def test_a_model_that_ends_its_process_fails_its_own_cells(
    kedge: Run, desk: Desk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    more = '[[model]]\nname = "deadly"\nsource = "demo"\nimages = "few"\n'
    broken = '[[model]]\nname = "broken"\nsource = "broken.keras"\n'
    place = desk.copy(tmp_path / "place", lambda text: text + more + broken)
    (place / "broken.keras").write_text("no model")
    shutil.copytree(min((place / "photos").iterdir()), place / "few")
    monkeypatch.setattr(run, "make", partial(lost_cells.deadly, "deadly"))
    code, _, error = kedge(*desk.words(place, "--jobs", 2))
    assert code == 1, error
    cells = {cell["model"]: cell for cell in report(place)["cells"]}  # type: ignore[attr-defined]
    assert {name: cell["verdict"] for name, cell in cells.items()} == {
        "demo": "PASS",
        "deadly": "FAIL",
        "broken": "FAIL",
    }
    (gate,) = cells["deadly"]["gates"]
    assert gate["message"] == "deadly: ended 4 processes (killed, crashed or out of memory)"
    assert "broken.keras" in cells["broken"]["gates"][0]["message"]


def test_a_measurement_that_dies_fails_its_own_cells(
    kedge: Run, desk: Desk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def died(_: object) -> None:
        raise LostError("died")

    monkeypatch.setattr(make, "measure_apart", died)
    place = desk.copy(tmp_path / "place", lambda text: text.replace('"photos"', '"few"'))
    shutil.copytree(min((place / "photos").iterdir()), place / "few")
    code, _, error = kedge(*desk.words(place))
    assert code == 1, error
    cells: Any = report(place)["cells"]
    assert [gate["message"] for cell in cells for gate in cell["gates"]] == ["demo: died"]
    assert not list((place / "out").glob("demo*"))


def test_a_project_can_hold_its_artefact_in_its_own_tests(desk: Desk) -> None:
    artefact, photos = desk.first / "out" / NAME, desk.first / "photos"
    assert assert_no_drift(artefact, "demo", photos, max_drop="20pp").images == PICTURES
    with pytest.raises(AssertionError) as failed:
        assert_no_drift(artefact, "demo", photos, min_agreement="99%")
    assert re.search(
        r"INCONCLUSIVE min_agreement: agreement 100\.0 % .*; about [1-9][\d\s]* more images "
        r"would decide \(in nine of ten cases\)\n"
        r"give more images or a wider limit; for the figures: kedge drift ",
        str(failed.value),
    )


@pytest.mark.parametrize(
    ("limits", "refusal"),
    [
        ({"max_drop": 1}, "1 would be 100 points: give 1pp or .01"),
        ({"max_drop": float("nan")}, "nan is no drop: allowed are 0pp to 100pp"),
        ({"min_agreement": 98}, "got 98, allowed are 0 to 1, such as 0.95, or '95%'"),
        ({"max_bytes": "4MB"}, "got max_bytes, allowed are max_drop, min_agreement"),
    ],
)
def test_its_limits_are_read_as_in_the_matrix(limits: dict[str, Any], refusal: str) -> None:
    """A drop of 1 would be a gate that no artefact can miss."""
    with pytest.raises(UsageError, match=re.escape(f"assert_no_drift: {refusal}")):
        assert_no_drift("no.tflite", "demo", "photos", **limits)


@pytest.fixture
def drifted(artefacts: Path, tmp_path: Path) -> tuple[Path, Path, Path]:
    """Return an artefact, a reference far from it, and their images."""
    photos, artefact = tmp_path / "photos", artefacts / "tiny.tflite"
    photos.mkdir()
    drift_references.write_photos(photos, 60)
    return artefact, drift_references.write_for(artefact, photos, tmp_path / "far.npz", 5.0), photos


def test_it_can_do_so_with_a_reference(drifted: tuple[Path, Path, Path]) -> None:
    with pytest.raises(AssertionError, match=r"FAIL min_agreement: agreement .*, at least 95\.0 %"):
        assert_no_drift(*drifted)


def test_its_message_names_the_flipped_images_and_the_next_command(
    kedge: Run, drifted: tuple[Path, Path, Path]
) -> None:
    with pytest.raises(AssertionError) as failed:
        assert_no_drift(*drifted, min_agreement="99%")
    first, counts, *images, more, remedy = str(failed.value).splitlines()
    assert first.startswith(f"{drifted[0]}: FAIL min_agreement: agreement ")
    flips = int(counts.split()[0])
    assert counts == f"{flips} of 60 images answered otherwise:"
    assert more == f"  and {flips - 5} more"
    assert len(images) == 5
    for line in images:
        name, _, sides = line.strip().partition(": ")
        assert (drifted[2] / name).is_file()
        assert re.fullmatch(r".+, [\d.]+ % -> .+, [\d.]+ %", sides)
    told, _, command = remedy.partition(": ")
    assert told == "to see what lost it"
    assert kedge(*shlex.split(command)[1:])[0] == 1


def test_its_drop_is_in_points(artefacts: Path, tmp_path: Path) -> None:
    folder = build_reports.write_desk(tmp_path, artefacts / "tiny.tflite")
    reference, photos = Reference(folder / "reference.npz"), folder / "photos"
    names = [name for name in ImageFolder.of(photos).names if not reference.is_failed(name)]
    # The truth is what the reference says, so that each flip is a loss.
    answers = [reference.outputs(n, content_digest((photos / n).read_bytes())) for n in names]
    lines = [f"{name},{row.argmax()}" for name, row in zip(names, answers, strict=True)]
    (folder / "truth.csv").write_text("\n".join([*lines, f"{drift_references.BROKEN},0"]))
    images = (folder / "reference.npz", photos, str(folder / "truth.csv"))
    with pytest.raises(AssertionError, match=r"FAIL max_drop: top-1 drop [\d.]+ points .* 1\.0 p"):
        assert_no_drift(artefacts / "tiny.tflite", *images, max_drop="1pp")


def test_its_traceback_ends_in_the_projects_own_line(
    drifted: tuple[Path, Path, Path], tmp_path: Path
) -> None:
    call = f"assert_no_drift(*{tuple(map(str, drifted))!r})"
    lines = ["from kedge_convert.testing import assert_no_drift", f"def test_it():\n    {call}"]
    (tmp_path / "test_project.py").write_text("\n".join(lines))
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "test_project.py"]
    ran = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert ran.returncode == 1, ran.stdout + ran.stderr
    assert call.partition("(")[0] in ran.stdout
    assert "FAIL min_agreement" in ran.stdout
    assert "testing.py" not in ran.stdout


ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize("place", ["action.yml", "docs/ci.md", "docs/build.md"])
def test_what_is_written_for_ci_calls_the_command_as_it_is(place: str) -> None:
    from kedge_convert.commands.build import build

    known = {option for parameter in build.params for option in parameter.opts}
    lines = (ROOT / place).read_text(encoding="utf-8").splitlines()
    calls = [line.split("kedge build ", 1)[1].split() for line in lines if "kedge build " in line]
    used = {word for words in calls for word in words if word.startswith("--")}
    assert calls
    assert used <= known
