"""Each environment, made from its lock file, and what runs in it."""

import os

import nox

# As pip, trust what the machine trusts.
os.environ.setdefault("UV_SYSTEM_CERTS", "true")

nox.needs_version = ">=2026.10"
nox.options.default_venv_backend = "uv|venv"

TESTED = ("newest", "oldest", "json")
GROUPS = (*TESTED, "quickstart", "nox")
nox.options.sessions = TESTED

MESSAGES = "src/tbot_otel/connect/tbot_pb.py"


def install(session: nox.Session, group: str) -> None:
    """Install what the group's lock file names, and the package as people get it: from a wheel."""
    session.install("--require-hashes", "-r", f"requirements/{group}.txt")
    wheels = session.create_tmp()
    session.run("hatchling", "build", "-t", "wheel", "-d", wheels, silent=True)
    session.install(
        "--force-reinstall", "--no-deps", "--no-index", "--find-links", wheels, "tbot-otel"
    )


@nox.session
def newest(session: nox.Session) -> None:
    """Run the tests with the newest OpenTelemetry SDK."""
    install(session, "newest")
    session.run("pytest", *session.posargs)


@nox.session
def oldest(session: nox.Session) -> None:
    """Run the tests with the oldest OpenTelemetry SDK that is supported."""
    install(session, "oldest")
    session.run("pytest", *session.posargs)


@nox.session
def json(session: nox.Session) -> None:
    """Run the tests of what is sent where the OTLP/JSON exporter is installed."""
    install(session, "json")
    session.run("pytest", "tests/test_protocols.py", "tests/test_anonymity.py", *session.posargs)


@nox.session
def lint(session: nox.Session) -> None:
    """Check format, style, types and the direction of imports."""
    install(session, "newest")
    session.run("ruff", "format", "--check")
    session.run("ruff", "check")
    session.run("mypy")
    session.run("lint-imports")
    generated = session.create_tmp()
    session.run("buf", "generate", "--output", generated)
    session.run("diff", f"{generated}/{MESSAGES}", MESSAGES, external=True)


@nox.session
def generate(session: nox.Session) -> None:
    """Write the module of tbot's messages anew."""
    install(session, "newest")
    session.run("buf", "generate")


@nox.session
def quickstart(session: nox.Session) -> None:
    """Send one start to an embedded Collector, and print what that received."""
    install(session, "quickstart")
    session.run("python", "examples/quickstart")


@nox.session
def lock(session: nox.Session) -> None:
    """Write the lock files anew."""
    session.install("uv")
    for group in GROUPS:
        # nox stands by itself, the other groups beside the package's own dependencies.
        project = [] if group == "nox" else ["pyproject.toml"]
        if group in TESTED:
            project.append("--all-extras")
        session.run(
            "uv", "pip", "compile", f"--group={group}", "--universal",
            "--generate-hashes", "--no-header", "--no-annotate", "--quiet",
            f"--output-file=requirements/{group}.txt", "--python-version=3.11",
            *project, *session.posargs,
        )  # fmt: skip
