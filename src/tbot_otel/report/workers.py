"""Parses blocks in this process, and in worker processes if there are many."""

import contextlib
import os
import signal
from collections import deque
from collections.abc import Collection, Iterable, Iterator
from itertools import chain, islice
from typing import TYPE_CHECKING, NamedTuple

from tbot_otel.report.parse import Chunk, Parser
from tbot_otel.report.reader import Block, ReportError

if TYPE_CHECKING:
    from multiprocessing.connection import Connection

MAX_WORKERS = 4
"""The most worker processes. A long line can take 200 MiB in each."""

_MIN_BLOCKS = 4
"""A process takes about as long to start as a block to parse."""


class Options(NamedTuple):
    """The arguments of `Parser`."""

    first_day: int
    last_day: int
    allowed_helpers: Collection[str]


def parse_blocks(blocks: Iterable[Block], options: Options) -> Iterator[tuple[Block, Chunk]]:
    """Return each block, without its lines, and its chunk, in order.

    Raises:
        ReportError: A worker process has ended.
    """
    blocks = iter(blocks)
    parser = Parser(*options)
    for block in islice(blocks, _MIN_BLOCKS):
        yield block._replace(lines=b""), parser.parse(block.lines)
    first = next(blocks, None)
    if first is None:
        return
    pending: deque[tuple[Connection, Block]] = deque()
    with _running_workers(options) as idle:
        for block in chain([first], blocks):
            done = None
            if not idle:
                done, connection = _receive(pending)
                idle.append(connection)
            connection = idle.pop()
            with _worker_errors():
                connection.send_bytes(block.lines)
            pending.append((connection, block._replace(lines=b"")))
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
        raise ReportError("a worker process ended: expected more memory") from None


@contextlib.contextmanager
def _running_workers(options: Options) -> "Iterator[list[Connection]]":
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
                process = context.Process(target=_serve, args=(theirs, options), daemon=True)
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

    # It would start with the first process, and unblock the signal.
    resource_tracker.ensure_running()
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)


def _serve(connection: "Connection", options: Options) -> None:
    parser = Parser(*options)
    # The connection ends with the process that started this one.
    with contextlib.suppress(EOFError, OSError):
        while True:
            connection.send(parser.parse(connection.recv_bytes()))
