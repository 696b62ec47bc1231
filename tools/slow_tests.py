"""Write the lists of slow tests and of proofs from the times of a whole run.

    python -m pytest -n 2 --junitxml=times.xml
    python tools/slow_tests.py times.xml

Times of a busy machine are brought to those of a quiet one by --factor. Several files count
together, such as those of a run that was stopped and of the tests that it left.

`tests/slow.txt` has each test function whose cases took SECONDS or more together, their fixtures
included: `make test` leaves them out. `tests/proofs.txt` has the longest ones of all, as many as
bring the rest below CHECK: `make check` leaves them out, `make proofs` runs them.
"""

import argparse
from collections import defaultdict
from collections.abc import Sequence
from itertools import accumulate
from pathlib import Path
from xml.etree import ElementTree

SECONDS = 2.5
# Seconds of all tests of `make check` together, for two processes: a quarter of an hour less 220 s
# (install, lint, types), less a fifth for their start, their imbalance and what shares a fixture
# with a test that is left out.
CHECK = 0.8 * 2 * (900 - 220)
TESTS = Path(__file__).parents[1] / "tests"
# The core of `kedge convert` stays in, whatever it takes.
KEPT = ("test_convert.py",)
SLOW_HEAD = f"""# Tests of {SECONDS:g} s or more: `make test` leaves them out.
# Written by tools/slow_tests.py from a run's times.
"""
PROOF_HEAD = """# The longest tests: `make check` leaves them out, `make proofs` runs them.
# Written by tools/slow_tests.py from a run's times.
"""


def main(paths: Sequence[Path], factor: float) -> None:
    """Read JUnit files and write the lists."""
    seconds = {name: factor * each for path in paths for name, each in measured(path).items()}
    able = sorted(
        (name for name in seconds if not name.startswith(KEPT)), key=lambda name: -seconds[name]
    )
    left_out = accumulate((seconds[name] for name in able), initial=0.0)
    whole = sum(seconds.values())
    proofs = next(n for n, out in enumerate(left_out) if whole - out <= CHECK or n == len(able))
    slow = [name for name in able if seconds[name] >= SECONDS]
    write("slow.txt", SLOW_HEAD, slow)
    write("proofs.txt", PROOF_HEAD, able[:proofs])


def measured(path: Path) -> dict[str, float]:
    """Return the seconds of each test function, as `test_file.py::test_name`."""
    seconds: defaultdict[str, float] = defaultdict(float)
    for case in ElementTree.parse(path).iter("testcase"):
        file = str(case.get("classname")).rpartition(".")[2] + ".py"
        seconds[f"{file}::{str(case.get('name')).partition('[')[0]}"] += float(case.get("time", 0))
    return dict(seconds)


def write(name: str, head: str, tests: list[str]) -> None:
    """Write a list in the order of the alphabet."""
    (TESTS / name).write_text(head + "".join(f"{test}\n" for test in sorted(tests)))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("times", metavar="TIMES.xml", type=Path, nargs="+")
    parser.add_argument(
        "--factor", type=float, default=1.0, help="a quiet second for each measured"
    )
    arguments = parser.parse_args()
    main(arguments.times, arguments.factor)
