"""Which task configs there are, and which of them or of the tasks on record the words on a command line mean."""

from __future__ import annotations

import contextlib
import difflib
import fnmatch
import os
import re
from collections.abc import Callable, Container, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

from ..config import Settings, natural_key
from ..core.model import Outcome
from ..errors import NothingToActOn, UsageError
from ..store import Listed, Store
from .workspace import Workspace

_GLOB = frozenset("*?[")
_NUMBERS = re.compile(r"[0-9]{1,18}(?:-[0-9]{1,18})?(?:,[0-9]{1,18}(?:-[0-9]{1,18})?)*")
_NEWEST = re.compile(r"@(?:~([0-9]{1,9}))?")
FAILED = (Outcome.FAILED.value, Outcome.TIMED_OUT.value, Outcome.LOST.value)
_CANDIDATES = 8  # names that a message lists


class TaskConfig(NamedTuple):
    """A task config: the name of its task, and the file's path."""

    name: str
    file: str

    @property
    def file_name(self) -> str:
        """The last part of it."""
        return os.path.basename(self.file)

    @property
    def path(self) -> Path:
        """The file; thousands of them are more than a Path is needed for."""
        return Path(self.file)


def available(settings: Settings, known: Callable[[list[str]], Container[str]] | None = None) -> list[TaskConfig]:
    """The configs in `config_dir` that match `config_pattern`, in natural order; without those of `known` tasks.

    Raises:
        UsageError: the folder isn't there or can't be read, or two files stand for one task.
    """
    stems = {name: _stem(name) for name in file_names(settings)}
    out = known(list(stems.values())) if known is not None else ()
    wanted = sorted((name for name, stem in stems.items() if stem not in out), key=natural_key)
    configs = [TaskConfig(stems[name], f"{settings.config_dir}/{name}") for name in wanted]
    refuse_namesakes(configs)
    return configs


def file_names(settings: Settings) -> list[str]:
    """The names of the files in `config_dir` that match `config_pattern`, in no order.

    Raises:
        UsageError: the folder isn't there or can't be read, or a name in it is not UTF-8.
    """
    folder = settings.config_dir
    try:
        names = list(_files(folder))
    except OSError as error:
        raise UsageError(
            f"{folder}: the config folder can't be read: {error.strerror}", hint="config_dir names it"
        ) from None
    for name in names:
        if not name.isprintable() and "\udc80" <= max(name) <= "\udcff":
            raise UsageError(f"{folder} holds a file whose name is not UTF-8: {os.fsencode(name)!r}", hint="rename it")
    return list(filter(_is_config(settings), names))


def is_any(settings: Settings) -> bool:
    """Whether `config_dir` holds any task config."""
    try:
        return any(map(_is_config(settings), _files(settings.config_dir)))
    except OSError:
        return False


def _files(folder: Path) -> Iterator[str]:
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_file():
                yield entry.name


def _is_config(settings: Settings) -> Callable[[str], bool]:
    """Whether a file of this name is a task config."""
    matches = re.compile("|".join(map(fnmatch.translate, settings.config_pattern))).match
    return lambda name: name[0] not in "._" and matches(name) is not None


def stems(settings: Settings) -> set[str]:
    """The names that files in `config_dir` want for their tasks, of whatever kind these are: fast, and never fails."""
    try:
        return {_stem(name) for name in os.listdir(settings.config_dir)}
    except OSError:
        return set()


def _stem(name: str) -> str:
    """As `Path(name).stem`, without making thousands of paths."""
    stem, _, ending = name.rpartition(".")
    return stem if stem and ending else name


def choose(settings: Settings, wanted: str) -> list[TaskConfig]:
    """The configs that a comma-separated list means: file names in `config_dir`, paths, or globs, in its order.

    Raises:
        UsageError: one of them means nothing, or one is named twice.
    """
    there = available(settings)
    # A name may hold a comma itself.
    items = [wanted] if _find(wanted, there) else [item.strip() for item in wanted.split(",") if item.strip()]
    if not items:
        raise UsageError(f"the list of configs {wanted!r} names none", hint="leave it out to mean all")
    chosen: list[TaskConfig] = []
    for item in items:
        found = _find(item, there)
        if not found:
            raise _unknown(settings, item, there)
        chosen += found
    refuse_namesakes(chosen)
    return chosen


def refuse_namesakes(configs: Iterable[TaskConfig]) -> None:
    """A task is known by its config's stem, so two configs can't share one.

    Raises:
        UsageError: two do.
    """
    seen: dict[str, str] = {}
    for config in configs:
        other = seen.get(config.name)
        seen[config.name] = config.file
        if other is not None:
            what = "is named twice" if other == config.file else f"and {other} are both the task {config.name!r}"
            raise UsageError(f"{config.file} {what}", hint="a task is named by its config file without .yml")


def near(name: str, names: Sequence[str]) -> str:
    """A hint at the names that look like this one."""
    close = difflib.get_close_matches(name, names, n=3, cutoff=0.6)
    if close:
        return f"did you mean {' or '.join(close)}?"
    shown = ", ".join(names[:8]) + (", …" if len(names) > 8 else "")
    return f"there are: {shown}" if names else ""


def _find(item: str, there: Sequence[TaskConfig]) -> list[TaskConfig]:
    exact = [config for config in there if item == config.file_name]
    exact = exact or [config for config in there if item == config.name]
    if exact:
        return exact
    try:
        path = Path(item).expanduser()
        if path.is_file():
            return [TaskConfig(path.stem, str(path.absolute()))]
    except (OSError, ValueError, RuntimeError):  # RuntimeError: ~user of nobody
        return []
    if _GLOB & set(item):
        return [config for config in there if _matches(config.file_name, [item]) or _matches(config.name, [item])]
    return []


def _unknown(settings: Settings, item: str, there: Sequence[TaskConfig]) -> UsageError:
    what = "no config matches" if _GLOB & set(item) else "there is no config"
    stem = item.removesuffix(".yml").removesuffix(".yaml")
    files = {config.name: config.file_name for config in there}
    alike = [files[name] for name in difflib.get_close_matches(stem, list(files), n=3, cutoff=0.6)]
    hint = f"did you mean {' or '.join(alike)}?" if alike else near(item, list(files.values()))
    return UsageError(f"{what} {item!r} in {settings.config_dir}", hint=hint or "add a .yml file there")


def _matches(name: str, patterns: Iterable[str]) -> bool:
    return any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)


# -- tasks on record: the selectors that all commands share


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which tasks a user means: what the words select, those that failed, or all of them."""

    words: Sequence[str] = ()
    failed: bool = False
    everything: bool = False

    def __bool__(self) -> bool:
        return bool(self.words) or self.failed or self.everything


def select(store: Store, wanted: Wanted) -> list[str]:
    """The names of the tasks that are meant, each once, in the order of the words.

    A word is the name of a task (or its config's file name), which wins over all else that it may mean; `@`, the task
    that was queued last, or `@~N`, the Nth before it; numbers and ranges (`1-3,5`); or a glob.

    Raises:
        NothingToActOn: a word means nothing, or no task has failed.
    """
    by_name = named(store, wanted.words)
    simple = not wanted.failed and not wanted.everything and len(by_name) == len(set(wanted.words))
    roster = [] if simple else store.roster()
    found: dict[str, None] = {}
    missing = []
    for word in wanted.words:
        names = [by_name[word]] if word in by_name else _meant(store, roster, word)
        found.update(dict.fromkeys(names))
        missing += [] if names else [word]
    if missing:
        raise _means_nothing(missing, [task.name for task in roster])
    if wanted.failed:
        failed = [task.name for task in roster if task.outcome in FAILED]
        if not failed and not found:
            raise _none_failed()
        found.update(dict.fromkeys(failed))
    if wanted.everything:
        found.update(dict.fromkeys(task.name for task in roster))
    return [*found]


def select_among(store: Store | None, wanted: Wanted, others: Iterable[str]) -> set[str]:
    """The names that are meant where tasks count as well that are not on record: the `others`.

    Raises:
        NothingToActOn: a word means nothing, or no task has failed.
    """
    new, found, missing = set(others), set[str](), []
    for word in wanted.words:
        names = new & {word, stem_of_config(word)} or set(fnmatch.filter(new, word))
        if store is not None:
            with contextlib.suppress(NothingToActOn):
                names |= set(select(store, Wanted([word])))
        found |= names
        missing += [] if names else [word]
    if missing:
        raise _means_nothing(missing, [*(store.names() if store is not None else ()), *sorted(new)])
    found |= new if wanted.everything else set()
    if store is not None and (wanted.failed or wanted.everything):
        with contextlib.suppress(NothingToActOn) if found else contextlib.nullcontext():
            found |= set(select(store, replace(wanted, words=())))
    if wanted and not found:
        raise _none_failed()
    return found


def one(store: Store, word: str) -> str:
    """The one task that a word means.

    Raises:
        NothingToActOn: it means nothing.
        UsageError: it means several.
    """
    names = select(store, Wanted([word]))
    if len(names) > 1:
        raise _one_wanted(word, names)
    return names[0]


def _one_wanted(word: str, names: Sequence[str]) -> UsageError:
    return UsageError(f"{word!r} means {len(names)} tasks, and one is wanted: {listed(names)}", hint="name one")


def one_of(workspace: Workspace, word: str) -> str:
    """The same for a command that only reads."""
    names = some_of(workspace, Wanted([word]))
    if len(names) > 1:
        raise _one_wanted(word, names)
    return names[0]


def some_of(workspace: Workspace, wanted: Wanted) -> list[str]:
    """As `select`, for a command that only reads: what can only be a name need not be on record.

    Raises:
        NothingToActOn: a word means nothing, or no task has failed.
    """
    store = workspace.store()
    if store is None and not wanted.words:
        raise NothingToActOn("nothing was ever queued in this workspace", hint="tinksched start")
    found: dict[str, None] = {}
    with store or contextlib.nullcontext():
        for word in wanted.words:
            if _is_surrogate(word):
                raise NothingToActOn(f"there is no task {word!r}")
            is_name = not (_GLOB & set(word) or _NUMBERS.fullmatch(word) or _NEWEST.fullmatch(word))
            names = [stem_of_config(word)] if store is None or is_name else select(store, Wanted([word]))
            found |= dict.fromkeys(names)
        if store is not None and (wanted.failed or wanted.everything):
            found |= dict.fromkeys(select(store, replace(wanted, words=())))
    return [*found]


def listed(names: Sequence[str]) -> str:
    """Some names for a message."""
    more = len(names) - _CANDIDATES
    return ", ".join(names[:_CANDIDATES]) + (f" and {more} more" if more > 0 else "")


def named(store: Store, words: Sequence[str]) -> dict[str, str]:
    """The words that are names of tasks, or of their config files; and the names."""
    stems = {word: stem_of_config(word) for word in words}
    asked = {**stems, **dict.fromkeys(stems.values())}
    known = store.known([name for name in asked if not _is_surrogate(name)])
    exact = {word: word for word in words if word in known}
    return {**{word: stem for word, stem in stems.items() if stem in known}, **exact}


def _is_surrogate(text: str) -> bool:
    """Whether it is no UTF-8, which no name on record is."""
    return not text.isascii() and any("\udc80" <= char <= "\udcff" for char in text)


def stem_of_config(word: str) -> str:
    """A config's file name stands for its task."""
    return word.rpartition(".")[0] if word.endswith((".yml", ".yaml")) else word


def _meant(store: Store, roster: Sequence[Listed], word: str) -> list[str]:
    """The tasks that a word means which is no name."""
    if newest := _NEWEST.fullmatch(word):
        name = store.queued_last(int(newest[1] or 0))
        return [] if name is None else [name]
    if _NUMBERS.fullmatch(word):
        spans = [span.partition("-") for span in word.split(",")]
        ends = [(int(first), int(last or first)) for first, _, last in spans]
        return [task.name for first, last in ends for task in roster if first <= task.id <= last]
    if _GLOB & set(word):
        matches = re.compile(fnmatch.translate(word)).match
        return [task.name for task in roster if matches(task.name)]
    return []


def _none_failed() -> NothingToActOn:
    return NothingToActOn("no task has failed", hint="tinksched status")


def _means_nothing(words: Sequence[str], names: Sequence[str]) -> NothingToActOn:
    word = words[0]
    more = f" (nor {', '.join(map(repr, words[1:4]))})" if len(words) > 1 else ""
    if _NEWEST.fullmatch(word):
        return NothingToActOn(f"{word} means no task{more}: {len(names)} are on record; nothing was done")
    if _NUMBERS.fullmatch(word):
        said = f"no task has the number {word}{more}; nothing was done"
        return NothingToActOn(said, hint="tinksched status shows the numbers")
    what = "no task matches" if _GLOB & set(word) else "there is no task"
    plain = word.translate({ord(sign): None for sign in "*?[]"})
    return NothingToActOn(f"{what} {word!r}{more}; nothing was done", hint=near(plain or word, names))
