"""Search for a learning rate from Python: a workspace, a sweep, the wait, and what came out.

    python examples/api.py [FOLDER]

It needs tinksched and tmux alone, takes some seconds, and can be run again: what has completed stays completed.
"""

from __future__ import annotations

import sys
from pathlib import Path

from tinksched import TinkschedError, Workspace

SCRIPT = '''\
"""Finds the minimum of (x - 3)^2 step by step."""
import json, os, re, sys

rate = float(re.search(r"rate: (\\S+)", open(sys.argv[2]).read())[1])
x = 0.0
for step in range(20):
    x -= rate * 2 * (x - 3)
    print(f"step {step}: x = {x:.4f}")
task, out = os.environ["TINKSCHED_TASK"], os.environ["TINKSCHED_OUTPUT_DIR"]
with open(f"{out}/{task}_metrics.json", "w") as file:
    json.dump({"error": abs(x - 3)}, file)
'''


def main(folder: Path) -> int:
    """Run the search in a folder."""
    if not (folder / "scheduler_config.yml").exists():
        Workspace.setup(folder)
        (folder / "configs" / "example.yml").unlink()  # the sweep writes the configs of this one
        (folder / "configs" / "_base.yml").write_text("rate: 0.1  # of the descent\n")
        (folder / "train.py").write_text(SCRIPT)

    workspace = Workspace(folder)
    sweep = workspace.sweep("_base.yml", {"rate": [0.01, 0.1, 0.5, 1.1]}, start=True)
    outcomes = workspace.wait(*(point.name for point in sweep.points), timeout=120)
    print(outcomes)

    report = workspace.report()
    for task, numbers in sorted(report.metrics.items(), key=lambda item: item[1]["error"]):
        print(f"{task:16} error {numbers['error']:.6f}")
    best = min(report.metrics, key=lambda task: report.metrics[task]["error"])
    print(f"the best is {best}; it ended with {workspace.logs(best).splitlines()[-1]!r}")
    return 0 if set(outcomes.values()) == {"completed"} else 1


if __name__ == "__main__":
    try:
        sys.exit(main(Path(sys.argv[1] if len(sys.argv) > 1 else "api_demo")))
    except TinkschedError as error:
        sys.exit(f"{error.message}\n{error.hint or ''}")
