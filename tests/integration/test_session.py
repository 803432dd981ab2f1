"""Sessions: the id of a start, and the outcome of its record."""

from support.processes import run_python

FORK = """
import os
from tbot_otel.session import Session, Status, current
own, start = current(), Session()
start.track()
read, write = os.pipe()
if os.fork() == 0:
    assert not own.belongs_to_this_process()
    assert not start.belongs_to_this_process()
    # No thread of this process would settle it.
    assert start.flush(60).status is Status.PENDING
    assert current().belongs_to_this_process() and current() is current()
    os.write(write, f"{current().id} {Session().id}".encode())
    os._exit(0)
assert os.waitstatus_to_exitcode(os.wait()[1]) == 0
assert current() is own and start.belongs_to_this_process()
print(own.id, start.id, os.read(read, 1000).decode())
"""


def test_fork() -> None:
    """A forked child has sessions of its own, and does not wait for its parent's."""
    # The child would wait for 60 seconds.
    done = run_python("-c", FORK, timeout=50)
    assert done.stderr == ""
    assert len(set(done.stdout.split())) == 4


AUDIT = """
import sys
from tbot_otel import session
session.Session().track()  # its imports read files
events = []
sys.addaudithook(lambda event, _: events.append(event))
for _ in range(3):
    session.Session().flush(0)
session.current()
print([event for event in events if event.split(".")[0] in {"open", "os", "socket", "subprocess"}])
"""


def test_no_files() -> None:
    """A session is created without files, sockets and child processes."""
    done = run_python("-c", AUDIT)
    assert (done.stdout, done.stderr) == ("[]\n", "")
