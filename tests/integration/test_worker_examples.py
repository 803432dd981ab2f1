"""The examples for worker processes, executed by Celery and gunicorn, deliver every start."""

import importlib.util
import os
import re
import shutil
import subprocess
import sys
import urllib.request
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.otlp import received_records
from support.paths import ROOT
from support.processes import (
    BASE_ENVIRON,
    free_port,
    install_tbot_script,
    running_server,
    wait_until,
)
from support.standins import HTTPStandin, ReceivedRequest, Response

WORKERS = ROOT / "examples" / "workers"


class RetryingStandin(HTTPStandin):
    """A Collector that accepts each start two seconds after it, at the second attempt."""

    def choose_response(self, request: ReceivedRequest) -> Response:
        """Return the response to a request."""
        attempts = sum(other.body == request.body for other in self.requests)
        return Response() if attempts > 1 else Response(503, headers={"Retry-After": "2"})

    def accepted_run_modes(self) -> list[str]:
        """The run modes of the starts that it accepted."""
        attempts = Counter(
            (resource["session.id"], record.attributes[0].value.string_value)
            for resource, record in received_records(self.requests)
        )
        return sorted(run_mode for (_, run_mode), count in attempts.items() if count == 2)


@pytest.fixture
def collector() -> Iterator[RetryingStandin]:
    """A running Collector."""
    with RetryingStandin(Response()) as collector:
        yield collector


@pytest.fixture
def environ(collector: RetryingStandin, tmp_path: Path) -> dict[str, str]:
    """The variables of the workers. tmp_path has the examples, and a tbot that fails."""
    for example in WORKERS.glob("*.py"):
        shutil.copy(example, tmp_path)
    path = install_tbot_script(tmp_path, 'echo "$@"; exit 3')
    return {
        **BASE_ENVIRON,
        "OTEL_EXPORTER_OTLP_ENDPOINT": collector.endpoint,
        "PATH": os.pathsep.join([path, BASE_ENVIRON["PATH"]]),
        "PYTHONPATH": str(tmp_path),
        "TELEPORT_ANONYMOUS_TELEMETRY": "1",
    }


def test_all() -> None:
    """Every example is executed here, and names the command that does."""
    assert {
        path.name: re.findall(r"Run it with ``(.*?)``", path.read_text())
        for path in WORKERS.iterdir()
    } == {
        "tasks.py": ["celery --app tasks worker"],
        "web.py": ["gunicorn web:application"],
    }


# These are in the lock file of the newest SDK.
if importlib.util.find_spec("celery"):
    # A broker without a server.
    CELERY_SETTINGS = """
from tasks import app, run_tbot
app.conf.broker_url = "filesystem://"
app.conf.broker_transport_options = {"data_folder_in": ".", "data_folder_out": "."}
"""
    CELERY_CALLS = CELERY_SETTINGS + "for _ in range(6): run_tbot.delay()"

    def test_celery(collector: RetryingStandin, environ: dict[str, str], tmp_path: Path) -> None:
        """Starts arrive although each worker process ends after one task."""
        (tmp_path / "settings.py").write_text(CELERY_SETTINGS)
        subprocess.run([sys.executable, "-c", CELERY_CALLS], cwd=tmp_path, env=environ, check=True)
        celery = ["celery", "--app=settings", f"--workdir={tmp_path}"]
        log = tmp_path / "worker.log"
        with running_server(
            [sys.executable, "-m", *celery, "worker", "--concurrency=2", "--max-tasks-per-child=1"],
            log,
            environ=environ,
        ):
            wait_until(lambda: collector.accepted_run_modes() == ["one-shot"] * 6)
        assert log.read_text().count("start -c tbot.yaml --oneshot") == 6


if importlib.util.find_spec("gunicorn"):
    # A busy machine can need more than 2 seconds for a delivery.
    GUNICORN_SETTINGS = """
from tbot_otel import StartEvent, record_start, sender
sender.EXIT_TIMEOUT_SECONDS = 60
graceful_timeout = 90
control_socket_disable = True
workers = 2

def post_worker_init(worker):
    record_start(StartEvent(run_mode="daemon", version="18.3.0"))
"""

    @pytest.mark.parametrize("options", [[], ["--preload"]])
    def test_gunicorn(
        options: list[str], collector: RetryingStandin, environ: dict[str, str], tmp_path: Path
    ) -> None:
        """Starts arrive although the workers are stopped; the hook runs once in each of them."""
        settings = tmp_path / "settings.py"
        settings.write_text(GUNICORN_SETTINGS)
        port = free_port()
        gunicorn = ["gunicorn", f"--config={settings}", f"--bind=127.0.0.1:{port}", *options]
        with running_server(
            [sys.executable, "-m", *gunicorn, "web:application"],
            tmp_path / "server.log",
            port,
            environ=environ,
        ) as process:
            for _ in range(4):
                with urllib.request.urlopen(f"http://127.0.0.1:{port}", timeout=60) as response:
                    assert response.read() == b"3\n"
            process.terminate()
            assert process.wait(120) == 0
        assert collector.accepted_run_modes() == ["daemon"] * 2 + ["one-shot"] * 4
