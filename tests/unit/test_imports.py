"""The floors of the building: who may import whom, read from the source, and what a command must not load."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest

import tinksched

ROOT = Path(tinksched.__file__).parent

# Each package and what it may import besides itself. `server` is another door beside `cli`, which only opens it.
FLOORS = {
    "errors": set(),
    "core": {"errors"},
    "config": {"errors", "core"},
    "store": {"errors", "core"},
    "host": {"errors", "core"},
    "executors": {"errors", "core", "host"},
    "scheduler": {"errors", "core", "config", "store", "host", "executors"},
    "operations": {"errors", "core", "config", "store", "host", "scheduler"},
    "server": {"errors", "core", "config", "store", "host", "scheduler", "operations", ""},
    "cli": {"errors", "core", "config", "store", "host", "scheduler", "operations", "server", ""},
    "__main__": {"cli"},
    "api": {"errors", "config", "operations"},
    "": {"api"},  # tinksched/__init__.py, when somebody asks for it
}

# Imports inside of functions: heavy ones of other people, and what of ours brings such a one along.
HEAVY = {"apprise", "ctypes", "libtmux", "psutil", "pynvml", "rich", "ruamel", "textual", "typer"}
HEAVY |= {"fastapi", "httpx", "limits", "uvicorn"}  # where the extra `server` is looked for
SERVER = {"bandit", "h11", "pydantic", "starlette"}  # what it needs besides, and what these bring along
SERVED = ("server.auth", "server.main", "server.state", "server.tables", "cli.tables", "store")
LATE = {
    ("executors.registry", "executors.local"),  # each executor only where it is used
    ("executors.registry", "executors.tmux"),
    ("executors.registry", "host.tmux"),
    ("cli", "cli.app"),  # Ctrl-C is met already while this is loaded
    ("cli", "cli.quick"),
    ("cli", "cli.complete"),
    ("cli.complete", "cli.app"),  # Typer, where no names of tasks are asked for
    ("cli.complete", "operations.workspace"),
    ("cli.complete", "store"),
    ("cli.queue", "scheduler.main"),  # asyncio, for those commands that are a scheduler
    ("cli.queue", "host.wake"),
    ("cli.render", "cli.gputables"),  # each command prints with this file, and most need none of these
    ("cli.render", "operations.logs"),
    ("cli.render", "operations.status"),
    ("operations.status", "scheduler.scene"),  # as `scheduler.deciding`: only where something waits
    ("operations.control", "scheduler.main"),  # asyncio, where no scheduler is there to do what was asked for
    ("operations.preflight", "logging"),  # as apprise, whose messages are not wanted
    ("cli", "traceback"),  # for crashes alone
    ("cli.tables", "unicodedata"),  # for names that are not ASCII
    *(
        (f"cli.{module}", f"cli.{command}")
        for module, command in (
            ("app", "status"),
            ("app", "look"),
            ("app", "setup"),
            ("app", "health"),
            ("app", "queue"),
            ("app", "sweep"),
            ("app", "report"),
            ("app", "watch"),
            ("watch", "watchapp"),
            ("report", "page"),
            ("app", "waiting"),
            ("app", "command"),
            ("app", "cleaning"),
            ("app", "serve"),
            ("app", "dashboard"),
            ("app", "register"),
            ("app", "scan"),
            ("app", "remote"),
            ("app", "database"),
            ("status", "render"),
            ("quick", "render"),
        )
    ),  # of the commands only the one that was called
    *(("cli.serve", target) for target in SERVED),
    ("cli.dashboard", "server.page.alone"),
    ("cli.scan", "server.tables"),
    ("cli.remote", "operations.remote"),  # httpx
    ("cli.register", "operations.remote"),
    ("server.scan", "server.review"),  # httpx, where a model is asked
    *(("cli.database", target) for target in ("server.backup", "server.housekeeping", "server.state")),
    ("cli.database", "operations.times"),
    ("cli.serve", "operations.setup"),
    ("cli.serve", "config.server"),
    ("operations.status", "scheduler.deciding"),  # where something is queued
    ("operations.status", "scheduler.turns"),
    ("operations.status", "host.tmux"),  # where something runs
    ("store.database", "shutil"),  # where a disk is full
    ("store.database", "tempfile"),
    ("cli", "pathlib"),
    ("", "api"),  # for programs that import it
}


@dataclass(frozen=True)
class Import:
    """One import: in which module and line, of what, and whether inside of a function or for type checkers only."""

    module: str
    line: int
    target: str  # of ours without `tinksched.`; others with their whole name
    ours: bool
    late: bool
    typing_only: bool

    def __str__(self) -> str:
        return f"{self.module.replace('.', '/')}:{self.line} imports {self.target}"


@cache
def modules() -> dict[str, Path]:
    """Every module of ours by its name without `tinksched.`; a package stands under its own name."""
    found = {}
    for path in sorted(ROOT.rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


@cache
def imports() -> tuple[Import, ...]:
    return tuple(
        one
        for module, path in modules().items()
        for one in _imports(module, path, ast.parse(path.read_text(encoding="utf-8")), late=False, typing_only=False)
    )


def _imports(module: str, path: Path, node: ast.AST, *, late: bool, typing_only: bool) -> Iterator[Import]:
    for child in ast.iter_child_nodes(node):
        inside = late or isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        typing = typing_only or (isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test))
        if isinstance(child, ast.Import | ast.ImportFrom):
            for target, ours in _targets(module, path, child):
                yield Import(module, child.lineno, target, ours, inside, typing)
        yield from _imports(module, path, child, late=inside, typing_only=typing)


def _targets(module: str, path: Path, node: ast.Import | ast.ImportFrom) -> set[tuple[str, bool]]:
    """What the statement loads: `from . import x` is the module x if there is one, else the package."""
    if isinstance(node, ast.Import):
        return {_ours(alias.name) for alias in node.names}
    base = node.module or ""
    if node.level:
        package = [part for part in ("tinksched", *module.split(".")) if part]
        package = package if path.name == "__init__.py" else package[:-1]
        base = ".".join([*package[: len(package) - node.level + 1], *base.split(".")]).rstrip(".")
    found = set()
    for alias in node.names:
        name, ours = _ours(f"{base}.{alias.name}")
        found.add((name, True) if ours and name in modules() else _ours(base))
    return found


def _ours(name: str) -> tuple[str, bool]:
    ours = name == "tinksched" or name.startswith("tinksched.")
    return (name.removeprefix("tinksched").removeprefix("."), True) if ours else (name, False)


def floor(module: str) -> str:
    return module.partition(".")[0]


def said(found: list[Import]) -> list[str]:
    return [str(one) for one in found]


# ---------------------------------------------------------------- the reader itself


def test_the_reader_sees_what_is_there() -> None:
    """Some imports that are there, of each kind; a reader that sees nothing would find no fault."""
    seen = {(one.module, one.target) for one in imports() if one.ours}
    assert ("core.lifecycle", "errors") in seen
    assert ("core.lifecycle", "core.model") in seen
    assert ("store.store", "store.packing") in seen, "from . import records"
    assert ("scheduler.loop", "executors.base") in seen
    assert ("__main__", "cli") in seen
    assert ("cli.app", "") in seen, "from .. import __version__"
    assert any(one.late for one in imports())
    assert any(one.typing_only for one in imports())
    assert len(modules()) > 40


def test_every_import_of_ours_is_of_a_module_that_there_is() -> None:
    assert said([one for one in imports() if one.ours and one.target not in modules()]) == []


# ---------------------------------------------------------------- the floors


def test_every_module_stands_on_a_floor() -> None:
    assert {floor(module) for module in modules()} == set(FLOORS)


@pytest.mark.parametrize("name", sorted(FLOORS), ids=lambda name: name or "tinksched")
def test_a_floor_imports_only_what_is_below_it(name: str) -> None:
    allowed = FLOORS[name] | {name}
    mine = [one for one in imports() if floor(one.module) == name and one.ours]
    assert said([one for one in mine if floor(one.target) not in allowed]) == []


def test_no_module_imports_itself_in_a_circle() -> None:
    """Of the imports that run when a module is loaded; those inside of functions are looked at below."""
    graph: dict[str, set[str]] = {module: set() for module in modules()}
    for one in imports():
        if one.ours and not one.late and not one.typing_only:
            graph[one.module].add(one.target)
    assert _circle(graph) is None


def test_late_imports_hide_no_circle() -> None:
    """A circle that is cut by an import inside of a function is still one; `cli` and its app are one program."""
    graph: dict[str, set[str]] = {module: set() for module in modules()}
    for one in imports():
        if one.ours and not one.typing_only:
            graph[one.module].add(one.target)
    assert _circle(graph) is None


def _circle(graph: dict[str, set[str]]) -> list[str] | None:
    done: set[str] = set()

    def walk(module: str, way: list[str]) -> list[str] | None:
        if module in way:
            return [*way[way.index(module) :], module]
        if module in done:
            return None
        for target in sorted(graph.get(module, ())):
            if (found := walk(target, [*way, module])) is not None:
                return found
        done.add(module)
        return None

    return next((found for module in sorted(graph) if (found := walk(module, [])) is not None), None)


# ---------------------------------------------------------------- foreign modules


def test_the_rules_of_scheduling_know_no_clock_and_no_files() -> None:
    pure = {
        "__future__", "bisect", "collections", "collections.abc", "dataclasses", "datetime", "enum", "fnmatch", "heapq",
        "itertools", "math", "re", "typing",
    }  # fmt: skip
    foreign = [one for one in imports() if floor(one.module) in ("core", "errors") and not one.ours]
    assert said([one for one in foreign if one.target not in pure]) == []


def test_only_render_knows_rich_and_only_watch_knows_textual() -> None:
    """Textual draws with Rich's segments."""
    known = {
        name: {one.module for one in imports() if one.target.split(".")[0] == name} for name in ("rich", "textual")
    }
    assert known == {"rich": {"cli.render", "cli.watchapp"}, "textual": {"cli.watch", "cli.watchapp"}}


def test_only_the_command_line_knows_typer() -> None:
    assert {floor(one.module) for one in imports() if one.target.split(".")[0] in ("typer", "click")} == {"cli"}


@pytest.mark.parametrize(
    ("library", "where"),
    [
        ("ruamel", {"config", "operations"}),
        ("libtmux", {"host"}),
        ("pynvml", {"host"}),
        ("sqlite3", {"store", "server"}),
        ("psutil", {"host"}),
    ],
)
def test_a_library_is_known_on_one_floor(library: str, where: set[str]) -> None:
    assert {floor(one.module) for one in imports() if one.target.split(".")[0] == library} <= where


def test_an_import_inside_of_a_function_is_of_something_heavy() -> None:
    late = [one for one in imports() if one.late]
    light = [one for one in late if one.target.split(".")[0] not in HEAVY]
    assert said([one for one in light if (one.module, one.target) not in LATE]) == []


def test_the_exceptions_are_all_in_use() -> None:
    late = {(one.module, one.target) for one in imports() if one.late}
    assert late >= LATE
    assert {target.split(".")[0] for _, target in late} >= HEAVY


def test_every_foreign_module_is_declared() -> None:
    """A dependency that is not in pyproject.toml is there by chance."""
    declared = HEAVY | SERVER
    foreign = {one.target.split(".")[0] for one in imports() if not one.ours}
    assert foreign - set(sys.stdlib_module_names) == declared - set(sys.stdlib_module_names)


# ---------------------------------------------------------------- what a command loads


def loaded(statement: str) -> set[str]:
    """The modules in a fresh interpreter after the statement."""
    program = f"{statement}\nimport sys\nprint(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60)
    return {name for name in done.stdout.split() if "." not in name}


@pytest.mark.parametrize(
    "library",
    [
        "asyncio", "libtmux", "multiprocessing", "psutil", "pydantic", "pynvml", "rich", "ruamel", "textual",
    ],
)  # fmt: skip
def test_the_command_line_is_there_without(library: str) -> None:
    assert library not in loaded("import tinksched.cli.app")


def test_the_rules_of_scheduling_load_next_to_nothing() -> None:
    assert loaded("import tinksched.core.placement") & {"sqlite3", "subprocess", "socket", "typer", "asyncio"} == set()


def test_the_package_alone_loads_nothing_of_itself() -> None:
    program = "import tinksched, sys; print([name for name in sys.modules if name.startswith('tinksched.')])"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == "[]"
