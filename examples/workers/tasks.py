"""A Celery task that runs tbot once, and reports the start if its user has opted in.

Run it with ``celery --app tasks worker``.
"""

import subprocess

from celery import Celery

from tbot_otel import StartEvent, record_start

COMMAND = ["tbot", "start", "-c", "tbot.yaml", "--oneshot"]

app = Celery("tasks")


@app.task
def run_tbot() -> int:
    """Run tbot, and return its exit status."""
    session = record_start(StartEvent(run_mode="one-shot", version="18.3.0", join_type="github"))
    status = subprocess.run(COMMAND, check=False).returncode
    # The record was sent meanwhile. Celery ends a worker process without waiting for it.
    session.flush(10.0)
    return status
