"""Print the completion script of a shell: bash, zsh or fish.

It needs the extra: pip install 'tbot-otel[completion]'. The script itself does
not start tbot-otel. This needs no consent (TELEPORT_ANONYMOUS_TELEMETRY).

Examples:
  tbot-otel completion bash > tbot-otel.bash
  tbot-otel completion zsh > ~/.zfunc/_tbot-otel
  tbot-otel completion fish > ~/.config/fish/completions/tbot-otel.fish

Source tbot-otel.bash in ~/.bashrc. For zsh, ~/.zfunc must be in fpath.

All commands:
https://github.com/tbot-otel/tbot-otel/blob/main/docs/reference.md#commands
"""

import argparse
from importlib import import_module

from tbot_otel import cli
from tbot_otel.cli import run as run_command
from tbot_otel.cli._output import write
from tbot_otel.cli._parser import Parser
from tbot_otel.errors import TbotOtelError, missing_extra

SHELLS = ("bash", "zsh", "fish")


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the argument."""
    # Without choices, because argparse's line would repeat the value.
    parser.add_argument("shell", type=_parse_shell, metavar="SHELL", help="bash, zsh or fish")


def _parse_shell(text: str) -> str:
    if text not in SHELLS:
        raise argparse.ArgumentTypeError(f"expected one of {', '.join(SHELLS)}")
    return text


def run(options: argparse.Namespace) -> int:
    """Print the script."""
    try:
        import shtab
    except ModuleNotFoundError:
        raise TbotOtelError(missing_extra("completion")) from None
    write(shtab.complete(_all_commands(), options.shell))
    return 0


def _all_commands() -> Parser:
    """Return one parser with every command."""
    import shtab

    root = Parser(prog="tbot-otel")
    root.add_argument("--version", action="version", version="", help="show the version")
    commands = root.add_subparsers()
    completions = {"FILE": shtab.FILE, "OUT": shtab.FILE}
    for name, brief in cli.COMMANDS.items():
        parser = commands.add_parser(name, help=brief, description=brief)
        if name == "run":
            # It parses its words itself, because every start of tbot would wait for argparse.
            for option, (metavar, text) in run_command.OPTIONS.items():
                if metavar:
                    parser.add_argument(option, metavar=metavar, help=text)
                else:
                    parser.add_argument(option, action="store_true", help=text)
            parser.add_argument("words", nargs="*", metavar="FILE")
        elif name == "completion":
            parser.add_argument("shell", choices=SHELLS)
        else:
            import_module(f"tbot_otel.cli.{name}").configure(parser)
        for action in parser._actions:  # noqa: SLF001 - shtab's documentation sets it there, too
            if action.metavar in completions:
                action.complete = completions[action.metavar]  # type: ignore[attr-defined]
    return root
