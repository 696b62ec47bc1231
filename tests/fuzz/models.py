"""Run changed model files through the static check and, where it passes them, through the engines.

    (cd tests && python -m fuzz.models FORMAT SECONDS SEED FILE... [--keep FOLDER])

What passes the check and then ends the process, or takes too much memory or time, is printed and
kept: the check has a hole. Every mutant runs in a child of its own (fork), under bounds.
"""

import argparse
import os
import random
import resource
import signal
import sys
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import import_module
from itertools import islice
from pathlib import Path

import numpy as np

from kedge_runtime.artefact.content import ModelContent
from kedge_runtime.engines.choice import EngineOptions, Kernels
from kedge_runtime.engines.litert import RESOLVERS
from kedge_runtime.errors import ArtefactError, EngineError
from kedge_runtime.modelfile.check.check import check_model

MEMORY = 600 << 20  # bytes of resident memory that a file of the hostile kind may take
SECONDS = 5
ADDRESSES = 4 << 30  # of RLIMIT_AS: the libraries alone map 1 GB
HARMLESS = ("passed", "refused", "failed", "unknown")
REFUSED, FAILED = 10, 11  # exit codes of a child


@dataclass(frozen=True)
class Outcome:
    """How a child ended: a word of HARMLESS, a signal's name, `memory` or `traceback`."""

    word: str
    peak: int

    @property
    def bad(self) -> bool:
        """Whether it is a hole in the check."""
        return self.word not in HARMLESS


def apart(task: Callable[[], None]) -> Outcome:
    """Run a task in a forked child. ArtefactError is refused; other exceptions are failed."""
    base = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10
    child = os.fork()
    if child == 0:
        os._exit(_child(task))
    _, status, usage = os.wait4(child, 0)
    peak = usage.ru_maxrss << 10
    if os.WIFSIGNALED(status):
        return Outcome(signal.Signals(os.WTERMSIG(status)).name, peak)
    code = os.WEXITSTATUS(status)
    words = {0: "passed", REFUSED: "refused", FAILED: "failed"}
    word = words.get(code, "traceback")
    return Outcome("memory" if word != "refused" and peak > max(MEMORY, base) else word, peak)


def _child(task: Callable[[], None]) -> int:
    resource.setrlimit(resource.RLIMIT_AS, (ADDRESSES, ADDRESSES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.alarm(SECONDS)
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 1)
    os.dup2(null, 2)
    try:
        task()
    except ArtefactError:
        return REFUSED
    except (ValueError, RuntimeError) as error:
        if isinstance(error, MemoryError):
            return 1
        return FAILED
    except BaseException:
        traceback.print_exc()
        return 1
    return 0


def litert(content: bytes, kernels: Kernels) -> None:
    """Load and run a file twice with LiteRT."""
    from ai_edge_litert import interpreter as library

    interpreter = library.Interpreter(
        model_content=content,
        num_threads=1,
        experimental_op_resolver_type=library.OpResolverType[RESOLVERS[kernels]],
    )
    interpreter.allocate_tensors()
    for number in (0, 3):
        for entry in interpreter.get_input_details():
            shape = tuple(entry["shape"])
            noise = np.random.default_rng(number).uniform(0, number, shape)
            interpreter.set_tensor(entry["index"], noise.astype(entry["dtype"]))
        interpreter.invoke()
    for entry in interpreter.get_output_details():
        interpreter.get_tensor(entry["index"])


def opencv(content: bytes) -> None:
    """Load and run a file twice with OpenCV's dnn, as kedge does."""
    import cv2

    from kedge_runtime.engines import opencv as module

    options = EngineOptions(threads=1)
    try:
        engine = module.open_engine(ModelContent(Path("mutant.onnx"), "onnx", content), options)
        for number in (0, 3):
            noise = np.random.default_rng(number).uniform(0, number, engine.input_shape)
            engine.run(noise.astype(np.float32))
    except (cv2.error, EngineError) as error:
        raise ValueError(str(error)) from None


def onnxruntime(content: bytes) -> None:
    """Load and run a file twice with onnxruntime."""
    import onnxruntime as library

    settings = library.SessionOptions()
    settings.intra_op_num_threads = settings.inter_op_num_threads = 1
    settings.log_severity_level = 4
    try:
        session = library.InferenceSession(content, settings, providers=["CPUExecutionProvider"])
        for number in (0, 3):
            feed = {}
            for entry in session.get_inputs():
                shape = [side if isinstance(side, int) else 1 for side in entry.shape]
                kind = np.uint8 if "uint8" in entry.type else np.float32
                noise = np.random.default_rng(number).uniform(0, number, shape)
                feed[entry.name] = noise.astype(kind)
            session.run(None, feed)
    except Exception as error:
        raise ValueError(str(error)) from None


RUNS: dict[str, dict[str, Callable[[bytes], None]]] = {
    "tflite": {
        "default": lambda content: litert(content, "default"),
        "builtin": lambda content: litert(content, "builtin"),
        "reference": lambda content: litert(content, "reference"),
    },
    "onnx": {"opencv": opencv, "onnxruntime": onnxruntime},
}


# Imported before the forks, as every child would have to.
LIBRARIES = {"tflite": ("ai_edge_litert.interpreter",), "onnx": ("cv2", "onnxruntime")}


def mutants(form: str, seeds: list[bytes], seed: int) -> Iterator[bytes]:
    """Yield changed files without end."""
    if form == "tflite":
        from fuzz.tflite_mutants import mutate
    else:
        from fuzz.onnx_mutants import mutate
    pick = random.Random(seed)
    often = [1 / len(content) for content in seeds]  # small files are fast
    while True:
        (content,) = pick.choices(seeds, often)
        try:
            yield mutate(content, pick)
        except (ValueError, TypeError, IndexError, OverflowError, KeyError):
            continue  # what the schema can't write


def trial(form: str, content: bytes, checked: bool = True) -> dict[str, Outcome]:
    """Check and run one file on every engine of its format."""
    if checked:
        try:
            if check_model(ModelContent(Path(f"mutant.{form}"), form, content)).unknown:
                return {"check": Outcome("unknown", 0)}
        except ArtefactError:
            return {"check": Outcome("refused", 0)}
    runs = RUNS[form]
    # A fork costs more than a run of a small net: one for all, and one for each where that fails.
    together = apart(lambda: _all(content, list(runs.values())))
    if together.word == "passed":
        return {"all": together}
    return {name: apart(lambda run=run: run(content)) for name, run in runs.items()}  # type: ignore[misc]


def _all(content: bytes, runs: list[Callable[[bytes], None]]) -> None:
    for run in runs:
        run(content)


def main() -> int:
    """Run for a number of seconds; return 1 where the check has a hole."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("form", choices=RUNS)
    parser.add_argument("seconds", type=float)
    parser.add_argument("seed", type=int)
    parser.add_argument("files", type=Path, nargs="+")
    parser.add_argument("--keep", type=Path)
    parser.add_argument("--most", type=int, help="the number of mutants")
    parser.add_argument("--unchecked", action="store_true", help="leave the check out")
    given = parser.parse_args()
    counts: Counter[str] = Counter()
    end = time.monotonic() + given.seconds
    seeds = [path.read_bytes() for path in given.files]
    for library in LIBRARIES[given.form]:
        import_module(library)
    for content in islice(mutants(given.form, seeds, given.seed), given.most):
        if time.monotonic() > end:
            break
        found = trial(given.form, content, not given.unchecked)
        counts.update(f"{name} {outcome.word}" for name, outcome in found.items())
        if bad := {name: outcome for name, outcome in found.items() if outcome.bad}:
            _keep(content, bad, given.form, given.keep)
    sys.stdout.write(f"{dict(counts)}\n")
    return int(any(word.split()[1] not in HARMLESS for word in counts))


def _keep(content: bytes, bad: dict[str, Outcome], form: str, folder: Path | None) -> None:
    name, outcome = next(iter(bad.items()))
    words = "-".join(f"{engine}_{outcome.word}" for engine, outcome in bad.items())
    if folder:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{words}-{abs(hash(content)):x}.{form}").write_bytes(content)
    sys.stderr.write(f"{name} {outcome.word} {outcome.peak >> 20} MB\n")


if __name__ == "__main__":
    sys.exit(main())
