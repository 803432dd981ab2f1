"""Runs a command, and prints its seconds, its peak memory as the system counts it, and its status.

Linux counts the memory of whoever starts a process as that process's own. So this stands between
the harness and what is measured: run with ``-I -S``, it is smaller than any of them.
"""

import os
import sys
import time

begin = time.perf_counter()
process = os.posix_spawn(sys.argv[1], sys.argv[1:], os.environ)
_, status, usage = os.wait4(process, 0)
seconds = time.perf_counter() - begin
print(seconds, usage.ru_maxrss, os.waitstatus_to_exitcode(status))
