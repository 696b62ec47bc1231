"""What may be skipped where everything is installed: hooks of pytest, used by `conftest`.

`make check` sets KEDGE_CI. A test that skips itself then fails, unless its reason is one of
MAY_SKIP: an extra that isn't there, or a module that was renamed, would else go unnoticed.
"""

import os
import re
from collections.abc import Generator
from typing import TypeVar

import pytest

VARIABLE = "KEDGE_CI"
Report = TypeVar("Report", pytest.TestReport, pytest.CollectReport)

# A reason (regular expression, from its beginning) -> why `make check` doesn't bring what it needs.
MAY_SKIP = {
    "no real models and photos|no data/images in the shared": "not part of the repository",
    "a full disk needs the right to mount one|root may write everywhere": "rights of the user",
    "it is Linux that tells|no /proc here|it has no apt-get": "another system",
    "no chromium on PATH|no systemd-analyze|no C compiler|no GNU coreutils": "another system",
    "no (zsh|fish) on PATH": "the user's shells",
    "no mosquitto on PATH": "a broker is the system's to install",
    "no hadolint on PATH": "its licence is the GPL, so kedge doesn't install it",
    "no git here": "an unpacked source archive",
    "needs pip install .keras-kedge.hub..": "200 MB: an environment of its own",
    "could not import 'nacl": "openssl judges the signatures, too",
    "no environment for MediaPipe and Netron": "their own environment, from the network",
    "OpenCV .* can't be installed": "an old numpy has no wheel for a new Python",
    "(tflite-runtime|keras-hub|litert-quantizer|tensorflow-cpu) isn't": "another machine's",
    "MobileNetV3 has no default size": "nothing to compare with",
    "arm64: ": "emulation needs user namespaces, and downloads a system",
    "got empty parameter set": "no files of that kind are committed",
}


def judged(report: Report) -> Report:
    """Return a report; under KEDGE_CI one of a skip that isn't allowed has failed."""
    if os.environ.get(VARIABLE) and report.skipped and not hasattr(report, "wasxfail"):
        reason = _reason(report)
        if not any(re.match(allowed, reason) for allowed in MAY_SKIP):
            report.outcome = "failed"
            report.longrepr = (
                f"{report.nodeid} skipped itself under {VARIABLE}: {reason}; install what it "
                "needs, or add the reason to tests/helpers/skips.py"
            )
    return report


def _reason(report: pytest.TestReport | pytest.CollectReport) -> str:
    said = report.longrepr
    return (said[2] if isinstance(said, tuple) else str(said)).removeprefix("Skipped: ")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Judge the skip of a test."""
    return judged((yield))


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    """Judge the skip of a whole file."""
    return judged((yield))
