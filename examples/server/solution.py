"""A job that needs nothing: it fits a line to noisy points and writes what came out as `results.jsonl`.

What a job writes to `results.jsonl` in its folder is its result; without that file, what it prints is.
"""

import json
import random
from pathlib import Path

random.seed(7)
points = [(x / 100, 3 * x / 100 + 1 + random.gauss(0, 0.1)) for x in range(100)]
slope, offset, rate = 0.0, 0.0, 0.5
with Path("results.jsonl").open("w") as results:
    for epoch in range(1, 101):
        errors = [(slope * x + offset - y, x) for x, y in points]
        slope -= rate * sum(error * x for error, x in errors) / len(points)
        offset -= rate * sum(error for error, _ in errors) / len(points)
        if epoch % 20 == 0:
            loss = sum(error**2 for error, _ in errors) / len(points)
            print(f"epoch {epoch}: loss {loss:.4f}", flush=True)  # seen live in the log
            results.write(json.dumps({"epoch": epoch, "loss": round(loss, 4), "slope": round(slope, 2)}) + "\n")
