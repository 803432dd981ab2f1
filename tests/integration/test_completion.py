"""The completion scripts, each in its real shell."""

import contextlib
import os
import pty
import re
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.processes import wait_until
from tbot_otel.cli import completion, main

# Where each script belongs, as its help says, and how the shell is started with it.
PLACES = {
    "bash": "tbot-otel.bash",
    "zsh": ".zfunc/_tbot-otel",
    "fish": ".config/fish/completions/tbot-otel.fish",
}
RC_FILES = {
    "bash": (".bashrc", "source ~/tbot-otel.bash\nPS1='READY> '\n"),
    "zsh": (
        ".zshrc",
        "fpath=(~/.zfunc $fpath)\nautoload -Uz compinit\ncompinit -u\nPS1='READY> '\n",
    ),
    "fish": (".config/fish/config.fish", "function fish_prompt; echo 'READY> '; end\n"),
}


def script(shell: str, capsys: pytest.CaptureFixture[str]) -> str:
    """The completion script of a shell."""
    assert main(["completion", shell]) == 0
    printed = capsys.readouterr()
    assert printed.err == ""
    return printed.out


class Terminal:
    """A shell at a terminal."""

    def __init__(self, master: int) -> None:
        self._master = master
        self._output = b""

    def type(self, keys: str) -> None:
        """Type keys."""
        os.write(self._master, keys.encode())

    def wait_for(self, text: str) -> None:
        """Wait until the shell has printed a text since the last one, and forget it."""
        wait_until(lambda: text in self._read())
        self._output = b""

    def _read(self) -> str:
        with contextlib.suppress(BlockingIOError):
            self._output += os.read(self._master, 65536)
        # Without the sequences that set colors and move the cursor.
        return re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]|\x1b[=>]", "", self._output.decode(errors="replace"))


@contextlib.contextmanager
def terminal(shell: str, home: Path) -> Iterator[Terminal]:
    """Run an interactive shell with a home folder, where it also starts."""
    path = shutil.which(shell)
    if path is None:
        pytest.skip(f"needs {shell}")
    environ = {
        "HOME": str(home),
        "PATH": f"{home}:{os.environ['PATH']}",
        "TERM": "xterm",
        "LANG": "C.UTF-8",
    }
    pid, master = pty.fork()
    if pid == 0:
        os.chdir(home)
        os.execve(path, [path, "-i"], environ)  # noqa: S606
    os.set_blocking(master, False)
    try:
        yield Terminal(master)
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        os.close(master)


@pytest.mark.parametrize("shell", completion.SHELLS)
# pty.fork is used where other threads may run: only exec follows in the child.
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_completion(shell: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The shell completes a command, an option and a file."""
    for name, text in ((PLACES[shell], script(shell, capsys)), RC_FILES[shell]):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    (tmp_path / "unique.yaml").write_text("")
    program = tmp_path / "tbot-otel"
    program.write_text("#!/bin/sh\nprintf '%s\\n' \"$@\" > ~/words.new; mv ~/words.new ~/words\n")
    program.chmod(0o755)
    with terminal(shell, tmp_path) as shown:
        shown.wait_for("READY> ")
        shown.type("tbot-otel em\t")
        shown.wait_for("emit")
        shown.type("--conf\t")
        shown.wait_for("--config")
        shown.type("uniq\t")
        shown.wait_for("unique.yaml")
        shown.type("\r")
        wait_until((tmp_path / "words").exists)
    assert (tmp_path / "words").read_text().splitlines() == ["emit", "--config", "unique.yaml"]
