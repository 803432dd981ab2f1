"""Runs a command, and prints its seconds, its peak memory in the system's unit, and its status.

Linux counts the parent's memory at the fork in a process's peak. Run with ``-I -S``, this parent is
smaller than every measured process.
"""

import os
import sys
import time

started_at = time.perf_counter()
process = os.posix_spawn(sys.argv[1], sys.argv[1:], os.environ)
_, status, usage = os.wait4(process, 0)
seconds = time.perf_counter() - started_at
print(seconds, usage.ru_maxrss, os.waitstatus_to_exitcode(status))
