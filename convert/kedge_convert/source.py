"""What is converted: a Keras classifier that ends in logits, and all that its contract needs."""

import hashlib
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kedge_convert import heads, zoo
from kedge_convert.errors import one_line
from kedge_convert.toolkit import quiet, require
from kedge_models import NORMALISATIONS, Card, card, cards, demo, imagenet, read_labels
from kedge_runtime.contract import Activation, Geometry, Input, Label, Normalisation
from kedge_runtime.errors import UsageError
from kedge_runtime.head import Floats

BATCH = 16


@dataclass(frozen=True)
class Request:
    """What the user says of the model; `None` where the card or the model itself tells.

    `model`: a card's name, `demo`, or a `.keras` file. `preprocess`: `card`, or `keras` for
    load_img + preprocess_input. `labels`: `imagenet` or a file.
    """

    model: str
    weights: str = "imagenet"
    card: str | None = None
    preprocess: str = "card"
    normalisation: str | None = None
    labels: str | None = None


@dataclass(frozen=True)
class Source:
    """A Keras model from pictures to logits. `model` takes float32 [n, h, w, 3]."""

    name: str
    model: Any
    input: Input
    activation: Activation
    labels: tuple[Label, ...]
    weights_digest: str
    card: str = ""

    @property
    def parameters(self) -> int:
        """The number of weights."""
        return int(self.model.count_params())

    def logits(self, tensors: Iterator[NDArray[Any]]) -> Floats:
        """Return the float original's logits, [images, classes], for tensors of [1, h, w, 3]."""
        rows: list[Floats] = []
        batch: list[NDArray[Any]] = []
        for tensor in tensors:
            batch.append(tensor)
            if len(batch) == BATCH:
                rows.append(self.model.predict_on_batch(np.concatenate(batch)))
                batch.clear()
        if batch:
            rows.append(self.model.predict_on_batch(np.concatenate(batch)))
        return np.concatenate(rows).astype(np.float32)


@dataclass(frozen=True)
class Facts:
    """What is known of a model before the user adds to it; None where only the user can tell."""

    card: str = ""
    geometry: Geometry = Geometry(1, 1)
    normalisation: Normalisation | None = None
    labels: tuple[Label, ...] | None = None


def load_source(request: Request) -> Source:
    """Load the model and settle its contract's input and labels.

    Raises UsageError when the model can't be read, is no image classifier, or when a fact that its
    contract needs is neither given nor known.
    """
    name, model, facts = _load(request)
    height, width, classes = heads.check_classifier(model, name)
    logits, activation = heads.to_logits(model, name)
    geometry = replace(_geometry(request, facts), height=height, width=width)
    return Source(
        name=name,
        model=logits,
        input=Input(geometry, _normalisation(request, facts, name)),
        activation=activation,
        labels=_labels(request, facts, name, classes),
        weights_digest=_digest(model),
        card=facts.card,
    )


def _load(request: Request) -> tuple[str, Any, Facts]:
    """Return the source's name, its Keras model, and what is known of it."""
    path = Path(request.model)
    _refuse_idle_options(request, is_file=request.model != "demo" and _is_file_name(path))
    if request.model == "demo":
        facts = Facts(normalisation=NORMALISATIONS["tf"], labels=demo.LABELS)
        return "demo", load_file(demo.MODEL), facts
    if _is_file_name(path):
        model = load_file(path)
        asked = card(request.card) if request.card else None
        if asked and request.normalisation is None:
            _refuse_other_card(path.stem, model, asked)
        return path.stem, model, _facts(asked) if asked else Facts()
    found = card(request.model)
    return found.name.lower(), zoo.build(found, request.weights), _facts(found)


def _refuse_other_card(name: str, model: Any, asked: Card) -> None:
    """Raise UsageError when the model has exactly another application's number of weights.

    The float original would be fed wrongly too, so that the parity check could not tell.
    """
    alike = [each for each in cards().values() if each.parameters == model.count_params()]
    if not alike or asked.normalisation in {each.normalisation for each in alike}:
        return
    raise UsageError(
        f"{name}: has the {alike[0].parameters} weights of {alike[0].name}, which is fed otherwise "
        f"than --card {asked.name}: give --card {alike[0].name}, or --normalisation to insist"
    )


def _refuse_idle_options(request: Request, *, is_file: bool) -> None:
    """Raise UsageError for an option that would change nothing: the user expects that it does."""
    if request.card and not is_file:
        raise UsageError(f"--card {request.card}: {request.model} is its own card; leave it out")
    if request.weights != Request.weights and (is_file or request.model == "demo"):
        raise UsageError(f"--weights: {request.model} has its own weights; name a card instead")


def _is_file_name(path: Path) -> bool:
    """Whether MODEL means a file: a card's name wins over a folder that is called like it."""
    if str(path).lower() in map(str.lower, cards()):
        return False
    return path.exists() or path.name != str(path) or path.suffix in (".keras", ".h5")


def _facts(found: Card) -> Facts:
    return Facts(found.name, found.geometry(), found.normaliser(), found.label_list())


def load_file(path: Path) -> Any:
    """Return the Keras model of a `.keras` file. Raises UsageError when there is none in it."""
    if not path.exists():
        raise UsageError(f"{path}: no such file")
    if path.suffix != ".keras" or not path.is_file():
        raise UsageError(f"{path}: models are .keras files; save yours with model.save('x.keras')")
    if not zipfile.is_zipfile(path):
        raise UsageError(f"{path}: no Keras model in it (a .keras file is a zip archive)")
    keras = require("keras")
    try:
        with quiet():
            return keras.models.load_model(path, compile=False)
    # Keras lets whatever it stumbles over through; here it stumbled over the user's file.
    except Exception as error:
        reason = one_line(error, 300)
        raise UsageError(f"{path}: Keras {keras.__version__} can't load it: {reason}") from error


def _geometry(request: Request, facts: Facts) -> Geometry:
    if request.preprocess == "card":
        return facts.geometry
    # What keras.utils.load_img does: no EXIF, no crop, Pillow's nearest.
    return replace(
        facts.geometry,
        resize="nearest",
        fit="stretch",
        orientation="ignore",
        scaled_decode=False,
    )


def _normalisation(request: Request, facts: Facts, name: str) -> Normalisation:
    if request.normalisation is not None:
        return NORMALISATIONS[request.normalisation]
    if facts.normalisation is None:
        modes = ", ".join(NORMALISATIONS)
        raise UsageError(
            f"{name}: how its pixels are normalised isn't known: give --card NAME (the "
            f"application it was built from; `kedge models` lists them) or --normalisation {modes}"
        )
    return facts.normalisation


def _labels(request: Request, facts: Facts, name: str, classes: int) -> tuple[Label, ...]:
    if request.labels == "imagenet":
        known: tuple[Label, ...] | None = imagenet()
    else:
        known = read_labels(Path(request.labels)) if request.labels else facts.labels
    if known is None:
        raise UsageError(
            f"{name}: its {classes} classes have no names: give --labels FILE|imagenet"
        )
    if len(known) != classes:
        raise UsageError(
            f"{name}: it has {classes} classes, but there are {len(known)} labels: "
            f"give --labels FILE with {classes} lines"
        )
    return known


def _digest(model: Any) -> str:
    hasher = hashlib.sha256()
    for weight in model.get_weights():
        hasher.update(f"{weight.dtype}{weight.shape}".encode())
        hasher.update(np.ascontiguousarray(weight).tobytes())
    return f"sha256:{hasher.hexdigest()}"
