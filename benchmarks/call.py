"""Prints the seconds that record_start takes in its caller: its import, and some calls.

The later calls happen while the first record is being sent.
"""

import os
import sys
import time

from tbot_otel import StartEvent

CALL_COUNT = 21
PAUSE_SECONDS = 0.005

event = StartEvent(run_mode="daemon", version="18.3.0", join_type="github")
started_at = time.perf_counter()
from tbot_otel import record_start  # noqa: E402 - loaded here, at its first use

durations = [time.perf_counter() - started_at]
for _ in range(CALL_COUNT):
    started_at = time.perf_counter()
    record_start(event)
    durations.append(time.perf_counter() - started_at)
    time.sleep(PAUSE_SECONDS)
print(*durations)
sys.stdout.flush()
# Other rows measure the delivery.
os._exit(0)
