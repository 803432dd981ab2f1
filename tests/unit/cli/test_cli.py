"""The command line: options, output and exit statuses."""

import contextlib
import importlib
import json
import os
import re
import shlex
import threading
from datetime import UTC, datetime
from pathlib import Path
from types import ModuleType
from typing import Any

import certifi
import pytest

from support.otlp import attribute_values, record_attributes
from support.paths import ROOT
from support.processes import WAIT_SECONDS
from tbot_otel import __version__
from tbot_otel.cli import COMMANDS, emit, main, relay, status
from tbot_otel.cli._parser import Parser
from tbot_otel.otlp import environment, send
from tbot_otel.registry import START
from tbot_otel.run import launcher
from tbot_otel.session import Start

SECRET = "web01"
COUNT = "a whole number that is not negative"
DISABLED = "OTEL_SDK_DISABLED turns all telemetry off"
KNOWN_HELPER = "gha:teleport-actions/auth"
UNKNOWN_VALUE = "the value is not a known one and was replaced with _OTHER"
NO_CONSENT = "TELEPORT_ANONYMOUS_TELEMETRY is not set"
SOURCE_OPTIONS = {
    *("--config", "--oneshot", "--daemon", "--join-method", "--tbot-version"),
    "--allow-helper",
    *(f"--destinations-{kind}" for kind in ("other", "database", "kubernetes", "application")),
}


def exit_status(*words: str) -> int | str | None:
    """Run a command that raises SystemExit, and return its status."""
    with pytest.raises(SystemExit) as caught:
        main(words)
    return caught.value.code


@pytest.mark.parametrize("words", [[], ["--help"], ["-h"]])
def test_first_page(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """Without arguments, and with --help, a page says what this is, and names every command.

    It fits a terminal, is no error, and has consent in one place and the next step.
    """
    with contextlib.suppress(SystemExit):
        assert main(words) == 0
    printed = capsys.readouterr()
    assert printed.err == ""
    lines = printed.out.splitlines()
    assert lines[0] == "usage: tbot-otel COMMAND [OPTION ...]"
    assert len(lines) <= 32
    assert max(map(len, lines)) <= 80
    for name, brief in COMMANDS.items():
        assert re.search(rf"^  {name} +{re.escape(brief)}$", printed.out, re.MULTILINE)
    assert [line for line in lines if line.startswith("Consent: ")] == [
        "Consent: without TELEPORT_ANONYMOUS_TELEMETRY=1, nothing is sent. (relay relies"
    ]
    assert "Start with `tbot-otel preview`." in printed.out


def test_exit_status_of_help() -> None:
    """The page that was asked for is a success."""
    assert exit_status("--help") == 0


def help_of(name: str, capsys: pytest.CaptureFixture[str]) -> str:
    """The help of a command."""
    # `run` parses its words itself.
    with contextlib.suppress(SystemExit):
        assert main([name, "--help"]) == 0
    printed = capsys.readouterr()
    assert printed.err == ""
    return printed.out


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("events", {"--markdown", "--json"}),
        ("status", {"--json", "--check"}),
        ("emit", SOURCE_OPTIONS | {"--record"}),
        ("preview", SOURCE_OPTIONS | {"--json", "--output"}),
        ("completion", set()),
    ],
)
def test_help_of_a_command(
    name: str, options: set[str], capsys: pytest.CaptureFixture[str]
) -> None:
    """The help of a command names its options."""
    text = help_of(name, capsys)
    assert text.startswith(f"usage: tbot-otel {name} [-h]")
    assert {*re.findall(r"--[a-z-]+", text)} == options | {"--help"}


@pytest.mark.parametrize("name", COMMANDS)
def test_help_of_every_command(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A command's help has examples, the variable of consent, its extra, and a page, if it exists.

    It fits a terminal.
    """
    monkeypatch.setenv("COLUMNS", "80")
    text = help_of(name, capsys)
    assert max(map(len, text.splitlines())) <= 80
    assert "TELEPORT_ANONYMOUS_TELEMETRY" in text
    extra = f"pip install 'tbot-otel[{name}]'" if name in EXTRAS else "no extra"
    assert extra in " ".join(text.split())
    (path, heading) = re.findall(
        r"^https://github\.com/tbot-otel/tbot-otel(?:/blob/main/([^#\s]+))?(?:#(\S+))?$",
        text,
        re.MULTILINE,
    )[0]
    page = (ROOT / (path or "README.md")).read_text()
    assert not heading or f"\n## {heading.capitalize()}\n" in page
    assert examples_in(text)


EXTRAS = ("run", "relay", "report", "completion")


def examples_in(text: str) -> list[list[str]]:
    """The words of each example in a help, after the program's name."""
    lines = re.findall(r"^  (?:[A-Z_]+=\S+ )*tbot-otel (.*)$", text, re.MULTILINE)
    return [shlex.split(line.partition(" > ")[0]) for line in lines]


@pytest.mark.parametrize("name", [name for name in COMMANDS if name != "run"])
def test_examples_in_help(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    """The options of each example exist, and their values are valid."""
    command = importlib.import_module(f"tbot_otel.cli.{name}")
    for words in examples_in(help_of(name, capsys)):
        assert words[0] == name
        parser = Parser(prog="an example")
        command.configure(parser)
        parser.parse(words[1:])


def test_examples_in_help_of_run(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each example of run starts a tbot."""
    started: list[list[str]] = []

    def launch(command: list[str], _: launcher.Options) -> int:
        started.append(command)
        return 0

    monkeypatch.setattr(launcher, "launch", launch)
    examples = examples_in(help_of("run", capsys))
    for words in examples:
        assert main(words) == 0
    assert started == [["tbot", "start", "-c", "tbot.yaml"]] * len(examples)


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    """The version is this package's."""
    assert exit_status("--version") == 0
    assert capsys.readouterr() == (f"tbot-otel {__version__}\n", "")


def unknown_line(words: str) -> str:
    """The line that emit prints about unknown arguments."""
    return f"tbot-otel emit: unknown: {words} (see tbot-otel emit --help)"


UNKNOWN_COMMAND = f"tbot-otel: COMMAND: expected one of {', '.join(COMMANDS)}"


@pytest.mark.parametrize(
    ("words", "line"),
    [
        ((SECRET,), UNKNOWN_COMMAND),
        (("",), UNKNOWN_COMMAND),
        *(
            ((mistyped,), f"{UNKNOWN_COMMAND}; did you mean {name}?")
            for mistyped, name in (
                *(("emti", "emit"), ("EMIT", "emit"), ("rum", "run"), ("preveiw", "preview")),
                *(("stats", "status"), ("event", "events"), ("relai", "relay")),
            )
        ),
        (("--secret",), "tbot-otel: unknown: --secret (see tbot-otel --help)"),
        (
            ("--verison",),
            "tbot-otel: unknown: --verison; did you mean --version? (see tbot-otel --help)",
        ),
        (("emit", "--confg", SECRET), unknown_line("--confg; did you mean --config?")),
        (
            ("emit", f"--confg={SECRET}", "--deamon", f"--tokn={SECRET}"),
            unknown_line("--confg --deamon --tokn; did you mean --config --daemon?"),
        ),
        (("emit", SECRET), unknown_line("an argument")),
        (("emit", SECRET, "--secret", SECRET), unknown_line("--secret")),
        (("emit", f"--secret={SECRET}", f"-p={SECRET}", SECRET), unknown_line("--secret -p")),
        (("emit", f"-p{SECRET}"), unknown_line("-p")),
        (("emit", "--one"), unknown_line("--one; did you mean --oneshot?")),
        (("emit", "--output", SECRET), unknown_line("--output")),
        (("emit", "--a\nb\x1b[31m"), unknown_line("--a\\nb\\x1b[31m")),
        (("emit", "--config"), "tbot-otel emit: argument --config: expected one argument"),
        (
            ("emit", "--oneshot", "--daemon"),
            "tbot-otel emit: argument --daemon: not allowed with argument --oneshot",
        ),
        *(
            (
                ("emit", f"--destinations-{kind}", value),
                f"tbot-otel emit: argument --destinations-{kind}: expected {COUNT}",
            )
            for kind in ("other", "database", "kubernetes", "application")
            for value in (SECRET, "-1", "1.0", "9" * 11, "", "1_0", "\N{FULLWIDTH DIGIT ONE}")
        ),
        *(
            (
                ("emit", "--tbot-version", value),
                "tbot-otel emit: argument --tbot-version: expected a value such as 18.3.0",
            )
            for value in (SECRET, "11.3.0", "18.3", "", "_OTHER", "192.0.2.1")
        ),
    ],
)
def test_usage_errors(
    words: tuple[str, ...], line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """A usage error exits with status 2 and one line, which does not repeat the value."""
    assert exit_status(*words) == 2
    assert capsys.readouterr() == ("", f"{line}\n")


@pytest.mark.parametrize(
    "words",
    [
        (f"--version={SECRET}",),
        ("emit", f"--oneshot={SECRET}"),
        ("emit", f"--help={SECRET}"),
        ("emit", "--join-method", SECRET),
        ("status", f"--json={SECRET}"),
    ],
)
def test_usage_errors_of_argparse(
    words: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    """Lines that argparse words itself do not repeat the value either."""
    assert exit_status(*words) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert SECRET not in printed.err
    assert len(printed.err.splitlines()) == 1


def test_value_of_the_short_help_option(capsys: pytest.CaptureFixture[str]) -> None:
    """A value of -h is a usage error. argparse of Python 3.13 prints the help instead."""
    status = exit_status(f"-h{SECRET}")
    printed = capsys.readouterr()
    assert SECRET not in printed.out + printed.err
    if status == 0:
        assert printed.out.startswith("usage: tbot-otel COMMAND")
    else:
        assert (status, printed.out, len(printed.err.splitlines())) == (2, "", 1)


HTTP_ENDPOINT = "http://localhost:4318/v1/logs"
GRPC = {"OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}
UNSUPPORTED_PROTOCOL = "OTEL_EXPORTER_OTLP_PROTOCOL: expected http/protobuf or grpc"
HELPER = "_TBOT_TELEMETRY_HELPER"
HELPER_VERSION = "_TBOT_TELEMETRY_HELPER_VERSION"
ENDPOINT = "OTEL_EXPORTER_OTLP_ENDPOINT"
LOGS_ENDPOINT = "OTEL_EXPORTER_OTLP_LOGS_ENDPOINT"
IMPLICIT_TLS = f"{ENDPOINT}: without http:// or https://, gRPC uses TLS"
NO_PORT = f"{ENDPOINT}: expected a port, such as 4317; gRPC uses 443 without one"
GRPC_PORT = f"{ENDPOINT}: port 4317 is for gRPC, not for http/protobuf"
HTTP_PORT = f"{ENDPOINT}: port 4318 is for HTTP, not for grpc"
NO_SCHEME = "expected http:// or https://"
NO_HOST = "expected a valid host and port"
MISSING = "expected a file that can be read (No such file or directory)"
NO_PEM = "expected a file of PEM"
ADDRESS = "TELEPORT_ANONYMOUS_TELEMETRY_ADDRESS"
ADDRESS_IS_SET = f"{ADDRESS} is already set, so tbot's report goes there"
CREDENTIAL_PROVIDER = "OTEL_PYTHON_EXPORTER_OTLP_HTTP_CREDENTIAL_PROVIDER"
OPT_OUT = {"forwards": False, "command_is_told": "opt_out"}


def would_not_send(variable: str, problem: str) -> dict[str, Any]:
    """The status with a variable with which nothing can be sent."""
    reason = f"{variable}: {problem}"
    return {
        "would_send": False,
        "variable": variable,
        "reason": reason,
        "run": {"forwards": False, "reason": reason, "command_is_told": "address"},
        "relay": {"can_start": False, "reason": reason},
    }


def unsupported(variable: str) -> dict[str, Any]:
    """The status with a protocol that is not supported."""
    status = would_not_send(variable, "expected http/protobuf or grpc")
    return status | {"run": OPT_OUT | {"reason": status["reason"]}}


STATUS: list[tuple[str, dict[str, str], dict[str, Any]]] = [
    ("opted in", {}, {}),
    *(
        (
            reason,
            environ,
            {
                "would_send": False,
                "variable": reason.partition(" ")[0],
                "reason": reason,
                "run": {"forwards": False, "reason": reason, "command_is_told": told},
                **changes,
            },
        )
        for environ, reason, told, changes in (
            ({"TELEPORT_ANONYMOUS_TELEMETRY": ""}, NO_CONSENT, "nothing", {}),
            (
                {"TELEPORT_ANONYMOUS_TELEMETRY": "0", "DO_NOT_TRACK": "1"},
                "TELEPORT_ANONYMOUS_TELEMETRY opts out",
                "nothing",
                {},
            ),
            (
                {"OTEL_SDK_DISABLED": "true"},
                DISABLED,
                "opt_out",
                {
                    "relay": {
                        "can_start": False,
                        "reason": "OTEL_SDK_DISABLED: the relay cannot export with it",
                    }
                },
            ),
            (
                {"DO_NOT_TRACK": "1", ADDRESS: "http://x"},
                "DO_NOT_TRACK asks not to be tracked",
                "opt_out",
                {},
            ),
        )
    ),
    (
        "an address",
        {ADDRESS: f"http://{SECRET}"},
        {"run": {"forwards": False, "reason": ADDRESS_IS_SET, "command_is_told": "nothing"}},
    ),
    (
        "a credential provider",
        {CREDENTIAL_PROVIDER: SECRET},
        would_not_send(CREDENTIAL_PROVIDER, "expected an installed credential provider"),
    ),
    (
        "a credential provider and gRPC",
        GRPC | {CREDENTIAL_PROVIDER: SECRET},
        {"protocol": "grpc", "endpoint": "http://localhost:4317"},
    ),
    ("grpc", GRPC, {"protocol": "grpc", "endpoint": "http://localhost:4317"}),
    (
        "http/json",
        {"OTEL_EXPORTER_OTLP_PROTOCOL": "http/json"},
        {"protocol": "http/json", **unsupported("OTEL_EXPORTER_OTLP_PROTOCOL")},
    ),
    (
        "an unknown protocol",
        {"OTEL_EXPORTER_OTLP_LOGS_PROTOCOL": "http/unknown"},
        {"protocol": "http/unknown", **unsupported("OTEL_EXPORTER_OTLP_LOGS_PROTOCOL")},
    ),
    (
        "an unknown protocol without consent",
        {"OTEL_EXPORTER_OTLP_PROTOCOL": "http/unknown", "TELEPORT_ANONYMOUS_TELEMETRY": ""},
        {
            "protocol": "http/unknown",
            **unsupported("OTEL_EXPORTER_OTLP_PROTOCOL"),
            "reason": NO_CONSENT,
            "variable": "TELEPORT_ANONYMOUS_TELEMETRY",
            "run": {"forwards": False, "reason": NO_CONSENT, "command_is_told": "nothing"},
            "problems": ["OTEL_EXPORTER_OTLP_PROTOCOL: expected http/protobuf or grpc"],
        },
    ),
    *(
        (f"the endpoint {environ}", environ, {"endpoint": shown})
        for environ, shown in (
            ({ENDPOINT: "https://collector.example/"}, "https://collector.example/v1/logs"),
            ({ENDPOINT: f"https://collector.example/{SECRET}/"}, "https://collector.example/..."),
            ({LOGS_ENDPOINT: "https://x/v1/logs"}, "https://x/v1/logs"),
            ({LOGS_ENDPOINT: f"https://x/v1/logs/{SECRET}"}, "https://x/..."),
            ({LOGS_ENDPOINT: "https://x/v1/logs/v1/logs"}, "https://x/..."),
            ({LOGS_ENDPOINT: f"https://x/a@{SECRET}"}, "https://..."),
        )
    ),
    *(
        (
            f"{value} over gRPC",
            GRPC | {ENDPOINT: value},
            {"protocol": "grpc", "endpoint": shown, "problems": problems},
        )
        for value, shown, problems in (
            ("https://collector.example/", "https://collector.example/", [NO_PORT]),
            ("https://collector.example/v1/logs", "https://collector.example/...", [NO_PORT]),
            ("http://[::1]", "http://[::1]", [NO_PORT]),
            (f"collector.example:443/{SECRET}", "collector.example:443/...", [IMPLICIT_TLS]),
            ("localhost:4318", "localhost:4318", [HTTP_PORT, IMPLICIT_TLS]),
        )
    ),
    *(
        (
            f"{variable}={value}",
            {variable: value},
            {"endpoint": shown, **would_not_send(variable, problem)},
        )
        for variable, value, shown, problem in (
            (ENDPOINT, "nonsense", "nonsense/v1/logs", NO_SCHEME),
            (ENDPOINT, "localhost:4318", "localhost:4318/v1/logs", NO_SCHEME),
            (LOGS_ENDPOINT, "ftp://x/v1/logs", "ftp:/...", NO_SCHEME),
            (LOGS_ENDPOINT, "http:///v1/logs", "http:///v1/logs", NO_HOST),
            (ENDPOINT, "http://x:port", "http://x:port/v1/logs", NO_HOST),
        )
    ),
    *(
        (
            f"{value} over gRPC",
            GRPC | {ENDPOINT: value},
            {"protocol": "grpc", "endpoint": shown, **would_not_send(ENDPOINT, problem)},
        )
        for value, shown, problem in (
            (
                f"https://user:{SECRET}@x",
                "https://x",
                "expected no login, which only http/protobuf sends",
            ),
            (
                f"user:{SECRET}@x:4317",
                "x:4317",
                "expected no login, which only http/protobuf sends",
            ),
            ("https://[x", "https://[x", NO_HOST),
        )
    ),
    (
        "a scheme is missing without consent",
        {ENDPOINT: "nonsense", "DO_NOT_TRACK": "1"},
        {
            "endpoint": "nonsense/v1/logs",
            **would_not_send(ENDPOINT, NO_SCHEME),
            "reason": "DO_NOT_TRACK asks not to be tracked",
            "variable": "DO_NOT_TRACK",
            "run": OPT_OUT | {"reason": "DO_NOT_TRACK asks not to be tracked"},
            "problems": [f"{ENDPOINT}: {NO_SCHEME}"],
        },
    ),
    *(
        (
            f"{environ} is missing",
            {ENDPOINT: "https://x"} | environ,
            {"endpoint": "https://x/v1/logs", **would_not_send([*environ][-1], MISSING)},
        )
        for environ in (
            {"OTEL_EXPORTER_OTLP_CERTIFICATE": f"/{SECRET}"},
            {"OTEL_EXPORTER_OTLP_LOGS_CERTIFICATE": f"/{SECRET}"},
            {"REQUESTS_CA_BUNDLE": f"/{SECRET}"},
            {"REQUESTS_CA_BUNDLE": __file__, "OTEL_EXPORTER_OTLP_CERTIFICATE": f"/{SECRET}"},
            {"OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE": f"/{SECRET}"},
            {
                "OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE": __file__,
                "OTEL_EXPORTER_OTLP_CLIENT_KEY": f"/{SECRET}",
            },
        )
    ),
    *(
        (f"{environ} is not read", environ, {"endpoint": shown})
        for environ, shown in (
            ({"OTEL_EXPORTER_OTLP_CERTIFICATE": f"/{SECRET}"}, HTTP_ENDPOINT),
            (
                {
                    ENDPOINT: "https://x",
                    "REQUESTS_CA_BUNDLE": f"/{SECRET}",
                    "OTEL_EXPORTER_OTLP_CERTIFICATE": certifi.where(),
                },
                "https://x/v1/logs",
            ),
        )
    ),
    (
        "a file without PEM",
        {ENDPOINT: "https://x", "OTEL_EXPORTER_OTLP_CERTIFICATE": __file__},
        {
            "endpoint": "https://x/v1/logs",
            **would_not_send("OTEL_EXPORTER_OTLP_CERTIFICATE", NO_PEM),
        },
    ),
    (
        "a folder of CAs",
        {ENDPOINT: "https://x", "OTEL_EXPORTER_OTLP_CERTIFICATE": "/"},
        {"endpoint": "https://x/v1/logs"},
    ),
    (
        "a folder of CAs over gRPC",
        GRPC | {ENDPOINT: "https://x:1", "OTEL_EXPORTER_OTLP_CERTIFICATE": "/"},
        {
            "protocol": "grpc",
            "endpoint": "https://x:1",
            **would_not_send(
                "OTEL_EXPORTER_OTLP_CERTIFICATE",
                "expected a file that can be read (Is a directory)",
            ),
        },
    ),
    (
        "a proxy",
        {ENDPOINT: "http://x", "http_proxy": f"http://user:{SECRET}@proxy:3128/"},
        {"endpoint": "http://x/v1/logs", "proxy": "http://proxy:3128"},
    ),
    *(
        (
            f"{name} is misspelled",
            {name: "x"},
            {"problems": [f"{name}: it is not read; is it {meant}?"]},
        )
        for name, meant in (
            ("OTEL_EXPORTER_OLTP_ENDPOINT", ENDPOINT),
            ("OTEL_EXPORTER_OTLP_ENDPIONT", ENDPOINT),
            ("OTEL_EXPORTER_OTLP_LOG_ENDPOINT", LOGS_ENDPOINT),
            ("otel_exporter_otlp_headers", "OTEL_EXPORTER_OTLP_HEADERS"),
            ("TELEPORT_ANONYMOUS_TELEMTRY", "TELEPORT_ANONYMOUS_TELEMETRY"),
            ("TLEEPORT_ANONYMOUS_TELEMETRY", "TELEPORT_ANONYMOUS_TELEMETRY"),
        )
    ),
    *(
        (f"{name} is not ours", {name: "x"}, {})
        for name in ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_METRICS_TIMEOUT")
    ),
    *(
        (
            f"the path is added to {endpoint}",
            {ENDPOINT: endpoint},
            {
                "endpoint": "http://localhost:4318/...",
                "problems": [f"{ENDPOINT}: expected no /v1/logs, because it is added"],
            },
        )
        for endpoint in ("http://localhost:4318/v1/logs", "http://localhost:4318/x/v1/logs/")
    ),
    *(
        (
            f"no path in {endpoint}",
            {LOGS_ENDPOINT: endpoint},
            {
                "endpoint": endpoint,
                "problems": [f"{LOGS_ENDPOINT}: expected a path, such as /v1/logs"],
            },
        )
        for endpoint in ("http://localhost:4318", "https://collector.example/")
    ),
    (
        "an endpoint for logs",
        {
            "OTEL_EXPORTER_OTLP_ENDPOINT": "https://other.example",
            "OTEL_EXPORTER_OTLP_LOGS_ENDPOINT": "https://collector.example/v1/logs",
        },
        {"endpoint": "https://collector.example/v1/logs"},
    ),
    (
        "a protocol for logs",
        GRPC
        | {
            "OTEL_EXPORTER_OTLP_LOGS_PROTOCOL": "http/protobuf",
            "OTEL_EXPORTER_OTLP_LOGS_ENDPOINT": "",
        },
        {},
    ),
    *(
        (
            f"gRPC at an HTTP port: {endpoint}",
            GRPC | {"OTEL_EXPORTER_OTLP_ENDPOINT": endpoint},
            {"protocol": "grpc", "endpoint": endpoint, "problems": [HTTP_PORT]},
        )
        for endpoint in ("http://localhost:4318", "https://[::1]:4318")
    ),
    *(
        (
            f"gRPC at {endpoint}",
            GRPC | {"OTEL_EXPORTER_OTLP_ENDPOINT": endpoint},
            {"protocol": "grpc", "endpoint": endpoint},
        )
        for endpoint in ("https://x:14318", "http://x:43180")
    ),
    *(
        (
            f"HTTP at a gRPC port: {endpoint}",
            {"OTEL_EXPORTER_OTLP_ENDPOINT": endpoint},
            {"endpoint": f"{endpoint}/v1/logs", "problems": [GRPC_PORT]},
        )
        for endpoint in ("http://localhost:4317", "https://[::1]:4317")
    ),
    (
        "an unknown protocol at any port",
        {"OTEL_EXPORTER_OTLP_LOGS_ENDPOINT": "http://x:4317/", "OTEL_EXPORTER_OTLP_PROTOCOL": "x"},
        {
            "protocol": "x",
            "endpoint": "http://x:4317/",
            **unsupported("OTEL_EXPORTER_OTLP_PROTOCOL"),
        },
    ),
    *(
        (
            f"{variable}={value}",
            {variable: value},
            {"problems": [f"{variable}: expected seconds, but it looks like milliseconds"]},
        )
        for variable in ("OTEL_EXPORTER_OTLP_TIMEOUT", "OTEL_EXPORTER_OTLP_LOGS_TIMEOUT")
        for value in ("500", "10000")
    ),
    ("a timeout", {"OTEL_EXPORTER_OTLP_TIMEOUT": "499.9"}, {}),
    ("a helper", {HELPER: KNOWN_HELPER}, {"helper": {"helper": KNOWN_HELPER}}),
    (
        "a helper and its version",
        {HELPER: KNOWN_HELPER, HELPER_VERSION: "2.1.2"},
        {"helper": {"helper": KNOWN_HELPER, "helper_version": "2.1.2"}},
    ),
    (
        "a helper that can be allowed",
        {HELPER: SECRET, HELPER_VERSION: "2.1.2"},
        {
            "helper": {"helper": "_OTHER"},
            "problems": [
                f"{HELPER}: {UNKNOWN_VALUE}; --allow-helper lets it leave",
                f"{HELPER_VERSION}: it belongs to a helper that is not known",
            ],
        },
    ),
    (
        "a helper that cannot be allowed",
        {HELPER: f"{SECRET}.example.com"},
        {"helper": {"helper": "_OTHER"}, "problems": [f"{HELPER}: {UNKNOWN_VALUE}"]},
    ),
    (
        "a version of a helper that does not fit",
        {HELPER: KNOWN_HELPER, HELPER_VERSION: SECRET},
        {
            "helper": {"helper": KNOWN_HELPER},
            "problems": [f"{HELPER_VERSION}: the value does not fit the pattern"],
        },
    ),
]


@pytest.mark.parametrize(
    ("environ", "changes"),
    [(environ, changes) for _, environ, changes in STATUS],
    ids=[title for title, *_ in STATUS],
)
def test_status(
    environ: dict[str, str],
    changes: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The status is whether a start would be sent, why, where to, and likely mistakes."""
    for name, value in ({"TELEPORT_ANONYMOUS_TELEMETRY": "1"} | environ).items():
        monkeypatch.setenv(name, value)
    expected = {
        "would_send": True,
        "reason": "TELEPORT_ANONYMOUS_TELEMETRY opts in",
        "variable": "TELEPORT_ANONYMOUS_TELEMETRY",
        "endpoint": HTTP_ENDPOINT,
        "proxy": None,
        "protocol": "http/protobuf",
        "defaults": [
            name
            for name in ("endpoint", "protocol")
            if not any(
                environ.get(f"OTEL_EXPORTER_OTLP_{form}{name.upper()}") for form in ("", "LOGS_")
            )
        ],
        "helper": {},
        "run": {
            "forwards": True,
            "reason": "TELEPORT_ANONYMOUS_TELEMETRY opts in",
            "command_is_told": "address",
        },
        "relay": {"can_start": True, "reason": None},
        "problems": [],
        "check": None,
        **changes,
    }
    status = 0 if expected["would_send"] else 3

    assert main(["status", "--json"]) == status
    printed = capsys.readouterr()
    assert printed.err == ""
    assert json.loads(printed.out) == expected

    assert main(["status"]) == status
    printed = capsys.readouterr()
    assert printed.err == ""
    run_reason, relay_reason = [
        f", {part['reason']}" if part["reason"] not in (None, expected["reason"]) else ""
        for part in (expected["run"], expected["relay"])
    ]
    run = {
        ("address", True): "forwards tbot's report",
        ("address", False): "receives tbot's report, but cannot forward it",
        ("opt_out", False): "tells tbot not to report (TELEPORT_ANONYMOUS_TELEMETRY=0)",
        ("nothing", False): "changes nothing for tbot",
    }[expected["run"]["command_is_told"], expected["run"]["forwards"]]
    default = dict.fromkeys(expected["defaults"], " (default)")
    proxy = f" through the proxy {expected['proxy']}" if expected["proxy"] else ""
    assert SECRET not in printed.out
    assert printed.out.splitlines() == [
        f"would send: {'yes' if expected['would_send'] else 'no'}, {expected['reason']}",
        f"to:         {expected['endpoint']}{default.get('endpoint', '')}{proxy}",
        f"protocol:   {expected['protocol']}{default.get('protocol', '')}",
        f"helper:     {' '.join(expected['helper'].values()) or 'none'}",
        f"run:        {run}{run_reason}",
        f"relay:      {'can' if expected['relay']['can_start'] else 'cannot'} start{relay_reason}",
        *(f"problem:    {problem}" for problem in expected["problems"]),
    ]


@pytest.mark.usefixtures("opted_in")
@pytest.mark.parametrize("protocol", ["grpc", "http/protobuf"])
@pytest.mark.parametrize("name", ["ENDPOINT", "LOGS_ENDPOINT"])
@pytest.mark.parametrize(
    "endpoint",
    [
        *(f"http://user:{SECRET}@host:4318/x", f"https://{SECRET}@host", f"//user:{SECRET}@host"),
        *(f"https://host/{SECRET}", f"host/{SECRET}/v1/logs", f"http://host/x@{SECRET}"),
        *(f"http://host/?key={SECRET}", f"http://host/#{SECRET}", f"http://host/?a@{SECRET}"),
        # gRPC accepts an endpoint without a scheme.
        *(f"user:{SECRET}@host:4317", f"{SECRET}@host:4317", f"grpc://user:{SECRET}@host"),
        # Passwords with characters that should have been quoted.
        *(
            f"http://user:{SECRET}/x@host",
            f"http://user:{SECRET}?x@host",
            f"http://u:{SECRET}#@host",
        ),
        # Invalid URLs.
        *(f"http://[user:{SECRET}@host", f"http://user:{SECRET}@host:port"),
        f"http://user:{SECRET}@h\N{ACCOUNT OF}st",
        *(f"user:{SECRET}://word@host", f"host:4317/?key={SECRET}&next=https://x"),
    ],
)
def test_status_shows_no_secret(
    endpoint: str,
    name: str,
    protocol: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The status shows no headers, and no login, path, query or fragment of an endpoint."""
    monkeypatch.setenv(f"OTEL_EXPORTER_OTLP_{name}", endpoint)
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_PROTOCOL", protocol)
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", f"authorization={SECRET}")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_LOGS_HEADERS", f"x-key={SECRET}")
    for words in (["status"], ["status", "--json"]):
        assert main(words) in (0, 3)
        printed = capsys.readouterr()
        assert printed.err == ""
        assert SECRET not in printed.out


@pytest.mark.usefixtures("opted_in")
@pytest.mark.parametrize(
    ("module", "name", "line"),
    [
        (
            launcher,
            "waitress",
            (
                "run:        tells tbot not to report (TELEPORT_ANONYMOUS_TELEMETRY=0), "
                "needs the extra 'run': pip install 'tbot-otel[run]'"
            ),
        ),
        (
            relay,
            "granian",
            "relay:      cannot start, needs the extra 'relay': pip install 'tbot-otel[relay]'",
        ),
    ],
    ids=["run", "relay"],
)
def test_status_without_an_extra(
    module: ModuleType,
    name: str,
    line: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The status names the extra that run or relay needs. A start would be sent without it."""
    assert name in module._REQUIRED_MODULES
    monkeypatch.setattr(module, "_REQUIRED_MODULES", ("missing_module",))
    assert main(["status"]) == 0
    assert line in capsys.readouterr().out.splitlines()


@pytest.mark.usefixtures("opted_in")
def test_status_on_windows(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Where run is not supported, the status says so. A start would be sent."""
    monkeypatch.delattr(os, "fork")
    monkeypatch.delattr(os, "geteuid")
    assert main(["status", "--json"]) == 0
    run = json.loads(capsys.readouterr().out)["run"]
    assert run == OPT_OUT | {"reason": "expected Linux or macOS"}


@pytest.mark.usefixtures("opted_in")
def test_status_without_the_exporter(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without the package of the protocol's exporter, nothing would be sent."""
    module = "opentelemetry.exporter.otlp.proto.missing"
    monkeypatch.setitem(environment.EXPORTER_MODULES, "http/protobuf", module)
    assert main(["status", "--json"]) == 3
    status = json.loads(capsys.readouterr().out)
    package = "opentelemetry-exporter-otlp-proto-missing"
    reason = f"protocol http/protobuf: the package {package} is not installed"
    assert (status["variable"], status["reason"]) == ("OTEL_EXPORTER_OTLP_PROTOCOL", reason)
    assert status["run"] == OPT_OUT | {"reason": reason}


def test_documented_status(capsys: pytest.CaptureFixture[str]) -> None:
    """The documentation names the keys of the JSON, and no other."""

    def keys(value: dict[str, Any], prefix: str = "") -> set[str]:
        nested = [keys(part, f"{name}.") for name, part in value.items() if isinstance(part, dict)]
        return {f"{prefix}{name}" for name in value}.union(*nested)

    main(["status", "--json", "--check"])
    page = (ROOT / "docs/reference.md").read_text()
    section = page.partition("`--json` prints one object.")[2].partition("\n## ")[0]
    named = set(re.findall(r"`([a-z_.]+)`", section))
    # Values, and a key that is there only with a helper.
    other = {"address", "opt_out", "nothing", "accepted", "unobserved", "failed", "not_made"}
    assert named - other - {"helper_version"} == keys(json.loads(capsys.readouterr().out))


@pytest.mark.parametrize(
    ("environ", "reason"),
    [
        ({"TELEPORT_ANONYMOUS_TELEMETRY": ""}, NO_CONSENT),
        ({"DO_NOT_TRACK": "1"}, "DO_NOT_TRACK asks not to be tracked"),
        ({LOGS_ENDPOINT: "nonsense"}, f"{LOGS_ENDPOINT}: {NO_SCHEME}"),
    ],
)
def test_check_that_is_not_made(
    environ: dict[str, str],
    reason: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """If nothing would be sent, the check sends nothing either."""
    monkeypatch.setattr(status, "_export_nothing", None)
    for name, value in ({"TELEPORT_ANONYMOUS_TELEMETRY": "1"} | environ).items():
        monkeypatch.setenv(name, value)
    assert main(["status", "--check"]) == 3
    lines = capsys.readouterr().out.splitlines()
    assert (lines[0], lines[-1]) == (f"would send: no, {reason}", "check:      not made")
    assert main(["status", "--check", "--json"]) == 3
    check = json.loads(capsys.readouterr().out)["check"]
    assert check == {"result": "not_made", "reason": reason, "hint": None}


@pytest.mark.usefixtures("opted_in")
def test_check_that_takes_too_long(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The check ends in time, although the exporter does not."""
    ended = threading.Event()
    monkeypatch.setattr(emit, "MAX_WAIT_SECONDS", 0.1)
    monkeypatch.setattr(send, "export_and_observe", lambda *_: ended.wait(WAIT_SECONDS))
    try:
        assert main(["status", "--check"]) == 1
    finally:
        ended.set()
    assert capsys.readouterr().out.endswith("check:      failed, no response within 0.1 s\n")


@pytest.mark.parametrize("command", ["emit", "preview", "relay"])
@pytest.mark.parametrize("name", [f"{SECRET}.example.com", "", "x y"])
def test_helper_that_cannot_be_allowed(
    command: str, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """A name that cannot be allowed is a usage error."""
    assert exit_status(command, f"--allow-helper={name}") == 2
    expected = "expected a name of letters, digits, - _ / and one :, at most 64"
    line = f"tbot-otel {command}: argument --allow-helper: {expected}\n"
    assert capsys.readouterr() == ("", line)


@pytest.mark.usefixtures("opted_in")
@pytest.mark.parametrize(
    ("environ", "status", "line"),
    [
        (
            {"OTEL_EXPORTER_OTLP_PROTOCOL": "x"},
            1,
            f"not delivered to {HTTP_ENDPOINT} (x): {UNSUPPORTED_PROTOCOL}",
        ),
        (
            {"OTEL_SDK_DISABLED": "true"},
            0,
            f"nothing was sent: {DISABLED}",
        ),
        ({"DO_NOT_TRACK": "1"}, 0, "nothing was sent: DO_NOT_TRACK asks not to be tracked"),
        ({"TELEPORT_ANONYMOUS_TELEMETRY": ""}, 0, f"nothing was sent: {NO_CONSENT}"),
    ],
)
def test_emit_that_sends_nothing(
    environ: dict[str, str],
    status: int,
    line: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """One line says why nothing was sent."""
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    assert main(["emit", "--daemon", "--tbot-version=18.3.0"]) == status
    assert capsys.readouterr() == ("", f"tbot-otel: {line}\n")


@pytest.mark.usefixtures("opted_in")
@pytest.mark.parametrize("command", ["emit", "preview"])
def test_bad_file(command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """For both commands, an invalid file is a usage error."""
    config = tmp_path / "tbot.yaml"
    config.write_text(f"version: v2\noutputs: {SECRET}\n")
    assert exit_status(command, "--config", str(config)) == 2
    line = f"tbot-otel {command}: {config}:2: outputs: expected a list\n"
    assert capsys.readouterr() == ("", line)


def test_preview_needs_no_consent(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Preview works without consent, with a new session each time."""
    sessions = set()
    for consent in ("", "0", "1"):
        monkeypatch.setenv("TELEPORT_ANONYMOUS_TELEMETRY", consent)
        assert main(["preview", "--json", "--daemon", "--tbot-version=18.3.0"]) == 0
        printed = capsys.readouterr()
        assert printed.err == ""
        (logs,) = json.loads(printed.out)["resourceLogs"]
        sessions.add(attribute_values(logs["resource"]["attributes"])["session.id"])
    assert len(sessions) == 3


def test_preview_as_text(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The preview has some twenty lines, in the form of the Collector's debug exporter."""
    monkeypatch.setenv(HELPER, KNOWN_HELPER)
    monkeypatch.setenv(HELPER_VERSION, "2.1.2")
    assert main(["preview", "--tbot-version=18.3.0", "--join-method=iam"]) == 0
    printed = capsys.readouterr()
    assert printed.err == ""
    text = re.sub(r"[0-9a-f]{8}-[0-9a-f-]{27}\)", "UUID)", printed.out)
    text = re.sub(r"(?<=sdk.version: Str\().*(?=\))", "X.Y.Z", text)
    text = re.sub(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{9} \+0000 UTC", "TIME", text)
    given = {
        "tbot.run_mode": "daemon",
        "tbot.version": "18.3.0",
        "tbot.join_type": "iam",
        "tbot.helper": KNOWN_HELPER,
        "tbot.helper_version": "2.1.2",
    }
    host = re.findall(r"^     -> (?:os\.type|host\.arch): Str\(\w+\)$", text, re.MULTILINE)
    assert text.splitlines() == [
        "Resource attributes:",
        "     -> service.name: Str(tbot)",
        "     -> session.id: Str(UUID)",
        *host,
        "     -> telemetry.sdk.language: Str(python)",
        "     -> telemetry.sdk.name: Str(opentelemetry)",
        "     -> telemetry.sdk.version: Str(X.Y.Z)",
        f"InstrumentationScope tbot_otel {__version__}",
        "Timestamp: TIME",
        "SeverityText: INFO",
        "EventName: tbot.start",
        "Body: Empty()",
        "Attributes:",
        *(
            f"     -> {item.name}: "
            + ("Int(0)" if item.type == "int" else f"Str({given.get(item.name, '')})")
            for item in START.attributes
        ),
    ]


def test_both_previews_have_the_same_record(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The text has the values of the OTLP/JSON."""
    # Both in one session, at one time.
    start = Start()
    monkeypatch.setattr("tbot_otel.session.Start", lambda: start)
    assert main(["preview", "--tbot-version=18.3.0", "--destinations-other=7"]) == 0
    text = capsys.readouterr().out
    assert main(["preview", "--tbot-version=18.3.0", "--destinations-other=7", "--json"]) == 0
    (logs,) = json.loads(capsys.readouterr().out)["resourceLogs"]
    (scope_logs,) = logs["scopeLogs"]
    (record,) = scope_logs["logRecords"]
    shown = dict(re.findall(r"^     -> (\S+): \w+\((.*)\)$", text, re.MULTILINE))
    values = attribute_values(logs["resource"]["attributes"])
    values |= attribute_values(record["attributes"])
    assert shown == {name: str(value) for name, value in values.items()}
    lines = text.splitlines()
    scope = scope_logs["scope"]
    assert f"InstrumentationScope {scope['name']} {scope['version']}" in lines
    assert f"SeverityText: {record['severityText']}" in lines
    assert f"EventName: {record['eventName']}" in lines
    seconds, nanoseconds = divmod(int(record["timeUnixNano"]), 10**9)
    time = datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%S")
    assert f"Timestamp: {time}.{nanoseconds:09} +0000 UTC" in lines


@pytest.mark.parametrize("option", ["-o", "--output"])
def test_preview_to_a_file(option: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The preview is written to a file, and not to standard output, in the form that was chosen."""
    file = tmp_path / "preview.json"
    file.write_text("old content" * 1000)
    assert main(["preview", "--json", "--daemon", "--tbot-version=18.3.0", option, str(file)]) == 0
    assert capsys.readouterr() == ("", "")
    text = file.read_text()
    assert text.endswith("}\n")
    assert record_attributes(text)["tbot.version"] == "18.3.0"
    assert main(["preview", "--daemon", "--tbot-version=18.3.0", option, str(file)]) == 0
    assert capsys.readouterr() == ("", "")
    assert "\n     -> tbot.version: Str(18.3.0)\n" in file.read_text()


def test_preview_to_a_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A file that cannot be written is a usage error."""
    assert exit_status("preview", "--daemon", "-o", str(tmp_path), "--tbot-version=18.3.0") == 2
    assert capsys.readouterr() == ("", f"tbot-otel preview: {tmp_path}: Is a directory\n")


@pytest.mark.parametrize(
    "words",
    [
        ["preview", "--config"],
        ["preview", "--daemon", "--tbot-version=18.3.0", "--output"],
    ],
    ids=str,
)
def test_path_that_is_not_printable(
    words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A path with control characters is escaped, so that an error is one line."""
    file = tmp_path / "file"
    file.touch()
    assert exit_status(*words, f"{file}/a\nb\x1b[31m") == 2
    line = f"tbot-otel {words[0]}: {file}/a\\nb\\x1b[31m: Not a directory\n"
    assert capsys.readouterr() == ("", line)


def test_interrupt(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """A command that is interrupted ends silently, with the status of SIGINT."""

    def interrupt(_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(status, "run", interrupt)
    assert main(["status"]) == 130
    assert capsys.readouterr() == ("", "")


@pytest.mark.usefixtures("opted_in")
@pytest.mark.parametrize("words", [["emit", "--daemon", "--tbot-version=18.3.0"], ["status"]])
def test_values_that_are_not_printable(
    words: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Control characters of a variable are escaped."""
    monkeypatch.setenv(ENDPOINT, "http://h\x1b[31m\n\u202e:4318")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_PROTOCOL", "x\r\x9b31m")
    main(words)
    printed = capsys.readouterr()
    text = printed.out + printed.err
    assert all(line.isprintable() for line in text.split("\n"))
    assert r"http://h\x1b[31m\n\u202e:4318" in text
    assert r"x\r\x9b31m" in text
    assert len(printed.err.splitlines()) == (words[0] == "emit")


@pytest.mark.parametrize("host", ["a..b", f"{'x' * 64}.example"])
def test_relay_host_that_is_not_a_name(host: str, capsys: pytest.CaptureFixture[str]) -> None:
    """A host that no name can be is a usage error."""
    assert exit_status("relay", "--listen", f"{host}:80") == 2
    assert capsys.readouterr() == ("", "tbot-otel relay: --listen: no such host\n")
