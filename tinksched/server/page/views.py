"""What of the picture somebody gets, as JSON. Whatever is another user's is left out here, and nowhere else."""

from __future__ import annotations

import functools
import json
import os
import socket
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ...core.gpu import GpuState
from ...host.leases import user_name
from ...operations.snapshot import GpuStatus
from ...store import Bar
from .book import DAY, Picture
from .cards import CANCELLED, COMPLETED, FAILED, QUEUED, RUNNING, STARTING, Card
from .gauges import Gauge

Limits = Mapping[str, float]
PROSPECT_SECONDS = 1.0  # between two times that the places of those who wait are sent, at least
_KINDS = (QUEUED, RUNNING, COMPLETED, CANCELLED, FAILED)


@dataclass(frozen=True, slots=True)
class Viewer:
    """Who looks. An admin, and whoever looks at a workspace, sees everything."""

    user: str
    is_admin: bool

    def may_see(self, card: Card | None) -> bool:
        """Whether a job is any business of the viewer's."""
        return card is not None and (self.is_admin or card.user == self.user)


@dataclass(frozen=True, slots=True)
class User:
    """Somebody who has a credential, or had one. Times are seconds since the epoch."""

    name: str
    is_admin: bool
    created_at: float | None
    last_seen: float | None


@dataclass(frozen=True, slots=True)
class Frame:
    """What there is besides the jobs."""

    mode: str
    title: str
    samples: Mapping[str, GpuState]  # by device
    gauges: Mapping[str, Gauge]  # by device
    limits: Limits  # of the viewer


def cards_of(picture: Picture, viewer: Viewer) -> Sequence[Card]:
    """The viewer's jobs, in their order."""
    return picture.cards if viewer.is_admin else [card for card in picture.cards if viewer.may_see(card)]


def scene(picture: Picture, viewer: Viewer, frame: Frame, most: int) -> str:
    """The scene, with the most relevant jobs."""
    cards = cards_of(picture, viewer)
    timeline = json.dumps([run(picture, viewer, bar) for bar in picture.bars])
    parts = {**parts_of(picture, viewer, frame, cards), "jobs": listed(cards[:most]), "timeline": timeline}
    head = {"now": time.time(), "mode": frame.mode, "title": frame.title}
    return json.dumps(head)[:-1] + "".join(f', "{key}": {text}' for key, text in parts.items()) + "}"


def listed(cards: Sequence[Card]) -> str:
    """Jobs as a list."""
    return "[" + ", ".join(card.text for card in cards) + "]"


def parts_of(picture: Picture, viewer: Viewer, frame: Frame, cards: Sequence[Card]) -> dict[str, str]:
    """What of the scene is sent whole whenever it has changed: key to JSON."""
    trouble = picture.trouble and (picture.trouble.full if viewer.is_admin else picture.trouble.plain)
    found = {
        "trouble": trouble,
        "counts": _counts(cards),
        "me": _me(picture, viewer, frame, cards),
        "nodes": _nodes(picture),
        "batch_ends": picture.batch_ends if viewer.is_admin else None,
    }
    said = {key: json.dumps(value) for key, value in found.items()}
    return {**said, "gpus": gpus_of(picture, viewer, frame)}


def gpus_of(picture: Picture, viewer: Viewer, frame: Frame) -> str:
    """The GPUs, and who is on them."""
    return json.dumps([_gpu(picture, viewer, frame, one) for one in picture.gpus])


def run(picture: Picture, viewer: Viewer, bar: Bar) -> dict[str, Any]:
    """A run on the timeline. Of another user's it is seen that the GPU was taken, and nothing else."""
    card = picture.by_task.get(bar.task_id)
    seen = card if viewer.may_see(card) else None
    over = bar.outcome or "running"
    return {
        "run": bar.run if seen else picture.names[bar.run],
        "job": seen.id if seen else None,
        "name": seen.name if seen else None,
        "gpus": bar.gpus,
        "from": bar.began_at,
        "to": bar.ended_at,
        "outcome": over if seen or over == "running" else "other",
    }


def users_of(picture: Picture, known: Sequence[User]) -> list[dict[str, Any]]:
    """Who there is, and what they use: for admins."""
    total = Counter(card.user for card in picture.cards)
    active = Counter(card.user for card in picture.cards if card.is_active)
    there = {user.name: user for user in known}
    names = sorted({*there, *total} - {""})
    users = [there.get(name) or User(name, False, None, None) for name in names]
    return [
        {
            "user": user.name,
            "is_admin": user.is_admin,
            "created_at": user.created_at,
            "active": active[user.name],
            "total": total[user.name],
            "gpu_hours": round(picture.gpu_seconds.get(user.name, 0.0) / 3600, 2),
            "last_seen": user.last_seen,
        }
        for user in users
    ]


def _counts(cards: Sequence[Card]) -> dict[str, int]:
    count = dict.fromkeys(("total", *_KINDS), 0)
    count["total"] = len(cards)
    for card in cards:
        count[RUNNING if card.status == STARTING else card.status] += 1
    return count


def _me(picture: Picture, viewer: Viewer, frame: Frame, cards: Sequence[Card]) -> dict[str, Any]:
    own = [card for card in cards if card.user == viewer.user]
    return {
        "user": viewer.user,
        "is_admin": viewer.is_admin,
        "limits": dict(frame.limits),
        "use": {
            "active": sum(card.is_active for card in own),
            "today": sum(card.created_at >= picture.at - DAY for card in own),
            "gpu_hours": round(picture.gpu_seconds.get(viewer.user, 0.0) / 3600, 2),
        },
    }


def _nodes(picture: Picture) -> list[dict[str, Any]]:
    """The machine: how much there is to do is everybody's business, whose it is is not."""
    queued = sum(card.status == QUEUED for card in picture.cards)
    running = sum(card.status in (STARTING, RUNNING) for card in picture.cards)
    state = "down" if picture.trouble is not None else "busy" if running else "idle"
    return [{"name": socket.gethostname(), "state": state, "gpus": len(picture.gpus), "running": running,
             "queued": queued}]  # fmt: skip


# -- GPUs


def _gpu(picture: Picture, viewer: Viewer, frame: Frame, gpu: GpuStatus) -> dict[str, Any]:
    state = frame.samples.get(gpu.device) or gpu.state
    gauge = frame.gauges.get(gpu.device)
    return {
        "index": gpu.index,
        "uuid": gpu.device,
        "name": gpu.name,
        "memory_total": state.memory_total if state else None,
        "memory_used": state.memory_used if state else None,
        "utilization": state.utilization if state else None,
        "temperature": state.temperature if state else None,
        "power": state.power if state else None,
        "slots": gpu.slots,
        "runs": [*_runs(picture, viewer, gpu, state), *_tenants(viewer, frame, gpu)],
        "foreign": [_foreign(viewer, frame, one.user, one.command, one.memory) for one in _strangers(state)],
        "history": gauge.history(time.time()) if gauge else None,
    }


def _runs(picture: Picture, viewer: Viewer, gpu: GpuStatus, state: GpuState | None) -> Iterator[dict[str, Any]]:
    for bar in picture.bars:
        if bar.ended_at is None and gpu.index in bar.gpus:
            card = picture.by_task.get(bar.task_id)
            seen = card if viewer.may_see(card) else None
            yield {
                "job": seen.id if seen else None,
                "user": seen.user if seen else None,
                "name": seen.name if seen else None,
                "since": bar.began_at,
                "memory": _memory(state, bar.run),
            }


def _tenants(viewer: Viewer, frame: Frame, gpu: GpuStatus) -> Iterator[dict[str, Any]]:
    """Runs of other workspaces of this machine."""
    for one in gpu.others:
        known = viewer.is_admin
        yield {"job": None, "user": one.user if known else None, "name": one.task if known else None,
               "since": one.since, "memory": None}  # fmt: skip


def _memory(state: GpuState | None, run_id: str) -> int | None:
    held = [one.memory for one in (state.processes if state else None) or () if one.run == run_id]
    known = [one for one in held if one is not None]
    return sum(known) if held and len(known) == len(held) else None


def _strangers(state: GpuState | None) -> Iterator[Any]:
    return (one for one in (state.processes if state else None) or () if not one.run)


def _foreign(viewer: Viewer, frame: Frame, user: str | None, command: str | None, memory: int | None) -> dict[str, Any]:
    """A process that is no run. One of the server's own user may be a job that has hidden itself."""
    known = viewer.is_admin or (user is not None and user != _own_user())
    return {"user": user if known else None, "command": command if known else None, "memory": memory}


@functools.cache
def _own_user() -> str:
    return user_name(os.geteuid())


class View:
    """What a viewer was sent last, and so what is to be sent next. Shared by all of the viewer's streams."""

    def __init__(self, viewer: Viewer, most: int) -> None:
        self.viewer = viewer
        self._most = most
        self._picture = Picture()
        self._parts: dict[str, str] = {}
        self._jobs: dict[str, Card] = {}
        self._bars: dict[str, Bar] = {}
        self._prospects_at = 0.0  # monotonic: when places and reasons may be sent again
        self.is_behind = False  # whether some were not sent yet

    def begin(self, picture: Picture, frame: Frame) -> str:
        """The scene, from which the changes go on."""
        cards = cards_of(picture, self.viewer)
        self._picture, self._parts = picture, parts_of(picture, self.viewer, frame, cards)
        self._jobs = {card.id: card for card in cards}
        self._bars = {bar.run: bar for bar in picture.bars}
        return scene(picture, self.viewer, frame, self._most)

    def change(self, picture: Picture, frame: Frame) -> str | None:
        """What has changed since; None if nothing has."""
        if picture is self._picture and not self.is_behind:
            parts, said = {"gpus": gpus_of(picture, self.viewer, frame)}, {}
        else:
            cards = cards_of(picture, self.viewer)
            parts, said = parts_of(picture, self.viewer, frame, cards), self._news(picture, cards)
            self._picture = picture
        said.update((key, text) for key, text in parts.items() if self._parts.get(key) != text)
        self._parts.update(parts)
        if not said:
            return None
        return f'{{"now": {time.time()!r}' + "".join(f', "{key}": {text}' for key, text in said.items()) + "}"

    def _news(self, picture: Picture, cards: Sequence[Card]) -> dict[str, str]:
        """The jobs and the runs that were sent otherwise, or never."""
        said = {}
        changed = [card for card in cards if self._is_other(card)]
        moved = [card for card in cards[: self._most] if self._has_moved(card)]
        self.is_behind = bool(moved) and time.monotonic() < self._prospects_at
        if moved and not self.is_behind:
            self._prospects_at = time.monotonic() + PROSPECT_SECONDS
            changed += moved
        gone = self._jobs.keys() - {card.id for card in cards}
        bars = [bar for bar in picture.bars if self._bars.get(bar.run) != bar]
        self._bars = {bar.run: bar for bar in picture.bars}
        self._jobs.update((card.id, card) for card in changed)
        for one in gone:
            del self._jobs[one]
        if changed:
            said["jobs"] = listed(changed)
        if gone:
            said["gone"] = json.dumps(sorted(gone))
        if bars:
            said["runs"] = json.dumps([run(picture, self.viewer, bar) for bar in bars])
        return said

    def _is_other(self, card: Card) -> bool:
        """Whether something has happened to a job since it was sent."""
        before = self._jobs.get(card.id)
        return (
            before is None or before.core != card.core or (card.status != QUEUED and before.prospect != card.prospect)
        )

    def _has_moved(self, card: Card) -> bool:
        """Whether of one that waits its place or what goes with that alone has changed. Far behind in the queue that
        is not told; in front not at each start."""
        before = self._jobs.get(card.id)
        return before is not None and before.core == card.core and before.prospect != card.prospect
