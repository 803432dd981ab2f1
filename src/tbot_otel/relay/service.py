"""The service: the ASGI application of a relay's worker process."""

import asyncio
import contextlib
import gc
import json
import logging
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping, MutableMapping, Sequence
from typing import Any, cast

from connectrpc.code import Code

from tbot_otel import otlp
from tbot_otel.connect import (
    ANSWER_WITHIN,
    MOST_BYTES,
    Context,
    Report,
    Request,
    asgi_application,
    read,
)
from tbot_otel.relay import idle
from tbot_otel.relay.batch import Batch, lead_exporter_to_messages
from tbot_otel.relay.committer import Committer
from tbot_otel.relay.metrics import Metrics

_logger = logging.getLogger("tbot_otel.relay")

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

MOST_CALLS = 4096
"""The calls that a worker has in flight at most; one more is answered at once."""
MOST_CALLS_BYTES = 32 * 2**20
"""The bytes that may be read for those that have not come yet."""
READ_WITHIN = 5.0
"""The longest that a call's body may take to come, in seconds."""
IDLE = 20.0
"""How long nothing may come on a connection, in seconds: longer than a call may take."""

_LOOK_EVERY = 0.5
_MOST_ASKING = 64
_TOO_LATE = "the Collector has not taken it in time"
_BUSY = {"code": Code.RESOURCE_EXHAUSTED.value, "message": "too many calls in flight"}


class _Call:
    """A call in flight, and how its answer is sent.

    The answer waits here and not in the handler: while that waits, the runtime watches for a client
    that goes away, which costs a fifth of the call and makes no difference to the report.

    Attributes:
        size: The bytes that may be read for it.
        until: When it is given up, on the monotonic clock in seconds.
        result: What tells why its report was not delivered; None until it has come.
    """

    __slots__ = ("_problem", "_send", "result", "size", "until")

    def __init__(self, send: Send, size: int) -> None:
        self._send = send
        self.size = size
        self._problem: str | None = None
        self.until = time.monotonic() + READ_WITHIN
        self.result: asyncio.Future[str | None] | None = None

    async def send(self, message: Message) -> None:
        if message.get("status") == 200 and self.result is not None:
            self._problem = await self.result
            if self._problem is not None:
                error = {"code": Code.UNAVAILABLE.value, "message": self._problem}
                await _answer(self._send, 503, error)
        if self._problem is None:
            await self._send(message)


class Service:
    """Answers tbots, and whoever asks how the worker is.

    Args:
        prefix: What stands before the path of a call: ``/`` and a secret, or nothing.
    """

    def __init__(self, prefix: str = "") -> None:
        self._answers = otlp.Answers()
        # What cannot be used of the variables ends the worker before it takes a call.
        self._exporter = otlp.build(otlp.Arguments(), self._answers)
        lead_exporter_to_messages()
        self._committer = Committer(self._export)
        self._connect = asgi_application(self._take, prefix)
        self._metrics = Metrics()
        self._calls: dict[asyncio.Task[Any] | None, _Call] = {}
        self._bytes = 0
        self._asking = 0
        self._failure: str | None = "nothing is exported yet"

    def _export(self, reports: Sequence[Report]) -> str | None:
        begin = time.monotonic()
        problem = otlp.send(self._exporter, self._answers, Batch(reports))
        if problem != self._failure:
            # Not each time, as there can be hundreds a second.
            if problem is None:
                _logger.info("the Collector takes what is exported")
            else:
                _logger.warning("the Collector does not take what is exported: %s", problem)
        self._failure = problem
        if reports:
            seconds = time.monotonic() - begin
            self._metrics.exported(len(reports), seconds, delivered=problem is None)
        return problem

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Answer a request, as ASGI has it."""
        if scope["type"] == "lifespan":
            await self._live(receive, send)
        elif scope["path"] == "/healthz":
            await _answer(send, 200, {"status": "ok"})
        elif scope["path"] == "/readyz":
            problem = await self._problem()
            status = {"status": "ok"} if problem is None else {"status": problem}
            await _answer(send, 200 if problem is None else 503, status)
        else:
            await self._call(scope, receive, self._counted(send))

    async def _problem(self) -> str | None:
        if self._failure is None:
            return None
        if self._asking >= _MOST_ASKING:
            return "too many ask"
        self._asking += 1
        try:
            return await self._committer.probe()
        finally:
            self._asking -= 1

    async def _call(self, scope: Message, receive: Receive, send: Send) -> None:
        self._metrics.began()
        size = _size(scope["headers"])
        # A call that was given up is gone before its report is.
        calls = max(len(self._calls), self._committer.waiting)
        if calls >= MOST_CALLS or self._bytes + size > MOST_CALLS_BYTES:
            await _answer(send, 429, _BUSY)
            return
        task = asyncio.current_task()
        self._calls[task] = call = _Call(send, size)
        self._bytes += size
        try:
            await self._connect(scope, receive, call.send)
        except asyncio.CancelledError:
            # Of a body that did not come: it is answered, and the server would print a traceback.
            if call.until > time.monotonic():
                raise
        finally:
            del self._calls[task]
            self._bytes -= call.size

    def _counted(self, send: Send) -> Send:
        async def counted(message: Message) -> None:
            if message["type"] == "http.response.start":
                self._metrics.answered(message["status"])
            await send(message)

        return counted

    async def _take(self, request: Request, _: Context) -> None:
        report = read(request, time.time_ns())
        call = self._calls[asyncio.current_task()]
        # What it has is read.
        self._bytes -= call.size
        call.size = 0
        call.result = self._committer.commit(report)
        call.until = time.monotonic() + ANSWER_WITHIN

    async def _live(self, receive: Receive, send: Send) -> None:
        await receive()
        # What is here stays, and calls leave few cycles behind: to look for them at each seven
        # hundredth object takes longer, the more calls wait.
        gc.freeze()
        gc.set_threshold(50_000)
        looking = asyncio.create_task(self._look())
        await send({"type": "lifespan.startup.complete"})
        await receive()
        looking.cancel()
        self._exporter.shutdown()  # type: ignore[no-untyped-call]
        self._metrics.shutdown()
        await send({"type": "lifespan.shutdown.complete"})

    async def _look(self) -> None:
        """Give up calls that take too long; a timer for each would cost more than this."""
        sweep = 0.0
        while True:
            await asyncio.sleep(_LOOK_EVERY)
            now = time.monotonic()
            if now >= sweep:
                sweep = now + IDLE / 4
                with contextlib.suppress(Exception):  # Calls are given up all the same.
                    await asyncio.to_thread(idle.close, IDLE)
            for task, call in list(self._calls.items()):
                if call.until > now:
                    continue
                if call.result is None:
                    # What it waits for is its body.
                    cast("asyncio.Task[Any]", task).cancel()
                elif not call.result.done():
                    call.result.set_result(_TOO_LATE)
            self._committer.forget()


def _size(headers: Iterable[tuple[bytes, bytes]]) -> int:
    """The bytes that a call's body may have. What does not say, or says more, is cut off there."""
    for name, value in headers:
        if name == b"content-length":
            # Longer ones are refused by `int`.
            short = value.isdigit() and len(value) < 20
            return min(int(value), MOST_BYTES) if short else MOST_BYTES
    return MOST_BYTES


async def _answer(send: Send, status: int, content: Mapping[str, str]) -> None:
    headers = [(b"content-type", b"application/json")]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": json.dumps(content).encode()})
