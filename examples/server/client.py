"""Submits solution.py from Python, with nothing but the standard library, and prints its results.

TINKSCHED_SERVER=http://localhost:8001 TINKSCHED_TOKEN=... python examples/server/client.py
"""

import json
import os
import sys
import urllib.error
import urllib.request
import uuid
from pathlib import Path

HERE = Path(__file__).parent
SERVER = os.environ["TINKSCHED_SERVER"].rstrip("/")
TOKEN = os.environ["TINKSCHED_TOKEN"]


def ask(method, path, body=None, headers=()):
    """The answer of the server; a refusal ends the program with the server's own words."""
    request = urllib.request.Request(SERVER + path, body, {"Authorization": f"Bearer {TOKEN}", **dict(headers)})
    request.method = method
    try:
        return urllib.request.urlopen(request)
    except urllib.error.HTTPError as error:
        sys.exit(f"{error.code}: {json.load(error)['detail']}")


def form(**files):
    """Files as multipart/form-data, and the header that says so."""
    boundary = uuid.uuid4().hex
    parts = [
        f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"; filename="{path.name}"\r\n\r\n'.encode()
        + path.read_bytes()
        + b"\r\n"
        for name, path in files.items()
    ]
    body = b"".join(parts) + f"--{boundary}--\r\n".encode()
    return body, {"Content-Type": f"multipart/form-data; boundary={boundary}"}


def main():
    """Submit, follow, and print the results."""
    body, headers = form(code=HERE / "solution.py", config_file=HERE / "config.yaml")
    job = json.load(ask("POST", "/api/submit?wait=false", body, headers))["job_id"]
    print("submitted:", job, file=sys.stderr)

    with ask("GET", f"/api/logs/{job}") as events:  # ends with the job
        for line in events:
            if line.startswith(b"data: "):
                print(line[6:].decode().rstrip("\n"), file=sys.stderr, flush=True)

    results = json.load(ask("GET", f"/api/results/{job}"))
    print(results["stdout"], end="")
    sys.exit(0 if results["status"] == "completed" else 1)


if __name__ == "__main__":
    main()
