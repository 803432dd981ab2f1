"""A helper: it starts tbot once, and records the start if its user has opted in."""

import subprocess
import sys

from tbot_otel import StartEvent, record_start


def main(command: list[str]) -> int:
    """Run a command that starts tbot, and return its exit status."""
    record_start(StartEvent(run_mode="one-shot", version="18.3.0", join_type="github"))
    return subprocess.run(command, check=False).returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
