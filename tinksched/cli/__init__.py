"""The command line. Errors become messages and exit codes here, and nowhere else."""

from __future__ import annotations

import contextlib
import errno
import gc
import os
import sys
from typing import NoReturn

from ..errors import TinkschedError, UsageError
from .legacy import translate

_SCHEDULERS = {"serve-workspace", "--foreground"}  # words of commands that may run for weeks
FEW_COLLECTIONS = 500_000  # new objects until the garbage collector looks at them


def main(arguments: list[str] | None = None) -> NoReturn:
    """Run one command and exit: 0 done, 1 the work failed, 2 wrong use, 3 nothing to act on."""
    sys.exit(_run(sys.argv[1:] if arguments is None else arguments))


def program() -> NoReturn:
    """The same for a process that does nothing else: without taking the interpreter apart, which takes longer than
    many a command."""
    if not _SCHEDULERS & set(sys.argv[1:]):
        gc.set_threshold(FEW_COLLECTIONS)  # a command has ended before there is any garbage
    code = _run(sys.argv[1:])
    with contextlib.suppress(OSError):  # what could not be written was said
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(code)


def _run(arguments: list[str]) -> int:
    try:
        code = _call(translate(arguments))
        sys.stdout.flush()
        return code
    except TinkschedError as error:
        _complain(error)
        return error.exit_code
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:
        # The reader has seen enough (`tinksched logs | head`). Nothing more may be written at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EROFS):
            return _unexpected(error)
        where = f"{error.filename}: " if error.filename else ""
        _complain(UsageError(f"{where}{error.strerror}", hint="make room on that disk, and repeat the command"))
        return UsageError.exit_code
    except Exception as error:
        return _unexpected(error)


def _call(arguments: list[str]) -> int:
    if arguments[:1] == ["status"]:
        from . import quick

        plain = quick.understand(arguments)
        if plain is not None:
            plain.run()
            return 0
    if arguments[:1] == ["complete-words"]:
        from . import complete

        complete.answer(arguments[1:])
        return 0
    import typer

    from .app import app

    try:
        code = app(arguments, prog_name="tinksched", standalone_mode=False)
        return code if isinstance(code, int) else 0
    except typer.Exit as stop:
        return stop.exit_code
    except typer.Abort:
        raise KeyboardInterrupt from None


def _unexpected(error: Exception) -> int:
    if hasattr(error, "show") and hasattr(error, "exit_code"):  # click's, which typer brings in its own copy
        error.show()
        return 2
    if os.environ.get("TINKSCHED_DEBUG"):
        raise error
    return _admit_defect(error)


def _complain(error: TinkschedError) -> None:
    print(_printable(f"tinksched: {error.message}"), file=sys.stderr)
    if error.hint:
        print(_printable(f"    {error.hint}"), file=sys.stderr)


def _printable(text: str) -> str:
    """Names of files may hold what a terminal would obey."""
    return "".join(char if char.isprintable() or char == "\n" else "\N{REPLACEMENT CHARACTER}" for char in text)


def _admit_defect(error: Exception) -> int:
    """A defect of ours: no traceback on the screen, but one in a file for the report."""
    import traceback
    from pathlib import Path

    state = Path(os.environ.get("XDG_STATE_HOME") or "~/.local/state").expanduser() / "tinksched"
    where = ""
    try:
        state.mkdir(mode=0o700, parents=True, exist_ok=True)
        (state / "crash.log").write_text("".join(traceback.format_exception(error)))
        where = f"; the details are in {state / 'crash.log'}"
    except OSError:
        pass
    print(f"tinksched: a defect of tinksched itself: {type(error).__name__}: {error}{where}", file=sys.stderr)
    return 1
