"""A program in a zip file, with the packages that it needs, delivers over HTTP."""

import shutil
import zipapp
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement

import tbot_otel
from support.otlp import received_records
from support.processes import run_python
from support.standins import HTTPStandin, Response

PROGRAM = """
from tbot_otel import StartEvent, record_start
print(record_start(StartEvent(run_mode="daemon", version="18.3.0")).flush(60).status.name)
"""


def required_distributions(name: str) -> set[str]:
    """A distribution and all that it requires, without extras."""
    names = {name}
    for text in metadata.requires(name) or []:
        requirement = Requirement(text)
        if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
            names |= required_distributions(requirement.name)
    return names


def write_program(folder: Path) -> Path:
    """Zip the program and all that it requires, without compiled modules."""
    sources = folder / "sources"
    shutil.copytree(Path(tbot_otel.__file__).parent, sources / "tbot_otel")
    for name in required_distributions("tbot-otel"):
        for file in metadata.files(name) or []:
            if ".." not in file.parts and file.suffix not in (".pth", ".pyc", ".so"):
                target = sources / file
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(str(file.locate()), target)
    (sources / "__main__.py").write_text(PROGRAM)
    zipapp.create_archive(sources, folder / "program.pyz")
    return folder / "program.pyz"


def test_delivers(tmp_path: Path) -> None:
    """It delivers with consent, and does nothing without."""
    program = write_program(tmp_path)
    consent = {"TELEPORT_ANONYMOUS_TELEMETRY": "1"}
    with HTTPStandin(Response()) as collector:
        for environ, expected in (({}, "REFUSED"), (consent, "DELIVERED")):
            # -S: nothing is imported from the environment.
            words = ("-I", "-S", str(program))
            environ |= {"OTEL_EXPORTER_OTLP_ENDPOINT": collector.endpoint}
            done = run_python(*words, timeout=120, **environ)
            assert (done.stdout, done.stderr) == (f"{expected}\n", "")
    assert len(received_records(collector.requests)) == 1
