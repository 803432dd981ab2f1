"""Every link, path, variable, option and example in the documentation exists and works."""

import importlib
import importlib.util
import os
import re
import shlex
import subprocess
import sys
import sysconfig
from pathlib import Path

from support.collectors import Collector
from support.paths import ROOT
from support.processes import free_port, run_python, running_server
from tbot_otel.cli import COMMANDS

README = ROOT / "README.md"
PAGES = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").glob("*.md"))]
SCRIPTS = sysconfig.get_path("scripts")
# Options of nox, Docker, Weaver, curl, systemd-run and other tools.
FOREIGN_OPTIONS = {
    *("--branch", "--constraints", "--repo", "--repository"),
    *("--init", "--session"),
    *("--cacert", "--storage", "--web"),
    *("--collect", "--pipe", "--property", "--quiet", "--setenv", "--wait"),
}


def code_blocks(page: Path, language: str) -> list[str]:
    """The code blocks of a page in one language."""
    return re.findall(rf"^```{language}\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL)


def console_scripts(page: Path, program: str) -> list[str]:
    """The console blocks of a page that run a program, as shell scripts."""
    scripts = [
        "\n".join(line.removeprefix("$ ") for line in block.splitlines() if line.startswith("$ "))
        for block in code_blocks(page, "console")
    ]
    return [script for script in scripts if re.search(rf"^{program} ", script, re.MULTILINE)]


def run_script(
    script: str, collector: Collector, **environ: str
) -> subprocess.CompletedProcess[str]:
    """Run a script as a reader would, with the given Collector in place of the default one."""
    endpoint = collector.endpoint("http/protobuf")
    return subprocess.run(
        ["bash", "-euc", script.replace("http://localhost:4318", endpoint)],
        cwd=ROOT,
        env={
            **{name: os.environ[name] for name in ("HOME",) if name in os.environ},
            "PATH": f"{SCRIPTS}{os.pathsep}{os.environ['PATH']}",
            "OTEL_EXPORTER_OTLP_ENDPOINT": endpoint,
            **environ,
        },
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_options() -> None:
    """The pages name every option of every command, and no other."""
    pages = "".join(page.read_text() for page in PAGES)
    named = set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", pages)) - FOREIGN_OPTIONS
    helps = [run_python("-m", "tbot_otel", name, "--help").stdout for name in COMMANDS]
    offered = {option for text in helps for option in re.findall(r"--[a-z][a-z-]+", text)}
    assert named == offered - {"--help"}


def test_imports() -> None:
    """Every Python block in a page runs, and sends nothing without consent."""
    sources = [block for page in PAGES for block in code_blocks(page, "python")]
    assert len(sources) >= 2
    for source in sources:
        done = run_python("-c", source)
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_command_line(collector: Collector) -> None:
    """The example of the command line works as it is."""
    (script,) = console_scripts(ROOT / "docs" / "reference.md", "tbot-otel")
    done = run_script(script, collector)
    assert done.returncode == 0, done.stderr
    assert "\nEventName: tbot.start\n" in done.stdout
    assert "would send: yes" in done.stdout
    (session,) = re.findall(r"delivered to .* session (\S+)", done.stderr)
    assert collector.find(session).event_name == "tbot.start"


def test_preview() -> None:
    """The first command of the README prints the record that is below it."""
    (command,) = re.findall(r"^\$ \.venv/bin/(tbot-otel .*)$", README.read_text(), re.MULTILINE)
    (record,) = [block for block in code_blocks(README, "text") if "EventName" in block]
    words = shlex.split(command.replace("examples/", f"{ROOT}/examples/"))
    done = run_python("-m", "tbot_otel", *words[1:])
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.endswith(record)


def test_pipeline(collector: Collector) -> None:
    """The README's example of a pipeline works as it is."""
    (script,) = console_scripts(README, "opentelemetry-instrument")
    done = run_script(script, collector, TELEPORT_ANONYMOUS_TELEMETRY="1")
    assert done.returncode == 0
    assert done.stderr == "telemetry: delivered, the Collector accepted it\n"


if importlib.util.find_spec("opentelemetry.configuration"):  # The oldest SDK does not have it.

    def test_declarative_file(collector: Collector) -> None:
        """The example of a declarative configuration file delivers."""
        done = run_script(
            "opentelemetry-instrument python examples/pipeline.py",
            collector,
            TELEPORT_ANONYMOUS_TELEMETRY="1",
            OTEL_CONFIG_FILE="examples/otel.yaml",
            TBOT_COLLECTOR=f"{collector.endpoint('http/protobuf')}/v1/logs",
        )
        assert done.returncode == 0
        # opentelemetry-distro prints a line before it.
        assert done.stderr.endswith("telemetry: delivered, the Collector accepted it\n")


def test_helper(collector: Collector) -> None:
    """The example of a helper delivers with consent, and sends nothing without it."""
    # A busy machine may need longer than the example waits.
    source = (ROOT / "examples" / "helper.py").read_text().replace("flush(2.0)", "flush(30.0)")
    script = f"python -c {shlex.quote(source)}"
    done = run_script(script, collector, TELEPORT_ANONYMOUS_TELEMETRY="1")
    assert (done.returncode, done.stdout) == (0, "tbot runs\n")
    assert done.stderr == "telemetry: delivered, the Collector accepted it\n"
    refused = run_script(script, collector)
    assert refused.stderr == "telemetry: refused, TELEPORT_ANONYMOUS_TELEMETRY is not set\n"


def test_collector_configuration(official_binary: Path, tmp_path: Path) -> None:
    """The example of a Collector's configuration starts, and prints the record."""
    http, grpc = free_port(), free_port()
    text = (ROOT / "examples" / "collector.yaml").read_text()
    config = tmp_path / "collector.yaml"
    config.write_text(text.replace(":4317", f":{grpc}").replace(":4318", f":{http}"))
    log = tmp_path / "collector.log"
    with running_server([str(official_binary), "--config", str(config)], log, http, grpc):
        done = run_python(
            *("-m", "tbot_otel", "emit", "--tbot-version", "18.3.0"),
            TELEPORT_ANONYMOUS_TELEMETRY="1",
            OTEL_EXPORTER_OTLP_ENDPOINT=f"http://localhost:{http}",
        )
        assert done.returncode == 0, done.stderr
    assert "EventName: tbot.start" in log.read_text()


START = """
from tbot_otel import StartEvent, record_start

print(record_start(StartEvent(run_mode="daemon", version="18.3.0")).flush(30.0))
"""

if importlib.util.find_spec("_interpreters"):  # CPython 3.13 and later

    def test_subinterpreter() -> None:
        """In a sub-interpreter, a start fails as the reference says."""
        code = (
            f"import _interpreters as i; n = i.create(); i.run_string(n, {START!r}); i.destroy(n)"
        )
        done = run_python("-c", code, TELEPORT_ANONYMOUS_TELEMETRY="1")
        assert (done.returncode, done.stderr) == (0, "")
        assert "Status.FAILED" in done.stdout


if sys.version_info >= (3, 15):

    def test_lazy_imports(collector: Collector) -> None:
        """If all imports are lazy, a start fails as the reference says."""
        endpoint = collector.endpoint("http/protobuf")
        done = run_python(
            *("-X", "lazy_imports=all", "-c", START),
            TELEPORT_ANONYMOUS_TELEMETRY="1",
            OTEL_EXPORTER_OTLP_ENDPOINT=endpoint,
        )
        assert "Status.FAILED" in done.stdout


def test_ci_runs_the_test_command() -> None:
    """.ci/run finds the README's test command."""
    (expression,) = re.findall(r"sed -n '(.*)' README.md", (ROOT / ".ci" / "run").read_text())
    command = ["sed", "-n", expression, str(README)]
    lines = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    assert len(lines) == 1
    assert lines[0].endswith(".venv/bin/nox --session newest oldest")
