"""Simulates a fleet that restarts within a minute. Each agent has its own connection.

It runs a part of that minute at the fleet's full rate, against a relay and a Collector on this
machine. It prints a row for each size of fleet: the share that was acknowledged, and the time until
the response. It has the requirements of relay.py.
"""

import argparse
import os
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parent / "tests")]

from relay import SESSION, Burst, relay  # noqa: E402 - found by the line above

from support.agent import build_request  # noqa: E402 - as above
from support.collectors import Official, build_official  # noqa: E402 - as above

RESTART_SECONDS = 60
RUN_SECONDS = 10
"""The part of the minute that is run."""

HEAD = """\
| agents that restart within a minute | starts per second | acknowledged | p99 of a response |
| --- | --- | --- | --- |"""


def simulate_restart(url: str, body: Path, agents: int) -> str:
    """Run a part of the minute, and return its row."""
    rate = max(1, agents // RESTART_SECONDS)
    burst = Burst(url, body, "application/proto", rate, RUN_SECONDS)
    return f"| {agents:,} | {rate:,} | {burst.share:.1%} | {burst.p99 * 1e3:.0f} ms |"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("agents", nargs="*", type=int, help="the number of agents that restart")
    sizes = parser.parse_args().agents or [10_000, 100_000, 300_000, 500_000, 1_000_000]
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        body = folder / "call"
        body.write_bytes(build_request(SESSION, oneshot=False))
        with Official(build_official(), folder).running() as collector:
            os.environ["OTEL_EXPORTER_OTLP_ENDPOINT"] = collector.endpoint("http/protobuf")
            with relay("ours", folder) as (url, _):
                print(HEAD, flush=True)
                for agents in sizes:
                    print(simulate_restart(url, body, agents), flush=True)


if __name__ == "__main__":
    main()
