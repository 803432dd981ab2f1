"""A web application that runs tbot once for each request, and reports the start with consent.

Run it with ``gunicorn web:application``. To record one start for each worker instead, call
``record_start`` in the hook ``post_worker_init``, which runs in each, also with ``--preload``.
"""

import subprocess
from collections.abc import Iterable
from typing import TYPE_CHECKING

from tbot_otel import StartEvent, record_start

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIEnvironment

COMMAND = ["tbot", "start", "-c", "tbot.yaml", "--oneshot"]


def application(_: "WSGIEnvironment", start_response: "StartResponse") -> Iterable[bytes]:
    """Run tbot, and respond with its exit status."""
    record_start(StartEvent(run_mode="one-shot", version="18.3.0", join_type="github"))
    status = subprocess.run(COMMAND, check=False).returncode
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [f"{status}\n".encode()]
