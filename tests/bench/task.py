"""What `task.c` does, for machines without a C compiler. Its start is later by what Python takes to begin."""

import time

start = time.monotonic()

import os  # noqa: E402
import sys  # noqa: E402

record = os.open(sys.argv[1], os.O_WRONLY | os.O_APPEND)
time.sleep(float(sys.argv[2]))
os.write(record, b"%.9f %.9f\n" % (start, time.monotonic()))
