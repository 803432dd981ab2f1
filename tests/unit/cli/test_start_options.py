"""The start that emit and preview read: from which tbot.yaml, and what is said without one."""

import base64
import os
from pathlib import Path

import pytest

from support.cases import EMPTY_ATTRIBUTES
from support.otlp import record_attributes
from tbot_otel.cli import main

NO_CONFIGURATION = "tbot-otel: no configuration was read; --config names a tbot.yaml\n"


def preview(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[dict[str, object], str]:
    """Preview a start, and return its attributes and what standard error got."""
    assert main(["preview", "--json", "--tbot-version=18.3.0", *words]) == 0
    printed = capsys.readouterr()
    return record_attributes(printed.out), printed.err


def write_config(path: Path, method: str) -> str:
    """Write a tbot.yaml with a join method, and return its path."""
    path.write_text(f"onboarding: {{join_method: {method}}}\n")
    return str(path)


@pytest.mark.parametrize("words", [[], ["--tbot-version=18.3.0"], ["--allow-helper=acme"]])
def test_no_configuration(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """Without a file and options, one line says that no configuration was read."""
    attributes = {"tbot.run_mode": "daemon", "tbot.version": "18.3.0"}
    assert preview(capsys, *words) == (EMPTY_ATTRIBUTES | attributes, NO_CONFIGURATION)


@pytest.mark.parametrize(
    "option",
    [
        *("--oneshot", "--daemon", "--join-method=iam", "--join-method="),
        *(
            f"--destinations-{kind}=0"
            for kind in ("other", "database", "kubernetes", "application")
        ),
    ],
)
def test_options_are_a_configuration(option: str, capsys: pytest.CaptureFixture[str]) -> None:
    """With an option that describes the start, nothing is missing."""
    assert preview(capsys, option)[1] == ""


@pytest.mark.usefixtures("opted_in")
def test_emit_without_configuration(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Emit says it, too."""
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_PROTOCOL", "unknown")
    assert main(["emit", "--tbot-version=18.3.0"]) == 1
    assert capsys.readouterr().err.startswith(NO_CONFIGURATION)


def test_variables(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The option wins over TBOT_CONFIG_PATH, and that over TBOT_CONFIG. Empty means unset."""

    def join_type(*words: str) -> object:
        attributes, err = preview(capsys, *words)
        assert err in ("", NO_CONFIGURATION)
        return attributes["tbot.join_type"]

    option = ("--config", write_config(tmp_path / "option.yaml", "github"))
    monkeypatch.setenv("TBOT_CONFIG", "")
    monkeypatch.setenv("TBOT_CONFIG_PATH", "")
    assert join_type() == ""
    monkeypatch.setenv("TBOT_CONFIG", "onboarding: {join_method: iam}")
    assert join_type() == "iam"
    monkeypatch.setenv("TBOT_CONFIG_PATH", write_config(tmp_path / "path.yaml", "tpm"))
    assert join_type() == "tpm"
    assert join_type(*option) == "github"
    assert join_type("--join-method=gitlab") == "gitlab"


@pytest.mark.parametrize(
    "text",
    [
        "version: v2\nonboarding: {join_method: iam}\nx: \N{SNOWMAN}",
        "{onboarding: {join_method: iam}}",
        "onboarding:\n  join_method: iam\n",
        # Its letters alone would be base64.
        "x:\nonboarding: {join_method: iam}",
    ],
)
@pytest.mark.parametrize("form", ["plain", "base64", "lines of base64"])
def test_content_of_a_variable(
    form: str, text: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """TBOT_CONFIG has the content of a tbot.yaml, in base64 or plain."""
    encode = base64.b64encode if form == "base64" else base64.encodebytes
    value = text if form == "plain" else encode(text.encode()).decode()
    monkeypatch.setenv("TBOT_CONFIG", value)
    attributes, err = preview(capsys)
    assert (attributes["tbot.join_type"], err) == ("iam", "")


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("version: v3", "TBOT_CONFIG:1: version: expected v1 or v2"),
        ("a: [", "TBOT_CONFIG:1: not valid YAML"),
        ("not base64", "TBOT_CONFIG:1: the file: expected a mapping"),
        ("\x1b[31m: 1", "TBOT_CONFIG: not valid YAML"),
        (f"a: {'x' * 2**20}", "TBOT_CONFIG: expected at most 1048576 bytes"),
        (base64.b64encode(b"version: v3").decode(), "TBOT_CONFIG:1: version: expected v1 or v2"),
    ],
    ids=range(6),
)
def test_invalid_variable(
    text: str, problem: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """An error names the variable and the line."""
    monkeypatch.setenv("TBOT_CONFIG", text)
    with pytest.raises(SystemExit, match="2"):
        main(["preview"])
    err = capsys.readouterr().err
    assert err.removeprefix("tbot-otel preview: ").replace(":2:", ":1:") == f"{problem}\n"


def test_standard_input(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """`--config -` reads standard input, and leaves it open."""
    path = tmp_path / "tbot.yaml"
    kept = os.dup(0)
    try:
        for content, expected in (("onboarding: {join_method: iam}", "iam"), ("- x", None)):
            path.write_text(content)
            fd = os.open(path, os.O_RDONLY)
            os.dup2(fd, 0)
            os.close(fd)
            if expected:
                assert preview(capsys, "--config", "-")[0]["tbot.join_type"] == expected
            else:
                with pytest.raises(SystemExit, match="2"):
                    main(["preview", "--config", "-"])
                line = "tbot-otel preview: standard input:1: the file: expected a mapping\n"
                assert capsys.readouterr().err == line
            os.fstat(0)
        os.close(0)
        with pytest.raises(SystemExit, match="2"):
            main(["preview", "--config", "-"])
        line = f"tbot-otel preview: standard input: {os.strerror(9)}\n"
        assert capsys.readouterr().err == line
    finally:
        os.dup2(kept, 0)
        os.close(kept)
    monkeypatch.setenv("TBOT_CONFIG_PATH", str(path))
    with pytest.raises(SystemExit, match="2"):
        main(["preview"])
    assert capsys.readouterr().err.startswith(f"tbot-otel preview: {path}:1: ")


CONFIG_FILE = """
oneshot: true
onboarding: {join_method: iam}
destinations: [{app: a}, {app: b}, {database: {}}, {kubernetes_cluster: c}, {memory: {}}]
"""
CONFIG_FILE_ATTRIBUTES: dict[str, object] = {
    **EMPTY_ATTRIBUTES,
    "tbot.run_mode": "one-shot",
    "tbot.version": "18.3.0",
    "tbot.join_type": "iam",
    "tbot.destinations_other": 1,
    "tbot.destinations_database": 1,
    "tbot.destinations_kubernetes": 1,
    "tbot.destinations_application": 2,
}


@pytest.mark.parametrize(
    ("words", "changes"),
    [
        ("", {}),
        ("--oneshot", {}),
        ("--daemon", {"tbot.run_mode": "daemon"}),
        ("--join-method=github", {"tbot.join_type": "github"}),
        ("--join-method=", {"tbot.join_type": ""}),
        ("--tbot-version=19.0.0-dev", {"tbot.version": "19.0.0-dev"}),
        *(
            (f"--destinations-{kind} {count}", {f"tbot.destinations_{kind}": count})
            for kind in ("other", "database", "kubernetes", "application")
            for count in (0, 7, 999)
        ),
    ],
)
def test_options_win(
    words: str, changes: dict[str, object], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """An option replaces one value of the file."""
    config = tmp_path / "tbot.yaml"
    config.write_text(CONFIG_FILE)
    printed = preview(capsys, "--config", str(config), *words.split())
    assert printed == (CONFIG_FILE_ATTRIBUTES | changes, "")


@pytest.mark.parametrize(
    ("words", "changes", "line"),
    [
        (
            "--tbot-version=v19.0.0-dev.someone",
            {"tbot.version": "19.0.0-dev"},
            "tbot.version: the text around the version was cut off",
        ),
        *(
            (
                f"--destinations-{kind}=2125551234",
                {f"tbot.destinations_{kind}": 999},
                f"tbot.destinations_{kind}: the count is over 999 and was replaced with 999",
            )
            for kind in ("other", "database", "kubernetes", "application")
        ),
    ],
)
def test_changed_options(
    words: str, changes: dict[str, object], line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """An option's value that policy changes is changed, and a line says so."""
    given = {"tbot.run_mode": "daemon", "tbot.version": "18.3.0"}
    expected = EMPTY_ATTRIBUTES | given | changes
    assert preview(capsys, "--daemon", words) == (expected, f"tbot-otel: {line}\n")


@pytest.mark.parametrize("words", [["--allow-helper", "another"], ["--allow-helper=acme-deploy"]])
def test_allow_helper(
    words: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A helper's name leaves if an option allows it."""
    monkeypatch.setenv("_TBOT_TELEMETRY_HELPER", "acme-deploy")
    attributes, err = preview(capsys, "--daemon", *words)
    allowed = words[-1].endswith("acme-deploy")
    assert attributes["tbot.helper"] == ("acme-deploy" if allowed else "_OTHER")
    problem = "the value is not a known one and was replaced with _OTHER"
    hint = f"tbot-otel: tbot.helper: {problem}; --allow-helper lets it leave\n"
    assert err == ("" if allowed else hint)


def test_without_tbot(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Without tbot on PATH, a line says how to give its version."""
    monkeypatch.setenv("PATH", "")
    assert main(["preview", "--json", "--daemon"]) == 0
    printed = capsys.readouterr()
    line = "tbot-otel: tbot.version: tbot was not found on PATH; --tbot-version gives it\n"
    assert printed.err == line
    assert record_attributes(printed.out)["tbot.version"] == "_OTHER"
