"""The completion scripts, each in its real shell."""

import contextlib
import re
import sys

import pytest

from tbot_otel.cli import COMMANDS, completion, main


def script(shell: str, capsys: pytest.CaptureFixture[str]) -> str:
    """The completion script of a shell."""
    assert main(["completion", shell]) == 0
    printed = capsys.readouterr()
    assert printed.err == ""
    return printed.out


@pytest.mark.parametrize("shell", completion.SHELLS)
def test_script_has_every_command_and_option(
    shell: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """The script names every command, and every option of every command."""
    text = script(shell, capsys)
    helps = ""
    for name in COMMANDS:
        assert name in text
        with contextlib.suppress(SystemExit):
            main([name, "--help"])
        helps += capsys.readouterr().out
    options = {*re.findall(r"--[a-z][a-z-]+", helps)}
    assert len(options) > 20
    # fish's `complete` takes the name of a long option without its dashes.
    assert [
        option for option in options if f"-l {option[2:]}" not in text and option not in text
    ] == []


def test_files_are_completed(capsys: pytest.CaptureFixture[str]) -> None:
    """Each option and argument that names a file completes files."""
    text = script("zsh", capsys)
    options = re.findall(r"([a-z*-]+)[\[)}\"].*:_files\"$", text, re.MULTILINE)
    assert sorted(options) == [
        *("*", "*", "--config", "--config", "--log", "--output", "--output", "--path-secret-file"),
        *("--record", "--record", "--tls-cert", "--tls-key"),
    ]


def test_without_the_extra(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without the extra, one line names it."""
    monkeypatch.setitem(sys.modules, "shtab", None)
    with pytest.raises(SystemExit, match="2"):
        main(["completion", "bash"])
    line = (
        "tbot-otel completion: needs the extra 'completion': pip install 'tbot-otel[completion]'\n"
    )
    assert capsys.readouterr() == ("", line)


@pytest.mark.parametrize("words", [[], ["tcsh"], ["bash", "zsh"]])
def test_usage_errors(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """Another shell is a usage error."""
    with pytest.raises(SystemExit, match="2"):
        main(["completion", *words])
    printed = capsys.readouterr()
    assert printed.out == ""
    assert len(printed.err.splitlines()) == 1
    assert "tcsh" not in printed.err
