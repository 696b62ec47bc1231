"""Do two versions of kedge make the same artefacts and give the same answers?

Each checkout runs the same commands with its own code: convert, inspect, verify, classify and
drift, with --json. Compared are the artefacts' model bytes and golden sets, the exit codes, and
all values of the JSON. Documented renames (CHANGELOG.md) are applied first. Times, paths and
sentences are left out. Exit code 1 if anything differs.

    python benchmarks/same_answers.py --before COMMIT --images DIR --model mobilenet_v2.keras
"""

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import machine
from kedge_runtime.artefact import containers
from kedge_runtime.artefact.content import REJECTED
from kedge_runtime.artefact.file import read_artefact

ROOT = Path(__file__).resolve().parents[1]
RESULTS = Path(__file__).parent / "results"
PACKAGES = ("convert", "runtime", "models")
SAMPLES = ROOT / "models" / "kedge_models" / "demo" / "samples"
# Of a dotted path in the older version's JSON: command -> (pattern, today's path).
RENAMED: dict[str, tuple[tuple[str, str], ...]] = {
    "convert": (
        (r"parity\.top1(_interval)?\b", r"parity.agreement\1"),
        (r"parity\.top5$", "parity.agreement_top5"),
        (r"\.kept\b", ".float_layers"),
    ),
    "drift": (
        (r"^images$", "folder"),
        (r"^labels$", "truth"),
        (r"(gates\.\d+\.)images$", r"\1images_needed"),
        (r"\bpictures$", "images"),
        (r"\boriginal\b", "reference"),
    ),
}
# A removed key, and the keys of times, places and sentences. A recording's digest changes with its
# schema. `by` names the float model, in the words of its version.
LEFT_OUT = re.compile(
    r"images_as_measured$|\blatency\b|_ms$|\bpath$|\bfolder$|^reference\.digest$|\bby$"
    r"|\b(detail|message|said|reasons|notes)\b"
)


@dataclass(frozen=True)
class Model:
    """A model, its targets, and the images for it; `calibrate`: the demo has images of its own."""

    name: str
    targets: str
    images: Path
    calibrate: Path | None = None
    card: str | None = None


@dataclass(frozen=True)
class Row:
    """A command's comparison. `files`: artefacts compared, and `changed` of them differ."""

    command: str
    files: int
    changed: tuple[str, ...]
    values: int
    differ: tuple[str, ...]


@dataclass(frozen=True)
class Answer:
    """A command's exit code and its JSON, as dotted path -> value, without what is left out."""

    code: int
    values: Mapping[str, Any]


def flat(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the dotted path of each value; an empty list or object is a value."""
    items = value.items() if isinstance(value, dict) else enumerate(value)
    for key, item in items:
        place = f"{path}.{key}" if path else str(key)
        if isinstance(item, dict | list) and item:
            yield from flat(item, place)
        else:
            yield place, item


def today(command: str, path: str) -> str:
    """Return the path that a key of the older version has now."""
    for pattern, now in RENAMED.get(command, ()):
        path = re.sub(pattern, now, path)
    return path


def answer(command: str, code: int, text: str, old: bool) -> Answer:
    """Read a command's JSON; `old`: with the keys of the older version."""
    pairs = flat(json.loads(text))
    named = ((today(command, path) if old else path, value) for path, value in pairs)
    return Answer(code, {path: value for path, value in named if not LEFT_OUT.search(path)})


def compare(before: Answer, now: Answer) -> tuple[str, ...]:
    """Return a line for each value that differs, or that only one version has."""
    absent = "absent"
    paths = sorted({*before.values, *now.values})
    pairs = [(p, before.values.get(p, absent), now.values.get(p, absent)) for p in paths]
    pairs.insert(0, ("exit code", before.code, now.code))
    return tuple(f"{path}: {old!r} -> {new!r}" for path, old, new in pairs if old != new)


def run(checkout: Path, folder: Path, arguments: list[str]) -> tuple[int, str]:
    """Run a command with a checkout's code in a folder; return its exit code and its output."""
    path = os.pathsep.join(str(checkout / package) for package in PACKAGES)
    command = [sys.executable, "-m", "kedge_runtime.cli", *arguments, "--json"]
    done = subprocess.run(
        command,
        cwd=folder,
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=False,
    )
    if not done.stdout:
        sys.exit(f"{checkout}: kedge {' '.join(arguments)} ended with\n{done.stderr}")
    return done.returncode, done.stdout


def commands(model: Model) -> Iterator[list[str]]:
    """Yield the commands for a model; the artefacts lie in `out`."""
    extra = ["--card", model.card] if model.card else []
    if model.calibrate:
        extra += ["--calibrate", str(model.calibrate)]
    yield ["convert", model.name, "--to", model.targets, "--out", "out", *extra]
    stem = Path(model.name).stem
    targets = [target.split(":") for target in model.targets.split(",")]
    files = [f"out/{stem}.{precision}.{format}" for format, precision in targets]
    for file in files:
        yield ["inspect", file]
        yield ["verify", file]
    yield ["classify", *files, str(model.images)]
    yield ["drift", *files, "--images", str(model.images), "--against", model.name]


def parts(file: Path) -> tuple[bytes, bytes]:
    """Return an artefact's model and its golden set."""
    format = file.name.removesuffix(REJECTED).rpartition(".")[2]
    golden = read_artefact(file, format).golden
    model, _ = containers.split(format, file.read_bytes())
    return bytes(model), golden.to_bytes()


def changed(before: Path, now: Path) -> tuple[int, tuple[str, ...]]:
    """Return the number of artefacts in two folders, and the names of those that differ."""
    names = sorted({file.name for folder in (before, now) for file in folder.iterdir()})
    same = (
        (before / name).is_file()
        and (now / name).is_file()
        and parts(before / name) == parts(now / name)
        for name in names
    )
    return len(names), tuple(name for name, equal in zip(names, same, strict=True) if not equal)


def rows(model: Model, before: Path, now: Path) -> Iterator[Row]:
    """Run a model's commands with both checkouts, and yield a row for each."""
    with tempfile.TemporaryDirectory() as temporary:
        folders = [Path(temporary, name) for name in ("before", "now")]
        for folder in folders:
            folder.mkdir()
        for arguments in commands(model):
            yield row(arguments, dict(zip((before, now), folders, strict=True)))


def row(arguments: list[str], folders: Mapping[Path, Path]) -> Row:
    """Run one command in each checkout's folder, the older one first, and compare."""
    name = arguments[0]
    made = [run(checkout, folder, arguments) for checkout, folder in folders.items()]
    old, new = (answer(name, *each, old=i == 0) for i, each in enumerate(made))
    files = (folder / "out" for folder in folders.values())
    count, different = changed(*files) if name == "convert" else (0, ())
    what = Path(arguments[1]).name if name in {"convert", "inspect", "verify"} else ""
    return Row(f"{name} {what}".strip(), count, different, len(new.values) + 1, compare(old, new))


@contextmanager
def checkout(place: str) -> Iterator[Path]:
    """Return a folder as it is, or a temporary work tree of a commit."""
    if Path(place).is_dir():
        yield Path(place).resolve()
        return
    git = ["git", "-C", str(ROOT), "worktree"]
    with tempfile.TemporaryDirectory() as temporary:
        tree = Path(temporary, "before")
        subprocess.run([*git, "add", "--quiet", "--detach", str(tree), place], check=True)
        try:
            yield tree
        finally:
            subprocess.run([*git, "remove", "--force", str(tree)], check=True)


def models(options: argparse.Namespace) -> list[Model]:
    """Return the demo and, unless --quick, the model of --model."""
    demo = Model("demo", "tflite:int8,tflite:float32,onnx:int8,onnx:float32", SAMPLES)
    if options.quick:
        return [demo]
    images = options.images.resolve()
    path = str(options.model.resolve())
    return [demo, Model(path, "tflite:int8,onnx:int8", images, images, options.card)]


def table(rows: list[Row]) -> str:
    """Return the rows as Markdown."""
    lines = ["| command | artefacts equal | values compared | values that differ |"]
    lines.append("| --- | --- | --- | --- |")
    for row in rows:
        equal = f"{row.files - len(row.changed)} of {row.files}" if row.files else ""
        lines.append(f"| {row.command} | {equal} | {row.values} | {len(row.differ)} |")
    return "\n".join(lines)


def measure(options: argparse.Namespace) -> list[Row]:
    """Return the rows of all models, each printed as it is made."""
    found = []
    with ExitStack() as stack:
        before, now = (
            stack.enter_context(checkout(place)) for place in (options.before, options.now)
        )
        for model in models(options):
            for row in rows(model, before, now):
                # At once: a conversion takes minutes.
                print(row.command, *row.changed, *row.differ[:20], sep="\n  ", flush=True)
                found.append(row)
    return found


def arguments() -> argparse.Namespace:
    """Return the options, checked."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--before", required=True, help="a commit, or another checkout of kedge")
    parser.add_argument("--now", default=str(ROOT), help="default: this checkout")
    parser.add_argument("--images", type=Path, help="folder of images for --model")
    parser.add_argument("--model", type=Path, help="a Keras file")
    parser.add_argument("--card", default="MobileNetV2", help="of --model")
    parser.add_argument("--quick", action="store_true", help="the demo alone")
    options = parser.parse_args()
    if not options.quick and not (options.images and options.model):
        parser.error("--images and --model are missing; --quick compares the demo alone")
    return options


def commit(place: str) -> str:
    """Return the short name of the commit that a folder or a name stands for."""
    where, what = (place, "HEAD") if Path(place).is_dir() else (str(ROOT), place)
    command = ["git", "-C", where, "rev-parse", "--short", what]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def write(options: argparse.Namespace, found: list[Row]) -> None:
    """Write the results of this machine, as JSON and as Markdown."""
    places = {name: commit(getattr(options, name)) for name in ("before", "now")}
    record = {"machine": machine.identity(), **places, "rows": [asdict(row) for row in found]}
    path = RESULTS / f"same-answers-{machine.slug()}.json"
    path.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    said = f"Commits {places['before']} and {places['now']}: same commands, same images."
    page = f"# Same answers\n\n{said}\n\n{table(found)}\n"
    path.with_suffix(".md").write_text(page, encoding="utf-8")


def main() -> int:
    options = arguments()
    found = measure(options)
    print(table(found))
    if not options.quick:
        write(options, found)
    return int(any(row.changed or row.differ for row in found))


if __name__ == "__main__":
    sys.exit(main())
