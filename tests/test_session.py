"""Sessions: an id per start, made here, and what became of the start's record."""

import threading
import time
import uuid

import pytest

from collectors import run
from tbot_otel import Outcome, Session, Status
from tbot_otel.session import current


def test_ids() -> None:
    """An id is a UUID of version 4, as text, and no two are alike."""
    ids = [Session().id for _ in range(1000)]
    assert len(set(ids)) == len(ids)
    for text in ids:
        parsed = uuid.UUID(text)
        assert (parsed.version, parsed.variant) == (4, uuid.RFC_4122)
        assert str(parsed) == text


def test_ids_are_random() -> None:
    """All but the six bits of version and variant are drawn."""
    ids = [uuid.UUID(Session().id).int for _ in range(256)]
    constant = [bit for bit in range(128) if len({number >> bit & 1 for number in ids}) == 1]
    assert constant == [62, 63, 76, 77, 78, 79]


def test_started() -> None:
    """A session starts when it is made."""
    before = time.time_ns()
    session = Session()
    assert before <= session.started <= time.time_ns()


def test_current() -> None:
    """A process has one session of its own, beside those of its starts."""
    session = current()
    assert current() is session
    assert session.belongs_here()
    assert Session().id != session.id


FORK = """
import os
from tbot_otel.session import Session, Status, current
parents, other = current(), Session()
other.track()
read, write = os.pipe()
if os.fork() == 0:
    assert not parents.belongs_here()
    assert not other.belongs_here()
    # Nobody in this process settles it.
    assert other.flush(60).status is Status.PENDING
    assert current().belongs_here() and current() is current()
    os.write(write, f"{current().id} {Session().id}".encode())
    os._exit(0)
assert os.waitstatus_to_exitcode(os.wait()[1]) == 0
assert current() is parents and other.belongs_here()
print(parents.id, other.id, os.read(read, 1000).decode())
"""


def test_fork() -> None:
    """A forked child has no share in its parent's sessions, and does not wait for them."""
    done = run("-c", FORK, timeout=20)
    assert done.stderr == ""
    assert len(set(done.stdout.split())) == 4


@pytest.mark.parametrize(
    ("said", "stands"),
    [
        ([], 0),
        (["DELIVERED"], 1),
        (["REFUSED"], 1),
        (["FAILED"], 1),
        (["HANDED_OVER"], 1),
        (["DELIVERED", "FAILED"], 1),
        (["FAILED", "DELIVERED", "HANDED_OVER"], 1),
        (["REFUSED", "HANDED_OVER", "DELIVERED"], 1),
        (["DELIVERED", "HANDED_OVER"], 1),
        (["HANDED_OVER", "DELIVERED"], 2),
        (["HANDED_OVER", "FAILED"], 2),
        (["HANDED_OVER", "REFUSED"], 2),
        (["HANDED_OVER", "DELIVERED", "FAILED"], 2),
        (["HANDED_OVER", "FAILED", "HANDED_OVER"], 2),
    ],
)
@pytest.mark.parametrize("tracked", [True, False])
def test_settle(said: list[str], stands: int, tracked: bool) -> None:
    """The first word stands, unless it was that another pipeline has the record."""
    session = Session()
    if tracked:
        session.track()
    outcomes = [Outcome(Status[name], name.lower()) for name in said]
    for outcome in outcomes:
        session.settle(outcome)
    outcome = session.flush(0)
    assert outcome is outcomes[stands - 1] if stands else outcome.status is Status.PENDING


def test_flush_waits() -> None:
    """A flush ends when the record is settled, on whatever thread."""
    session = Session()
    session.track()
    waiting = threading.Event()
    outcomes: list[Outcome] = []

    def flush() -> None:
        waiting.set()
        outcomes.append(session.flush(60))

    thread = threading.Thread(target=flush, daemon=True)
    thread.start()
    assert waiting.wait(60)
    session.settle(Outcome(Status.DELIVERED, "the Collector took it"))
    thread.join(20)
    assert [outcome.status for outcome in outcomes] == [Status.DELIVERED]


@pytest.mark.parametrize("timeout", [0, 0.05])
def test_flush_gives_up(timeout: float) -> None:
    """A flush that runs out says that the record is under way, and a later one may say more."""
    session = Session()
    session.track()
    before = time.monotonic()
    outcome = session.flush(timeout)
    assert time.monotonic() - before >= timeout
    assert repr(outcome) == "Outcome(Status.PENDING, 'the record is still under way')"
    session.settle(Outcome(Status.FAILED, "x"))
    assert session.flush(timeout).status is Status.FAILED


def test_nothing_to_wait_for() -> None:
    """A session whose record was never sent does not make anybody wait."""
    before = time.monotonic()
    assert Session().flush(10).status is Status.PENDING
    assert time.monotonic() - before < 5


AUDIT = """
import sys
from tbot_otel import session
session.Session().track()  # what this imports stands on disk already
seen = []
sys.addaudithook(lambda event, _: seen.append(event))
for _ in range(3):
    session.Session().flush(0)
session.current()
print([event for event in seen if event.split(".")[0] in {"open", "os", "socket", "subprocess"}])
"""


def test_nothing_is_persisted() -> None:
    """To make sessions reads and writes no file, and asks nobody."""
    done = run("-c", AUDIT)
    assert (done.stdout, done.stderr) == ("[]\n", "")
