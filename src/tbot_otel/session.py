"""A start of tbot: the id and the time of its records, and their outcome."""

import os
from _thread import TIMEOUT_MAX, allocate_lock
from enum import Enum
from time import time_ns

_MINUTE_NS = 60 * 10**9


class Status(Enum):
    """What happened to a record."""

    PENDING = "pending"
    """It is still being sent."""
    DELIVERED = "delivered"
    """The Collector accepted it. docs/delivery.md says what that proves."""
    UNOBSERVED = "unobserved"
    """It was sent. The Collector's response could not be observed."""
    HANDED_OVER = "handed over"
    """The caller's own pipeline has it. What happened after that is not known here."""
    REFUSED = "refused"
    """Consent or policy held it back. Nothing left, unless consent ended between two attempts."""
    FAILED = "failed"
    """It was not delivered."""


class Outcome:
    """What happened to a record, and why.

    Args:
        status: What happened.
        reason: One sentence for people.
        can_retry: Whether a later attempt could succeed, if this one has failed.
    """

    __slots__ = ("can_retry", "reason", "status")

    def __init__(self, status: Status, reason: str, *, can_retry: bool = False) -> None:
        self.status: Status = status
        self.reason: str = reason
        self.can_retry: bool = can_retry

    def describe(self, target: str) -> str:
        """Return what happened to a record that was for `target`, in words."""
        match self.status:
            case Status.DELIVERED | Status.HANDED_OVER | Status.PENDING:
                return f"{self.status.value} to {target}"
            case Status.UNOBSERVED:
                return f"sent to {target}; {self.reason}"
            case Status.REFUSED:
                return f"not sent to {target}: {self.reason}"
            case Status.FAILED:
                return f"not delivered to {target}: {self.reason}"

    def __repr__(self) -> str:
        return f"Outcome({self.status}, {self.reason!r})"


_PENDING = Outcome(Status.PENDING, "the record is still being sent")


class Start:
    """A start of tbot on its way out. It is created at that start, and never stored.

    Args:
        id: The version 4 UUID of 36 characters that ties its records together; by default, a new
            one that is derived from nothing.
        time: Its time as a record may have it (see `blur_time`), in nanoseconds since 1970-01-01
            UTC; by default, the time now.

    Attributes:
        outcome: What happened to its record.
    """

    __slots__ = ("_latch", "_pid", "id", "outcome", "time")

    def __init__(self, id: str | None = None, time: int | None = None) -> None:
        self.id: str = id or _random_uuid4()
        self.time: int = time or blur_time(time_ns())
        self.outcome: Outcome = _PENDING
        self._pid = os.getpid()
        # Unlocked once there is an outcome. Unlike a `threading.Event`, it has no inner lock that
        # a signal handler could wait for without a limit.
        self._latch = allocate_lock()
        self._latch.acquire()

    def belongs_to_this_process(self) -> bool:
        """Return whether this process created it. A forked child did not."""
        return self._pid == os.getpid()

    def settle(self, outcome: Outcome) -> None:
        """Set the outcome. The first one stands, unless it was HANDED_OVER."""
        if self.outcome.status in (Status.PENDING, Status.HANDED_OVER):
            self.outcome = outcome
            self._unlatch()

    def fail(self, error: BaseException) -> None:
        """Settle with an unexpected error."""
        self.settle(Outcome(Status.FAILED, f"the record was not sent ({type(error).__name__})"))

    def wait(self, timeout: float) -> Outcome:
        """Wait for an outcome for at most `timeout` seconds, and return it."""
        if (
            self.outcome.status is Status.PENDING
            and self.belongs_to_this_process()
            and self._latch.acquire(timeout=max(0.0, min(timeout, TIMEOUT_MAX)))
        ):
            self._unlatch()
        return self.outcome

    def _unlatch(self) -> None:
        try:  # noqa: SIM105 - contextlib takes time to import
            self._latch.release()
        except RuntimeError:
            # Another thread did.
            pass


class Session:
    """The caller's view of a start: the id of its records, and what happened to them."""

    __slots__ = ("_start",)

    def __init__(self, start: Start) -> None:
        self._start = start

    @property
    def id(self) -> str:
        """A version 4 UUID of 36 characters, new for every start."""
        return self._start.id

    @property
    def outcome(self) -> Outcome:
        """The outcome so far."""
        return self._start.outcome

    def flush(self, timeout: float) -> Outcome:
        """Wait for the record, and return its outcome.

        Args:
            timeout: The longest wait in seconds; 0 does not wait.

        Returns:
            The outcome; `Status.PENDING` if the record is still being sent.
        """
        return self._start.wait(timeout)


def _random_uuid4() -> str:
    # RFC 9562, section 5.4. Importing uuid costs more than all else that a refusal does.
    bits = int.from_bytes(os.urandom(16))
    bits = bits & ~(0xF << 76) & ~(0x3 << 62) | 0x4 << 76 | 0x2 << 62
    digits = f"{bits:032x}"
    return "-".join((digits[:8], digits[8:12], digits[12:16], digits[16:20], digits[20:]))


def blur_time(nanoseconds: int) -> int:
    """Return a time less a random part of a minute, so that a record does not have its exact time.

    An exact time could be matched with other logs, and the drift of a clock identifies a machine.

    Args:
        nanoseconds: A time since 1970-01-01 UTC.

    Returns:
        A time that is up to a minute earlier, and at least 1, because 0 means an unknown time.
    """
    part = int.from_bytes(os.urandom(8)) % _MINUTE_NS
    return max(1, nanoseconds - part)


_offered: Start | None = None
_untaken: list[Start] = []


def offer_id() -> str:
    """Return the id of this process's first start in a pipeline, for that pipeline's Resource."""
    global _offered
    offered = _offered
    if offered is None or not offered.belongs_to_this_process():
        offered = _offered = Start()
        _untaken.append(offered)
    return offered.id


def start_in_pipeline(time: int | None = None) -> Start:
    """Return a start that goes into, or came out of, a pipeline with a Resource of its own.

    The first one of a process has the id that `offer_id` returned. A Resource holds one id, so
    each further start has only its own.

    Args:
        time: See `Start`.
    """
    # Only pop is atomic: after a check, another thread could take the last one.
    try:
        offered = _untaken.pop()
    except IndexError:
        return Start(time=time)
    return Start(offered.id if offered.belongs_to_this_process() else None, time)
