"""Keras to ONNX: the best of several routes, and what is made of its float model."""

import contextlib
import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from operator import attrgetter
from pathlib import Path
from typing import Any

import numpy as np

from kedge_convert import structure
from kedge_convert.errors import ConversionError
from kedge_convert.formats import onnx_float16, onnx_int8, onnx_means
from kedge_convert.formats.canonical import INPUT, OUTPUT, canonical
from kedge_convert.formats.exported import Exported, once
from kedge_convert.formats.onnx_padding import guard
from kedge_convert.formats.tf2onnx_routes import ROUTES, Route
from kedge_convert.photos import Tick, tensors
from kedge_convert.scheme import PLAIN, Scheme
from kedge_convert.source import Source
from kedge_convert.toolkit import quiet, require
from kedge_runtime.contract import Contract, Precision
from kedge_runtime.errors import one_line
from kedge_runtime.files import temporary_folder

__all__ = ["INPUT", "OUTPUT", "RECIPES", "checked", "describe", "export", "float32"]

# Of the largest logit: a graph that is wrong is off by far more. How exact the chosen one is, is
# for the parity check to say, on more pictures.
TOLERANCE = 1e-3
# Routes whose errors differ by less are equally exact: sums in another order differ by 1e-6.
EQUAL = 1e-5
PROBES = 4


Recipe = Callable[[Source, Path, Sequence[Path], Tick, Scheme], bytes]


def export(
    source: Source,
    precision: Precision,
    calibration: Sequence[Path],
    tick: Tick,
    scheme: Scheme = PLAIN,
) -> Exported:
    """Return the serialised ModelProto of `source`, its structure checked.

    Input `input`, output `logits`, batch 1. Raises ConversionError.
    """
    with quiet(), _logs_off(), temporary_folder() as folder:
        floats = folder / "float32.onnx"
        floats.write_bytes(float32(source))
        content = RECIPES[precision](source, floats, calibration, tick, scheme)
    structure.check("onnx", content, source)
    return Exported(content)


def describe(content: bytes, contract: Contract) -> Exported:
    """Return the file as it is: ONNX has no convention for what a classifier's ends mean."""
    return Exported(content)


@dataclass(frozen=True)
class Made:
    """The model of one route. `error`: the largest of its logits, as a share of the largest."""

    nodes: int
    error: float
    content: bytes


@once
def float32(source: Source) -> bytes:
    """Return the float model, made once for all that starts from it.

    Of the routes whose model passes every check it is the most exact one; of those that are equally
    exact the one with the fewest nodes.
    """
    reasons: list[str] = []
    models: list[Made] = []
    with temporary_folder() as folder:
        for name, route in ROUTES.items():
            try:
                models.append(checked(route, source, folder))
            except OSError:  # a full disk is no fault of the route's
                raise
            # tf2onnx raises whatever its parts raise; another route may do, or all are named.
            except Exception as error:
                reasons.append(f"{name}: {one_line(error)}")
    if not models:
        raise ConversionError(f"{source.name}: no route to ONNX: {'; '.join(reasons)}")
    return best(models).content


def best(models: Sequence[Made]) -> Made:
    """Return the one with the fewest nodes of those within EQUAL of the most exact."""
    least = min(made.error for made in models)
    exact = [made for made in models if made.error <= least + EQUAL]
    return min(exact, key=attrgetter("nodes"))


def checked(route: Route, source: Source, folder: Path) -> Made:
    """Return the model of one route. Raises for a model that is wrong."""
    names: Any = require("tf2onnx.utils")
    names.INTERNAL_NAME = 1  # its optimisers go by names, which count all that went before
    model = canonical(onnx_means.reduced(guard(route(source, folder))))
    content: bytes = model.SerializeToString(deterministic=True)
    structure.check("onnx", content, source)
    error = _probe(content, source)
    # Written so that a NaN fails.
    if not error <= TOLERANCE:
        raise ConversionError(f"its logits are off by {error:.2g} of the largest")
    return Made(len(model.graph.node), error, content)


def _probe(content: bytes, source: Source) -> float:
    """Return the relative error of the logits on the source's pictures, or else on noise."""
    probes = list(tensors(source.pictures, source.input)) or structure.probes(source, PROBES)
    reference = source.logits(iter(probes))
    session = require("onnxruntime").InferenceSession(content)
    rows = [session.run([OUTPUT], {INPUT: probe})[0].reshape(1, -1) for probe in probes]
    answers = np.concatenate(rows)
    return float(np.abs(answers - reference).max() / max(np.abs(reference).max(), 1e-12))


def _float32(
    source: Source, floats: Path, calibration: Sequence[Path], tick: Tick, scheme: Scheme
) -> bytes:
    return floats.read_bytes()


def _float16(
    source: Source, floats: Path, calibration: Sequence[Path], tick: Tick, scheme: Scheme
) -> bytes:
    return onnx_float16.halved(floats.read_bytes())


RECIPES: dict[Precision, Recipe] = {
    "float32": _float32,
    "float16": _float16,
    "int8": onnx_int8.stock,
}


@contextlib.contextmanager
def _logs_off() -> Iterator[None]:
    """Silence the toolkits' loggers, which hold handlers of their own."""
    logging.disable(logging.ERROR)
    try:
        yield
    finally:
        logging.disable(logging.NOTSET)
