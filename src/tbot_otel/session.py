"""A session: one start of tbot, the id of its records, and their outcome."""

import os
import time
from enum import Enum

_MINUTE_NS = 60 * 10**9

TYPE_CHECKING = False
if TYPE_CHECKING:
    from threading import Event


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

    def __repr__(self) -> str:
        return f"Outcome({self.status}, {self.reason!r})"


_PENDING = Outcome(Status.PENDING, "the record is still being sent")


class Session:
    """One start of tbot. It is created at that start, never stored, and derived from nothing.

    Attributes:
        id: A version 4 UUID of 36 characters, new for every session.
        started: The time of the start, less a random part of a minute, in nanoseconds since
            1970-01-01 UTC.
    """

    __slots__ = ("_outcome", "_pid", "_settled", "id", "started")

    def __init__(self) -> None:
        self.id: str = _random_uuid4()
        self.started: int = blur_time(time.time_ns())
        self._pid = os.getpid()
        self._outcome = _PENDING
        self._settled: Event | None = None

    @classmethod
    def from_report(cls, session_id: str, started: int) -> "Session":
        """Return the session of a start that tbot itself reported.

        Args:
            session_id: The version 4 UUID that tbot created at this start.
            started: The time of the start as a record may have it: see `blur_time`.
        """
        session = cls()
        session.id = session_id
        session.started = started
        return session

    def belongs_to_this_process(self) -> bool:
        """Return whether this process created the session. A forked child did not."""
        return self._pid == os.getpid()

    def track(self) -> None:
        """Let `flush` wait for the outcome."""
        from threading import Event

        self._settled = Event()

    def fail(self, error: BaseException) -> None:
        """Settle with an unexpected error."""
        self.settle(Outcome(Status.FAILED, f"the record was not sent ({type(error).__name__})"))

    def settle(self, outcome: Outcome) -> None:
        """Set the outcome. The first one stands, unless it was HANDED_OVER."""
        if self._outcome.status in (Status.PENDING, Status.HANDED_OVER):
            self._outcome = outcome
            if self._settled is not None:
                self._settled.set()

    def flush(self, timeout: float) -> Outcome:
        """Wait for the record, and return its outcome.

        Args:
            timeout: The longest wait in seconds; 0 does not wait.

        Returns:
            The outcome; `Status.PENDING` if the record is still being sent.
        """
        if self._settled is not None and self.belongs_to_this_process():
            from threading import TIMEOUT_MAX

            self._settled.wait(min(timeout, TIMEOUT_MAX))
        return self._outcome


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


_current: Session | None = None
_offered: Session | None = None
_unused_offers: list[Session] = []


def current() -> Session:
    """Return this process's session, created at the first call. A forked child creates its own."""
    global _current
    session = _current
    if session is None or not session.belongs_to_this_process():
        session = _current = Session()
    return session


def offer_current_id() -> str:
    """Return the id of this process's session, for the Resource of a pipeline."""
    global _offered
    session = current()
    if session is not _offered:
        _offered = session
        _unused_offers.append(session)
    return session.id


def new_for_pipeline() -> Session:
    """Return the session of a start that goes into a pipeline with a Resource of its own.

    The first start of a process has the id that `offer_current_id` returned, so that every exporter
    sends the same one. A Resource holds one id, so each further start has only its own.
    """
    session = Session()
    # Only pop is atomic: after a check, another thread could take the last one.
    try:
        offered = _unused_offers.pop()
    except IndexError:
        return session
    if offered.belongs_to_this_process():
        session.id = offered.id
    return session
