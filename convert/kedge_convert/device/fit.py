"""Check whether a file fits a device: a finding per aspect, with its reason and remedy."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np

from kedge_convert.device import loader_fit
from kedge_convert.device.compilation import Compilation
from kedge_convert.device.compilers import COMPILERS, Attempt, attempt
from kedge_convert.device.forecast import AGAIN, COMPILED, LISTED, CompilerForecast, forecast
from kedge_models.devices import Device
from kedge_runtime.checks.hardware import Finding, State
from kedge_runtime.modelfile.network import Network
from kedge_runtime.modelfile.report import FileReport, granularity, is_weight

# A classification's memory besides weights and activations: Python, OpenCV and LiteRT resident,
# with a model loaded and run (measured on x86-64; docs/inspect.md), in 1e6 bytes.
RESIDENT_MB = 66
# The system, a camera and the caller's own program need the other half of a board.
SHARE = 0.5
# XNNPACK packs the weights into a copy of its own.
COPIES = 2
SEVEN_BITS = 64  # the largest weight of onnxruntime's reduce_range
# Operators of compiled code, by their compiler.
COMPILED_CODE = {COMPILED: "edgetpu", "ethos-u": "vela"}
# What made a version of an operator younger than the compiler, and what to build instead.
YOUNGER = {
    ("CONV_2D", 6): "it is grouped: build the model with convolutions of one group",
    ("PAD", 4): "it pads more than four dimensions: build the model with fewer",
    ("QUANTIZE", 3): f"it has a scale per channel: {AGAIN}",
    ("TILE", 3): "it repeats int8 numbers, as UpSampling2D does: use interpolation='bilinear'",
    ("TRANSPOSE", 6): "it has more than five dimensions: build the model with fewer",
    ("TRANSPOSE_CONV", 4): f"its activation is fused: {AGAIN}",
}
DENSE = frozenset({"FULLY_CONNECTED", "Gemm", "MatMul"})


@dataclass(frozen=True)
class DeviceGates:
    """The minimum share of operators on an accelerator, 0..1, and its maximum SRAM in 1024 bytes.

    Without `sram_kb` the device's own bound applies.
    """

    mapped: float = 1.0
    sram_kb: float | None = None


GATES = DeviceGates()


@dataclass(frozen=True)
class FitCase:
    """A file and a device, the forecast of its operators, and its compiler's attempt."""

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
        """Whether there is no problem; a note leaves it open."""
        return not self.problems

    @property
    def problems(self) -> tuple[str, ...]:
        """The problems, a line each."""
        return tuple(
            f"{self.device.name}: {name}: {each.detail}" + (f"; {each.fix}" if each.fix else "")
            for name, each in self.findings.items()
            if each.state == "problem"
        )


def fit(report: FileReport, device: Device, gates: DeviceGates = GATES) -> DeviceFit:
    """Check a file against a device, with the device's compiler where it is installed."""
    return judged(report, device, gates, tried(report, device))


def tried(report: FileReport, device: Device) -> Attempt:
    """Call the device's compiler on a file, if precision and operators allow it."""
    allowed = device.precisions.get(report.network.format, ())
    if report.precision not in allowed or _compiled_code(report.network):
        return Attempt()
    return attempt(report.path, device)


def judged(report: FileReport, device: Device, gates: DeviceGates, made: Attempt) -> DeviceFit:
    """Check a file, and its compiler's attempt, against a device."""
    fates = forecast(report.network, device) if _has_forecast(report.network, device) else ()
    case = FitCase(report, device, gates, fates, made)
    findings = {name: finding for name, check in CHECKS.items() if (finding := check(case))}
    return DeviceFit(device, findings, fates, made.compilation)


def _has_forecast(network: Network, device: Device) -> bool:
    is_coral = device.compiler == "edgetpu" and network.format in device.precisions
    return is_coral and not _compiled_code(network)


def _runs(case: FitCase) -> bool:
    return case.network.format in case.device.precisions


def _reconvert(case: FitCase) -> str:
    return f"convert with --device {case.device.name}"


def _precision(case: FitCase) -> Finding:
    allowed = case.device.precisions.get(case.network.format)
    targets = ", ".join(case.device.targets)
    if allowed is None:
        detail = f"{case.device.title} runs no .{case.network.format} files"
        return Finding("problem", detail, f"convert to {targets}")
    if _compiled_code(case.network):
        return Finding("ok", "compiled code")
    if case.report.precision not in allowed:
        detail = f"{case.report.precision}, allowed are {', '.join(allowed)}"
        return Finding("problem", detail, f"convert to {targets}")
    return Finding("ok", f"{case.network.format}:{case.report.precision}")


def _io_dtypes(case: FitCase) -> Finding:
    allowed = {"input": case.device.inputs, "output": case.device.outputs}
    tensors = {"input": case.network.inputs, "output": case.network.outputs}
    dtypes = {key: [case.network.values[i].dtype for i in each] for key, each in tensors.items()}
    for key, each in dtypes.items():
        for dtype in each:
            if dtype not in allowed[key]:
                detail = f"{key} is {dtype}, allowed are {', '.join(allowed[key])}"
                return Finding("problem", detail, _reconvert(case))
    return Finding("ok", "; ".join(f"{key} {', '.join(each)}" for key, each in dtypes.items()))


def _batch(case: FitCase) -> Finding:
    batches = {(case.network.values[i].shape or (-1,))[0] for i in case.network.inputs}
    words = ", ".join("open" if each < 0 else str(each) for each in sorted(batches))
    required = case.device.batch
    if required and batches != {required}:
        detail = f"the batch is {words}, it must be {required}"
        return Finding("problem", detail, _reconvert(case))
    return Finding("ok", words)


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
        f"the device may need one scale for all outputs of a dense layer: {_reconvert(case)}",
    )


def _weights(case: FitCase) -> Finding | None:
    """Check ONNX int8 weights: those beyond 7 bits saturate on x86 without VNNI."""
    kernels = [v for v in case.network.values if is_weight(v) and v.dtype == "int8"]
    if not case.device.reduce_range or case.network.format != "onnx" or not kernels:
        return None
    widest = max(
        int(np.abs(np.frombuffer(v.data or b"\0", np.int8).astype(np.int16)).max()) for v in kernels
    )
    if widest > SEVEN_BITS:
        detail = f"int8 weights reach {widest}, this processor's sums saturate beyond {SEVEN_BITS}"
        return Finding("problem", detail, _reconvert(case))
    return Finding("ok", f"int8 weights within 7 bits (at most {widest})")


def _operators(case: FitCase) -> Finding | None:
    code = _compiled_code(case.network)
    if not _runs(case):
        return None
    if code and COMPILED_CODE[code] != case.device.compiler:
        detail = f"has {code}, compiled for another machine"
        return Finding("problem", detail, "use the file it was compiled from")
    if code:
        return Finding("ok", f"compiled: {_on_cpu(case.network)}")
    if case.attempt.refusal:
        return Finding("problem", case.attempt.refusal, "use operators that it compiles")
    if case.attempt.compilation is not None:
        return _mapped(case.attempt.compilation, case.gates)
    if case.device.compiler == "edgetpu":
        return _forecast(case)
    if case.device.compiler == "vela":
        reason = COMPILERS["vela"].missing()
        return Finding("note", "not compiled, so the share on the NPU is unknown", reason)
    return Finding("ok", f"{len(case.network.operators)} operators")


def _versions(case: FitCase) -> Finding | None:
    """Check the operators' versions: one that is too new stops the compiler at the whole file."""
    known = case.device.newest_versions()
    if not known or not _runs(case) or _compiled_code(case.network):
        return None
    for kind, version in sorted({(each.kind, each.version) for each in case.network.operators}):
        if version > known.get(kind, 0):
            newest = f"knows up to version {known[kind]}" if kind in known else "doesn't know it"
            detail = f"{kind} has version {version}, the compiler {newest}"
            state: State = "problem" if case.gates.mapped else "note"  # 0: the CPU runs the file
            return Finding(state, detail, YOUNGER.get((kind, version), LISTED))
    return Finding("ok", "no operator is younger than the compiler")


def _mapped(compilation: Compilation, gates: DeviceGates) -> Finding:
    count = f"{compilation.mapped} of {compilation.operators}"
    detail = f"{count} on the accelerator ({compilation.compiler})"
    if compilation.share < gates.mapped:
        least = f"the minimum is {100 * gates.mapped:.0f} %"
        return Finding("problem", f"{detail}, {least}", "see the operators below")
    return Finding("ok", detail)


def _forecast(case: FitCase) -> Finding:
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
    unknown = "" if arena is not None else " plus activations of unknown size"
    detail = (
        f"about {needed:.0f} MB{unknown}, {room:.0f} of {case.device.memory_mb} MB are free for it"
    )
    if needed > room:
        return Finding("problem", detail, "use a smaller model or fewer bits")
    return Finding("ok" if arena is not None else "note", detail)


def _cache(case: FitCase) -> Finding | None:
    if not case.device.cache_kb or not _runs(case):
        return None
    weights = case.report.summary.weights / 1024
    if weights <= case.device.cache_kb:
        return Finding(
            "ok", f"{weights:.0f} KB of weights, about {case.device.cache_kb} are cached"
        )
    detail = f"{weights:.0f} KB of weights, only about {case.device.cache_kb} are cached"
    return Finding("note", detail, "the rest is streamed at every image: a smaller model is faster")


def _sram(case: FitCase) -> Finding | None:
    settings, compilation = case.device.vela, case.attempt.compilation
    if settings is None or compilation is None:
        return None
    used = compilation.figures["sram_kb"]
    bound = settings.sram_kb if case.gates.sram_kb is None else case.gates.sram_kb
    detail = f"{used:.0f} KB, at most {bound:.0f} KB"
    if used > bound:
        return Finding("problem", detail, "use a smaller model or input")
    return Finding("ok", detail)


def _time(case: FitCase) -> Finding | None:
    compilation = case.attempt.compilation
    figures = compilation.figures if compilation is not None else {}
    if "inference_ms" not in figures:
        return None
    cycles, milliseconds = figures["cycles"], figures["inference_ms"]
    return Finding(
        "ok", f"{cycles / 1e6:.2f} million cycles, {milliseconds:.2f} ms by the compiler's model"
    )


def _of_loader(name: str, case: FitCase) -> Finding | None:
    contract, loader = case.report.contract, case.device.loader
    if contract is None or loader is None:
        return None
    return loader_fit.CHECKS[name](contract, loader)


CHECKS: dict[str, Callable[[FitCase], Finding | None]] = {
    "precision": _precision,
    "I/O dtype": _io_dtypes,
    "batch": _batch,
    "dense": _dense,
    "weights": _weights,
    "operators": _operators,
    "versions": _versions,
    "memory": _memory,
    "cache": _cache,
    "sram": _sram,
    "time": _time,
    **{name: partial(_of_loader, name) for name in loader_fit.CHECKS},
}


def _compiled_code(network: Network) -> str:
    """Return the operator that holds compiled code, or ""."""
    kinds = {operator.kind for operator in network.operators}
    return next((kind for kind in COMPILED_CODE if kind in kinds), "")


def _on_cpu(network: Network) -> str:
    rest = Counter(op.kind for op in network.operators if op.kind not in COMPILED_CODE)
    kinds = ", ".join(f"{count} {kind}" for kind, count in rest.items())
    return (
        f"{rest.total()} operators stay on the CPU ({kinds})"
        if rest
        else "nothing stays on the CPU"
    )
