"""How long is the road from a command to its work: frames and files of kedge on the stack.

    python benchmarks/roads.py --artefact demo.int8.tflite --images DIR [--checkout DIR]

The stack is read where the work begins, in code that isn't kedge's, so that checkouts of any age
compare: `classify` and `drift` at LiteRT's `invoke`, `convert` and `build` where they start the
worker process. `road.py` goes on in the worker.
"""

import argparse
import os
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

# Found by the command's Python: watches one function of a library as soon as that is imported.
SITE = """
import builtins, os, sys, traceback
plain = builtins.__import__
module, name, verb = os.environ["ROADS_SINK"].split()
def seen():
    stack = [f for f in traceback.extract_stack() if "/kedge_" in f.filename]
    files = list(dict.fromkeys(f.filename.partition("/kedge_")[2] for f in stack))
    if files:
        with open(os.environ["ROADS_PLACE"], "a") as out:
            out.write(f"{len(stack)} {len(files)} " + " > ".join(files) + chr(10))
def watched(function):
    def call(*args, **kwargs):
        seen()
        return function(*args, **kwargs)
    return call
def imported(*args, **kwargs):
    found = plain(*args, **kwargs)
    kind = getattr(sys.modules.get(module), name, None)
    if kind is not None:
        builtins.__import__ = plain
        setattr(kind, verb, watched(getattr(kind, verb)))
    return found
builtins.__import__ = imported
"""
INVOKE = "ai_edge_litert.interpreter Interpreter invoke"
START = "multiprocessing.process BaseProcess start"
CONVERT = ["convert", "demo", "--to", "tflite:int8", "--out", "out"]
TABLE = '[defaults]\ntargets = ["tflite:int8"]\n[[model]]\nname = "demo"\n'


def road(sink: str, words: list[str], checkout: Path) -> str:
    """Return frames, files and the files' names, of the longest stack that reached the sink.

    Raises RuntimeError where none did.
    """
    with TemporaryDirectory(prefix="kedge-roads-") as name:
        folder = Path(name)
        place = folder / "stacks"
        place.touch()
        (folder / "sitecustomize.py").write_text(SITE)
        (folder / "kedge.toml").write_text(TABLE)
        roots = [folder, *(checkout / root for root in ("convert", "runtime", "models"))]
        paths = {"PYTHONPATH": os.pathsep.join(map(str, roots))}
        seen = {"ROADS_SINK": sink, "ROADS_PLACE": str(place)}
        command = [sys.executable, "-m", "kedge_runtime.cli", *words]
        done = subprocess.run(
            command,
            env={**os.environ, **paths, **seen},
            cwd=folder,
            capture_output=True,
            text=True,
            check=False,
        )
        stacks = place.read_text().splitlines()
    if not stacks:
        raise RuntimeError(f"{words[0]}: the work was never reached: {done.stderr[-500:]}")
    frames, files, names = max(stacks, key=lambda line: int(line.split()[0])).split(" ", 2)
    return f"{frames:>3} frames {files:>3} files  {names}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--artefact", type=Path, required=True)
    parser.add_argument("--images", type=Path, required=True)
    parser.add_argument("--checkout", type=Path, default=Path(__file__).parents[1])
    arguments = parser.parse_args()
    artefact, images = arguments.artefact.resolve(), arguments.images.resolve()
    image = min(path for path in images.iterdir() if path.suffix == ".jpg")
    drift = ["drift", str(artefact), "--images", str(images), "--against", str(artefact)]
    walks = {
        "classify": (INVOKE, ["classify", str(artefact), str(image)]),
        "drift": (INVOKE, [*drift, "--jobs", "1"]),
        "convert": (START, CONVERT),
        "build": (START, ["build"]),
    }
    for walk, (sink, words) in walks.items():
        print(f"{walk:24} {road(sink, words, arguments.checkout.resolve())}", flush=True)


if __name__ == "__main__":
    main()
