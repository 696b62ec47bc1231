"""`kedge doctor`: its table and JSON, folders that play other machines, and broken libraries."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from kedge_runtime.checks import doctor, hardware
from kedge_runtime.checks.doctor import CHECKS, CURES, Trial, check_engine, cure, examine, runnable
from kedge_runtime.checks.hardware import Finding, Machine
from kedge_runtime.engines.choice import ENGINES, Library

CV2 = Library("cv2", "opencv-python-headless")


def _doctor(*arguments: str, **environment: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "kedge_runtime.cli", "doctor", *arguments],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "COLUMNS": "80", **environment},
    )


def test_the_table_fits_80_columns_and_names_every_check() -> None:
    done = _doctor()
    assert (done.returncode, done.stderr) == (0, "")
    *rows, _, verdict = done.stdout.splitlines()
    assert max(map(len, rows)) <= 80
    assert [row.split()[1] for row in rows if not row.startswith(" ")] == list(CHECKS)
    assert verdict.startswith("Runs .")


def test_json_is_all_that_stdout_holds() -> None:
    done = _doctor("--json")
    assert (done.returncode, done.stderr) == (0, "")
    answer = json.loads(done.stdout)
    assert (answer["schema"], answer["command"]) == (1, "doctor")
    assert list(answer) == ["schema", "command", "runs", "findings"]
    assert list(answer["runs"]) == ["tflite", "onnx"]
    assert [row["name"] for row in answer["findings"]] == list(CHECKS)
    assert all(set(row) == {"name", "state", "detail", "fix"} for row in answer["findings"])


def _broken(folder: Path, **messages: str) -> Path:
    """Make packages whose import fails, to stand before the real ones."""
    for name, message in messages.items():
        (folder / f"{name}.py").write_text(f"raise ImportError({message!r})")
    return folder


def test_it_lives_when_numpy_and_opencv_can_not_be_imported(tmp_path: Path) -> None:
    folder = _broken(
        tmp_path,
        numpy="numpy.core.multiarray failed to import",
        cv2="libGL.so.1: cannot open shared object file: No such file or directory",
    )
    done = _doctor("--json", PYTHONPATH=str(folder))
    assert (done.returncode, done.stderr) == (1, "")
    answer = json.loads(done.stdout)
    found = {row["name"]: row for row in answer["findings"]}
    assert answer["runs"] == {"tflite": [], "onnx": []}
    assert found["numpy"]["state"] == found["opencv"]["state"] == "problem"
    assert "libGL.so.1" in found["opencv"]["detail"]
    assert found["opencv"]["fix"].startswith("pip uninstall -y opencv-python ")
    assert found["numpy"]["fix"].startswith("pip install --upgrade numpy")


def test_the_table_of_a_broken_machine_ends_with_what_follows(tmp_path: Path) -> None:
    done = _doctor(PYTHONPATH=str(_broken(tmp_path, numpy="no")))
    assert done.returncode == 1
    assert done.stdout.endswith("No model can run here: fix the problems above.\n")


NOTHING_HEAVY = """
import sys

HEAVY = {"numpy", "cv2", "onnxruntime", "ai_edge_litert", "tflite_runtime", "tensorflow", "keras"}

class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in HEAVY:
            raise ImportError("blocked: " + name)

sys.meta_path.insert(0, Blocker())
from kedge_runtime.cli import main
sys.argv = ["kedge", "doctor", "--json"]
try:
    main()
finally:
    assert not HEAVY & set(sys.modules)
"""


def test_it_imports_nothing_that_may_be_broken() -> None:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", NOTHING_HEAVY],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (1, "")
    found = {row["name"]: row for row in json.loads(done.stdout)["findings"]}
    assert {found[name]["detail"] for name in ("numpy", *ENGINES)} == {"not installed"}


def test_a_wheel_for_another_processor_is_survived(tmp_path: Path) -> None:
    code = "import os, signal; os.kill(os.getpid(), signal.SIGILL)"
    (tmp_path / "cv2.py").write_text(code)
    done = _doctor("--json", PYTHONPATH=str(tmp_path))
    found = {row["name"]: row for row in json.loads(done.stdout)["findings"]}
    assert found["opencv"]["detail"] == "its import ends with SIGILL"
    assert "another processor" in found["opencv"]["fix"]
    assert done.returncode == 1


@pytest.mark.parametrize(
    ("reason", "part"),
    [
        ("ImportError: libGL.so.1: cannot open shared object file", "opencv-python-headless"),
        ("ImportError: libgthread-2.0.so.0: cannot open", "opencv-python-headless"),
        ("AttributeError: _ARRAY_API not found", "numpy<2"),
        ("ImportError: libopenblas.so.0: cannot open", "apt install libopenblas0"),
        ("ImportError: /lib/libc.so.6: version `GLIBC_2.34' not found", "too old"),
        ("its import ends with SIGILL", "another processor"),
        ("ImportError: something new", "--force-reinstall opencv-python-headless"),
    ],
)
def test_a_reason_has_a_cure(reason: str, part: str) -> None:
    assert part in cure(reason, CV2)


def test_every_cure_can_be_filled_in() -> None:
    assert all("{" not in fix.format(package="x") for fix in CURES.values())


def test_tflite_runtime_beside_numpy_2_is_a_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "is_installed", lambda library: library.name == "tflite_runtime")
    monkeypatch.setattr(doctor, "package_version", lambda package: "2.1.0")
    found = check_engine("litert", Machine())
    assert found == Finding(
        "problem", "tflite-runtime fails with numpy 2.1.0", "pip install 'numpy<2'"
    )


def test_a_broken_library_yields_to_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    trials = {"ai-edge-litert": Trial(reason="GLIBC_2.99"), "tflite-runtime": Trial("2.14.0")}
    monkeypatch.setattr(doctor, "is_installed", lambda library: True)
    monkeypatch.setattr(doctor, "package_version", lambda package: "1.26.4")
    monkeypatch.setattr(doctor, "try_import", lambda library: trials[library.package])
    found = check_engine("litert", Machine())
    assert (found.state, found.detail) == ("ok", "tflite_runtime 2.14.0: .tflite files")


def test_an_old_opencv_reads_pictures_and_runs_no_models(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "try_import", lambda library: Trial("4.6.0"))
    found = check_engine("opencv", Machine())
    assert found.state == "note"
    assert found.fix.startswith("pip install 'keras-kedge[onnx]'")
    assert runnable(READY | {"opencv": found}) == {"tflite": ["litert"], "onnx": ["onnxruntime"]}


def test_an_import_without_an_end_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "TIMEOUT", 0)
    assert doctor.try_import(CV2).reason == "its import takes more than 0 s"


def test_without_an_engine_the_fix_is_its_install_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "is_installed", lambda library: False)
    litert, onnxruntime = (check_engine(n, Machine()) for n in ("litert", "onnxruntime"))
    assert (litert.state, litert.fix) == ("problem", "pip install ai-edge-litert")
    assert onnxruntime.state == "note"
    assert "keras-kedge[onnx]" in onnxruntime.fix
    there = check_engine("onnxruntime", Machine(processor="armv7l"))
    assert there.fix.startswith("onnxruntime has no wheel for 32-bit ARM: use .tflite files")


def test_a_check_that_fails_is_a_finding(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(machine: Machine) -> Finding:
        raise RuntimeError("strange /proc")

    monkeypatch.setattr(doctor, "CHECKS", {"memory": fails})
    (found,) = examine().values()
    assert found == Finding("note", "can't be checked: RuntimeError: strange /proc")


OK, PROBLEM = Finding("ok", ""), Finding("problem", "")
READY = {"numpy": OK, "opencv": OK, "litert": OK, "onnxruntime": OK}


@pytest.mark.parametrize(
    ("broken", "runs"),
    [
        ((), {"tflite": ["litert"], "onnx": ["onnxruntime", "opencv"]}),
        (("litert",), {"tflite": [], "onnx": ["onnxruntime", "opencv"]}),
        (("onnxruntime", "litert"), {"tflite": [], "onnx": ["opencv"]}),
        (("numpy",), {"tflite": [], "onnx": []}),
        (("opencv",), {"tflite": [], "onnx": []}),
    ],
)
def test_what_runs_follows_from_the_findings(
    broken: tuple[str, ...], runs: dict[str, list[str]]
) -> None:
    assert runnable(READY | dict.fromkeys(broken, PROBLEM)) == runs


# Files as a Raspberry Pi or another board has them.
PI_4 = "processor\t: 0\nFeatures\t: fp asimd evtstrm crc32 cpuid\n\nModel\t\t: Raspberry Pi 4 B\n"
PI_5 = "processor\t: 0\nFeatures\t: fp asimd asimdhp cpuid asimddp\n"
SMALL = "MemTotal:         426136 kB\nMemAvailable:     300000 kB\n"
FULL = "MemTotal:        4000000 kB\nMemAvailable:      60000 kB\n"
LARGE = "MemTotal:        4000000 kB\nMemAvailable:    3000000 kB\n"
ZONE = "sys/class/thermal/thermal_zone0/temp"
THROTTLED = "sys/devices/platform/soc/soc:firmware/get_throttled"
GOVERNOR = "sys/devices/system/cpu/cpu0/cpufreq/scaling_governor"
USB = {"sys/bus/usb/devices/1-1/idVendor": "1a6e\n", "sys/bus/usb/devices/1-1/idProduct": "089a\n"}
USED = {"sys/bus/usb/devices/2-1/idVendor": "18d1\n", "sys/bus/usb/devices/2-1/idProduct": "9302\n"}
OTHER = {
    "sys/bus/usb/devices/1-1/idVendor": "046d\n",
    "sys/bus/usb/devices/1-1/idProduct": "08e5\n",
}

Check = Callable[[Machine], Finding]
BOARDS: dict[str, tuple[Check, dict[str, str], str, str, str]] = {
    "Pi 4": (hardware.processor, {"proc/cpuinfo": PI_4}, "note", "Raspberry Pi 4 B, ", "int8"),
    "Pi 5": (hardware.processor, {"proc/cpuinfo": PI_5}, "ok", "dot product, fp16", ""),
    "no cpuinfo": (hardware.processor, {}, "ok", "aarch64, ", ""),
    "Zero 2 W": (hardware.memory, {"proc/meminfo": SMALL}, "note", "292 MB available", "int8"),
    "full": (hardware.memory, {"proc/meminfo": FULL}, "problem", "58 MB available", "end other"),
    "large": (hardware.memory, {"proc/meminfo": LARGE}, "ok", "2.9 GB available of 3.8 GB", ""),
    "no meminfo": (hardware.memory, {}, "ok", "can't be read", ""),
    "cool": (hardware.temperature, {ZONE: "47236\n"}, "ok", "47 °C", ""),
    "hot": (hardware.temperature, {ZONE: "82500\n"}, "note", "82 °C", "heat sink"),
    "no sensor": (hardware.temperature, {}, "ok", "no sensor", ""),
    "weak supply": (hardware.clock, {THROTTLED: "50005\n"}, "problem", "under-volt", "supply"),
    "hot now": (hardware.clock, {THROTTLED: "10004\n"}, "problem", "throttled now", "heat sink"),
    "was hot": (hardware.clock, {THROTTLED: "40000\n"}, "note", "throttled since", "heat sink"),
    "steady": (hardware.clock, {THROTTLED: "0\n", GOVERNOR: "performance"}, "ok", "perform", ""),
    "on demand": (hardware.clock, {GOVERNOR: "ondemand\n"}, "note", "ondemand", "cpupower"),
    "camera": (hardware.camera, {"dev/video0": "", "dev/video1": ""}, "ok", "video0, video1", ""),
    "no camera": (hardware.camera, {}, "ok", "no camera: ", ""),
    "Coral new": (hardware.coral, USB, "problem", "(USB) without", "libedgetpu1-std"),
    "Coral used": (hardware.coral, USED, "problem", "(USB) without", "libedgetpu1-std"),
    "Coral PCI": (hardware.coral, {"dev/apex_0": ""}, "problem", "/dev/apex_0", "libedgetpu1"),
    "webcam": (hardware.coral, OTHER, "ok", "no Edge TPU", ""),
}


def _board(root: Path, files: dict[str, str], processor: str = "aarch64") -> Machine:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return Machine(root, processor)


@pytest.mark.parametrize("case", BOARDS)
def test_a_board_is_judged_by_its_files(
    case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hardware, "EDGETPU_LIBRARY", "libedgetpu.so.0")
    check, files, state, detail, fix = BOARDS[case]
    found = check(_board(tmp_path, files))
    assert (found.state, bool(found.fix)) == (state, bool(fix))
    assert detail in found.detail
    assert fix in found.fix


def test_a_coral_with_its_library_is_ready(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hardware, "_loads", lambda library: True)
    found = hardware.coral(_board(tmp_path, USED))
    assert (found.state, found.detail) == ("ok", "Edge TPU (USB): --delegate edgetpu")


@pytest.mark.parametrize(
    ("check", "files", "group"),
    [
        (hardware.camera, {"dev/video0": ""}, "video"),
        (hardware.coral, {"dev/apex_0": ""}, "apex"),
    ],
)
def test_a_closed_device_names_the_group(
    check: Check,
    files: dict[str, str],
    group: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(hardware, "_loads", lambda library: True)
    monkeypatch.setattr("os.access", lambda *_: False)
    found = check(_board(tmp_path, files))
    assert found.state == "problem"
    assert f"usermod -aG {group}" in found.fix


@pytest.mark.parametrize(
    ("flags", "state", "words"),
    [
        ("fpu avx2 avx_vnni", "ok", "AVX2, VNNI"),
        ("fpu avx2 avx512f avx512_vnni amx_int8", "ok", "AVX-512, AVX-512 VNNI, AMX int8"),
        ("fpu sse2 avx2", "note", "AVX2; no int8 dot product"),
    ],
)
def test_an_x86_is_judged_by_its_flags(flags: str, state: str, words: str, tmp_path: Path) -> None:
    machine = _board(tmp_path, {"proc/cpuinfo": f"model name : Box\nflags : {flags}\n"}, "x86_64")
    found = hardware.processor(machine)
    assert found.state == state
    assert found.detail.startswith("Box, ")
    assert found.detail.endswith(words)
