"""Gets a training server, trains with it, and gives it back: with nothing but the standard library.

    tinksched register ada --output opentinker.key
    OPENTINKER_KEY=$(cat opentinker.key) python examples/server/opentinker.py

The server must have a `server_script` in its server.yml, such as training_server.py of this folder.
"""

import json
import os
import sys
import time
import urllib.error
import urllib.request

SCHEDULER = os.environ.get("OPENTINKER_SCHEDULER", "http://127.0.0.1:8765").rstrip("/")
KEY = os.environ["OPENTINKER_KEY"]


def ask(method, url, body=None, headers=()):
    """The answer as JSON; a refusal ends the program with the server's own words."""
    sent = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, sent, {"Content-Type": "application/json", **dict(headers)}, method=method)
    try:
        with urllib.request.urlopen(request) as answer:
            return json.load(answer)
    except urllib.error.HTTPError as error:
        sys.exit(f"{error.code}: {json.load(error)['detail']}")


def scheduler(method, path, body=None):
    """The scheduler's answer."""
    return ask(method, SCHEDULER + path, body, {"Authorization": f"Bearer {KEY}"})


def main():
    """Submit, wait, train, complete."""
    job = scheduler("POST", "/submit_job", {"config": {"lr": 0.1, "model": {"name": "line"}}})
    print(job["message"], file=sys.stderr)
    try:
        known = scheduler("GET", f"/job_status/{job['job_id']}")
        while known["server_url"] is None:
            if known["error_message"] or known["status"] in ("COMPLETED", "CANCELLED"):
                sys.exit(f"{known['status']}: {known['error_message']}")
            if known["reason"]:
                print("waits:", known["reason"], file=sys.stderr)
            time.sleep(0.5)
            known = scheduler("GET", f"/job_status/{job['job_id']}")
        print("it answers on GPU", known["gpu_ids"] or "none", file=sys.stderr)

        batch = {"x": [0, 1, 2, 3], "y": [1, 3, 5, 7]}  # y = 2 x + 1
        for _ in range(100):
            step = ask("POST", known["server_url"] + "/train_step", batch)
        print("loss", step["loss"], "after", step["steps"], "steps")
        model = ask("GET", known["server_url"] + "/model")
        print(f"y = {model['a']:.1f} x + {model['b']:.1f}")
    finally:
        print(scheduler("POST", f"/complete_job/{job['job_id']}")["message"], file=sys.stderr)


if __name__ == "__main__":
    main()
