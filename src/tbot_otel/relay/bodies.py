"""The bodies of calls: how large they can be, how long they can take, and how many can be late."""

import asyncio
import time
from typing import TYPE_CHECKING, Any

from tbot_otel.connect import MAX_REQUEST_BYTES
from tbot_otel.relay.problems import BODY_TIMEOUT, TOO_LARGE, TOO_MANY_UNREAD, Problem

if TYPE_CHECKING:
    from granian.rsgi import (  # type: ignore[attr-defined]  # it exports them without a list
        HTTPProtocol,
        Scope,
    )

MAX_UNREAD_CALLS = 7168
"""The most calls in a worker whose body has not arrived. One more ends the oldest of them."""
BODY_TIMEOUT_SECONDS = 5.0
"""The longest time until a call's body has arrived."""


class BodyReader:
    """Reads the bodies of calls, and ends those that take too long or too much room."""

    def __init__(self) -> None:
        self._deadlines: dict[asyncio.Task[Any], float] = {}
        self._ended: dict[asyncio.Task[Any], Problem] = {}

    async def read(self, scope: "Scope", protocol: "HTTPProtocol") -> bytes | Problem:
        """Read the body of a call, or return why it cannot be read."""
        length = scope.headers.get("content-length")
        # int() refuses text that is too long.
        if length is not None and (len(length) > 20 or int(length) > MAX_REQUEST_BYTES):
            return TOO_LARGE
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 - the server runs each request in a task
        self._deadlines[task] = time.monotonic() + BODY_TIMEOUT_SECONDS
        if len(self._deadlines) > MAX_UNREAD_CALLS:
            self._end(next(iter(self._deadlines)), TOO_MANY_UNREAD)
        try:
            if length is not None:
                return await protocol()
            body = b""
            # A broken body ends like a whole one. That makes no false report: the start is one
            # field of the message, with its length.
            async for part in protocol:
                body += part
                if len(body) > MAX_REQUEST_BYTES:
                    return TOO_LARGE
        except asyncio.CancelledError:
            problem = self._ended.pop(task, None)
            if problem is None:
                raise
            task.uncancel()
            return problem
        finally:
            self._deadlines.pop(task, None)
        return body

    def expire(self) -> None:
        """End the calls whose body is late."""
        now = time.monotonic()
        for task, deadline in list(self._deadlines.items()):
            if deadline <= now:
                self._end(task, BODY_TIMEOUT)

    def _end(self, task: asyncio.Task[Any], problem: Problem) -> None:
        del self._deadlines[task]
        self._ended[task] = problem
        task.cancel()
