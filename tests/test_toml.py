"""TOML of unknown origin: `kedge.toml` and its lock are read in bounds, or refused in one line."""

import subprocess
import sys
from pathlib import Path

import pytest

from conftest import Run
from kedge_convert.matrix import lock as baseline
from kedge_convert.matrix.config import MAX_VARIANTS, read_config
from kedge_convert.matrix.lock import Accepted, Lock
from kedge_models.toml import MAX_BYTES, MAX_DOTS, load
from kedge_runtime.errors import ContractError, KedgeError

MODEL = '[[model]]\nname = "m"\n'
MANY = list(range(100))

CONFIGS: dict[str, tuple[str, str]] = {
    "many digits": (f"[options]\nseed = {'9' * 5000}", "an integer of more than 64 bits"),
    "many hexadecimal digits": (f"[options]\nseed = 0x{'f' * 5000}", "more than 64 bits"),
    "65 bits": (f"[options]\nseed = {2**63}", "more than 64 bits"),
    "a key more than infinite": (f"{MODEL}[model.gates]\nmax_latency_ratio = 1e999", "got inf"),
    "no number": (f"{MODEL}[model.gates]\nmin_agreement = nan", "got nan"),
    "an infinite drop": (f"{MODEL}[model.gates]\nmax_drop = 1e999", "inf is no drop"),
    "many brackets": (f"x = {'[' * 10_000}", "in each other; take some out"),
    "many tables": (f"x = {'{a = ' * 10_000}", "in each other; take some out"),
    "closed brackets": (f"x = {'[' * 100}{']' * 100}", "in each other; take some out"),
    "a key of many parts": (f"{'.'.join(['a'] * 200_000)} = 1", "dots in line 1; shorten it"),
    "a table of many parts": (f"\n[{'.'.join(['a'] * 200_000)}]", "dots in line 2; shorten it"),
    "a date": ("[[model]]\nname = 1979-05-27", "got datetime.date(1979, 5, 27), expected str"),
    "a time among options": (f"[options]\nseed = [07:32:00]\n{MODEL}", "expected int"),
    "many combinations": (
        f"[options]\nseed = {MANY}\ncheck_count = {MANY}\ncalibrate_count = {MANY}\n{MODEL}",
        f"1000000 combinations, allowed are {MAX_VARIANTS}",
    ),
    "the character NUL": (f'{MODEL}source = "a\\u0000b"', "the character NUL"),
    "a long key": (f"{'k' * 100_000} = 1", "unknown key 'kkk"),
    "a long value": (f"options = {[1] * 10_000}", "expected a table"),
    "a large file": (f"# {'x' * MAX_BYTES}", f"more than {MAX_BYTES} bytes"),
}


@pytest.mark.parametrize("name", CONFIGS)
def test_a_config_is_refused_in_one_line(tmp_path: Path, kedge: Run, name: str) -> None:
    text, line = CONFIGS[name]
    (tmp_path / "kedge.toml").write_text(text)
    code, printed, said = kedge("build", tmp_path / "kedge.toml", "--cache", tmp_path / "cache")
    assert (code, printed) == (2, "")
    assert line in said
    assert said.startswith("kedge: ")
    assert (said.count("\n"), len(said) < 400) == (1, True)


@pytest.mark.parametrize("content", [b"\xff\xfe", b"\x80", b'name = "caf\xe9"'])
def test_a_config_that_is_no_utf_8(tmp_path: Path, kedge: Run, content: bytes) -> None:
    (tmp_path / "kedge.toml").write_bytes(content)
    code, _, said = kedge("build", tmp_path / "kedge.toml")
    assert code == 2
    assert "is no UTF-8 text (byte" in said
    assert said.endswith("; name a kedge.toml, or write one: kedge init MODEL DIR\n")
    assert kedge("build", tmp_path)[0] == 2


def test_what_is_within_the_bounds_is_read() -> None:
    text = f"# {'.' * 200}\nlow = {-(2**63)}\nhigh = {2**63 - 1}\npath = '{'../' * 40}'\n"
    assert load(text, "it") == {"low": -(2**63), "high": 2**63 - 1, "path": "../" * 40}
    assert load("x = [[[[1]]]]", "it") == {"x": [[[[1]]]]}
    assert MAX_DOTS >= 80


TIGHT = """
import resource
import sys
from pathlib import Path
resource.setrlimit(resource.RLIMIT_AS, (1 << 30, 1 << 30))
from kedge_models.toml import load
from kedge_runtime.errors import ContractError
try:
    load(Path(sys.argv[1]).read_text(), "it")
except ContractError as error:
    print(error)
"""


def test_the_largest_file_of_the_longest_keys_stays_small(tmp_path: Path) -> None:
    """Their cost grows with the square of a key's parts, of which each line has MAX_DOTS."""
    line = "x{}." + ".".join("a" * MAX_DOTS) + " = 1\n"
    count = MAX_BYTES // (len(line) + 5)
    (tmp_path / "a.toml").write_text("".join(line.format(i) for i in range(count)))
    command = [sys.executable, "-c", TIGHT, str(tmp_path / "a.toml")]
    ran = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "in each other; take some out" in ran.stdout


LOCKS: dict[str, tuple[bytes, str]] = {
    "no UTF-8": (b"\xff\xfe", "is no UTF-8 text (byte 0); restore it from version control"),
    "many digits": (b"schema = " + b"9" * 5000, "more than 64 bits"),
    "brackets": (b"cell = " + b"[" * 10_000, "in each other; take some out"),
    "another schema": (b"schema = 2", "its schema is 2, this kedge reads 1: update kedge"),
    "an infinite drop": (b'[cell.a]\ndigest = "x"\nbytes = 1\ndrop = 1e999', "got inf"),
    "a drop of two": (b'[cell.a]\ndigest = "x"\nbytes = 1\ndrop = 2.0', "drop is 2.0, allowed"),
    "negative bytes": (b'[cell.a]\ndigest = "x"\nbytes = -1', "bytes is -1, allowed are 0 to"),
    "a quote": (b'[cell.a]\ndigest = "x\\"\\n[cell.b]"\nbytes = 1', "digest is 'x"),
    "a date": (b"[cell.a]\ndigest = 1979-05-27\nbytes = 1", "got datetime.date"),
    "no table": (b"cell = 5", "got 5, expected a table"),
}


@pytest.mark.parametrize("name", LOCKS)
def test_a_lock_is_refused_in_one_line(tmp_path: Path, kedge: Run, name: str) -> None:
    content, line = LOCKS[name]
    (tmp_path / "kedge.toml").write_text(f'{MODEL}targets = ["tflite:float32"]\nsource = "demo"\n')
    (tmp_path / "kedge.lock.toml").write_bytes(content)
    code, printed, said = kedge("build", tmp_path / "kedge.toml", "--cache", tmp_path / "cache")
    assert (code, printed) == (2, "")
    assert "kedge.lock.toml" in said
    assert line in said
    assert (said.count("\n"), len(said) < 400) == (1, True)


def test_a_lock_that_is_a_folder_or_leads_nowhere(tmp_path: Path) -> None:
    path = tmp_path / "kedge.lock.toml"
    assert baseline.read(path) == Lock()
    path.symlink_to(tmp_path / "none")
    with pytest.raises(KedgeError, match="no such file"):
        baseline.read(path)
    path.unlink()
    path.mkdir()
    with pytest.raises(KedgeError, match="is a directory"):
        baseline.read(path)


def test_what_is_written_is_read(tmp_path: Path) -> None:
    lock = Lock({"m.int8.tflite": Accepted("sha256:" + "0f" * 32, 2**40, -0.5, 1.0)})
    baseline.write(tmp_path / "kedge.lock.toml", lock)
    assert baseline.read(tmp_path / "kedge.lock.toml") == lock


def test_the_known_files_are_refused(shared: Path, tmp_path: Path) -> None:
    """Each was a traceback; which of the two it is said to be makes no difference."""
    found = [*(shared / "data" / "hostile").glob("*.toml")]
    assert found
    for source in found:
        path = tmp_path / "kedge.lock.toml"
        path.write_bytes(source.read_bytes())
        with pytest.raises(KedgeError):
            baseline.read(path)
        with pytest.raises(KedgeError):
            read_config(path)


def test_a_name_is_no_longer_than_a_files(tmp_path: Path) -> None:
    (tmp_path / "kedge.toml").write_text(f'[[model]]\nname = "{"x" * 101}"\n')
    with pytest.raises(ContractError, match="letters, digits, _ and -, 100 at most"):
        read_config(tmp_path / "kedge.toml")
