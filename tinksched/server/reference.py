"""`/docs`: the endpoints as a plain page. It loads nothing, from here or from elsewhere; `/openapi.json` has all."""

from __future__ import annotations

from collections.abc import Iterator
from html import escape
from typing import Any

from fastapi import FastAPI
from fastapi.responses import HTMLResponse

_POLICY = "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
_PAGE = """\
<!doctype html>
<html lang="en">
<head><meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>{title}</title></head>
<body>
<h1>{title} {version}</h1>
<p>{description} What each takes and answers is in <a href="openapi.json">openapi.json</a> (OpenAPI), which tools such
as Swagger UI, Postman or curl's imitators read.</p>
{sections}</body>
</html>
"""


def add_reference(app: FastAPI) -> None:
    """Have the app answer at /docs."""

    @app.get("/docs", include_in_schema=False)
    async def docs() -> HTMLResponse:
        return HTMLResponse(page(app.openapi()), headers={"Content-Security-Policy": _POLICY})


def page(document: dict[str, Any]) -> str:
    """The page of an OpenAPI document."""
    info = document["info"]
    sections = "".join(_sections(document["paths"]))
    return _PAGE.format(
        title=escape(info["title"]),
        version=escape(info["version"]),
        description=escape(info.get("description", "")),
        sections=sections,
    )


def _sections(paths: dict[str, Any]) -> Iterator[str]:
    for path, methods in paths.items():
        for method, about in methods.items():
            yield f"<h2><code>{method.upper()} {escape(path)}</code></h2>\n"
            yield f"<p>{escape(about.get('description', ''))}</p>\n"
            rows = [_row(one) for one in about.get("parameters", ())]
            if rows:
                yield f"<ul>\n{''.join(rows)}</ul>\n"


def _row(parameter: dict[str, Any]) -> str:
    needed = ", required" if parameter.get("required") else ""
    said = escape(parameter.get("description", ""))
    return f"<li><code>{escape(parameter['name'])}</code> ({escape(parameter['in'])}{needed}): {said}</li>\n"
