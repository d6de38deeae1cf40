"""The page itself: static files, each with what a browser must not do with it."""

from __future__ import annotations

import gzip
import hashlib
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from starlette.requests import Request
from starlette.responses import Response

FOLDER = Path(__file__).with_name("static")
INDEX = "index.html"
_TYPES = {
    ".css": "text/css; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".ico": "image/x-icon",
    ".js": "text/javascript; charset=utf-8",
    ".json": "application/json",
    ".png": "image/png",
    ".svg": "image/svg+xml",
    ".webmanifest": "application/manifest+json",
    ".woff2": "font/woff2",
}


@dataclass(frozen=True, slots=True)
class File:
    """A file of the page."""

    content: bytes
    packed: bytes
    kind: str
    tag: str


@cache
def _file(name: str, changed: int) -> File:
    """A file as it is now: `changed` is its time."""
    path = FOLDER / name
    content = path.read_bytes()
    digest = hashlib.sha256(content).hexdigest()[:16]
    return File(content, gzip.compress(content, 9, mtime=0), _TYPES[path.suffix], f'"{digest}"')


def find(name: str) -> File | None:
    """A file of the page by its name. Folders and what is no part of a page are not given out."""
    path = FOLDER / name
    if not name or "/" in name or name.startswith(".") or path.suffix not in _TYPES:
        return None
    try:
        return _file(name, path.stat().st_mtime_ns)
    except OSError:
        return None


def policy(connect: str = "") -> str:
    """The Content-Security-Policy of the page: everything from here, nothing inline. `connect` is where its feed may be
    besides."""
    return (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
        f"connect-src 'self'{' ' * bool(connect)}{connect}; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )


def answer(request: Request, name: str, connect: str = "") -> Response | None:
    """The answer to a request for a file; None if there is no such file. A browser asks each time whether it is still
    the same, so a new version is there at once."""
    file = find(name)
    if file is None:
        return None
    headers = {
        "Content-Security-Policy": policy(connect),
        "Cache-Control": "no-cache",
        "ETag": file.tag,
        "Vary": "Accept-Encoding",
        "X-Content-Type-Options": "nosniff",
        "Referrer-Policy": "no-referrer",
    }
    if file.tag in request.headers.get("if-none-match", ""):
        return Response(None, 304, headers)
    if "gzip" in request.headers.get("accept-encoding", "") and len(file.packed) < len(file.content):
        return Response(file.packed, 200, {**headers, "Content-Encoding": "gzip"}, file.kind)
    return Response(file.content, 200, headers, file.kind)
