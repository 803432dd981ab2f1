"""A session: one start of tbot, the id that ties its records together, and what became of them."""

import os
import time
from enum import Enum

TYPE_CHECKING = False
if TYPE_CHECKING:
    from threading import Event


class Status(Enum):
    """What became of a record."""

    PENDING = "pending"
    """It is still under way."""
    DELIVERED = "delivered"
    """The Collector answered with success. What that proves, docs/delivery.md says."""
    HANDED_OVER = "handed over"
    """A pipeline that is not ours has it, and only that pipeline knows more."""
    REFUSED = "refused"
    """Consent or policy held it back: it has not left."""
    FAILED = "failed"
    """It could not be delivered."""


class Outcome:
    """What became of a record, and why.

    Args:
        status: What became of it.
        reason: A sentence that a person can read.
    """

    __slots__ = ("reason", "status")

    def __init__(self, status: Status, reason: str) -> None:
        self.status = status
        self.reason = reason

    def __repr__(self) -> str:
        return f"Outcome({self.status}, {self.reason!r})"


_PENDING = Outcome(Status.PENDING, "the record is still under way")


class Session:
    """One start of tbot. Made at that start, never stored, and derived from nothing.

    Attributes:
        id: A version 4 UUID of 36 characters, new for every session.
        started: When the start happened, in nanoseconds since 1970-01-01 UTC.
    """

    __slots__ = ("_outcome", "_pid", "_settled", "id", "started")

    def __init__(self) -> None:
        self.id = _uuid4()
        self.started = time.time_ns()
        self._pid = os.getpid()
        self._outcome = _PENDING
        self._settled: Event | None = None

    @classmethod
    def reported(cls, session_id: str, started: int) -> "Session":
        """Return the session of a start that tbot itself reported.

        Args:
            session_id: The version 4 UUID that tbot made at this start.
            started: When the start happened, in nanoseconds since 1970-01-01 UTC.
        """
        session = cls()
        session.id = session_id
        session.started = started
        return session

    def belongs_here(self) -> bool:
        """Whether this process made it. A forked child has no share in its parent's sessions."""
        return self._pid == os.getpid()

    def track(self) -> None:
        """Let `flush` wait for what becomes of the record."""
        from threading import Event

        self._settled = Event()

    def fail(self, error: BaseException) -> None:
        """Settle with an error of ours."""
        self.settle(Outcome(Status.FAILED, f"it could not be sent ({type(error).__name__})"))

    def settle(self, outcome: Outcome) -> None:
        """Say what became of the record. The first word stands, unless it was HANDED_OVER."""
        if self._outcome.status in (Status.PENDING, Status.HANDED_OVER):
            self._outcome = outcome
            if self._settled is not None:
                self._settled.set()

    def flush(self, timeout: float) -> Outcome:
        """Wait for the record, and say what became of it.

        Args:
            timeout: The longest wait in seconds; 0 looks without waiting.

        Returns:
            The outcome; `Status.PENDING` if the record was still under way.
        """
        if self._settled is not None and self.belongs_here():
            from threading import TIMEOUT_MAX

            self._settled.wait(min(timeout, TIMEOUT_MAX))
        return self._outcome


def _uuid4() -> str:
    # By hand (RFC 9562, section 5.4), as to import uuid costs more than the rest of a refusal.
    bits = int.from_bytes(os.urandom(16))
    bits = bits & ~(0xF << 76) & ~(0x3 << 62) | 0x4 << 76 | 0x2 << 62
    digits = f"{bits:032x}"
    return "-".join((digits[:8], digits[8:12], digits[12:16], digits[16:20], digits[20:]))


_current: Session | None = None


def current() -> Session:
    """The session of this process, made at the first call; a forked child makes its own."""
    global _current
    session = _current
    if session is None or not session.belongs_here():
        session = _current = Session()
    return session
