"""What is written for CI systems runs: action.yml step by step, and the recipes of docs/ci.md."""

import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import xmlschema
import yaml

import build_reports
from kedge_convert.matrix import github
from kedge_convert.matrix.record import BuildReport
from kedge_convert.matrix.reports import publish
from kedge_models.demo import pictograms
from runner import Runner, environment, parse_outputs, programs

ROOT = Path(__file__).parents[1]
ACTION: dict[str, Any] = yaml.safe_load((ROOT / "action.yml").read_text(encoding="utf-8"))
PAGE = (ROOT / "docs" / "ci.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```", PAGE, flags=re.MULTILINE | re.DOTALL)
CONFIG = """
[defaults]
targets = ["tflite:float32"]
images = "photos"
[defaults.gates]
min_agreement = 0.8
[options]
effort = "fast"
calibrate_count = 10
check_count = 10
[[model]]
name = "demo"
"""
NAME = "demo.float32.tflite"


def block(kind: str, word: str) -> str:
    """Return the only block of docs/ci.md of a kind that holds a word."""
    (found,) = [str(text) for name, text in BLOCKS if name == kind and word in text]
    return found


# The schemas of SchemaStore, which editors and GitLab use, lie in check-jsonschema.
SCHEMAS = {
    "action.yml": ("github-actions", (ROOT / "action.yml").read_text(encoding="utf-8")),
    "workflow": ("github-workflows", "on: push\n" + block("yaml", "actions/checkout")),
    "gitlab": ("gitlab-ci", block("yaml", "CI_COMMIT_REF_PROTECTED")),
}
needs_schemas = pytest.mark.skipif(
    find_spec("check_jsonschema") is None, reason="schemas need keras-kedge[dev]"
)


def _checked(folder: Path, name: str, text: str) -> int:
    (folder / "it.yml").write_text(text)
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", f"vendor.{name}"]
    ran = subprocess.run([*command, folder / "it.yml"], capture_output=True, text=True, check=False)
    assert ran.returncode in (0, 1), ran.stderr
    return ran.returncode


@needs_schemas
@pytest.mark.parametrize("file", SCHEMAS)
def test_the_files_keep_to_their_schemas(tmp_path: Path, file: str) -> None:
    name, text = SCHEMAS[file]
    assert _checked(tmp_path, name, text) == 0


@needs_schemas
@pytest.mark.parametrize(
    ("file", "spoil"),
    [
        ("action.yml", ("using: composite", "using: bash")),
        ("workflow", ("runs-on:", "run-on:")),
        ("gitlab", ("when: always", "when: sometimes")),
    ],
)
def test_the_schemas_refuse_other_files(tmp_path: Path, file: str, spoil: tuple[str, str]) -> None:
    name, text = SCHEMAS[file]
    assert spoil[0] in text
    assert _checked(tmp_path, name, text.replace(*spoil)) == 1


@pytest.fixture
def report(tmp_path: Path, artefacts: Path) -> BuildReport:
    artefact = artefacts / "tiny.tflite"
    return build_reports.report(build_reports.write_desk(tmp_path, artefact), artefact)


def test_every_gate_that_did_not_pass_is_an_annotation(
    report: BuildReport, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: Any
) -> None:
    """A name with a newline, a command or a property in it stays a part of its own message."""
    monkeypatch.delenv("GITHUB_STEP_SUMMARY", raising=False)
    monkeypatch.setenv("GITHUB_OUTPUT", str(tmp_path / "output"))
    publish(report, tmp_path / "reports")
    github.main(tmp_path / "reports", tmp_path / "none.log")
    printed = capfd.readouterr().out
    lines = printed.splitlines()
    assert [line.partition("::")[2].partition(" ")[0] for line in lines] == ["error"] * 3
    assert lines[0].startswith("::error title=m.int8.tflite%3A max_bytes FAIL::too large <script>")
    found = parse_outputs((tmp_path / "output").read_text())
    assert found == {
        "verdict": "FAIL",
        "artefacts": "out",
        **{
            f"{stem}-{kind}": str(tmp_path / "reports" / f"{stem}.{kind}")
            for stem, kind in (("report", "json"), ("junit", "xml"), ("report", "md"))
        },
        "report-html": str(tmp_path / "reports" / "report.html"),
    }


def test_no_name_becomes_a_command_or_an_output() -> None:
    line = github.annotation("a,file=x::b\n::set-env name=a::b", "50 %\n::error::c ##[group]d")
    assert line.count("\n") == 0
    title, text = line.removeprefix("::error title=").split("::", 1)
    assert not set(title) & set(":,")
    assert "50 %25" in text
    assert "##[" not in line
    lines = "".join(github.output_lines({"artefacts": "a\nverdict=PASS\nend", "verdict": "FAIL"}))
    assert parse_outputs(lines) == {"artefacts": "a\nverdict=PASS\nend", "verdict": "FAIL"}


def test_the_actions_outputs_are_those_of_its_step(tmp_path: Path, report: BuildReport) -> None:
    names = {
        match[1]
        for each in ACTION["outputs"].values()
        if (match := re.search(r"steps\.report\.outputs\.([\w-]+)", each["value"]))
    }
    assert names == set(github.outputs(report, tmp_path))


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a project with images and a kedge.toml; its folder of caches is kept for all tests."""
    pytest.importorskip("tensorflow", reason="the converter needs TensorFlow")
    folder = tmp_path_factory.mktemp("runner") / "project"
    (folder / "photos").mkdir(parents=True)
    pictograms.write(folder / "photos", 30, seed=11)
    (folder / "kedge.toml").write_text(CONFIG)
    programs(folder.parent / "bin")
    return folder


def runner(workspace: Path, temp: Path, event: str = "push") -> Runner:
    return Runner(workspace, temp, workspace.parent / "bin", ROOT, event)


@pytest.mark.slow
def test_a_build_that_passes(workspace: Path, tmp_path: Path) -> None:
    job = runner(workspace, tmp_path)
    steps = {step.name: step for step in job.run(ACTION, {"models": "kedge-models"})}
    assert {step.outcome for step in steps.values()} == {"success"}, steps
    found = job.outputs(ACTION)
    assert found["verdict"] == "PASS"
    assert (workspace / found["artefacts"] / NAME).is_file()
    assert all((workspace / found[name]).is_file() for name in found if "-" in name)
    assert steps["Build"].summary.startswith("## ✔ kedge build: PASS")
    assert NAME in steps["Build"].printed
    assert not steps["Report"].printed
    assert steps["actions/upload-artifact"].options == {
        "name": "kedge-models",
        "path": "out/*.tflite\nout/*.onnx\n",
    }
    pins, own = (workspace.parent / "bin" / "pip.log").read_text().splitlines()[:2]
    assert pins.startswith(f"{tmp_path}/kedge-pip: -m pip install --quiet --require-hashes -r ")
    assert own.endswith(f"--no-deps --no-build-isolation {ROOT}")
    text = (tmp_path / "kedge-pins.txt").read_text()
    assert "tensorflow==" in text
    assert "pytest==" not in text


@pytest.mark.slow
def test_a_gate_that_fails(workspace: Path, tmp_path: Path) -> None:
    (workspace / "strict.toml").write_text(
        CONFIG.replace("min_agreement", "max_bytes = 1\nmin_agreement")
    )
    job = runner(workspace, tmp_path, "pull_request")
    done = job.run(ACTION, {"config": "strict.toml"})
    steps = {step.name: step for step in done}
    assert (steps["Build"].code, steps["Build"].outcome) == (1, "failure")
    assert job.outputs(ACTION)["verdict"] == "FAIL"
    ((level, title, text),) = steps["Report"].annotations
    assert (level, title) == ("error", f"{NAME}: max_bytes FAIL")
    assert text.endswith("bytes, at most 1")
    assert steps["Build"].summary.startswith("## ✘ kedge build: FAIL")
    outcomes = [(step.name, step.outcome) for step in done if step.name.startswith("actions/")]
    assert ("actions/cache/save", "success") not in outcomes
    assert outcomes[-2:] == [
        ("actions/upload-artifact", "success"),
        ("actions/upload-artifact", "skipped"),
    ]


def test_a_usage_error_is_an_annotation(workspace: Path, tmp_path: Path) -> None:
    """A report of an earlier build doesn't stand for this one."""
    (workspace / "kedge-reports").mkdir(exist_ok=True)
    (workspace / "kedge-reports" / "report.json").write_text("{}")
    job = runner(workspace, tmp_path)
    steps = {step.name: step for step in job.run(ACTION, {"config": "none.toml"})}
    assert (steps["Build"].code, steps["Report"].outcome) == (2, "success")
    ((level, title, text),) = steps["Report"].annotations
    assert (level, title) == ("error", "kedge build")
    assert text.startswith("kedge: none.toml: can't be read (no such file")
    found = job.outputs(ACTION)
    assert found.pop("verdict") == "ERROR"
    assert not any(found.values())


def _bash(workspace: Path, script: str, env: dict[str, str]) -> subprocess.CompletedProcess[str]:
    whole = environment(workspace.parent / "bin") | env
    command = ["bash", "-eo", "pipefail", "-c", script]
    return subprocess.run(
        command, cwd=workspace, env=whole, capture_output=True, text=True, check=False
    )


@pytest.mark.slow
def test_the_job_for_gitlab_runs_and_leaves_what_it_names(workspace: Path) -> None:
    (job,) = yaml.safe_load(SCHEMAS["gitlab"][1]).values()
    env = {"CI_PROJECT_DIR": str(workspace)}
    env |= {name: str(value) for name, value in job["variables"].items()}
    ran = _bash(workspace, "\n".join(job["script"]), env)
    assert ran.returncode == 0, ran.stderr
    junit = workspace / job["artifacts"]["reports"]["junit"]
    xmlschema.XMLSchema(Path(__file__).with_name("junit.xsd")).validate(str(junit))
    assert all(any(workspace.glob(path)) for path in job["artifacts"]["paths"])
    paths = [path for cache in job["cache"] for path in cache["paths"]]
    assert "kedge build" in "\n".join(job["script"])
    assert ".kedge-cache" in paths


@pytest.mark.slow
def test_the_recipe_for_a_plain_shell_runs(workspace: Path) -> None:
    ran = _bash(workspace, block("sh", "kedge build"), {})
    assert ran.returncode == 0, ran.stderr
    assert "1 artefact: 1 passed" in ran.stdout
