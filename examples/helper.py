"""A program that starts tbot once, and reports the start if its user has opted in."""

import subprocess
import sys

from tbot_otel import StartEvent, record_start


def main() -> int:
    """Start tbot, and return its exit status."""
    session = record_start(
        StartEvent(
            run_mode="one-shot",
            version="18.3.0",
            join_type="github",
            destinations_other=1,
        )
    )
    # The record is sent while tbot runs. Your program starts tbot here.
    tbot = subprocess.run([sys.executable, "-c", "print('tbot runs')"], check=False)
    # Optional: at exit, the process waits briefly for its record anyway.
    outcome = session.flush(2.0)
    print(f"telemetry: {outcome.status.value}, {outcome.reason}", file=sys.stderr)
    return tbot.returncode


if __name__ == "__main__":
    sys.exit(main())
