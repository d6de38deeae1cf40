"""Whose turn it is on GPUs that several schedulers of a host share.

Each scheduler decides for itself, with the same rule and the same facts, how many free slots it leaves to others:
the free slots are given out one by one, each to the user who holds the fewest, and of equals to the one whose last
start is the longest ago; among the workspaces of one user by the same two questions. What falls to others is kept
free for them. One that can't start yet, because it needs several GPUs, an emptier one or more memory, has its GPUs
kept from filling up when its turn comes: otherwise a stream of small tasks would starve it. Nobody's turn comes on a
GPU whose memory would not do even if all runs of tinksched there ended.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from .model import Reserved
from .sharing import Demand, Desk


@dataclass(frozen=True, slots=True)
class Ask:
    """Tasks of one kind that wait for nothing but slots."""

    devices: tuple[str, ...]  # on any of these
    gpus: int  # on so many at once
    limit: int  # the most runs on each of them, itself included
    count: int = 1
    memory: int = 0  # bytes that must be free on each of them


@dataclass(frozen=True, slots=True)
class Rival:
    """A scheduler of this host that has tasks waiting."""

    workspace_id: str
    workspace: str  # its path, for people
    user: str
    last_start: float
    asks: tuple[Ask, ...]


@dataclass(frozen=True, slots=True)
class Turns:
    """What to leave to others, by device; and which of them could start at once."""

    reserved: Mapping[str, Reserved]
    ready: frozenset[str]  # workspace ids


def asks_of(demands: Sequence[Demand], desks: Sequence[Desk]) -> tuple[Ask, ...]:
    """The asks of waiting tasks, in their order; equal neighbours are counted together."""
    asks: list[Ask] = []
    for demand in demands:
        able = [desk for desk in desks if desk.could_ever(demand) and desk.can_open(demand)]
        if len(able) < demand.spots:
            continue
        limit = 1 if demand.exclusive else min(desk.gpu.slots for desk in able)
        devices = tuple(desk.gpu.device for desk in able)
        ask = Ask(devices, demand.spots, limit, memory=demand.bytes or 0)
        if asks and replace(asks[-1], count=1) == ask:
            ask = replace(ask, count=asks.pop().count + 1)
        asks.append(ask)
    return tuple(asks)


def turns(me: Rival, others: Sequence[Rival], desks: Sequence[Desk], held: Mapping[tuple[str, str], int]) -> Turns:
    """What `me` leaves to the others of what is free. `held` counts the slots taken by (user, workspace)."""
    rooms = {desk.gpu.device: _Room(desk.used, desk.allowed, desk.available, desk.attainable) for desk in desks}
    contenders = [_Contender(rival, list(rival.asks), held) for rival in (me, *others)]
    users = _Users(contenders, held)
    ready: set[str] = set()
    while contenders:
        first = min(contenders, key=users.rank)
        chosen = first.choose(rooms)
        if not chosen:
            contenders.remove(first)
            continue
        ask = first.asks[0]
        fits = all(room.fits(ask) for room in chosen)
        for room in chosen:
            room.give(ask, None if first.rival is me else first.rival)
        if not fits:  # it waits until they are empty enough
            first.asks.pop(0)
            continue
        if first.rival is not me:
            ready.add(first.rival.workspace_id)
        first.take()
        users.take(first.rival.user, ask.gpus)
    left = {
        device: Reserved(room.reserved, room.user, room.place, room.kept)
        for device, room in rooms.items()
        if room.reserved
    }
    return Turns(left, frozenset(ready))


@dataclass(slots=True)
class _Room:
    """A GPU while its free slots are given out."""

    used: int
    allowed: int
    available: int | None  # bytes
    attainable: int | None  # if all runs of tinksched here ended
    reserved: int = 0
    kept: int = 0  # bytes, for those for whom slots are reserved
    user: str = ""
    place: str = ""

    def could(self, ask: Ask) -> bool:
        """Whether it will have memory enough, once runs have ended."""
        return not ask.memory or (self.attainable is not None and self.attainable >= ask.memory)

    def fits(self, ask: Ask) -> bool:
        enough = not ask.memory or (self.available is not None and self.available >= ask.memory)
        return enough and self.used < min(self.allowed, ask.limit)

    def nearness(self, ask: Ask) -> tuple[bool, int, int]:
        """Who needs it chooses the least: where it fits, then where the least memory is missing, then the emptiest."""
        return (not self.fits(ask), max(0, ask.memory - (self.available or 0)) if ask.memory else 0, self.used)

    def give(self, ask: Ask, rival: Rival | None) -> None:
        """Give one slot, and those that its limit closes to others; all that are free if it can't start there yet.

        What a rival gets is reserved; what this scheduler itself gets (None) is only counted.
        """
        free = max(0, self.allowed - self.used)
        amount = min(free, 1 + max(0, self.allowed - ask.limit)) if self.fits(ask) else free
        self.used += amount
        if self.available is not None:
            self.available -= ask.memory
        if rival is None or not amount:
            return
        self.reserved += amount
        self.kept += ask.memory
        if not self.user:
            self.user, self.place = rival.user, rival.workspace


@dataclass(slots=True)
class _Contender:
    rival: Rival
    asks: list[Ask]
    held_by: Mapping[tuple[str, str], int]
    started: int = 0
    held: int = field(init=False)

    def __post_init__(self) -> None:
        self.held = self.held_by.get((self.rival.user, self.rival.workspace), 0)

    def choose(self, rooms: Mapping[str, _Room]) -> list[_Room]:
        """The GPUs for its first ask: those where it fits, then the emptiest. Nothing if it has no ask left."""
        while self.asks:
            ask = self.asks[0]
            there = [rooms[device] for device in ask.devices if device in rooms and rooms[device].could(ask)]
            if len(there) >= ask.gpus:
                return sorted(there, key=lambda room: room.nearness(ask))[: ask.gpus]
            self.asks.pop(0)
        return []

    def take(self) -> None:
        """One task of its first ask starts."""
        ask = self.asks.pop(0)
        if ask.count > 1:
            self.asks.insert(0, replace(ask, count=ask.count - 1))
        self.held += ask.gpus
        self.started += 1


class _Users:
    """What the users hold and when they last started something, while slots are given out."""

    def __init__(self, contenders: Sequence[_Contender], held: Mapping[tuple[str, str], int]) -> None:
        self._held: dict[str, int] = {}
        for (user, _), count in held.items():
            self._held[user] = self._held.get(user, 0) + count
        self._last: dict[str, float] = {}
        for contender in contenders:
            user = contender.rival.user
            self._last[user] = max(self._last.get(user, 0.0), contender.rival.last_start)
        self._given = 0

    def rank(self, contender: _Contender) -> tuple[float, float, int, float, str]:
        """Who has the lowest goes first. No two are equal: every scheduler must come to the same order."""
        rival = contender.rival
        last = float("inf") if contender.started else rival.last_start
        return (self._held.get(rival.user, 0), self._last[rival.user], contender.held, last, rival.workspace_id)

    def take(self, user: str, slots: int) -> None:
        self._held[user] = self._held.get(user, 0) + slots
        self._given += 1
        self._last[user] = 1e12 + self._given  # later than whatever a clock says
