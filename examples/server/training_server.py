"""A training server in its smallest form: it fits y = a x + b, a step whenever a client asks for one.

The server starts it as `python training_server.py server.port=38000 job_id=JOB … lr=0.1`, once its server.yml says

    server_script: /path/to/training_server.py
"""

import json
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

given = dict(word.split("=", 1) for word in sys.argv[1:])
model = {"a": 0.0, "b": 0.0, "steps": 0}
rate = float(given.get("lr", 0.1))


class Handler(BaseHTTPRequestHandler):
    """GET /health and /model, POST /train_step with {"x": [...], "y": [...]}."""

    def do_GET(self):
        """What there is, and that it is there."""
        known = {"/health": {"status": "ok"}, "/model": model}
        self.answer(200 if self.path in known else 404, known.get(self.path, {}))

    def do_POST(self):
        """One step of gradient descent on the mean squared error."""
        batch = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        points = list(zip(batch["x"], batch["y"], strict=True))
        errors = [model["a"] * x + model["b"] - y for x, y in points]
        model["a"] -= rate * 2 * sum(error * x for error, (x, _) in zip(errors, points, strict=True)) / len(points)
        model["b"] -= rate * 2 * sum(errors) / len(points)
        model["steps"] += 1
        self.answer(200, {"loss": round(sum(error**2 for error in errors) / len(points), 4), "steps": model["steps"]})

    def answer(self, status, what):
        """Send it as JSON."""
        body = json.dumps(what).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


ThreadingHTTPServer(("127.0.0.1", int(given["server.port"])), Handler).serve_forever()
