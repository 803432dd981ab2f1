"""Prints what record_start takes of its caller's time, in seconds: its import, and some calls.

The first record is under way while the later calls are made.
"""

import os
import sys
import time

import opentelemetry.sdk._logs  # noqa: F401 - what is measured comes on top of it

from tbot_otel import StartEvent

CALLS = 21
PAUSE = 0.005

event = StartEvent(run_mode="daemon", version="18.3.0", join_type="github")
begin = time.perf_counter()
from tbot_otel import record_start  # noqa: E402 - it is loaded here, at its first use

taken = [time.perf_counter() - begin]
for _ in range(CALLS):
    begin = time.perf_counter()
    record_start(event)
    taken.append(time.perf_counter() - begin)
    time.sleep(PAUSE)
print(*taken)
sys.stdout.flush()
# What becomes of the records is for other rows.
os._exit(0)
