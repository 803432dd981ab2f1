"""A program that runs tbot once with tbot-otel, and names itself as tbot's helper.

Change the name, the version and tbot's arguments. The user sets the consent and the Collector.
A name that is not a known one leaves only with --allow-helper; without it, _OTHER leaves.
"""

import os
import subprocess
import sys

NAME = "example-helper"
HELPER = {"_TBOT_TELEMETRY_HELPER": NAME, "_TBOT_TELEMETRY_HELPER_VERSION": "1.0.0"}
COMMAND = ["tbot", "start", "-c", "tbot.yaml", "--oneshot"]


def main() -> int:
    """Run tbot, and return its exit status as a shell does."""
    run = [sys.executable, "-m", "tbot_otel", "run", "--allow-helper", NAME, "--", *COMMAND]
    status = subprocess.run(run, env={**os.environ, **HELPER}, check=False).returncode
    return status if status >= 0 else 128 - status


if __name__ == "__main__":
    sys.exit(main())
