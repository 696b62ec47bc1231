"""`kedge.toml` as frozen records: their type hints are its schema, so no key goes unread."""

import re
from dataclasses import dataclass, fields, replace
from itertools import product
from math import prod
from pathlib import Path
from typing import Annotated, Any

from kedge_convert.device import fit
from kedge_convert.images import Sampling
from kedge_convert.load.request import SourceRequest
from kedge_models import cards
from kedge_models.devices import Device, device
from kedge_models.toml import load, read
from kedge_runtime.artefact.contract import Colour, Fit, Kind, Resize
from kedge_runtime.commands.options import read_drop
from kedge_runtime.drift.truth import SCHEMES
from kedge_runtime.errors import ContractError
from kedge_runtime.image.pixels import PixelWords
from kedge_runtime.records import decode, shown

Table = dict[str, Any]
# A name is a part of file names, in which dots divide it from target and options.
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,99}")
# What isn't a file where a file may stand, by the model's field.
WORDS = {
    "source": {"demo", *map(str.lower, cards())},
    "weights": {"imagenet"},
    "labels": {"imagenet"},
    "truth": {"auto", "none", *SCHEMES},
    "calibrate": set[str](),
    "images": set[str](),
}
MAX_VARIANTS = 1000  # of the options; each is a conversion of every model
SHARES = ("min_agreement", "min_mapped")


@dataclass(frozen=True)
class BuildGates:
    """What an artefact must hold; None for what isn't asked for.

    `max_drop`: top-1 lost, a share of pictures, written as `--max-drop` is; `min_agreement`: share
    of pictures with the original's answer; `max_bytes`: of the file; `max_latency_ratio`: to the
    model's float32 artefact of the same format, on this machine; `device`: a profile that it must
    fit; `min_mapped`: share of operators on that device's accelerator, 1 unless it is given.
    """

    max_drop: Annotated[float, read_drop] | None = None
    min_agreement: float | None = None
    max_bytes: int | None = None
    max_latency_ratio: float | None = None
    device: str | None = None
    min_mapped: float | None = None

    def __post_init__(self) -> None:
        """Refuse limits that nothing or everything would hold."""
        for name in SHARES:
            value = getattr(self, name)
            if value is not None and not 0 <= value <= 1:
                raise ContractError(f"gates: {name} is {value}, allowed are 0 to 1")
        if self.min_mapped is not None and self.device is None:
            raise ContractError("gates: min_mapped needs a device: name one beside it")

    @property
    def on_device(self) -> fit.DeviceGates:
        """What an artefact must hold on its device."""
        return fit.GATES if self.min_mapped is None else fit.DeviceGates(self.min_mapped)

    @property
    def given(self) -> dict[str, Any]:
        """The gates that are asked for, by name."""
        return {name: value for name, value in vars(self).items() if value is not None}


@dataclass(frozen=True)
class Options:
    """How a conversion is done: each field as the option of `kedge convert` of that name.

    `preprocess` goes before the models' own.
    """

    prepare: bool = True
    dynamic_batch: bool = False
    preprocess: str | None = None
    calibrate_count: int = Sampling.calibration
    check_count: int = Sampling.check
    seed: int = Sampling.seed


@dataclass(frozen=True)
class ModelConfig:
    """One [[model]]. `source`: what `kedge convert` takes, by default `name`.

    `weights`, `card`, `preprocess` and the other words of the pixels, `labels`, `head`, `size`,
    `output`, `signature`, `device`: as its options of those names; for the device,
    `gates.min_mapped` is that of the conversion, too.
    `force_input`: convert although another input fits better; `calibrate`: folder of pictures;
    `images`: folder of those on which the drift is measured, none
    without; `truth`: what tells their classes, as `kedge drift --labels`. `attribute`, `by_layer`:
    on how many of them a drift is traced, 0 for not at all.
    """

    name: str
    source: str = ""
    weights: str = SourceRequest.weights
    card: str | None = None
    preprocess: str | None = None
    normalisation: str | None = None
    colour: Colour | None = None
    resize: Resize | None = None
    fit: Fit | None = None
    crop: float | None = None
    exif: bool | None = None
    labels: str | None = None
    device: str | None = None
    head: Kind | None = None
    size: str | None = None
    output: str | None = None
    signature: str | None = None
    calibrate: str | None = None
    force_input: bool = False
    images: str | None = None
    truth: str = "auto"
    attribute: int = 0
    by_layer: int = 0
    targets: tuple[str, ...] = ()
    gates: BuildGates = BuildGates()

    @property
    def profile(self) -> Device | None:
        """What it is converted for. Raises UsageError for a device that isn't known."""
        return None if self.device is None else device(self.device)

    def request(self, options: Options) -> SourceRequest:
        """Return what is said of the model to the converter."""
        named = {field.name for field in fields(SourceRequest)} & vars(self).keys()
        said: Table = {name: getattr(self, name) for name in named}
        words: Table = {field.name: getattr(self, field.name) for field in fields(PixelWords)}
        words["preprocess"] = options.preprocess or self.preprocess
        return SourceRequest(
            **{**said, "model": self.source, "pixels": PixelWords(**words)}, folder=self.calibrate
        )


@dataclass(frozen=True)
class Special:
    """One [[target]]: a target with gates of its own."""

    name: str
    gates: BuildGates = BuildGates()


@dataclass(frozen=True)
class Variant:
    """One combination of options; `label` names those that differ, as `.prepare-false`."""

    label: str
    options: Options


@dataclass(frozen=True)
class BuildConfig:
    """A whole file.

    `defaults`: what models leave out, merged into them; `options`: every combination of its lists;
    `out`: folder of the artefacts.
    """

    model: tuple[ModelConfig, ...]
    defaults: ModelConfig = ModelConfig("defaults")
    target: tuple[Special, ...] = ()
    options: tuple[Variant, ...] = (Variant("", Options()),)
    out: str = "out"


def read_config(path: Path) -> BuildConfig:
    """Read a file; what it names is looked for beside it.

    Raises ContractError for a key that isn't known and a value that isn't allowed, UsageError for
    a file that can't be read.
    """
    raw = load(read(path, "name a kedge.toml"), path.name)
    defaults, options = (_table(raw, name, path.name) for name in ("defaults", "options"))
    written = raw.get("model", [])
    if not isinstance(written, list):
        raise ContractError(f"{path.name}.model: is one table; each model is a [[model]]")
    raw["model"] = [_merged(defaults, model) for model in written]
    # First, so that what is wrong in it isn't told of a model.
    whole = {"defaults": {"name": "defaults", **defaults}, **raw}
    config = replace(decode(BuildConfig, whole, path.name), options=_variants(options, path.name))
    _check_names(config, path.name)
    models = tuple(placed(model, path.parent) for model in config.model)
    return replace(config, model=models, out=str(path.parent / config.out))


def _table(raw: Table, name: str, where: str) -> Table:
    """Take a table out of a file."""
    table = raw.pop(name, {})
    if not isinstance(table, dict):
        raise ContractError(f"{where}.{name}: got {shown(table)}, expected a table: [{name}]")
    return table


def _merged(defaults: Table, model: Any) -> Any:
    """Return a model's table with what it leaves to the defaults; gates are merged one by one."""
    if not isinstance(model, dict):
        return model
    tables = [each.get("gates", {}) for each in (defaults, model)]
    if not all(isinstance(each, dict) for each in tables):
        return {**defaults, **model}
    return {**defaults, **model, "gates": {**tables[0], **tables[1]}}


def _variants(table: Table, where: str) -> tuple[Variant, ...]:
    """Return every combination; decoding each one checks names and kinds."""
    lists = {name: value if isinstance(value, list) else [value] for name, value in table.items()}
    count = prod(map(len, lists.values()))
    if count > MAX_VARIANTS:
        raise ContractError(f"{where}.options: {count} combinations, allowed are {MAX_VARIANTS}")
    found = []
    for values in product(*lists.values()):
        chosen = dict(zip(lists, values, strict=True))
        label = "".join(f".{name}-{chosen[name]}" for name in lists if len(lists[name]) > 1)
        options = decode(Options, chosen, f"{where}.options")
        found.append(Variant(label.lower(), options))
    if not found:
        raise ContractError(f"{where}.options: an empty list leaves nothing to build")
    return tuple(found)


def _check_names(config: BuildConfig, where: str) -> None:
    """Refuse names that would make two artefacts one."""
    names = [model.name for model in config.model]
    for name in names:
        if not NAME.fullmatch(name):
            raise ContractError(
                f"{where}: a model is called {shown(name)}, allowed are "
                "letters, digits, _ and -, 100 at most"
            )
    for several in (names, [target.name for target in config.target]):
        if twice := {name for name in several if several.count(name) > 1}:
            raise ContractError(f"{where}: {min(twice)!r} is there twice; each needs its own name")


def placed(model: ModelConfig, folder: Path) -> ModelConfig:
    """Return a model whose files, named from `folder`, are named from where that is named from."""
    given = {name: getattr(model, name) for name in WORDS} | {"source": model.source or model.name}
    places: Table = {
        name: value if value is None or value.lower() in WORDS[name] else str(folder / value)
        for name, value in given.items()
    }
    return replace(model, **places)
