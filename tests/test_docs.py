"""What README, docs and examples name exists, and what they show works."""

import importlib
import importlib.util
import os
import re
import subprocess
import sysconfig
from pathlib import Path

import pytest

from collectors import Rotel, free_port, run, running
from tbot_otel.cli import COMMANDS

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").glob("*.md"))]
EXAMPLES = sorted(path for path in (ROOT / "examples").rglob("*") if path.is_file())
SCRIPTS = sysconfig.get_path("scripts")
# Options of nox, of the benchmarks and of Docker.
FOREIGN_OPTIONS = {"--init", "--runs", "--session"}


def name_of(path: Path) -> str:
    """A path as the tests' ids show it."""
    return path.relative_to(ROOT).as_posix()


def blocks(page: Path, language: str) -> list[str]:
    """The code blocks of a page in a language."""
    return re.findall(rf"^```{language}\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL)


def commands(page: Path, program: str) -> list[str]:
    """The console blocks of a page that use a program, as scripts."""
    scripts = [
        "\n".join(line.removeprefix("$ ") for line in block.splitlines() if line.startswith("$ "))
        for block in blocks(page, "console")
    ]
    return [script for script in scripts if re.search(rf"^{program} ", script, re.MULTILINE)]


def shell(script: str, rotel: Rotel, **environ: str) -> subprocess.CompletedProcess[str]:
    """Run a script as a reader would, with a Collector where the script looks for one."""
    endpoint = rotel.endpoint("http/protobuf")
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


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_links(page: Path) -> None:
    """Every link into the project leads to a file."""
    links = re.findall(r"\]\((?!https?://)([^)#]+)", page.read_text())
    assert [link for link in links if not (page.parent / link).exists()] == []


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_paths(page: Path) -> None:
    """Every path of the project that is named exists."""
    folders = "benchmarks|docs|examples|src|tests"
    named = re.findall(rf"(?<![\w/.])(?:{folders})/[\w./-]*\w", page.read_text())
    assert [path for path in named if not (ROOT / path).exists()] == []


@pytest.mark.parametrize("example", EXAMPLES, ids=name_of)
def test_examples_are_named(example: Path) -> None:
    """Every example is named in the README or the documentation."""
    assert any(name_of(example) in page.read_text() for page in PAGES)


@pytest.mark.parametrize("page", [*PAGES, *EXAMPLES], ids=name_of)
def test_variables(page: Path) -> None:
    """Every variable that is named is read by us or by OpenTelemetry."""
    known = "".join(path.read_text() for path in (ROOT / "src").rglob("*.py"))
    for module in (
        "opentelemetry.environment_variables",
        "opentelemetry.sdk.environment_variables",
    ):
        known += Path(str(importlib.import_module(module).__file__)).read_text()
    named = set(re.findall(r"\b(?:OTEL|TELEPORT|_TBOT)_[A-Z_]+|DO_NOT_TRACK", page.read_text()))
    # The declarative file came after the oldest SDK that is supported.
    named -= {"OTEL_CONFIG_FILE"}
    assert sorted(name for name in named if name not in known) == []


def test_options() -> None:
    """The README names every option of every command, and no other."""
    pages = "".join(page.read_text() for page in PAGES)
    named = set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", pages)) - FOREIGN_OPTIONS
    helps = [run("-m", "tbot_otel", name, "--help").stdout for name in COMMANDS]
    offered = {option for text in helps for option in re.findall(r"--[a-z][a-z-]+", text)}
    assert named == offered - {"--help"}


def test_imports() -> None:
    """Every Python block of the pages runs, and sends nothing without consent."""
    sources = [block for page in PAGES for block in blocks(page, "python")]
    assert len(sources) >= 2
    for source in sources:
        done = run("-c", source)
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_command_line(rotel: Rotel) -> None:
    """What the README shows of the command line works as it stands."""
    (script,) = commands(ROOT / "README.md", "tbot-otel")
    done = shell(script, rotel)
    assert done.returncode == 0, done.stderr
    assert '"eventName": "tbot.start"' in done.stdout
    assert "would send: yes" in done.stdout
    (session,) = re.findall(r"delivered to .* session (\S+)", done.stderr)
    assert "EventName: tbot.start" in rotel.find(session)


def test_pipeline(rotel: Rotel) -> None:
    """What the README shows of a pipeline by environment variables works as it stands."""
    (script,) = commands(ROOT / "README.md", "opentelemetry-instrument")
    done = shell(script, rotel, TELEPORT_ANONYMOUS_TELEMETRY="1")
    assert done.returncode == 0
    assert done.stderr == "telemetry: delivered, the Collector took it\n"


if importlib.util.find_spec("opentelemetry.configuration"):  # The oldest SDK has none.

    def test_declarative_file(rotel: Rotel) -> None:
        """The example of a declarative configuration file delivers."""
        done = shell(
            "opentelemetry-instrument python examples/pipeline.py",
            rotel,
            TELEPORT_ANONYMOUS_TELEMETRY="1",
            OTEL_CONFIG_FILE="examples/otel.yaml",
            TBOT_COLLECTOR=f"{rotel.endpoint('http/protobuf')}/v1/logs",
        )
        assert done.returncode == 0
        # opentelemetry-distro has a line of its own above it.
        assert done.stderr.endswith("telemetry: delivered, the Collector took it\n")


def test_helper(rotel: Rotel) -> None:
    """The example of a helper delivers, and says nothing of itself without consent."""
    done = shell("python examples/helper.py", rotel, TELEPORT_ANONYMOUS_TELEMETRY="1")
    assert (done.returncode, done.stdout) == (0, "tbot runs\n")
    assert done.stderr == "telemetry: delivered, the Collector took it\n"
    refused = shell("python examples/helper.py", rotel)
    assert refused.stderr == "telemetry: refused, TELEPORT_ANONYMOUS_TELEMETRY is not set\n"


def test_collector_configuration(official_binary: Path, tmp_path: Path) -> None:
    """The example of a Collector's configuration starts, and prints what arrives."""
    http, grpc = free_port(), free_port()
    text = (ROOT / "examples" / "collector.yaml").read_text()
    config = tmp_path / "collector.yaml"
    config.write_text(text.replace(":4317", f":{grpc}").replace(":4318", f":{http}"))
    log = tmp_path / "collector.log"
    with running([str(official_binary), "--config", str(config)], log, http, grpc):
        done = run(
            *("-m", "tbot_otel", "emit", "--tbot-version", "18.3.0"),
            TELEPORT_ANONYMOUS_TELEMETRY="1",
            OTEL_EXPORTER_OTLP_ENDPOINT=f"http://localhost:{http}",
        )
        assert done.returncode == 0, done.stderr
    assert "EventName: tbot.start" in log.read_text()


def test_quickstart() -> None:
    """The quickstart prints the record that the Collector received, and ends by itself."""
    done = run(str(ROOT / "examples" / "quickstart"))
    assert done.returncode == 0, done.stderr
    assert "EventName: tbot.start" in done.stdout


def test_quickstart_refused() -> None:
    """The quickstart ends by itself, and fails, if nothing may be sent."""
    done = run(str(ROOT / "examples" / "quickstart"), DO_NOT_TRACK="1")
    assert done.returncode == 1
    assert "DO_NOT_TRACK" in done.stderr


def test_ci_runs_the_readmes_command() -> None:
    """Continuous integration finds the README's one test command."""
    (found,) = re.findall(r"sed -n '(.*)' README.md", (ROOT / ".ci" / "run").read_text())
    command = ["sed", "-n", found, str(ROOT / "README.md")]
    lines = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    assert len(lines) == 1
    assert lines[0].endswith(".venv/bin/nox --session newest oldest json")
