"""The other instances that are known, and the parts of users they wrote. Reads only, and keeps no time."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from gateway.presence.written import Keys, Part, Record
from gateway.redis_link import Link


@dataclass(frozen=True, slots=True)
class Written:
    """What stands in Redis of one user: parts of other instances that live, and the names of those that do not."""

    parts: tuple[tuple[Record, Part], ...] = ()
    dead: tuple[str, ...] = ()

    def elsewhere(self) -> Iterator[tuple[Record, Part]]:
        """Where else the user is online."""
        return ((record, part) for record, part in self.parts if part.sessions and not record.gone)

    @property
    def since(self) -> int | None:
        """Since when another instance has had the user, those included that ended in order a moment ago."""
        return min((part.since for _, part in self.parts), default=None)


class Roll:
    """As of the last ``take``. An instance met in between is looked up when it is met; one that is dead stays dead."""

    def __init__(self, link: Link, keys: Keys) -> None:
        self._link, self._keys = link, keys
        self._known: dict[str, Record | None] = {}
        self.settling = False

    async def take(self, members: Iterable[str], *, settling: bool, within: float) -> tuple[str, ...]:
        """Look up ``members``, all that there are but our own. Those of them that are dead."""
        fresh: dict[str, Record | None] = dict.fromkeys(members)
        await self._look_up(fresh, within=within)
        self._known, self.settling = fresh, settling
        return tuple(instance for instance, record in fresh.items() if record is None)

    async def read(self, user_ids: Sequence[str], *, own: str, within: float) -> tuple[bool, list[Written | None]]:
        """What is written of each user; None: it could not be read. And whether our own record stands, as it should.

        One round trip, or two if an instance is met for the first time. Raises Unreached.
        """
        keys = self._keys
        standing, *answers = await self._link.send(
            [("GET", keys.record(own)), *(("HGETALL", keys.user(user_id)) for user_id in user_ids)], within=within
        )
        strangers: dict[str, Record | None] = {
            name: None
            for answer in answers
            if isinstance(answer, dict)
            for raw in answer
            if (name := raw.decode(errors="replace")) not in self._known and name != own
        }
        if strangers:
            await self._look_up(strangers, within=within)
            self._known.update(strangers)
        return standing is not None, [self._written(answer, own) for answer in answers]

    async def _look_up(self, instances: dict[str, Record | None], *, within: float) -> None:
        if instances:
            answers = await self._link.send(
                [("GET", self._keys.record(instance)) for instance in instances], within=within
            )
            for instance, raw in zip(instances, answers, strict=True):
                instances[instance] = Record.load(raw if isinstance(raw, bytes) else None)

    def _written(self, answer: Any, own: str) -> Written | None:
        if not isinstance(answer, dict):
            return None
        parts = []
        dead = []
        for field, raw in answer.items():
            instance = field.decode(errors="replace")
            if instance == own:
                continue
            record, part = self._known.get(instance), Part.load(raw)
            if record is None or part is None:
                dead.append(instance)
            else:
                parts.append((record, part))
        return Written(tuple(parts), tuple(dead))

    @property
    def living(self) -> Sequence[Record]:
        return [record for record in self._known.values() if record is not None and not record.gone]

    @property
    def whole(self) -> bool:
        """Whether all that live have written all their users: only then is somebody who is not found offline."""
        return not self.settling and all(record.whole for record in self.living)
