"""The example that keeps a Collector's files: restarts and kills lose nothing that was written."""

import json
import os
import signal
import urllib.request
from functools import partial
from pathlib import Path

import yaml

from support.otlp_files import make_start, to_line
from support.paths import ROOT
from support.processes import WAIT_SECONDS, free_port, run_python, running_server, wait_until

CONFIG = ROOT / "examples" / "collector-files.yaml"


def test_files_survive_restarts(official_binary: Path, tmp_path: Path) -> None:
    """Each export is in a file after a restart, a kill in the middle, and a rotation."""
    config = yaml.safe_load(CONFIG.read_text())
    folder = tmp_path / "starts"
    folder.mkdir()
    port = free_port()
    protocols = config["receivers"]["otlp"]["protocols"]
    protocols["http"]["endpoint"], protocols["grpc"]["endpoint"] = (
        f"127.0.0.1:{number}" for number in (port, free_port())
    )
    exporter = config["exporters"]["file"]
    exporter["path"] = str(folder / Path(exporter["path"]).name)
    exporter["rotation"]["max_megabytes"] = 1
    config["service"]["telemetry"] = {"metrics": {"level": "none"}}
    path = tmp_path / "collector.json"
    path.write_text(json.dumps(config))
    command = [str(official_binary), "--config", str(path)]
    exports = 0
    for ending in (signal.SIGTERM, signal.SIGKILL, signal.SIGKILL, signal.SIGTERM):
        with running_server(command, tmp_path / "log", port) as process:
            for _ in range(4):
                export(port)
                exports += 1
            # What the Collector has not written yet is lost with it.
            wait_until(partial(has_starts, folder, 200 * exports))
            os.kill(process.pid, ending)
            process.wait(WAIT_SECONDS)
    assert len([*folder.iterdir()]) > 1
    done = run_python("-m", "tbot_otel", "report", str(folder), "--format", "json")
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout)["starts"] == 200 * exports


def export(port: int) -> None:
    """Export 200 starts."""
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}/v1/logs",
        to_line(*(make_start() for _ in range(200))).encode(),
        {"Content-Type": "application/json"},
    )
    urllib.request.urlopen(request, timeout=WAIT_SECONDS).close()


def has_starts(folder: Path, count: int) -> bool:
    """Whether the files have all starts."""
    return sum(path.read_text().count('"session.id"') for path in folder.iterdir()) == count
