"""How a source is fed: what the user says, its card, and what the model does to pixels itself."""

import shlex
from dataclasses import dataclass, replace
from typing import Any

from kedge_convert.sources import Found, Request, resizing, shapes
from kedge_models import NORMALISATIONS
from kedge_runtime import pixels
from kedge_runtime.contract import Geometry, Input, Normalisation
from kedge_runtime.errors import UsageError
from kedge_runtime.normalisations import FORMULAS, in_rgb, written
from kedge_runtime.pipelines import PIPELINES, Pipeline
from kedge_runtime.pixels import Missing, PixelWords

UNKNOWN = Input(Geometry(1, 1), Normalisation())


@dataclass(frozen=True)
class Feeding:
    """The input of a contract; what is `missing` to settle it; one `line` that says it all."""

    input: Input = UNKNOWN
    missing: tuple[Missing, ...] = ()
    line: str = ""


def fed(request: Request, found: Found, model: Any) -> Feeding:
    """Return how a model, [n, height, width, channels], is fed. Raises UsageError for conflicts."""
    inner = shapes.normalises(found.model)
    words = _with_own(request.pixels, found, inner)
    default, reason = _default(request, found)
    if missing := pixels.missing(words, default):
        return Feeding(missing=missing)
    height, width, channels = model.inputs[0].shape[1:]
    spec = pixels.settled(words, height, width, channels, default)
    return Feeding(spec, line=pixels.line(spec, _why(request.pixels, spec, reason, found, inner)))


def _with_own(words: PixelWords, found: Found, inner: str | None) -> PixelWords:
    """Return the user's words with the normalisation that the card or the model itself tells."""
    if words.normalisation is not None:
        return words
    known = found.facts.normalisation
    _refuse_twice(words, found, inner)
    if known is None and inner is None:
        return words
    return replace(words, normalisation=written(known or NORMALISATIONS["raw"]))


def _refuse_twice(words: PixelWords, found: Found, inner: str | None) -> None:
    """Raise UsageError where two of card, model and pipeline normalise, and not alike."""
    known, name = found.facts.normalisation, found.name
    # What the file's own preprocessor does comes before the model, and both count.
    if inner and not found.facts.told_by and known not in (None, NORMALISATIONS["raw"]):
        raise UsageError(
            f"{name}: begins with its own normalisation ({inner}), but --card {found.facts.card} "
            "has one too: give --normalisation raw, or another to insist"
        )
    brought = PIPELINES[words.preprocess].normalisation if words.preprocess else ""
    own = "raw" if inner and not known else written(known) if known else ""
    if brought and own and brought != own:
        begins = inner and not found.facts.told_by
        what = f"begins with its own normalisation ({inner})" if begins else f"takes {own}"
        raise UsageError(
            f"{name}: {what}, but --preprocess {words.preprocess} feeds {FORMULAS[brought]}: give "
            f"--normalisation {shlex.quote(own)}, or another to insist"
        )


def _default(request: Request, found: Found) -> tuple[Pipeline | None, str]:
    """Return the geometry that the card or the model itself tells, and what told it."""
    if found.facts.pipeline is not None:
        told_by = found.facts.told_by or found.name
        return found.facts.pipeline, f"card {found.facts.card}" if found.facts.card else told_by
    # The user's own size goes before what the model would do by itself.
    layer = None if request.size else resizing.leading(found.model, found.name)
    if layer is None:
        return None, ""
    return resizing.pipeline(layer, found.name), f"its layer {layer.name}"


def _why(words: PixelWords, spec: Input, reason: str, found: Found, inner: str | None) -> str:
    """Return where the input comes from."""
    parts = [words.options() or reason]
    if reason and words.given and words.preprocess is None:
        parts.append(reason)
    if inner and found.facts.told_by and words.normalisation is None:
        parts.append(f"before the model's own normalisation: {inner}")
    elif inner and words.normalisation is None:
        parts.append(f"bytes as they are, the model begins with its own normalisation: {inner}")
    elif inner and in_rgb(spec.normalisation) != NORMALISATIONS["raw"]:
        parts.append(f"on top of its own normalisation, {inner}, as --normalisation insists")
    return "; ".join(parts)
