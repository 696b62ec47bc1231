"""A runner of GitHub's composite actions, as far as its documentation tells: `run:` steps run.

`uses:` steps are recorded, not run. Of expressions it knows names, strings, `==`, `!=`, `&&` and
`always()`, which is what action.yml has.
"""

import os
import re
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

EXPRESSION = re.compile(r"\$\{\{ *(.+?) *\}\}")
ANNOTATION = re.compile(r"^::(\w+) title=([^:]*)::(.*)$", flags=re.MULTILINE)
ESCAPES = {"%0A": "\n", "%0D": "\r", "%3A": ":", "%2C": ",", "%25": "%"}
# What a job of GitHub's would not find: the tests' own CI may be one.
FOREIGN = ("GITHUB_", "RUNNER_", "ACTIONS_")


def programs(folder: Path) -> Path:
    """Write `kedge`, and `python` and `pip` that note what they would install, into a folder."""
    folder.mkdir()
    log = folder / "pip.log"
    noted = f'echo "$PIP_CACHE_DIR: $*" >> "{log}"'
    scripts = {
        "kedge": f'exec "{sys.executable}" -m kedge_runtime.cli "$@"',
        "python": f'[ "$2" = pip ] && {{ {noted}; exit; }}\nexec "{sys.executable}" "$@"',
        "pip": noted,
    }
    for name, script in scripts.items():
        (folder / name).write_text(f"#!/bin/bash\n{script}\n")
        (folder / name).chmod(0o755)
    return folder


def environment(bin_folder: Path) -> dict[str, str]:
    """Return the environment of a step without the variables of a CI system."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(FOREIGN)}
    return kept | {"CI": "true", "PATH": f"{bin_folder}:{os.environ['PATH']}"}


@dataclass
class Step:
    """What became of a step: its outcome, outputs, output on stdout, summary and exit code."""

    name: str
    outcome: str = "skipped"
    outputs: dict[str, str] = field(default_factory=dict)
    printed: str = ""
    summary: str = ""
    code: int = 0
    options: dict[str, str] = field(default_factory=dict)

    @property
    def annotations(self) -> list[tuple[str, str, str]]:
        """The level, title and message of each workflow command that the step printed."""
        found = ANNOTATION.findall(self.printed)
        return [(level, _unescaped(title), _unescaped(text)) for level, title, text in found]


def _unescaped(text: str) -> str:
    return re.sub("%0A|%0D|%3A|%2C|%25", lambda match: ESCAPES[match[0]], text)


@dataclass
class Runner:
    """Runs an action in a workspace; `temp`: RUNNER_TEMP; `programs`: the first folder of PATH."""

    workspace: Path
    temp: Path
    programs: Path
    action_path: Path
    event: str = "push"
    steps: dict[str, Step] = field(default_factory=dict)
    known: dict[str, str] = field(default_factory=dict)

    def run(self, action: Mapping[str, Any], inputs: Mapping[str, str]) -> list[Step]:
        """Run all steps; return what became of them."""
        defaults = {name: str(each["default"]) for name, each in action["inputs"].items()}
        assert inputs.keys() <= defaults.keys()
        self.known = {f"inputs.{name}": value for name, value in {**defaults, **inputs}.items()}
        self.known |= {
            "github.action_path": str(self.action_path),
            "github.event_name": self.event,
            "github.run_id": "7",
            "runner.temp": str(self.temp),
            "runner.os": "Linux",
            "runner.arch": "X64",
        }
        done: list[Step] = []
        for step in action["runs"]["steps"]:
            done.append(self._step(step, all(each.outcome != "failure" for each in done)))
        return done

    def outputs(self, action: Mapping[str, Any]) -> dict[str, str]:
        """Return the outputs of the action."""
        return {name: self._text(each["value"]) for name, each in action["outputs"].items()}

    def _step(self, step: Mapping[str, Any], going: bool) -> Step:
        result = Step(step.get("name") or step["uses"].partition("@")[0])
        if "id" in step:
            self.steps[step["id"]] = result
        if self._holds(step.get("if", ""), going):
            result.outcome = "success"
            result.options = {k: self._text(v) for k, v in step.get("with", {}).items()}
            if "run" in step:
                self._shell(step, result)
        return result

    def _shell(self, step: Mapping[str, Any], result: Step) -> None:
        assert step["shell"] == "bash"
        assert not EXPRESSION.search(step["run"]), "an input would become part of the script"
        files = {name: self.temp / name for name in ("GITHUB_OUTPUT", "GITHUB_STEP_SUMMARY")}
        for path in files.values():
            path.write_text("")
        script = self.temp / "step.sh"
        script.write_text(step["run"])
        env = environment(self.programs) | {name: str(path) for name, path in files.items()}
        env |= {"GITHUB_ACTIONS": "true", "RUNNER_TEMP": str(self.temp)}
        env |= {name: self._text(value) for name, value in step.get("env", {}).items()}
        # https://docs.github.com/actions, "Workflow syntax", jobs.<job_id>.steps[*].shell
        command = ["bash", "--noprofile", "--norc", "-eo", "pipefail", str(script)]
        ran = subprocess.run(
            command, cwd=self.workspace, env=env, capture_output=True, text=True, check=False
        )
        result.code, result.printed = ran.returncode, ran.stdout + ran.stderr
        result.outcome = "failure" if ran.returncode else "success"
        result.outputs = parse_outputs(files["GITHUB_OUTPUT"].read_text())
        result.summary = files["GITHUB_STEP_SUMMARY"].read_text()

    def _text(self, value: object) -> str:
        return EXPRESSION.sub(lambda match: self._value(match[1]), str(value))

    def _holds(self, condition: str, going: bool) -> bool:
        parts = condition.split(" && ") if condition else []
        always = "always()" in parts
        return (always or going) and all(map(self._part, parts))

    def _part(self, part: str) -> bool:
        if part == "always()":
            return True
        left, sign, right = part.split(" ")
        return (self._value(left) == self._value(right)) == {"==": True, "!=": False}[sign]

    def _value(self, name: str) -> str:
        if name.startswith("'"):
            return name.strip("'")
        if match := re.fullmatch(r"steps\.([\w-]+)\.(?:outputs\.([\w-]+)|outcome)", name):
            step = self.steps.get(match[1], Step(""))
            return step.outputs.get(match[2], "") if match[2] else step.outcome
        return self.known[name]


def parse_outputs(text: str) -> dict[str, str]:
    """Read $GITHUB_OUTPUT: lines `name=value`, and `name<<END` up to a line END."""
    found, lines = dict[str, str](), iter(text.splitlines())
    for line in lines:
        name, sign, value = re.split("(<<|=)", line, maxsplit=1)
        if sign == "<<":
            end, rows = value, list[str]()
            for row in lines:
                if row == end:
                    break
                rows.append(row)
            value = "\n".join(rows)
        found[name] = value
    return found
