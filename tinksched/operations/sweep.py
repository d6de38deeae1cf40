"""`sweep`: one config for each point of a grid, from a template; all of them, or none."""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import json
import math
import os
import re
import shutil
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from ..config import Settings
from ..config.broken import Broken
from ..config.edit import BadEdit, Given, Template, values_of
from ..errors import ConfigError, Problem, UsageError
from ..host.tmux import session_name
from . import daemon, selection
from . import start as starting
from .start import Plan, Wish
from .workspace import Workspace

JSON_VERSION = 1
MANY = 1_000  # points; more need --yes
MOST = 100_000
LARGEST = 1_000_000  # bytes of a template
LONGEST_VALUE = 24  # characters in a name
LONGEST_NAME = 120  # bytes, without the ending
_UNSAFE = re.compile(r"[^\w.+-]+")


class Fate(str, Enum):
    """What becomes of the file of a point."""

    NEW = "new"
    SAME = "exists"  # with just this content
    OTHER = "differs"  # exists with another content


@dataclass(frozen=True, slots=True)
class Point:
    """A point of the grid: the name of its task, its file, and what that holds."""

    name: str
    path: Path
    values: Mapping[str, Given]
    content: bytes
    fate: Fate

    def json(self) -> dict[str, object]:
        """The versioned form for programs."""
        values = {key: value.data for key, value in self.values.items()}
        return {"task": self.name, "file": str(self.path), "state": self.fate.value, "values": values}


@dataclass(frozen=True, slots=True)
class Sweep:
    """A grid over a template, and what it makes of a folder."""

    template: Path
    template_hash: str
    folder: Path
    grid: Mapping[str, Sequence[Given]]
    points: Sequence[Point]
    is_task_folder: bool  # whether `start` finds the files there

    def of(self, fate: Fate) -> list[Point]:
        """The points of which this becomes."""
        return [point for point in self.points if point.fate is fate]

    @property
    def manifest(self) -> Path:
        """What records the sweeps of this template in this folder; its name makes it no task."""
        return self.folder / f"_sweep_{_stem(self.template)}.json"

    def json(self) -> dict[str, object]:
        """For programs."""
        return {
            "template": str(self.template),
            "template_sha256": self.template_hash,
            "folder": str(self.folder),
            "manifest": str(self.manifest),
            "grid": {key: [value.data for value in values] for key, values in self.grid.items()},
            "points": [point.json() for point in self.points],
        }


def plan(
    settings: Settings, template: str, assignments: Sequence[str], *, out_dir: Path | None = None, many: bool = False
) -> Sweep:
    """What a sweep would write. `assignments` are texts such as `lr=0.1,0.01` and `opt.name=adam,sgd`.

    Raises:
        UsageError: the template or the grid can't be used; ConfigError with line and column if it is no YAML.
    """
    path = _found(settings, template)
    grid = _grid(assignments)
    _refuse_many(grid, many)
    data, text = _read(path)
    filled = _template(path, text, grid)
    folder = Path(os.path.abspath(out_dir)) if out_dir is not None else settings.config_dir
    points = [list(values) for values in itertools.product(*grid.values())]
    names = _names(_stem(path), filled.keys, points)
    ending = path.suffix if path.suffix in (".yml", ".yaml") else ".yml"
    made = [
        _point(folder / f"{name}{ending}", dict(zip(filled.keys, values, strict=True)), filled.filled(values).encode())
        for name, values in zip(names, points, strict=True)
    ]
    is_task_folder = folder.resolve() == settings.config_dir.resolve()
    if is_task_folder:
        _refuse_strangers(settings, made)
    by_key = dict(zip(filled.keys, grid.values(), strict=True))
    return Sweep(path, hashlib.sha256(data).hexdigest(), folder, by_key, made, is_task_folder)


def _refuse_many(grid: Mapping[str, Sequence[Given]], many: bool) -> None:
    count = math.prod(len(values) for values in grid.values())
    sizes = " by ".join(str(len(values)) for values in grid.values())
    if count > MOST:
        raise UsageError(f"this grid has {count} points ({sizes}); at most {MOST} are allowed")
    if count > MANY and not many:
        hint = "--yes writes them all the same; --dry-run shows them"
        raise UsageError(f"this grid has {count} points ({sizes}), more than {MANY}", hint=hint)


def _template(path: Path, text: str, grid: Mapping[str, Sequence[Given]]) -> Template:
    try:
        filled = Template(text, list(grid))
        for values in _corners(list(grid.values())):
            filled.check(values)
    except Broken as broken:
        raise ConfigError([Problem(str(path), broken.line, broken.column, broken.message)]) from None
    except BadEdit as bad:
        near = f"did you mean {' or '.join(bad.near)}? " if bad.near else ""
        hint = f"{near}+KEY=VALUES adds a new key" if "no key" in bad.message else None
        raise UsageError(f"{path}: {bad.message}", hint=hint) from None
    return filled


def write(sweep: Sweep, *, force: bool = False) -> list[Path]:
    """Write what is new: every file whole, and all of them or none. Returns the copies of what `force` replaced.

    Raises:
        UsageError: files are there with other contents (unless `force`), or the folder can't be written.
    """
    differ = sweep.of(Fate.OTHER)
    if differ and not force:
        raise UsageError(
            f"{len(differ)} of these exist with other contents, and nothing was written: {_some(differ)}",
            hint="the template or somebody changed them; --force replaces them, and keeps each as NAME.bak-TIME",
        )
    manifest = _manifest(sweep)
    try:
        sweep.folder.mkdir(parents=True, exist_ok=True)
        aside = Path(tempfile.mkdtemp(prefix=".sweep-", dir=sweep.folder))
    except OSError as error:
        raise UsageError(f"{sweep.folder}: can't be written: {error.strerror}") from None
    try:
        return _put(sweep, aside, manifest)
    except OSError as error:
        raise UsageError(f"{error.filename or sweep.folder}: {error.strerror}; nothing was written") from None
    finally:
        shutil.rmtree(aside, ignore_errors=True)


@dataclass(frozen=True, slots=True)
class Queued:
    """What queueing the points of a sweep did. Those that were queued before are left as they are."""

    plan: Plan | None
    left: int
    started: str | None


def queue(workspace: Workspace, sweep: Sweep) -> Queued:
    """Queue the points that were never queued, and have a scheduler run.

    Raises:
        TinkschedError: something is wrong, and nothing was queued.
    """
    with workspace.open() as opened:
        known = opened.store.known([point.name for point in sweep.points])
        fresh = [point for point in sweep.points if point.name not in known]
        if not fresh:
            return Queued(None, len(known), None)
        named = [point.path.name if sweep.is_task_folder else str(point.path) for point in fresh]
        plan = starting.queue(opened, starting.prepare(workspace.settings, Wish(",".join(named))))
        return Queued(plan, len(known), daemon.ensure(opened))


def _put(sweep: Sweep, aside: Path, manifest: bytes) -> list[Path]:
    new, differ = sweep.of(Fate.NEW), sweep.of(Fate.OTHER)
    for point in (*new, *differ):
        (aside / point.path.name).write_bytes(point.content)
    (aside / sweep.manifest.name).write_bytes(manifest)
    kept: list[tuple[Path, Path]] = []
    placed: list[Path] = []
    try:
        for point in differ:
            copy = point.path.with_name(f"{point.path.name}.bak-{time.strftime('%Y%m%d-%H%M%S')}")
            os.link(point.path, copy)
            kept.append((point.path, copy))
            (aside / point.path.name).replace(point.path)
        for point in new:
            os.link(aside / point.path.name, point.path)  # unlike a rename it replaces nothing that came meanwhile
            placed.append(point.path)
        (aside / sweep.manifest.name).replace(sweep.manifest)
    except BaseException:
        for path in placed:
            path.unlink()
        for path, copy in kept:
            copy.replace(path)
        raise
    return [copy for _, copy in kept]


def _manifest(sweep: Sweep) -> bytes:
    """The manifest with this sweep added; one that it has already is not recorded twice."""
    record: dict[str, Any] = {
        "template": os.path.relpath(sweep.template, sweep.folder),
        "template_sha256": sweep.template_hash,
        "grid": {key: [value.text for value in values] for key, values in sweep.grid.items()},
        "files": {point.path.name: {key: value.text for key, value in point.values.items()} for point in sweep.points},
    }
    sweeps: list[dict[str, Any]] = []
    if sweep.manifest.exists():
        try:
            sweeps = json.loads(sweep.manifest.read_bytes())["sweeps"]
            known = [{name: value for name, value in old.items() if name != "at"} for old in sweeps]
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            raise UsageError(f"{sweep.manifest}: this is no manifest of a sweep", hint="move it away") from None
        if record in known:
            return sweep.manifest.read_bytes()
    sweeps = [*sweeps, {"at": time.strftime("%Y-%m-%dT%H:%M:%S%z"), **record}]
    return (json.dumps({"version": JSON_VERSION, "sweeps": sweeps}, indent=1, ensure_ascii=False) + "\n").encode()


def _point(path: Path, values: Mapping[str, Given], content: bytes) -> Point:
    fate = Fate.NEW
    with contextlib.suppress(FileNotFoundError, NotADirectoryError):
        try:
            fate = Fate.SAME if path.read_bytes() == content else Fate.OTHER
        except IsADirectoryError:
            raise UsageError(f"{path} is a folder") from None
    return Point(path.stem, path, values, content, fate)


def _found(settings: Settings, template: str) -> Path:
    """The template: a path, or the name of a file in config_dir, with or without its ending."""
    there = settings.config_dir
    for path in (Path(template), there / template, there / f"{template}.yml", there / f"{template}.yaml"):
        if path.is_file():
            return Path(os.path.abspath(path))
    try:
        names = sorted(path.name for path in there.iterdir() if path.suffix in (".yml", ".yaml"))
    except OSError:
        names = []
    hint = selection.near(template, names)
    raise UsageError(f"there is no template {template!r}, neither here nor in {there}", hint=hint or None)


def _read(path: Path) -> tuple[bytes, str]:
    try:
        if path.stat().st_size > LARGEST:
            raise UsageError(f"{path}: larger than {LARGEST} bytes; is this a config?")
        data = path.read_bytes()
        return data, data.decode()
    except OSError as error:
        raise UsageError(f"{path}: can't be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise UsageError(f"{path}:{line}: not UTF-8; save the file as UTF-8") from None


def _grid(assignments: Sequence[str]) -> dict[str, list[Given]]:
    """The values of each key, as they were given."""
    grid: dict[str, list[Given]] = {}
    for assignment in assignments:
        key, equals, said = assignment.partition("=")
        if not equals or not key.strip("+."):
            raise UsageError(f"{assignment!r} is no KEY=VALUES", hint="such as lr=0.1,0.01 or model.depth=2,4")
        if key.removeprefix("+") in {known.removeprefix("+") for known in grid}:
            raise UsageError(f"{key} is given twice", hint="give all its values at once: KEY=A,B,C")
        try:
            values = values_of(said)
        except BadEdit as bad:
            raise UsageError(f"{key}: {bad.message}") from None
        twice = [text for text, count in Counter(value.text for value in values).items() if count > 1]
        if twice:
            raise UsageError(f"{key}: the value {twice[0]} stands there twice")
        grid[key] = values
    if not grid:
        raise UsageError("a sweep needs at least one KEY=VALUES", hint="such as lr=0.1,0.01")
    return grid


def _corners(values: Sequence[Sequence[Given]]) -> Iterator[list[Given]]:
    yield [some[0] for some in values]
    yield [some[-1] for some in values]


# -- names


def _stem(template: Path) -> str:
    return template.stem.lstrip("_.") or "sweep"


def _names(stem: str, keys: Sequence[str], points: Sequence[Sequence[Given]]) -> list[str]:
    """The name of each point: the template's, and each key with its value. A point has the same one in every grid.

    Where a value can't be said in a file's name as it is, or tmux would take two names for one, some digits of a hash
    keep them apart.
    """
    labels = _labels(keys)
    named = [_name(stem, labels, keys, values) for values in points]
    seen = Counter(_as_tmux(name) for name, _ in named)
    return [
        name if seen[_as_tmux(name)] == 1 else f"{name}-{_digest(keys, values)}"
        for (name, _), values in zip(named, points, strict=True)
    ]


def _name(stem: str, labels: Sequence[str], keys: Sequence[str], values: Sequence[Given]) -> tuple[str, bool]:
    parts, exact = [stem], True
    for label, value in zip(labels, values, strict=True):
        text, whole = _said(value)
        exact &= whole
        # lr0.1, but model-big and conv1-3: so that the key's end can be seen.
        direct = text[:1].isdigit() and not label[-1:].isdigit()
        parts.append(f"{label}{'' if direct else '-'}{text}")
    name = "_".join(parts)
    if len(name.encode()) > LONGEST_NAME:
        name, exact = name.encode()[: LONGEST_NAME - 10].decode(errors="ignore").rstrip("._-"), False
    return (name if exact else f"{name}-{_digest(keys, values)}"), exact


def _labels(keys: Sequence[str]) -> list[str]:
    """The last part of each key, where that is enough to tell them apart; else all of it."""
    last = [re.split(r"\.(?=[^.\d-])", key)[-1] for key in keys]
    count = Counter(last)
    return [_UNSAFE.sub("-", key if count[short] > 1 else short) for key, short in zip(keys, last, strict=True)]


def _said(value: Given) -> tuple[str, bool]:
    """A value in a name, and whether it is all of it."""
    text = value.said if value.plain else value.said.strip("\"'[]{}").replace(" ", "")
    clean = _UNSAFE.sub("-", text.replace(",", "-")).strip("-" if not value.plain else "") or "empty"
    is_text = not value.plain and value.said[0] in "\"'" and _looks_like_more(text)
    simple_list = value.said.startswith("[") and not re.search(r"[\"'{}\[\]]", value.said[1:-1])
    exact = not is_text and (clean == text or (simple_list and clean == text.replace(",", "-")))
    return clean[:LONGEST_VALUE].rstrip("."), exact and len(clean) <= LONGEST_VALUE and not clean.endswith(".")


def _looks_like_more(text: str) -> bool:
    """Whether a text in quotes would be something else without them, such as '1' or 'true'."""
    return bool(re.match(r"[-+.\d]", text)) or text.lower() in ("", "true", "false", "null", "~")


def _digest(keys: Sequence[str], values: Sequence[Given]) -> str:
    pairs = [[key, value.text] for key, value in zip(keys, values, strict=True)]
    return hashlib.sha256(json.dumps(pairs).encode()).hexdigest()[:6]


def _as_tmux(name: str) -> str:
    return session_name(name).casefold()


def _refuse_strangers(settings: Settings, points: Sequence[Point]) -> None:
    """Points that would be no tasks, or the same task as another file."""
    name = points[0].path.name
    if not any(fnmatch(name, pattern) for pattern in settings.config_pattern):
        patterns = ", ".join(settings.config_pattern)
        raise UsageError(f"{name} would be no task: config_pattern is {patterns}", hint="--out-dir writes it elsewhere")
    if not settings.config_dir.is_dir():
        return
    mine = {_as_tmux(point.name): point.path for point in points}
    for there in sorted(selection.file_names(settings)):
        path = mine.get(_as_tmux(os.path.splitext(there)[0]))
        if path is not None and path.name != there:
            raise UsageError(f"{path.name} and {there}, which is there, would have the same session name")


def _some(points: Sequence[Point]) -> str:
    names = ", ".join(point.path.name for point in points[:8])
    return names + (f" and {len(points) - 8} more" if len(points) > 8 else "")
