"""What the Edge TPU compiler will do with a model, operator by operator, without the compiler.

Each operator is judged by itself (`limits.py`, the device's list), then the rule of the single
segment is applied: "as soon as an unsupported operation occurs, that operation and everything after
it executes on the CPU" (coral.ai/docs/edgetpu/models-intro). "After" is by the flow of the tensors,
not by the order in the file, and what stays on the CPU before the first mapped operator, such as
the QUANTIZE of a float input, breaks nothing: so the compiler's own files show.
"""

from dataclasses import dataclass

from kedge_convert.edge.limits import EVERY, LIMITS, LISTED, REBUILT, Doubt, Level, stays
from kedge_models.devices import Device
from kedge_runtime.inspect.network import Network, Operator

COMPILED = "edgetpu-custom-op"
# What may be done at the Keras level about an operator that isn't on the device's list.
REMEDIES = {
    "HARD_SWISH": "convert with --rewrite hard-swish",
    "DEQUANTIZE": REBUILT,
    "CAST": REBUILT,
    "GELU": "retrain with ReLU6: there is no harmless substitute",
}


@dataclass(frozen=True)
class Forecast:
    """One operator's fate: `operator` is its place in the file.

    `maps`: it will run on the Edge TPU; `stays`: on the CPU, for `reason`, unless `remedy`;
    `uncertain`: neither documentation nor a file says.
    """

    operator: int
    kind: str
    level: Level
    reason: str = ""
    remedy: str = ""


@dataclass(frozen=True)
class _Path:
    """What lies on the way to an operator, itself included.

    `entered`: an operator that may be mapped. `doubt`: the first one behind it that breaks the
    segment, for sure or perhaps.
    """

    entered: bool = False
    doubt: Doubt | None = None


def forecast(network: Network, device: Device) -> tuple[Forecast, ...]:
    """Return every operator's fate, in the order of the file."""
    producers = network.producers()
    paths: list[_Path] = []
    found = []
    for i, operator in enumerate(network.operators):
        sources = [paths[p] for p in map(producers.get, operator.inputs) if p is not None and p < i]
        own = judge(network, operator, device)
        before = _worst([path.doubt for path in sources])
        fate = _worst([own, before])
        paths.append(_onward(operator, own, before, any(path.entered for path in sources)))
        level, reason, remedy = (fate.level, fate.reason, fate.remedy) if fate else ("maps", "", "")
        found.append(Forecast(i, operator.kind, level, reason, remedy))
    return tuple(found)


def judge(network: Network, operator: Operator, device: Device) -> Doubt | None:
    """Return the first objection against an operator by itself."""
    if operator.kind == COMPILED:
        return None
    listed = device.operators.get(network.form, ())
    if operator.kind not in listed:
        remedy = REMEDIES.get(operator.kind, LISTED)
        return stays("isn't on the Edge TPU's list of operators", remedy)
    checks = (*EVERY, *LIMITS.get(operator.kind, ()))
    return _worst([check(network, operator) for check in checks])


def _onward(operator: Operator, own: Doubt | None, before: Doubt | None, entered: bool) -> _Path:
    """Return the path behind an operator: a doubt counts once something before it is mapped."""
    if before is not None and before.level == "stays":
        return _Path(entered, before)
    if own is None:
        return _Path(True, before)
    if own.level == "uncertain":
        return _Path(True, before or _behind(operator, own))
    return _Path(entered, _behind(operator, own) if entered else before)


def _behind(operator: Operator, doubt: Doubt) -> Doubt:
    return Doubt(
        doubt.level, f"lies behind {operator.kind}, and the Edge TPU takes one segment only"
    )


def _worst(doubts: list[Doubt | None]) -> Doubt | None:
    """Return the first sure objection, else the first uncertain one."""
    raised = [doubt for doubt in doubts if doubt is not None]
    sure = [doubt for doubt in raised if doubt.level == "stays"]
    return next(iter(sure + raised), None)
