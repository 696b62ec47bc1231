"""Find the layers where a shipped file loses accuracy, by the Keras layer's name."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from kedge_convert.drift.layer_values import LayerReference, layer_reference, main
from kedge_convert.drift.layouts import FileChanges
from kedge_convert.drift.matching import LayerTally, MatchEvidence, Matching, match, measure
from kedge_convert.drift.shipped import Shipped, TensorSample, open_shipped
from kedge_convert.images import tensors
from kedge_convert.prepare.pairs import PAIR
from kedge_convert.source import Source
from kedge_runtime.arrays import Floats
from kedge_runtime.artefact.contract import Contract, Input, Tensor
from kedge_runtime.artefact.file import read_artefact
from kedge_runtime.artefact.kinds import Method
from kedge_runtime.artefact.provenance import Provenance
from kedge_runtime.errors import UsageError
from kedge_runtime.output import percent

# A thousandth of the signal: several such layers in a row don't change an answer.
FINE = 30.0
# Rounding to the tensor's own steps explains the noise if it is a quarter of it or more.
EXPLAINED = 6.0
# Clipping more than one value in two hundred costs more than finer steps gain.
CLIPPED = 0.005
# A channel with an eighth of the range has five of eight bits.
NARROW = 8.0
# The largest of ten thousand normal values is four times their RMS, about six after ReLU: a peak
# above twelve is an outlier.
OUTLIER = 12.0

# The limit is the user's: what one network loses by a layer is another one's whole budget.
SEARCH = (
    "`kedge convert ... --min-agreement LIMIT`, with the agreement that you need, searches which "
    "layers to keep in float"
)

# The file doesn't record the reason.
STOCK = "(prepared ones were not closer, not possible, or --effort fast was given): "


@dataclass(frozen=True)
class AdviceRule:
    """Give an advice for the layers whose facts are within the bounds.

    `bounds`: fact -> (minimum, maximum), both included; `kinds`: Keras classes, empty for any;
    `method`: of the file's weights, None for any; `advice`: a template for the facts.
    """

    advice: str
    bounds: dict[str, tuple[float, float]] = field(default_factory=dict)
    kinds: frozenset[str] = frozenset()
    method: Method | None = None

    def holds(self, facts: dict[str, Any]) -> bool:
        """Whether the facts are within every bound."""
        return (
            all(low <= facts[name] <= high for name, (low, high) in self.bounds.items())
            and (not self.kinds or facts["kind"] in self.kinds)
            and self.method in (None, facts["method"])
        )


MANY = float("inf")
GATES = frozenset({"Multiply", "Activation", "HardSilu", "Silu"})
# More noise than integer activations explain, in a layer with an integer kernel.
WEIGHTS: dict[str, tuple[float, float]] = {
    "excess": (EXPLAINED, MANY),
    "kernel_scales": (1, MANY),
    "quantised": (1, 1),
}

RULES = (
    AdviceRule("", {"own_sqnr": (FINE, MANY)}),
    AdviceRule(
        "{clipped} of its values are clipped, because preparation enlarged channels up to "
        "{factor:.1f} times: compare with --effort fast",
        {"clipped": (CLIPPED, 1), "factor": (1.05, MANY)},
    ),
    AdviceRule(
        "{clipped} of its values are outside its range: calibrate with more varied images "
        "(--calibrate DIR, --calibrate-count N)",
        {"clipped": (CLIPPED, 1)},
    ),
    AdviceRule(
        "{excess:.0f} dB more noise than its steps make, and its kernel has one scale for all "
        "channels: convert with kedge, which uses one for each channel",
        {**WEIGHTS, "kernel_scales": (1, 1), "channels": (2, MANY)},
    ),
    AdviceRule(
        "{excess:.0f} dB more noise than its steps make, from its weights, which are stock ones "
        + STOCK
        + SEARCH,
        WEIGHTS,
        method="stock",
    ),
    AdviceRule(
        "{excess:.0f} dB more noise than its steps make, although its weights were prepared: "
        + SEARCH,
        WEIGHTS,
    ),
    AdviceRule(
        "a gate of {own_sqnr:.0f} dB: no range improves the product of two roundings: " + SEARCH,
        kinds=GATES,
    ),
    AdviceRule(
        "its largest channel has {spread:.0f} times the range of the median one, and its weights "
        "are stock ones " + STOCK + SEARCH,
        {"spread": (NARROW, MANY)},
        method="stock",
    ),
    AdviceRule(
        "its peak is {crest:.0f} times its root mean square, which leaves few steps for the "
        "other values: calibrate with images like the real ones, or " + SEARCH,
        {"crest": (OUTLIER, MANY)},
    ),
    AdviceRule(
        "its 8-bit steps allow {floor:.0f} dB only: " + SEARCH, {"floor": (-MANY, FINE + 6)}
    ),
    AdviceRule("{own_sqnr:.0f} dB of its own: " + SEARCH),
)


def advice(facts: dict[str, Any]) -> str:
    """Return what to do about a layer, empty for nothing.

    `facts`: those of a LayerDrift by name, `method`, and `excess`: by how many dB its own noise
    exceeds that of its steps.
    """
    rule = next(rule for rule in RULES if rule.holds(facts))
    return rule.advice.format(**{**facts, "clipped": percent(facts["clipped"])})


SCHEMA = 1


@dataclass(frozen=True)
class LayerDrift:
    """Hold the drift of one layer.

    `layer`: the Keras layer's name, nested models' before a slash; `kind`: its class; `through`:
    all Keras layers between the file's tensor `tensor` and those before it. `position`: its index
    in the file's order. `evidence`: what proves the match.
    `sqnr`, `cosine`: against the float model, all drift up to here. `own_sqnr`, `own_cosine`:
    against the float layer on the file's own inputs, what this layer adds. `floor`: the SQNR of
    rounding to the tensor's steps alone. SQNRs are in dB, at most 150. `clipped`: share of values
    outside the tensor's range, 0 for floats. `spread`: the largest channel's peak to the median
    channel's; `crest`: the peak to the root mean square, both of the file's tensor. `factor`: by
    how much preparation enlarged a channel here, at most; 1 for not. `kernel_scales`: number of
    scales of the layer's kernel, 0 for a float one or none. `quantised`: whether the file has
    integers here. `advice` may be empty.
    """

    layer: str
    kind: str
    through: tuple[str, ...]
    tensor: str
    position: int
    evidence: MatchEvidence
    sqnr: float
    cosine: float
    own_sqnr: float
    own_cosine: float
    floor: float
    clipped: float
    spread: float
    crest: float
    factor: float
    kernel_scales: int
    channels: int
    quantised: bool
    advice: str = ""


@dataclass(frozen=True)
class Localisation:
    """Hold the layers of an artefact, first those that add most noise to their signal.

    `images`: the number measured; `unmatched`: tensors of the file without a Keras tensor.
    """

    artefact: str
    images: int
    layers: tuple[LayerDrift, ...]
    unmatched: tuple[str, ...]


def layer_drift(tally: LayerTally, source: LayerReference, method: Method) -> LayerDrift:
    """Return the drift of one tally; `method`: of the file's weights."""
    stage, range_, own = tally.stage, tally.range, tally.own
    node = main(tally.nodes)
    drift = LayerDrift(
        layer=source.names[node.output],
        kind=type(node.layer).__name__,
        through=tuple(source.names[node.output] for node in tally.nodes),
        tensor=stage.name,
        position=tally.match.index,
        evidence=tally.match.evidence,
        sqnr=tally.total.sqnr,
        cosine=tally.total.cosine,
        own_sqnr=own.sqnr,
        own_cosine=own.cosine,
        floor=range_.floor(stage.step),
        clipped=range_.beyond / max(range_.count, 1),
        spread=range_.spread,
        crest=range_.crest,
        factor=float(tally.match.gauge.factors.max()),
        kernel_scales=stage.kernel_scales,
        channels=len(range_.peaks),
        quantised=stage.step > 0,
    )
    facts = {**asdict(drift), "method": method, "excess": drift.floor - drift.own_sqnr}
    return replace(drift, advice=advice(facts))


def plain(localisation: Localisation) -> dict[str, Any]:
    """Return the documented JSON object (docs/localisation.md)."""
    return {"schema": SCHEMA, **asdict(localisation)}


PROBE = 8  # images for the matching
MEMORY = 256 << 20  # bytes of the file's tensors that are held at once

Tick = Callable[[], None]


def by_layer(
    path: Path, source: Source, images: Sequence[Path], tick: Tick = lambda: None
) -> Localisation:
    """Compare a sealed file with its float model on images, layer by layer.

    `tick` is called once per image. Raises ArtefactError for a file that is unsealed or changed,
    UsageError when it was made from another model or there are no images, EngineError when the
    file can't be opened, ImageError for an unreadable image.
    """
    contract = read_artefact(path).contract
    made_from = contract.provenance
    if made_from.weights_digest != source.weights_digest:
        raise UsageError(
            f"{path}: made from {made_from.source}, whose weights are not those of {source.name}; "
            "give the model that it was converted from"
        )
    return localise(path, contract, source.model, images, tick)


def localise(
    path: Path, contract: Contract, model: Any, images: Sequence[Path], tick: Tick = lambda: None
) -> Localisation:
    """Do the same with a file, sealed or not, and a Keras model from images to logits."""
    if not images:
        raise UsageError(
            "--images: no readable image to compare layers on; give a folder with some"
        )
    case = _Case(open_shipped(path), contract.input, layer_reference(model))
    method = contract.provenance.method
    count = case.affordable(images[0])
    # Matching keeps the float layers' values beside the file's, twice.
    probed = images[: max(1, min(PROBE, count // 4))]
    matching = case.matching(probed, contract.provenance)
    indices = [each.index for each in matching.matches]
    samples = (
        case.sample(images[at : at + count], indices, tick) for at in range(0, len(images), count)
    )
    tallies = measure(case.reference, matching, case.shipped.stages, samples)
    layers = (layer_drift(tally, case.reference, method) for tally in tallies)
    worst_first = sorted(layers, key=lambda layer: layer.own_sqnr)
    unmatched = tuple(case.shipped.stages[i].name for i in matching.unmatched)
    return Localisation(path.name, len(images), tuple(worst_first), unmatched)


def copies(origin: Provenance) -> bool:
    """Whether a file has copied channels that can be told by their number.

    Pairs have no equal in the float model, and as many channels as two copies.
    """
    return bool(origin.copied) and not any(layer.endswith(PAIR) for layer in origin.copied)


@dataclass(frozen=True)
class _Case:
    """Hold the file, its input, and its float model."""

    shipped: Shipped
    spec: Input
    reference: LayerReference

    def affordable(self, image: Path) -> int:
        """Return how many images fit into MEMORY with their tensors."""
        (tensor,) = tensors([image], self.spec)
        return max(1, MEMORY // sum(4 * value.size for value in self.shipped.run(tensor)))

    def matching(self, images: Sequence[Path], origin: Provenance) -> Matching:
        """Match the file's tensors with the float model's."""
        stages = self.shipped.stages
        sample = self.sample(images, range(len(stages)), lambda: None)
        changes = FileChanges(origin.method == "prepared", copies(origin))
        return match(self.reference, stages, sample, changes)

    def sample(self, images: Sequence[Path], indices: Sequence[int], tick: Tick) -> TensorSample:
        """Return the tensors of some images, with the stages at `indices`."""
        raw = list(tensors(images, self.spec))
        stages: dict[int, list[Floats]] = {index: [] for index in indices}
        for tensor in raw:
            values = self.shipped.run(tensor)
            for index, rows in stages.items():
                rows.append(self.shipped.stages[index].real(values[index]))
            tick()
        file_input = self.shipped.entry.real(np.concatenate(raw))
        planar = self.spec.tensor.layout == "nchw"
        floats = replace(self.spec, tensor=Tensor())
        return TensorSample(
            np.concatenate(list(tensors(images, floats))),
            np.ascontiguousarray(np.moveaxis(file_input, 1, -1)) if planar else file_input,
            {index: np.concatenate(rows) for index, rows in stages.items()},
        )
