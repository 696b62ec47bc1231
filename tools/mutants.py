"""Run mutmut over the modules of `mutants.toml`, and print the share of mutants that tests kill.

    python tools/mutants.py [--again] [MODULE ...]

Without MODULE (e.g. `head` or `drift/gates`): all of them. With `--again` only those mutants that
survived the last run. mutmut knows one root of packages, `src`
or the folder itself; kedge has three. So a copy of the packages and tests is laid out in
`build/mutants`, which mutmut works in; results stay there for the next run and for
`cd build/mutants && mutmut show NAME`.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).parents[1]
STAGE = ROOT / "build" / "mutants"
PACKAGES = ("runtime/kedge_runtime", "models/kedge_models", "convert/kedge_convert")
BESIDE = ("tests", "tools", "benchmarks")
# mutmut's exit codes: https://mutmut.readthedocs.io; a test that fails, hangs or crashes kills.
KILLED, SURVIVED, UNTESTED = {1, 3, 24, 36, 152, 255, -9, -11, -24}, {0}, {5, 33}


@dataclass(frozen=True)
class Plan:
    """What is mutated (paths from the root), the tests that must notice, and those left out."""

    modules: tuple[str, ...]
    tests: tuple[str, ...]
    deselect: tuple[str, ...]


@dataclass(frozen=True)
class Score:
    """What became of a module's mutants: counts, and the names of those that no test noticed."""

    killed: int
    unnoticed: tuple[str, ...]

    @property
    def share(self) -> float:
        """The share killed, 0..1."""
        return self.killed / max(1, self.killed + len(self.unnoticed))


def read_plan() -> Plan:
    """Read `mutants.toml`."""
    table = tomllib.loads(Path(__file__).with_suffix(".toml").read_text(encoding="utf-8"))
    return Plan(**{name: tuple(values) for name, values in table.items()})


def stage(plan: Plan) -> None:
    """Lay packages, tests and a configuration out as mutmut takes them."""
    for path in PACKAGES:
        _mirror(ROOT / path, STAGE / "src" / Path(path).name)
    for name in BESIDE:
        _mirror(ROOT / name, STAGE / name)
        # mutmut copies what is new, and keeps the files of the run before.
        shutil.rmtree(STAGE / "mutants" / name, ignore_errors=True)
    (STAGE / "pyproject.toml").write_text(_configuration(plan), encoding="utf-8")


def _mirror(source: Path, target: Path) -> None:
    """Copy a folder; files keep their times, by which mutmut knows what has changed."""
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))


def _configuration(plan: Plan) -> str:
    pytest = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    pytest = pytest[pytest.index("[tool.pytest.ini_options]") :].split("\n\n[tool.mypy]")[0]
    lists = {
        "source_paths": ["src"],
        "only_mutate": [_staged(module) for module in plan.modules],
        "also_copy": list(BESIDE),
        "pytest_add_cli_args": ["-p", "no:cacheprovider", *_deselected(plan)],
        "pytest_add_cli_args_test_selection": [f"tests/{name}" for name in plan.tests],
    }
    lines = [f"{name} = {json.dumps(values)}" for name, values in lists.items()]
    # A process that ran engines has their threads, without which its forks wait for ever.
    settings = ['process_isolation = "forkserver"', "use_git_change_detection = false"]
    settings.append('on_dependency_change = "ignore"')
    return "\n".join(["[tool.mutmut]", *lines, *settings, "", pytest, ""])


def _deselected(plan: Plan) -> Iterator[str]:
    for test in plan.deselect:
        yield from ("--deselect", test)


def _staged(module: str) -> str:
    """Return where a module lies in the staged tree, from its root."""
    return str(Path("src") / Path(*Path(module).parts[1:]))


def run(modules: Sequence[str], *, again: bool) -> int:
    """Run mutmut over some modules, or what survived of them; return its exit code."""
    wanted = [name for module in modules for name in _wanted(module, again=again)]
    if not wanted:
        return 0
    # No shared folder: the tests that need one aren't among the fast ones.
    around = {**os.environ, "KEDGE_SHARED": str(STAGE / "none")}
    command = [sys.executable, "-m", "mutmut", "run", "--max-children", "1", *wanted]
    return subprocess.run(command, cwd=STAGE, env=around, check=False).returncode


def _wanted(module: str, *, again: bool) -> tuple[str, ...]:
    # A package's own functions begin with an x, as all that mutmut renames; its modules don't.
    name = ".".join(Path(module).with_suffix("").parts[1:]).removesuffix(".__init__")
    return score(module).unnoticed if again else (f"{name}.x*",)


def score(module: str) -> Score:
    """Read what mutmut found of a module. Raises OSError before its first run."""
    meta = STAGE / "mutants" / f"{_staged(module)}.meta"
    codes = json.loads(meta.read_text(encoding="utf-8"))["exit_code_by_key"]
    found = Counter(code in KILLED for code in codes.values())
    unnoticed = sorted(key for key, code in codes.items() if code in SURVIVED | UNTESTED)
    return Score(found[True], tuple(unnoticed))


def main() -> int:
    """Mutate the modules named, or all; return 1 where mutmut couldn't."""
    arguments = _arguments()
    plan, wanted = read_plan(), arguments.modules
    chosen = [m for m in plan.modules if not wanted or any(m.endswith(f"/{w}.py") for w in wanted)]
    stage(plan)
    failed = run(chosen, again=arguments.again)
    for module in chosen:
        found = score(module)
        print(f"{module:46} {found.share:6.1%} killed of {found.killed + len(found.unnoticed)}")
        for name in found.unnoticed:
            print(f"    {name}")
    return int(failed != 0)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("modules", nargs="*", metavar="MODULE")
    parser.add_argument("--again", action="store_true", help="only what survived")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
