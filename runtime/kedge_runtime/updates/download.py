"""Download one file by HTTPS: bounded in size, time and redirects, without cookies or proxies."""

import http.client
import re
import signal
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO
from urllib.parse import SplitResult, unquote, urljoin, urlsplit

from kedge_runtime import __version__
from kedge_runtime.errors import UsageError, one_line

SCHEME = "https://"
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,150}\.(tflite|onnx)", re.IGNORECASE)
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_CHUNK = 1 << 16


@dataclass(frozen=True)
class DownloadLimits:
    """What a download may take. `silence`: seconds without a byte; `seconds`: in all."""

    bytes: int = 1 << 30
    seconds: float = 900.0
    silence: float = 20.0
    redirects: int = 3


def name_in(address: str) -> str:
    """Return the file's name in an address. Raises UsageError for another kind of address."""
    url = _split(address)
    name = unquote(url.path.rpartition("/")[2])
    if url.scheme != "https" or not url.hostname or url.username or not _NAME.fullmatch(name):
        raise UsageError(
            f"{_shown(url)}: expected https://HOST[:PORT]/PATH/NAME.tflite or .onnx, "
            "without a user, or a folder"
        )
    return name


def tls_context(authorities: Path | None) -> ssl.SSLContext:
    """Return the settings that check the server's certificate; `authorities`: PEM, or the system's.

    Raises UsageError for a file that holds none.
    """
    try:
        return ssl.create_default_context(cafile=authorities)
    except OSError as error:  # ssl.SSLError is one
        raise UsageError(
            f"--ca: {authorities}: no certificates in PEM ({one_line(error)})"
        ) from None


def download(
    address: str, file: BinaryIO, context: ssl.SSLContext, limits: DownloadLimits = DownloadLimits()
) -> None:
    """Write what an address gives into a file. Call it in the main thread.

    Raises UsageError for all that keeps it from being whole.
    """
    url = _split(address)
    try:
        with _within(limits.seconds):
            for _ in range(limits.redirects + 1):
                target = _ask(url, file, context, limits)
                if target is None:
                    return
                url = _split(urljoin(url.geturl(), target))
    except (OSError, http.client.HTTPException) as error:
        reason = getattr(error, "verify_message", "") or one_line(error)
        raise UsageError(f"{_shown(url)}: {reason}; try again later") from None
    raise UsageError(f"{_shown(url)}: more than {limits.redirects} redirects")


def _ask(
    url: SplitResult, file: BinaryIO, context: ssl.SSLContext, limits: DownloadLimits
) -> str | None:
    """Write the answer to a file, or return the address that it points to."""
    if url.scheme != "https" or not url.hostname or url.username:
        raise UsageError(f"{_shown(url)}: a redirect away from https; allowed is https alone")
    # Not urllib: it takes proxies from the environment.
    connection = http.client.HTTPSConnection(
        url.hostname, url.port, timeout=limits.silence, context=context
    )
    headers = {"User-Agent": f"kedge/{__version__}", "Accept-Encoding": "identity"}
    try:
        path = url._replace(scheme="", netloc="", fragment="").geturl()
        connection.request("GET", path or "/", headers=headers)
        answer = connection.getresponse()
        if answer.status in _REDIRECTS:
            return answer.getheader("Location") or ""
        if answer.status != http.client.OK:
            raise UsageError(f"{_shown(url)}: answered {answer.status}; check the address")
        _copy(answer, file, limits.bytes, _shown(url))
        return None
    finally:
        connection.close()


def _copy(answer: http.client.HTTPResponse, file: BinaryIO, most: int, name: str) -> None:
    """Copy a body. Raises UsageError for one that is too long, or shorter than it says."""
    stated, size = answer.length, 0
    while size <= most and (stated or 0) <= most and (chunk := answer.read1(_CHUNK)):
        size += len(chunk)
        file.write(chunk)
    if max(size, stated or 0) > most:
        raise UsageError(f"{name}: {max(size, stated or 0)} bytes or more, allowed are {most}")
    if stated is not None and size != stated:
        raise UsageError(f"{name}: ended after {size} of {stated} bytes; try again later")


@contextmanager
def _within(seconds: float) -> Iterator[None]:
    """Raise TimeoutError in a block that takes longer, whatever it waits for."""

    def late(*_: object) -> None:
        raise TimeoutError(f"took more than {seconds:g} s")

    before = signal.signal(signal.SIGALRM, late)
    timer = signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
        signal.setitimer(signal.ITIMER_REAL, *timer)


def _split(address: str) -> SplitResult:
    try:
        url = urlsplit(address)
        url.port  # noqa: B018 - raises for one that is no number
    except ValueError as error:
        raise UsageError(f"{address}: no address ({error})") from None
    return url


def _shown(url: SplitResult) -> str:
    """Return an address without its user and its query, which may hold secrets."""
    return url._replace(netloc=url.netloc.rpartition("@")[2], query="", fragment="").geturl()
