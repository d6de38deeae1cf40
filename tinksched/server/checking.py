"""Looks at a script without running it: the code is on standard input, the findings go as JSON to standard output.

A program of its own (`python -m tinksched.server.checking`): a script that crashes or hangs the parser takes nobody
with it. What it finds is a help for honest people and a hurdle for others; what holds a job in is its isolation.
"""

from __future__ import annotations

import ast
import json
import logging
import os
import resource
import sys
import warnings
from collections.abc import Iterator
from typing import Literal, NamedTuple

from bandit.core.config import BanditConfig
from bandit.core.manager import BanditManager

MOST = 100  # findings that are told
CPU_SECONDS = 30
_MEMORY = 2 * 2**30
_LONGEST = 8  # parts of a dotted name that are looked at

Severity = Literal["high", "low"]


class Finding(NamedTuple):
    """One thing that was found. Line 0 stands for the whole script."""

    line: int
    severity: Severity
    text: str

    def __str__(self) -> str:
        return f"line {self.line}: {self.text}" if self.line else self.text


_RUNS_TEXT = ("eval", "exec", "compile", "__import__")
_CALLS = {
    "os.system": "runs a shell",
    "os.popen": "runs a shell",
    "subprocess.getoutput": "runs a shell",
    "subprocess.getstatusoutput": "runs a shell",
    "asyncio.create_subprocess_shell": "runs a shell",
    **dict.fromkeys(
        (
            "os.fork", "os.forkpty", "os.startfile", "pty.spawn", "pty.fork", "subprocess.Popen", "subprocess.run",
            "subprocess.call", "subprocess.check_call", "subprocess.check_output", "asyncio.create_subprocess_exec",
        ),
        "starts a process",
    ),
    **dict.fromkeys(("os.kill", "os.killpg", "signal.pidfd_send_signal"), "signals a process"),
    **dict.fromkeys(
        (
            "socket.socket", "socket.SocketType", "socket.create_connection", "socket.create_server",
            "socket.socketpair", "socket.fromfd", "asyncio.open_connection", "asyncio.start_server",
            "asyncio.open_unix_connection", "asyncio.start_unix_server", "socketserver.TCPServer",
            "socketserver.ThreadingTCPServer", "socketserver.UDPServer", "socketserver.UnixStreamServer",
        ),
        "opens a socket",
    ),
}  # fmt: skip
_FAMILIES = ("os.exec", "os.spawn", "os.posix_spawn")  # execv, execvp, spawnl …: they start a process
_WATCHED = {name.partition(".")[0] for name in _CALLS} | {"builtins"}
# What bandit says of the same calls, and of passwords: it quotes those, and what is found is kept.
_SAID = {"B102", "B307", "B602", "B603", "B604", "B605", "B606", "B607", "B609"}
_QUOTING = {"B105", "B106", "B107"}
_LEARNING = {
    "accelerate", "catboost", "cupy", "cv2", "datasets", "deepspeed", "dgl", "diffusers", "fastai", "flax", "gensim",
    "haiku", "jax", "keras", "lightgbm", "lightning", "mxnet", "nltk", "numba", "numpy", "onnx", "onnxruntime",
    "optax", "paddle", "pandas", "peft", "polars", "pytorch_lightning", "ray", "scipy", "sentence_transformers",
    "sklearn", "spacy", "statsmodels", "tensorflow", "timm", "torch", "torch_geometric", "torchaudio", "torchvision",
    "transformers", "triton", "trl", "vllm", "xgboost",
}  # fmt: skip


def look(code: bytes) -> list[Finding]:
    """What a script has that others should know, in the order of its lines."""
    try:
        tree = ast.parse(code)
    except SyntaxError as error:
        return [Finding(error.lineno or 0, "high", f"does not parse: {error.msg}")]
    except (ValueError, RecursionError, MemoryError) as error:
        return [Finding(0, "high", f"does not parse: {type(error).__name__}")]
    names = _Names(tree)
    found = list(_calls(tree, names))
    lines = {one.line for one in found}
    found += [one for test, one in _bandit() if test not in _SAID or one.line not in lines]
    if not names.imported & _LEARNING:
        found.append(Finding(0, "low", "imports no library of machine learning"))
    return sorted(set(found))


class _Names:
    """What the names of a script stand for, as far as its imports say."""

    def __init__(self, tree: ast.AST) -> None:
        self.imported: set[str] = set()  # modules, by the first part of their names
        self._meant: dict[str, str] = {}
        self._stars: list[str] = []
        self.own: set[str] = set()  # functions and parameters of the script
        for node in ast.walk(tree):
            if isinstance(node, ast.Import):
                for alias in node.names:
                    first = alias.name.partition(".")[0]
                    self._add(alias.asname or first, alias.name if alias.asname else first)
                    self.imported.add(first)
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                self.imported.add(node.module.partition(".")[0])
                for alias in node.names:
                    if alias.name == "*":
                        self._stars.append(node.module)
                    else:
                        self._add(alias.asname or alias.name, f"{node.module}.{alias.name}")
            elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                self.own.add(node.name)
            elif isinstance(node, ast.arg):
                self.own.add(node.arg)

    def _add(self, name: str, meant: str) -> None:
        """A name that is bound twice stands for what is watched, if one of the two is."""
        if self._meant.get(name, "").partition(".")[0] not in _WATCHED:
            self._meant[name] = meant

    def of(self, node: ast.AST) -> list[str]:
        """The dotted names that an expression may stand for."""
        parts: list[str] = []
        while isinstance(node, ast.Attribute) and len(parts) < _LONGEST:
            parts.insert(0, node.attr)
            node = node.value
        if isinstance(node, ast.Name):
            bases = [self._meant.get(node.id, node.id), *(f"{module}.{node.id}" for module in self._stars)]
        else:
            bases = [module for module in [self._module(node)] if module]
        return [".".join([base, *parts]) for base in bases]

    def _module(self, node: ast.AST) -> str | None:
        """The module or the function that is named by a text: `__import__("os")`, `getattr(os, "system")`."""
        if isinstance(node, ast.Subscript) and self.of(node.value) == ["sys.modules"]:
            return _text(node.slice)
        if not isinstance(node, ast.Call) or not node.args:
            return None
        called = self.of(node.func) if isinstance(node.func, ast.Name | ast.Attribute) else []
        if called in (["__import__"], ["importlib.import_module"], ["builtins.__import__"]):
            return _text(node.args[0])
        if called == ["getattr"] and len(node.args) > 1 and (attribute := _text(node.args[1])):
            return next((f"{base}.{attribute}" for base in self.of(node.args[0])), None)
        return None


def _calls(tree: ast.AST, names: _Names) -> Iterator[Finding]:
    harmless = {id(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call) and _is_constant(node)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Name | ast.Attribute | ast.Call) and isinstance(
            getattr(node, "ctx", None), ast.Load | None
        ):
            for name in names.of(node):
                yield from _said(name, node, names, is_harmless=id(node) in harmless)
        if isinstance(node, ast.Call) and names.of(node.func) == ["getattr"] and len(node.args) > 1:
            for base in names.of(node.args[0]):
                if base in _WATCHED and _text(node.args[1]) is None:
                    yield Finding(node.lineno, "high", f"getattr of {base} with a name that is computed")


def _said(name: str, node: ast.expr, names: _Names, *, is_harmless: bool) -> Iterator[Finding]:
    plain = name.removeprefix("builtins.")
    if plain in _RUNS_TEXT and not is_harmless:
        if isinstance(node, ast.Name) and node.id in names.own:
            yield Finding(node.lineno, "low", f"{plain} is this script's own, or Python's")
        else:
            yield Finding(node.lineno, "high", f"{plain} of what is not a constant")
    elif name == "importlib.import_module" and not is_harmless:
        yield Finding(node.lineno, "high", f"{name} of what is not a constant")
    elif name in _CALLS or name.startswith(_FAMILIES):
        yield Finding(node.lineno, "high", f"{name} {_CALLS.get(name, 'starts a process')}")


def _is_constant(call: ast.Call) -> bool:
    return bool(call.args) and isinstance(call.args[0], ast.Constant)


def _text(node: ast.AST) -> str | None:
    return node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else None


def _bandit() -> Iterator[tuple[str, Finding]]:
    """What bandit finds in what is on standard input. Comments in the code do not silence it.

    Raises:
        ValueError: it could not look at all of it.
    """
    logging.getLogger("bandit").setLevel(logging.CRITICAL)
    os.lseek(0, 0, os.SEEK_SET)
    manager = BanditManager(BanditConfig(), "file", quiet=True, ignore_nosec=True)
    manager.discover_files(["-"])
    manager.run_tests()
    if manager.get_skipped():
        raise ValueError("bandit left it out")
    for issue in manager.get_issue_list():
        text = "a password in the code" if issue.test_id in _QUOTING else " ".join(issue.text.split())
        severity: Severity = "high" if issue.severity == "HIGH" else "low"
        yield issue.test_id, Finding(issue.lineno or 0, severity, f"{text} ({issue.test_id})")


def main() -> None:
    """Look at what is on standard input, which must be a file. Exit code 1: it can't be looked at."""
    resource.setrlimit(resource.RLIMIT_CPU, (CPU_SECONDS, CPU_SECONDS))
    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY, _MEMORY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    warnings.simplefilter("ignore")
    found = look(os.pread(0, os.fstat(0).st_size, 0))
    urgent_first = sorted(found, key=lambda one: one.severity != "high")
    json.dump(urgent_first[:MOST], sys.stdout)


if __name__ == "__main__":
    main()
