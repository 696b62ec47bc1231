"""Classify what is posted: bounded in size, memory, time and number."""

import asyncio
import re
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response

from kedge_runtime.classify.predictor import Predictor
from kedge_runtime.classify.results import Result, Rule
from kedge_runtime.errors import EngineError, ImageError, KedgeError
from kedge_runtime.image.header import HeaderError, read_header
from kedge_runtime.serve.access import refusal


@dataclass(frozen=True)
class UploadLimits:
    """What uploads may cost.

    `bytes`: of one image; `memory`: of all bodies together, and of one decoded image; `waiting`:
    requests at once; `seconds`: to send a body, and to wait for the model.
    """

    bytes: int = 16 << 20
    memory: int = 64 << 20
    waiting: int = 128
    seconds: float = 20.0


class RefusedError(Exception):
    """Ends a request with a documented error."""

    def __init__(self, code: int, text: str, **headers: str) -> None:
        """Take the HTTP status, the text, and headers."""
        super().__init__(text)
        self.answer = refusal(code, text, **headers)


class ByteBudget:
    """Bytes that all bodies share: who finds too few waits for his turn."""

    def __init__(self, size: int) -> None:
        """Take the size."""
        self._left, self._changed = size, asyncio.Condition()

    @asynccontextmanager
    async def taking(self, size: int) -> AsyncIterator[None]:
        """Hold `size` bytes for a block."""
        async with self._changed:
            await self._changed.wait_for(lambda: self._left >= size)
            self._left -= size
        try:
            yield
        finally:
            async with self._changed:
                self._left += size
                self._changed.notify_all()


class Uploads:
    """The endpoint `POST /v1/classify`: one thread asks the model, in the order of arrival."""

    def __init__(self, model: Predictor, rule: Rule, limits: UploadLimits = UploadLimits()) -> None:
        """Take the model that the stream uses, too."""
        self._model, self._rule, self._limits = model, rule, limits
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="kedge-upload")
        self._budget: ByteBudget | None = None
        self._waiting = 0

    async def __call__(self, request: Request) -> Response:
        """Answer a request."""
        if self._waiting >= self._limits.waiting:
            return refusal(503, "too many images at once; try again", **{"Retry-After": "1"})
        self._waiting += 1
        try:
            return JSONResponse(await asyncio.wait_for(self._answer(request), self._limits.seconds))
        except RefusedError as error:
            return error.answer
        except (TimeoutError, asyncio.TimeoutError):  # two classes before Python 3.11
            return refusal(408, f"not done in {self._limits.seconds:g} s; try again")
        except ClientDisconnect:
            return refusal(400, "the body ended early")
        finally:
            self._waiting -= 1

    async def _answer(self, request: Request) -> dict[str, Any]:
        top, size = _top(request), self._size(request)
        self._budget = self._budget or ByteBudget(self._limits.memory)
        async with self._budget.taking(size):
            content = await self._body(request, size)
            loop = asyncio.get_running_loop()
            result = await loop.run_in_executor(self._thread, self._classify, content, top)
        return {"schema": 1, "command": "serve", **result.to_dict()}

    def _size(self, request: Request) -> int:
        """Return the stated size of the body. Raises RefusedError."""
        kind = request.headers.get("content-type", "")
        if kind.startswith(("multipart/", "application/json")):
            raise RefusedError(
                415, "send the image's bytes as the body: curl --data-binary @image.jpg"
            )
        stated = request.headers.get("content-length", "")
        if not stated.isdecimal():
            raise RefusedError(411, "a Content-Length is needed")
        size = int(stated)
        if size > self._limits.bytes:
            raise RefusedError(413, f"{size} bytes, allowed are {self._limits.bytes}")
        if not size:
            raise RefusedError(400, "the body is empty: send the bytes of an image")
        return size

    async def _body(self, request: Request, size: int) -> bytes:
        body = bytearray()
        async for chunk in request.stream():
            body += chunk
            if len(body) > size:
                raise RefusedError(400, "the body is longer than its Content-Length")
        return bytes(body)

    def _classify(self, content: bytes, top: int) -> Result:
        try:
            self._check(content)
            return self._model(content, top=top, rule=self._rule)
        except ImageError as error:
            raise RefusedError(422, str(error)) from None
        except EngineError as error:
            raise RefusedError(503, str(error)) from None
        except KedgeError as error:
            raise RefusedError(400, str(error)) from None

    def _check(self, content: bytes) -> None:
        """Refuse an image that takes too much to decode. Raises ImageError."""
        try:
            header = read_header(content)
        except HeaderError as error:
            raise ImageError(f"the image: {error}") from None
        # A large JPEG is decoded at an eighth.
        memory = header.memory(8 if header.format == "JPEG" else 1)
        if memory > self._limits.memory:
            raise ImageError(
                f"the image: a {header.format} of {header.width}x{header.height} pixels takes "
                f"{memory >> 20} MiB, allowed are {self._limits.memory >> 20}; shrink it"
            )


def _top(request: Request) -> int:
    text = request.query_params.get("top", "5")
    if not re.fullmatch("[0-9]{1,4}", text) or not 1 <= int(text) <= 1000:
        raise RefusedError(400, "top: allowed are 1 to 1000")
    return int(text)
