"""What a client submits: read, checked field by field, and made a job. Nothing of it is trusted."""

from __future__ import annotations

import hmac
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ..config.document import MappingNode, Node, ScalarNode, SequenceNode, compose
from ..config.server import ServerSettings
from ..config.values import whole

ID = re.compile(r"[A-Za-z0-9._-]{1,128}")
REQUIRED = ("competition_id", "project_id", "user_id", "expected_time", "token")
REDACTED = "[redacted]"
_MOST_VALUES = 1000  # anybody may send a config: it must not take long to read
_ELSEWHERE = "local_results_path is ignored: results are answered, and lie in the server's own folder"


class Refused(Exception):
    """The answer to a request that is not granted."""

    def __init__(self, status: int, detail: str, *, retry_after: float | None = None) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail
        self.retry_after = retry_after


@dataclass(frozen=True, slots=True)
class Form:
    """The fields of a config file as the client wrote them: texts and whole numbers, still unchecked."""

    fields: Mapping[str, Any]

    @property
    def user(self) -> str:
        """The user that it names."""
        return str(self.fields["user_id"])

    def token(self, header: str | None) -> str:
        """The token that is meant. Raises Refused: there are two, and they differ."""
        inside = self.fields.get("token")
        if header is not None and inside is not None and not _is_same(str(inside), header):
            raise Refused(401, "Invalid or expired token: the one in the header and the one in the config differ")
        return header if header is not None else str(inside)

    def redacted(self, token: str) -> str:
        """The text to be kept: without the token, wherever it stands."""
        kept = {name: value for name, value in self.fields.items() if name != "token"}
        text = "".join(f"{json.dumps(name)}: {json.dumps(value)}\n" for name, value in kept.items())
        return text.replace(json.dumps(token)[1:-1], REDACTED)


@dataclass(frozen=True, slots=True)
class Wanted:
    """A submission that is well-formed."""

    user: str
    competition: str
    project: str
    expected_time: int
    code: str
    warning: str | None = None  # for whoever submits it


def read_form(content: bytes, settings: ServerSettings, *, has_header: bool) -> Form:
    """The config file of a submission. Raises Refused (400): it can't be read, or lacks something."""
    if len(content) > settings.max_config_size:
        raise Refused(400, f"config_file: larger than {settings.max_config_size} bytes")
    try:
        text = content.decode()
    except UnicodeDecodeError:
        raise Refused(400, "config_file: not UTF-8") from None
    document = compose(text, _MOST_VALUES)
    if document.broken:
        first = document.broken[0]
        raise Refused(400, f"config_file: line {first.line}, column {first.column}: {first.message}")
    if not isinstance(document.root, MappingNode):
        raise Refused(400, "config_file: must be a map of fields, with lines such as 'user_id: alice'")
    fields = {entry.key.text: _plain(entry.value) for entry in document.root.entries}
    needed = [name for name in REQUIRED if name != "token" or not has_header]
    missing = [name for name in needed if fields.get(name) is None]
    if missing:
        raise Refused(400, f"Missing required fields: {', '.join(missing)}")
    return Form(fields)


def check(form: Form, code: bytes, settings: ServerSettings, token: str) -> Wanted:
    """The types and bounds of all fields. Raises Refused (400) with the name of the field that is wrong."""
    for name in ("competition_id", "project_id", "user_id"):
        value = form.fields[name]
        if not isinstance(value, str | int) or isinstance(value, bool) or not ID.fullmatch(str(value)):
            raise Refused(400, f"{name}: must be 1 to 128 letters, digits, '.', '_' or '-'")
        if token in str(value):  # it would be on record, in a file's name and in the log
            raise Refused(400, f"{name}: must not hold the token")
    expected = form.fields["expected_time"]
    if not isinstance(expected, int) or isinstance(expected, bool) or not 1 <= expected <= settings.max_expected_time:
        raise Refused(400, f"expected_time: must be a whole number of seconds from 1 to {settings.max_expected_time}")
    if len(code) > settings.max_code_size:
        raise Refused(400, f"code: larger than {settings.max_code_size} bytes")
    try:
        text = code.decode()
    except UnicodeDecodeError:
        raise Refused(400, "code: not UTF-8") from None
    if "\0" in text:
        raise Refused(400, "code: must not hold a NUL character")
    if not text.strip():
        raise Refused(400, "code: is empty")
    warning = _ELSEWHERE if form.fields.get("local_results_path") is not None else None
    competition, project = str(form.fields["competition_id"]), str(form.fields["project_id"])
    return Wanted(form.user, competition, project, expected, text, warning)


def _is_same(one: str, other: str) -> bool:
    """Whether two tokens are equal; how long that takes does not tell how far they are."""
    return hmac.compare_digest(one.encode(errors="surrogatepass"), other.encode(errors="surrogatepass"))


def _plain(node: Node) -> Any:
    """A value as JSON knows it. Ids may be numbers, of which the text counts (`007`)."""
    if isinstance(node, SequenceNode):
        return [_plain(item) for item in node.items]
    if isinstance(node, MappingNode):
        return {entry.key.text: _plain(entry.value) for entry in node.entries}
    assert isinstance(node, ScalarNode)
    if node.kind == "null":
        return None
    if node.kind == "bool":
        return node.text.lower() == "true"
    number = whole(node)
    return number if number is not None and str(number) == node.text else node.text
