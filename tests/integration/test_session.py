"""Sessions: the id of a start, and the outcome of its record."""

from support.processes import run_python

FORK = """
import os
from tbot_otel.session import Start, Status, offer_id, start_in_pipeline
offered, start = offer_id(), Start()
read, write = os.pipe()
if os.fork() == 0:
    assert not start.belongs_to_this_process()
    # No thread of this process would settle it.
    assert start.wait(60).status is Status.PENDING
    assert offer_id() == offer_id()
    os.write(write, f"{offer_id()} {Start().id} {start_in_pipeline().id}".encode())
    os._exit(0)
assert os.waitstatus_to_exitcode(os.wait()[1]) == 0
assert offer_id() == offered and start.belongs_to_this_process()
of_child, *others = os.read(read, 1000).decode().split()
print(offered, start.id, of_child, *others)
assert start_in_pipeline().id == offered and of_child in others
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
events = []
sys.addaudithook(lambda event, _: events.append(event))
for _ in range(3):
    session.Session(session.Start()).flush(0)
print([event for event in events if event.split(".")[0] in {"open", "os", "socket", "subprocess"}])
"""


def test_no_files() -> None:
    """A session is created without files, sockets and child processes."""
    done = run_python("-c", AUDIT)
    assert (done.stdout, done.stderr) == ("[]\n", "")
