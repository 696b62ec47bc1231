"""Read `kedge.toml` into frozen records: their type hints are its schema.

Numbers may have units, such as `2MB` and `50%`; `read_drop` reads `1pp` as --max-drop does.
"""

import re
from dataclasses import dataclass, fields, replace
from itertools import product
from math import prod
from pathlib import Path
from typing import Annotated, Any

from kedge_convert.device import fit
from kedge_convert.load.request import SourceRequest
from kedge_convert.quantise.effort import DEFAULT, Effort, read_effort
from kedge_convert.sampling import Sampling
from kedge_convert.worker.process import BYTES
from kedge_models import cards
from kedge_models.devices import Device, device
from kedge_models.toml import load, read
from kedge_runtime.artefact.kinds import Colour, Fit, Kind, Resize
from kedge_runtime.commands.arguments import read_drop
from kedge_runtime.drift.truth import SCHEMES
from kedge_runtime.errors import ContractError
from kedge_runtime.image.input_options import InputOptions
from kedge_runtime.records import decode, shown

# More digits than these are a slip, and some would be infinite.
_SIZE = re.compile(r"([0-9]{1,15}(?:\.[0-9]+)?)\s*([kKMGT]?)B")
_PERCENT = re.compile(r"([0-9]{1,15}(?:\.[0-9]+)?)\s*%")
_MOST = 1e15


def read_size(value: object) -> int:
    """Return a size in bytes of `4000000`, `"4MB"` or `"500kB"`; MB is 10^6 bytes.

    Raises ValueError for other values.
    """
    if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
        return value
    match = _SIZE.fullmatch(value.strip()) if isinstance(value, str) else None
    if match is None:
        raise ValueError(f"got {value!r}, allowed are bytes, such as 4000000, or '4MB'")
    return round(float(match[1]) * BYTES[match[2].upper()])


def read_ratio(value: object) -> float:
    """Return a ratio of `0.5` or `"50%"`. Raises ValueError for other values."""
    if isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < _MOST:
        return float(value)
    match = _PERCENT.fullmatch(value.strip()) if isinstance(value, str) else None
    if match is None:
        raise ValueError(f"got {value!r}, allowed are numbers, such as 0.5, or '50%'")
    return float(match[1]) / 100


def read_share(value: object) -> float:
    """Return a share, 0..1, of `0.95` or `"95%"`. Raises ValueError for other values."""
    ratio = read_ratio(value)
    if ratio > 1:
        raise ValueError(f"got {value!r}, allowed are 0 to 1, such as 0.95, or '95%'")
    return ratio


Table = dict[str, Any]
# A name is a part of file names, in which dots divide it from target and options.
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,99}")
# By field: the values that are words, not files.
WORDS = {
    "source": {"demo", *map(str.lower, cards())},
    "weights": {"imagenet"},
    "labels": {"imagenet"},
    "truth": {"auto", "none", *SCHEMES},
    "calibrate": set[str](),
    "images": set[str](),
}
REMEDY = "name a kedge.toml, or write one: kedge init MODEL DIR"
MAX_VARIANTS = 1000  # of the options; each is a conversion of every model
SHARES = ("min_agreement", "min_mapped")


@dataclass(frozen=True)
class BuildGates:
    """Hold the limits of an artefact; None for a gate that isn't set.

    `max_drop`: of top-1, a share, as `--max-drop` reads it; `min_agreement`: share of images with
    the float model's answer; `max_bytes`: of the file; `max_latency_ratio`: to the model's float32
    artefact of the same format, on this machine; `device`: a device profile that it must fit;
    `min_mapped`: share of operators on that device's accelerator, by default 1.
    """

    max_drop: Annotated[float, read_drop] | None = None
    min_agreement: Annotated[float, read_share] | None = None
    max_bytes: Annotated[int, read_size] | None = None
    max_latency_ratio: Annotated[float, read_ratio] | None = None
    device: str | None = None
    min_mapped: Annotated[float, read_share] | None = None

    def __post_init__(self) -> None:
        """Refuse limits that no artefact or every artefact holds."""
        for name in SHARES:
            value = getattr(self, name)
            if value is not None and not 0 <= value <= 1:
                raise ContractError(f"gates: {name} is {value}, allowed are 0 to 1")
        if self.min_mapped is not None and self.device is None:
            raise ContractError("gates: min_mapped needs a device: name one beside it")

    @property
    def on_device(self) -> fit.DeviceGates:
        """The gates of the device."""
        return fit.GATES if self.min_mapped is None else fit.DeviceGates(self.min_mapped)

    @property
    def limits(self) -> dict[str, Any]:
        """The gates that are set, by name."""
        return {name: value for name, value in vars(self).items() if value is not None}


@dataclass(frozen=True)
class Options:
    """Hold options of `kedge convert`; `preprocess` takes precedence over the models' own."""

    effort: Annotated[Effort, read_effort] = DEFAULT
    dynamic_batch: bool = False
    preprocess: str | None = None
    calibrate_count: int = Sampling.calibration
    check_count: int = Sampling.check
    confidence_count: int = Sampling.confidence
    seed: int = Sampling.seed


@dataclass(frozen=True)
class ModelConfig:
    """Hold one [[model]]. `source`: the model of `kedge convert`, by default `name`.

    `weights`, `card`, `preprocess` and the other options of the pixels, `labels`, `head`, `size`,
    `output`, `signature`, `device`, `force_input`: as its options of those names. The conversion
    for a device uses `gates.min_mapped`, too. `calibrate`: folder of images; `images`: folder to
    measure the drift on; `truth`: their ground truth, as `kedge drift --truth`. `attribute`,
    `by_layer`: on how many of them a drift is traced, 0 for none.
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
        """The device profile of the conversion. Raises UsageError for an unknown device."""
        return None if self.device is None else device(self.device)

    def request(self, options: Options) -> SourceRequest:
        """Return the request to load the model."""
        named = {field.name for field in fields(SourceRequest)} & vars(self).keys()
        values: Table = {name: getattr(self, name) for name in named}
        pixels: Table = {field.name: getattr(self, field.name) for field in fields(InputOptions)}
        pixels["preprocess"] = options.preprocess or self.preprocess
        return SourceRequest(
            **{**values, "model": self.source, "pixels": InputOptions(**pixels)},
            folder=self.calibrate,
            in_toml=True,
        )


@dataclass(frozen=True)
class TargetConfig:
    """Hold one [[target]]: a target with gates of its own."""

    name: str
    gates: BuildGates = BuildGates()


@dataclass(frozen=True)
class Variant:
    """Hold one combination of options; `label` names those that differ, as `.effort-fast`."""

    label: str
    options: Options


@dataclass(frozen=True)
class BuildConfig:
    """Hold a whole file.

    `defaults`: merged into the models; `options`: every combination of its lists; `out`: folder of
    the artefacts.
    """

    model: tuple[ModelConfig, ...]
    defaults: ModelConfig = ModelConfig("defaults")
    target: tuple[TargetConfig, ...] = ()
    options: tuple[Variant, ...] = (Variant("", Options()),)
    out: str = "out"


def read_config(path: Path) -> BuildConfig:
    """Read a file; its paths are relative to its folder.

    Raises ContractError for an unknown key and a value that isn't allowed, UsageError for an
    unreadable file.
    """
    raw = load(read(path, REMEDY), path.name)
    defaults, options = (_table(raw, name, path.name) for name in ("defaults", "options"))
    written = raw.get("model", [])
    if not isinstance(written, list):
        raise ContractError(f"{path.name}.model: got one table, expected a list: [[model]]")
    raw["model"] = [_merged(defaults, model) for model in written]
    # First, so that an error in the defaults isn't reported of a model.
    whole = {"defaults": {"name": "defaults", **defaults}, **raw}
    config = replace(decode(BuildConfig, whole, path.name), options=_variants(options, path.name))
    _check_names(config, path.name)
    models = tuple(placed(model, path.parent) for model in config.model)
    return replace(config, model=models, out=str(path.parent / config.out))


def _table(raw: Table, name: str, where: str) -> Table:
    """Remove a table from a file's data and return it."""
    table = raw.pop(name, {})
    if not isinstance(table, dict):
        raise ContractError(f"{where}.{name}: got {shown(table)}, expected a table: [{name}]")
    return table


def _merged(defaults: Table, model: Any) -> Any:
    """Merge the defaults into a model's table, gates one by one."""
    if not isinstance(model, dict):
        return model
    tables = [each.get("gates", {}) for each in (defaults, model)]
    if not all(isinstance(each, dict) for each in tables):
        return {**defaults, **model}
    return {**defaults, **model, "gates": {**tables[0], **tables[1]}}


def _variants(table: Table, where: str) -> tuple[Variant, ...]:
    """Return every combination; decoding checks names and types."""
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
        raise ContractError(
            f"{where}.options: an empty list has no combinations; add a value or remove the key"
        )
    return tuple(found)


def _check_names(config: BuildConfig, where: str) -> None:
    """Refuse names that two artefacts would share."""
    names = [model.name for model in config.model]
    for name in names:
        if not NAME.fullmatch(name):
            raise ContractError(
                f"{where}: a model has the name {shown(name)}; allowed are letters, digits, _ and "
                "-, 100 at most"
            )
    for several in (names, [target.name for target in config.target]):
        if twice := {name for name in several if several.count(name) > 1}:
            raise ContractError(f"{where}: {min(twice)!r} is used twice; give each its own name")


def placed(model: ModelConfig, folder: Path) -> ModelConfig:
    """Return a model whose file paths have `folder` before them. Raises ContractError."""
    if empty := next(
        (name for name in WORDS if name != "source" and getattr(model, name) == ""), ""
    ):
        raise ContractError(f"{model.name}.{empty}: it is empty; give a value or remove the key")
    values = {name: getattr(model, name) for name in WORDS} | {"source": model.source or model.name}
    paths: Table = {
        name: value if value is None or value.lower() in WORDS[name] else str(folder / value)
        for name, value in values.items()
    }
    return replace(model, **paths)
