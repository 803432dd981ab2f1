"""Sessions: the id of a start, and the outcome of its record."""

import threading
import time
import uuid
from collections import Counter

import pytest

from support.processes import WAIT_SECONDS
from support.times import MINUTE_NS, assert_coarse
from tbot_otel import Outcome, Status, session
from tbot_otel.session import Start, blur_time, offer_id, start_in_pipeline


def test_ids() -> None:
    """An id is a version 4 UUID as text, and each session has another one."""
    ids = [Start().id for _ in range(1000)]
    assert len(set(ids)) == len(ids)
    for text in ids:
        parsed = uuid.UUID(text)
        assert (parsed.version, parsed.variant) == (4, uuid.RFC_4122)
        assert str(parsed) == text


def test_ids_are_random() -> None:
    """All bits except the six of version and variant are random."""
    ids = [uuid.UUID(Start().id).int for _ in range(256)]
    constant = [bit for bit in range(128) if len({number >> bit & 1 for number in ids}) == 1]
    assert constant == [62, 63, 76, 77, 78, 79]


def test_time() -> None:
    """A start has the time when it was created, less a part of a minute, in a pipeline too."""
    for create in (Start, start_in_pipeline):
        before = time.time_ns()
        times = [create().time for _ in range(50)]
        assert_coarse(times, before, time.time_ns())


def test_blurred_time_is_uniform() -> None:
    """The part is uniform over a minute, and new each time."""
    now = time.time_ns()
    parts = [now - blur_time(now) for _ in range(3000)]
    assert len({*parts}) == len(parts)
    assert min(parts) >= 0
    assert max(parts) < MINUTE_NS
    # The chance of a count this far from 300 is below one in a billion.
    counts = Counter(part * 10 // MINUTE_NS for part in parts)
    assert all(200 < counts[tenth] < 400 for tenth in range(10))
    # All nanoseconds occur, not only whole seconds.
    assert len({part % 10**9 for part in parts}) > 2900


@pytest.mark.parametrize("now", [0, 1, 10**9, 59 * 10**9, -(10**9)])
def test_blurred_time_near_1970(now: int) -> None:
    """A clock near 1970 gives a valid time that is not exact."""
    times = {blur_time(now) for _ in range(100)}
    assert min(times) >= 1
    assert max(times) <= max(1, now)


@pytest.mark.parametrize("is_own", [True, False])
def test_offered_id(is_own: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first start of a process has the id that its Resource has, and no other start has it."""
    monkeypatch.setattr(session, "_offered", None)
    monkeypatch.setattr(session, "_untaken", [])
    before = start_in_pipeline().id
    offered = offer_id()
    assert offered == offer_id() != before
    if not is_own:
        # As in a forked child.
        monkeypatch.setattr(session._offered, "_pid", 0)
    starts = [start_in_pipeline(time) for time in (1, 2, 3)]
    ids = [start.id for start in starts]
    assert (ids[0] == offered) is is_own
    assert len({*ids, offered}) == (3 if is_own else 4)
    assert [start.time for start in starts] == [1, 2, 3]


def test_fail() -> None:
    """An unexpected error fails the record, and its text, which could have a value, is dropped."""
    start = Start()
    start.fail(ValueError("web01"))
    outcome = start.wait(0)
    assert repr(outcome) == "Outcome(Status.FAILED, 'the record was not sent (ValueError)')"


@pytest.mark.parametrize(
    ("statuses", "expected"),
    [
        ([], None),
        (["DELIVERED"], 0),
        (["REFUSED"], 0),
        (["FAILED"], 0),
        (["HANDED_OVER"], 0),
        (["DELIVERED", "FAILED"], 0),
        (["FAILED", "DELIVERED", "HANDED_OVER"], 0),
        (["REFUSED", "HANDED_OVER", "DELIVERED"], 0),
        (["DELIVERED", "HANDED_OVER"], 0),
        (["HANDED_OVER", "DELIVERED"], 1),
        (["HANDED_OVER", "FAILED"], 1),
        (["HANDED_OVER", "REFUSED"], 1),
        (["HANDED_OVER", "DELIVERED", "FAILED"], 1),
        (["HANDED_OVER", "FAILED", "HANDED_OVER"], 1),
    ],
)
def test_settle(statuses: list[str], expected: int | None) -> None:
    """The first outcome stands, unless it was HANDED_OVER."""
    start = Start()
    outcomes = [Outcome(Status[name], name.lower()) for name in statuses]
    for outcome in outcomes:
        start.settle(outcome)
    outcome = start.wait(0)
    if expected is None:
        assert outcome.status is Status.PENDING
    else:
        assert outcome is outcomes[expected]


@pytest.mark.parametrize(
    ("status", "words"),
    [
        (Status.PENDING, "pending to x"),
        (Status.DELIVERED, "delivered to x"),
        (Status.HANDED_OVER, "handed over to x"),
        (Status.UNOBSERVED, "sent to x; why"),
        (Status.REFUSED, "not sent to x: why"),
        (Status.FAILED, "not delivered to x: why"),
    ],
)
def test_outcome(status: Status, words: str) -> None:
    """An outcome is told in words, and says whether a later attempt could succeed."""
    assert Outcome(status, "why").describe("x") == words
    assert [Outcome(status, "why", can_retry=can).can_retry for can in (False, True)] == [
        False,
        True,
    ]
    assert Outcome(status, "why").can_retry is False


def test_session() -> None:
    """The caller's view of a start has its id and its outcome."""
    start = Start()
    view = session.Session(start)
    assert (view.id, view.outcome.status, view.flush(0).status) == (
        *(start.id, Status.PENDING, Status.PENDING),
    )
    start.settle(Outcome(Status.DELIVERED, "why"))
    assert view.flush(0) is view.outcome is start.outcome


class Latch:
    """A lock that tells how long it was waited for."""

    def acquire(self, timeout: float) -> bool:
        """Wait for no time."""
        self.timeout = timeout
        return False


@pytest.mark.parametrize(
    ("timeout", "waited"), [(-1, 0), (0, 0), (0.5, 0.5), (1e300, threading.TIMEOUT_MAX)]
)
def test_flush_is_bounded(timeout: float, waited: float) -> None:
    """A flush waits as long as it is told, and no longer than the system can."""
    start, latch = Start(), Latch()
    start._latch = latch  # type: ignore[assignment]
    start.wait(timeout)
    assert latch.timeout == waited


def test_flush_waits() -> None:
    """A flush ends when another thread settles the record."""
    start = Start()
    waiting = threading.Event()
    outcomes: list[Outcome] = []

    def flush() -> None:
        waiting.set()
        # Longer than the test waits.
        outcomes.append(start.wait(WAIT_SECONDS * 2))

    thread = threading.Thread(target=flush, daemon=True)
    thread.start()
    assert waiting.wait(WAIT_SECONDS)
    start.settle(Outcome(Status.DELIVERED, "the Collector accepted it"))
    thread.join(WAIT_SECONDS)
    assert [outcome.status for outcome in outcomes] == [Status.DELIVERED]


@pytest.mark.parametrize("timeout", [0, 0.05])
def test_flush_times_out(timeout: float) -> None:
    """A flush returns PENDING after its timeout, and the outcome can still be set."""
    start = Start()
    before = time.monotonic()
    outcome = start.wait(timeout)
    assert time.monotonic() - before >= timeout
    assert repr(outcome) == "Outcome(Status.PENDING, 'the record is still being sent')"
    start.settle(Outcome(Status.FAILED, "x"))
    assert start.wait(timeout).status is Status.FAILED


def test_flush_in_another_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """A forked child does not wait: no thread of it settles the record."""
    start = Start()
    monkeypatch.setattr(start, "_pid", 0)
    before = time.monotonic()
    assert start.wait(60).status is Status.PENDING
    assert time.monotonic() - before < 30


def test_flush_without_end() -> None:
    """The longest timeout is no error: it is longer than a lock can wait."""
    start = Start()
    start.settle(Outcome(Status.DELIVERED, "the Collector accepted it"))
    assert start.wait(float("inf")).status is Status.DELIVERED
