"""Does a file fit a device? A finding per aspect: what fits, what doesn't, why, and the remedy."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from kedge_convert.device.compilation import Compilation
from kedge_convert.device.forecast import COMPILED, CompilerForecast, forecast
from kedge_convert.device.release import COMPILERS, Attempt, attempt
from kedge_models.devices import Device
from kedge_runtime.checks.hardware import Finding
from kedge_runtime.modelfile.network import Network
from kedge_runtime.modelfile.report import FileReport, granularity, is_weight

# What a classification takes besides weights and activations: Python, OpenCV and LiteRT resident,
# with a model loaded and run (measured on x86-64; docs/inspect.md), in 1e6 bytes.
RESIDENT_MB = 66
# The system, a camera and the caller's own program want the other half of a board.
SHARE = 0.5
# XNNPACK packs the weights into a copy of its own.
COPIES = 2
SEVEN_BITS = 64  # the largest weight of onnxruntime's reduce_range
# Operators of another machine's code, by the compiler that knows them.
FOREIGN = {COMPILED: "edgetpu", "ethos-u": "vela"}
DENSE = frozenset({"FULLY_CONNECTED", "Gemm", "MatMul"})


@dataclass(frozen=True)
class DeviceGates:
    """The least share of operators on an accelerator, 0..1, and its most SRAM in 1024 bytes.

    Without `sram_kb` the device's own bound holds.
    """

    mapped: float = 1.0
    sram_kb: float | None = None


GATES = DeviceGates()


@dataclass(frozen=True)
class FitCase:
    """A file and a device, what the device is forecast to do with the file, and what its compiler
    made of it.
    """

    report: FileReport
    device: Device
    gates: DeviceGates
    forecast: tuple[CompilerForecast, ...]
    attempt: Attempt

    @property
    def network(self) -> Network:
        """The file's graph."""
        return self.report.network


@dataclass(frozen=True)
class DeviceFit:
    """The verdict: a finding per aspect.

    `forecast`: Coral only; `compilation`: of the device's compiler, where it can be called here.
    """

    device: Device
    findings: dict[str, Finding]
    forecast: tuple[CompilerForecast, ...] = ()
    compilation: Compilation | None = None

    @property
    def fits(self) -> bool:
        """Whether nothing stands against it; a note leaves it open."""
        return not self.problems

    @property
    def problems(self) -> tuple[str, ...]:
        """What stands against it, a line each."""
        problems = [(name, f) for name, f in self.findings.items() if f.state == "problem"]
        return tuple(
            f"{self.device.name}: {name}: {found.detail}" + (f"; {found.fix}" if found.fix else "")
            for name, found in problems
        )


def fit(report: FileReport, device: Device, gates: DeviceGates = GATES) -> DeviceFit:
    """Hold a file against a device, with the device's compiler when it can be called here."""
    return judged(report, device, gates, tried(report, device))


def tried(report: FileReport, device: Device) -> Attempt:
    """Return what the device's compiler makes of a file, of one that is fit for compilers."""
    able = device.precisions.get(report.network.format, ())
    if report.precision not in able or _foreign_code(report.network):
        return Attempt()
    return attempt(report.path, device)


def judged(report: FileReport, device: Device, gates: DeviceGates, made: Attempt) -> DeviceFit:
    """Hold a file, and what the device's compiler made of it, against a device."""
    fates = forecast(report.network, device) if _foretold(report.network, device) else ()
    case = FitCase(report, device, gates, fates, made)
    findings = {name: found for name, look in LOOKS.items() if (found := look(case))}
    return DeviceFit(device, findings, fates, made.compilation)


def _foretold(network: Network, device: Device) -> bool:
    foretold = device.compiler == "edgetpu" and network.format in device.precisions
    return foretold and not _foreign_code(network)


def _runs(case: FitCase) -> bool:
    return case.network.format in case.device.precisions


def _again(case: FitCase) -> str:
    return f"convert with --device {case.device.name}"


def _precision(case: FitCase) -> Finding:
    able = case.device.precisions.get(case.network.format)
    targets = ", ".join(case.device.targets)
    if able is None:
        detail = f"{case.device.title} runs no .{case.network.format} files"
        return Finding("problem", detail, f"convert to {targets}")
    if _foreign_code(case.network):
        return Finding("ok", "compiled code")
    if case.report.precision not in able:
        detail = f"{case.report.precision}, allowed are {', '.join(able)}"
        return Finding("problem", detail, f"convert to {targets}")
    return Finding("ok", f"{case.network.format}:{case.report.precision}")


def _ends(case: FitCase) -> Finding:
    allowed = {"input": case.device.inputs, "output": case.device.outputs}
    places = {"input": case.network.inputs, "output": case.network.outputs}
    found = {end: [case.network.values[i].dtype for i in each] for end, each in places.items()}
    for end, dtypes in found.items():
        for dtype in dtypes:
            if dtype not in allowed[end]:
                detail = f"{end} is {dtype}, allowed are {', '.join(allowed[end])}"
                return Finding("problem", detail, _again(case))
    said = "; ".join(f"{end} {', '.join(dtypes)}" for end, dtypes in found.items())
    return Finding("ok", said)


def _batch(case: FitCase) -> Finding:
    batches = {(case.network.values[i].shape or (-1,))[0] for i in case.network.inputs}
    wanted = case.device.batch
    if wanted and batches != {wanted}:
        found = ", ".join("open" if each < 0 else str(each) for each in sorted(batches))
        return Finding("problem", f"the batch is {found}, it must be {wanted}", _again(case))
    return Finding("ok", f"{', '.join(map(str, sorted(batches)))}".replace("-1", "open"))


def _dense(case: FitCase) -> Finding | None:
    kernels = [
        operator
        for operator in case.network.operators
        if operator.kind in DENSE
        and any(
            is_weight(v) and granularity(v) == "channel" for v in case.network.inputs_of(operator)
        )
    ]
    if case.device.per_channel_dense or not kernels:
        return None
    return Finding(
        "note",
        f"{len(kernels)} dense layers have a scale per output",
        f"the device may want one scale for all outputs of a dense layer: {_again(case)}",
    )


def _weights(case: FitCase) -> Finding | None:
    """ONNX int8 weights beyond 7 bits saturate on x86 without VNNI."""
    kernels = [v for v in case.network.values if is_weight(v) and v.dtype == "int8"]
    if not case.device.reduce_range or case.network.format != "onnx" or not kernels:
        return None
    widest = max(
        int(np.abs(np.frombuffer(v.data or b"\0", np.int8).astype(np.int16)).max()) for v in kernels
    )
    if widest > SEVEN_BITS:
        detail = f"int8 weights reach {widest}, this processor's sums saturate beyond {SEVEN_BITS}"
        return Finding("problem", detail, _again(case))
    return Finding("ok", f"int8 weights within 7 bits (at most {widest})")


def _operators(case: FitCase) -> Finding | None:
    code = _foreign_code(case.network)
    if not _runs(case):
        return None
    if code and FOREIGN[code] != case.device.compiler:
        detail = f"has {code}, compiled for another machine"
        return Finding("problem", detail, "take the file it was compiled from")
    if code:
        return Finding("ok", f"compiled: {_rest(case.network)}")
    if case.attempt.refusal:
        return Finding("problem", case.attempt.refusal, "take operators that it compiles")
    if case.attempt.compilation is not None:
        return _mapped(case.attempt.compilation, case.gates)
    if case.device.compiler == "edgetpu":
        return _foreseen(case)
    if case.device.compiler == "vela":
        reason = COMPILERS["vela"].missing()
        return Finding("note", "not compiled, so the share on the NPU is unknown", reason)
    return Finding("ok", f"{len(case.network.operators)} operators")


def _mapped(made: Compilation, gates: DeviceGates) -> Finding:
    detail = f"{made.mapped} of {made.operators} on the accelerator ({made.compiler})"
    if made.share < gates.mapped:
        least = f"at least {gates.mapped:.0%} are asked for"
        return Finding("problem", f"{detail}, {least}", "see the operators below")
    return Finding("ok", detail)


def _foreseen(case: FitCase) -> Finding:
    levels = Counter(fate.level for fate in case.forecast)
    count = len(case.forecast)
    detail = f"{levels['maps']} of {count} will map"
    if levels["uncertain"]:
        detail += f", {levels['uncertain']} perhaps"
    detail += " (forecast, not compiled)"
    doubts = [fate for fate in case.forecast if fate.level != "maps"]
    remedy = next((fate.remedy for fate in doubts if fate.remedy), "")
    if levels["maps"] + levels["uncertain"] < case.gates.mapped * count:
        return Finding("problem", detail, remedy)
    return Finding("note" if levels["uncertain"] else "ok", detail, remedy)


def _memory(case: FitCase) -> Finding | None:
    if not case.device.memory_mb or not _runs(case):
        return None
    arena = case.report.summary.arena
    needed = RESIDENT_MB + (COPIES * case.report.summary.weights + (arena or 0)) / 1e6
    room = SHARE * case.device.memory_mb
    known = "" if arena is not None else " and its activations, which the file doesn't tell"
    detail = (
        f"about {needed:.0f} MB{known}, {room:.0f} of {case.device.memory_mb} MB are free for it"
    )
    if needed > room:
        return Finding("problem", detail, "take a smaller model or fewer bits")
    return Finding("ok" if arena is not None else "note", detail)


def _cache(case: FitCase) -> Finding | None:
    if not case.device.cache_kb or not _runs(case):
        return None
    held = case.report.summary.weights / 1024
    if held <= case.device.cache_kb:
        return Finding("ok", f"{held:.0f} KB of weights, about {case.device.cache_kb} are cached")
    detail = f"{held:.0f} KB of weights, only about {case.device.cache_kb} are cached"
    return Finding(
        "note", detail, "the rest is streamed at every picture: a smaller model is faster"
    )


def _sram(case: FitCase) -> Finding | None:
    settings, made = case.device.vela, case.attempt.compilation
    if settings is None or made is None:
        return None
    used = made.figures["sram_kb"]
    bound = settings.sram_kb if case.gates.sram_kb is None else case.gates.sram_kb
    detail = f"{used:.0f} KB, at most {bound:.0f} KB"
    if used > bound:
        return Finding("problem", detail, "take a smaller model or input")
    return Finding("ok", detail)


def _time(case: FitCase) -> Finding | None:
    made = case.attempt.compilation
    figures = made.figures if made is not None else {}
    if "inference_ms" not in figures:
        return None
    cycles, took = figures["cycles"], figures["inference_ms"]
    return Finding(
        "ok", f"{cycles / 1e6:.2f} million cycles, {took:.2f} ms by the compiler's model"
    )


LOOKS: dict[str, Callable[[FitCase], Finding | None]] = {
    "precision": _precision,
    "ends": _ends,
    "batch": _batch,
    "dense": _dense,
    "weights": _weights,
    "operators": _operators,
    "memory": _memory,
    "cache": _cache,
    "sram": _sram,
    "time": _time,
}


def _foreign_code(network: Network) -> str:
    """Return the operator that is another machine's code, or nothing."""
    kinds = {operator.kind for operator in network.operators}
    return next((kind for kind in FOREIGN if kind in kinds), "")


def _rest(network: Network) -> str:
    rest = Counter(op.kind for op in network.operators if op.kind not in FOREIGN)
    kinds = ", ".join(f"{count} {kind}" for kind, count in rest.items())
    return (
        f"{rest.total()} operators stay on the CPU ({kinds})"
        if rest
        else "nothing stays on the CPU"
    )
