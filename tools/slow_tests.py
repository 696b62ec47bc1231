"""Write `tests/slow.txt`, the tests that `make test` leaves out, from the times of a whole run.

    python -m pytest -n 2 -m "not arm64" --junitxml=times.xml
    python tools/slow_tests.py times.xml

Listed is each test function whose cases took SECONDS or more together, its fixtures included.
"""

import argparse
from collections import defaultdict
from pathlib import Path
from xml.etree import ElementTree

SECONDS = 2.5
LIST = Path(__file__).parents[1] / "tests" / "slow.txt"
# The core of `kedge convert` stays in, whatever it takes.
KEPT = ("test_convert.py",)
HEAD = f"""# Tests of {SECONDS:g} s or more: `make test` leaves them out, `make check` runs them.
# Written by tools/slow_tests.py from a run's times.
"""


def main(path: Path) -> None:
    """Read a JUnit file and write the list."""
    seconds: defaultdict[str, float] = defaultdict(float)
    for case in ElementTree.parse(path).iter("testcase"):
        file = str(case.get("classname")).rpartition(".")[2] + ".py"
        seconds[f"{file}::{str(case.get('name')).partition('[')[0]}"] += float(case.get("time", 0))
    slow = [name for name, total in seconds.items() if total >= SECONDS]
    kept = [name for name in slow if name.startswith(KEPT)]
    LIST.write_text(HEAD + "".join(f"{name}\n" for name in sorted({*slow} - {*kept})))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("times", metavar="TIMES.xml", type=Path)
    main(parser.parse_args().times)
