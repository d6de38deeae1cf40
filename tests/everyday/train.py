"""Stands in for a training script: says on which GPU it is, takes its time, and ends as it is told to."""

import argparse
import os
import sys
import time

parser = argparse.ArgumentParser()
parser.add_argument("--seconds", type=float, default=0.0)
parser.add_argument("--code", type=int, default=0)
known, _ = parser.parse_known_args()
print(f"training on GPU {os.environ.get('CUDA_VISIBLE_DEVICES', '(none given)')}: {' '.join(sys.argv[1:])}", flush=True)
time.sleep(known.seconds)
if known.code:
    sys.exit(f"ValueError: this was bound to fail with {known.code}") if known.code == 1 else sys.exit(known.code)
print("done")
