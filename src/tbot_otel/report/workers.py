"""Parses blocks in this process, and in worker processes if there are many."""

import contextlib
import os
import signal
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from itertools import chain, islice
from typing import TYPE_CHECKING

from tbot_otel.report.inputs import ReportError
from tbot_otel.report.parse import Chunk, Parser
from tbot_otel.report.reader import Block

if TYPE_CHECKING:
    from multiprocessing.connection import Connection

MAX_WORKERS = 4
"""The most worker processes. A long line can take 200 MiB in each."""

_MIN_BLOCKS = 4
"""A process takes about as long to start as a block to parse."""


def parse_blocks(
    blocks: Iterable[Block], make_parser: Callable[[], Parser]
) -> Iterator[tuple[Block, Chunk]]:
    """Return each block, without its content, and its chunk, in order.

    Raises:
        ReportError: A worker process has ended.
    """
    blocks = iter(blocks)
    parser = make_parser()
    for block in islice(blocks, _MIN_BLOCKS):
        chunk = parser.parse(block.content, is_protobuf=block.is_protobuf)
        yield block._replace(content=b""), chunk
    first = next(blocks, None)
    if first is None:
        return
    pending: deque[tuple[Connection, Block]] = deque()
    with _running_workers(make_parser) as idle:
        for block in chain([first], blocks):
            done = None
            if not idle:
                done, connection = _receive(pending)
                idle.append(connection)
            connection = idle.pop()
            with _worker_errors():
                connection.send_bytes(b"protobuf" if block.is_protobuf else b"")
                connection.send_bytes(block.content)
            pending.append((connection, block._replace(content=b"")))
            if done is not None:
                yield done
        while pending:
            yield _receive(pending)[0]


def _receive(
    pending: "deque[tuple[Connection, Block]]",
) -> "tuple[tuple[Block, Chunk], Connection]":
    connection, block = pending.popleft()
    with _worker_errors():
        return (block, connection.recv()), connection


@contextlib.contextmanager
def _worker_errors() -> Iterator[None]:
    try:
        yield
    except (EOFError, OSError):
        raise ReportError("a worker process was killed; it may need more memory") from None


@contextlib.contextmanager
def _running_workers(make_parser: Callable[[], Parser]) -> "Iterator[list[Connection]]":
    """Start worker processes, and return the connections to them."""
    import multiprocessing

    # A fork would copy the threads' locks of the libraries that are loaded.
    context = multiprocessing.get_context("spawn")
    connections: list[Connection] = []
    processes = []
    try:
        with _blocked_sigint():
            for _ in range(min(MAX_WORKERS, os.cpu_count() or 1)):
                ours, theirs = context.Pipe()
                connections.append(ours)
                process = context.Process(target=_serve, args=(theirs, make_parser), daemon=True)
                process.start()
                processes.append(process)
                theirs.close()
        yield connections.copy()
    finally:
        for connection in connections:
            connection.close()
        for process in processes:
            process.terminate()
            process.join()


@contextlib.contextmanager
def _blocked_sigint() -> Iterator[None]:
    """Block SIGINT in processes that are started now: a terminal sends it to them as well."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    from multiprocessing import resource_tracker

    # The resource tracker unblocks SIGINT when it starts, so start it now.
    resource_tracker.ensure_running()
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)


def _serve(connection: "Connection", make_parser: Callable[[], Parser]) -> None:
    parser = make_parser()
    # The connection ends with the process that started this one.
    with contextlib.suppress(EOFError, OSError):
        while True:
            is_protobuf = bool(connection.recv_bytes())
            connection.send(parser.parse(connection.recv_bytes(), is_protobuf=is_protobuf))
