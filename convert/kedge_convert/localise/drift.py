"""The result: one record per layer, from the sums to what to do about it."""

from dataclasses import asdict, dataclass, replace
from typing import Any

from kedge_convert.localise.advice import advice
from kedge_convert.localise.matching import Evidence
from kedge_convert.localise.measure import Tally
from kedge_convert.localise.reference import Reference, main
from kedge_runtime.contract import Method

SCHEMA = 1


@dataclass(frozen=True)
class LayerDrift:
    """One layer, as far as the file shows it.

    `layer`: the Keras layer's name, nested models' before a slash; `kind`: its class; `through`:
    all Keras layers that lie between the file's tensor `tensor` and those before it. `position`:
    its place in the file's order, from 0. `evidence`: why the match is believed.
    `sqnr`, `cosine`: against the float original, all drift up to here. `own_sqnr`, `own_cosine`:
    against the float layer on the file's own inputs, what this layer adds. `floor`: the SQNR that
    rounding to the tensor's steps alone would leave. SQNRs are in dB, at most 150.
    `clipped`: share of values beyond the tensor's range, 0 for floats. `spread`: the largest
    channel's peak to the median channel's; `crest`: the peak to the root mean square, both of the
    file's tensor. `factor`: the most that preparation has enlarged a channel here, 1 for not.
    `kernel_scales`: scales of the layer's kernel, 0 for a float one or none. `quantised`: whether
    the file holds integers here. `advice` may be empty.
    """

    layer: str
    kind: str
    through: tuple[str, ...]
    tensor: str
    position: int
    evidence: Evidence
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
    """`layers`: the one that adds most noise to its signal first. `images`: measured on so many.

    `unmatched`: tensors of the file that are none of the original's, or that can't be told.
    """

    artefact: str
    images: int
    layers: tuple[LayerDrift, ...]
    unmatched: tuple[str, ...]


def layer_drift(tally: Tally, source: Reference, method: Method) -> LayerDrift:
    """Return the record of one tally; `method`: how the file's weights were prepared."""
    stage, held, own = tally.stage, tally.range, tally.own
    node = main(tally.nodes)
    drift = LayerDrift(
        layer=source.names[node.output],
        kind=type(node.layer).__name__,
        through=tuple(source.names[node.output] for node in tally.nodes),
        tensor=stage.name,
        position=tally.match.index,
        evidence=tally.match.evidence,
        sqnr=tally.gathered.sqnr,
        cosine=tally.gathered.cosine,
        own_sqnr=own.sqnr,
        own_cosine=own.cosine,
        floor=held.floor(stage.step),
        clipped=held.beyond / max(held.count, 1),
        spread=held.spread,
        crest=held.crest,
        factor=float(tally.match.gauge.factors.max()),
        kernel_scales=stage.kernel_scales,
        channels=len(held.peaks),
        quantised=stage.step > 0,
    )
    facts = {**asdict(drift), "method": method, "excess": drift.floor - drift.own_sqnr}
    return replace(drift, advice=advice(facts))


def plain(found: Localisation) -> dict[str, Any]:
    """Return the documented JSON object (docs/localisation.md)."""
    return {"schema": SCHEMA, **asdict(found)}
