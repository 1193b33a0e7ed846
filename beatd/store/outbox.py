"""The outbox: messages that were claimed and that the broker has not confirmed yet.

It is a list of envelopes like any queue on Redis, so that the same claim fills it in the same step.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from hashlib import sha1
from types import MappingProxyType
from typing import Any, NamedTuple, TypeGuard, cast

import redis

from beatd.exceptions import StoreRefused
from beatd.redaction import encodable, redacted_text
from beatd.store import history
from beatd.store.client import translate_errors
from beatd.store.dead_letters import BOUNDS, Bounds, DeadLetters, decode
from beatd.store.keys import SHARDS_MAX, Keys
from beatd.store.outcomes import Ended, note_arguments
from beatd.store.run_record import REFUSED, RunRecord, encoded
from beatd.store.script import Script, translate_script_errors
from beatd.store.topology import slot_of

INHERIT_AT_ONCE = 10_000
"""Messages moved in one call from the outboxes of former shards: keeps the store busy for some milliseconds."""

SLICE = 500
"""Messages read at once to look for one of them."""

REFUSED_KEPT_MS = 24 * 3_600_000
REASON_MAX = 300
"""How long the reason of a refusal is kept, and how many characters of it."""


class Undeliverable(NamedTuple):
    """A message of the outbox that nobody will ever take: its dead letter (see
    :func:`beatd.store.dead_letters.encode`), and the reason."""

    letter: bytes
    reason: str
    headers: Mapping[str, Any] = MappingProxyType({})
    """The headers of a message that the broker refused: of a scheduler's run, the history shows that it was."""


def holds(client: redis.Redis, key: str, run_id: str) -> bool:
    """True if the run's message is in the outbox at ``key``: the broker has not confirmed or refused it yet.

    Read in slices. Messages come in on the left and leave on the right, so none is missed in between.
    """
    wanted, start = run_id.encode(), 0
    try:
        with translate_errors(client):
            while envelopes := cast("list[bytes]", client.lrange(key, start, start + SLICE - 1)):
                if any(wanted in raw for raw in envelopes):
                    return True
                start += SLICE
    except StoreRefused:  # no outbox of ours: where the store is the broker, none is needed
        return False
    return False


def _is_text(value: object) -> TypeGuard[str]:
    return isinstance(value, str) and value == encodable(value)


class Outbox:
    """One shard's outbox. Raises the errors of :class:`~beatd.store.claims.Claims`."""

    def __init__(
        self, client: redis.Redis, keys: Keys, *, shard: int = 0, shards: int = 1, dead_letters: Bounds = BOUNDS
    ) -> None:
        self._client = client
        self._bounds = dead_letters
        former = [keys.shard(number) for number in range(shard + shards, SHARDS_MAX, shards) if keys.parts == 1]
        self._former = [key for each in former for key in (each.lease, each.outbox)]
        own = keys.shard(shard)
        self._lease, self._counted = own.lease, [own.tally, own.fingerprints]
        shared = keys.workers()
        self._part = own
        self._dead_letters = [shared.dead_letters, shared.dead_letters_size]
        self._elsewhere = (
            DeadLetters(client, keys, bounds=dead_letters)
            if slot_of(own.outbox) != slot_of(shared.dead_letters)
            else None
        )
        """The dead letters, if they are in another slot than the outbox."""
        self.key = keys.shard(shard).outbox
        """The list that claims push to."""
        self._strike = Script(client, "outbox_strike")
        self._inherit = Script(client, "outbox_inherit")
        self._note_ends = Script(client, "note_ends")

    def inherit(self, *, lease_value: str) -> bool:
        """Take over what is left in the outboxes of shards that there were when there were more of them.

        Tells whether nothing of that kind is left; it is when somebody still leads such a shard.
        """
        if not self._former:
            return True
        keys = [self._lease, self.key, *self._former]
        while True:
            moved, left = self._inherit(keys, [lease_value, INHERIT_AT_ONCE])
            if moved < INHERIT_AT_ONCE:
                return not left

    def oldest(self, count: int) -> list[bytes]:
        """Up to ``count`` envelopes, the oldest first."""
        with translate_script_errors(self._client, [self.key]):
            newest_first: list[Any] = self._client.lrange(self.key, -count, -1)
        return newest_first[::-1]

    def strike(self, envelopes: Sequence[bytes], dead: Sequence[Undeliverable] = (), *, lease_value: str) -> int:
        """Remove ``envelopes``, which :meth:`oldest` returned; add those that are ``dead`` to the dead letters.

        Returns how many messages are left. Nothing happens if the oldest are others by now, so that a request which the
        network delayed cannot take out what came after.
        """
        refused = self._note_refused([message for message in dead if message.headers])
        letters = [message.letter for message in dead]
        if self._elsewhere is not None and letters:
            # first, and each once: a repeat of this after an error finds them there
            self._elsewhere.remove([decode(letter) for letter in letters])
            self._elsewhere.add(letters)
            letters = []
        own_letters = self._counted if self._elsewhere is not None else self._dead_letters
        keys = [self._lease, self.key, *own_letters, *self._counted]
        digest = sha1(b"".join(envelopes), usedforsecurity=False).hexdigest()
        first = [lease_value, len(envelopes), digest, self._bounds.kept, self._bounds.kept_bytes, len(refused)]
        counted = (text for pair in refused for text in pair)
        return int(self._strike(keys, [*first, *counted, *letters]))

    def _note_refused(self, messages: Sequence[Undeliverable]) -> list[tuple[str, str]]:
        """Note in the histories of entries which runs the broker refused, and why. Before they leave the outbox: a run
        that is not in there any more was confirmed, or is noted as refused.

        Returns the entry of each run, and the word under which the tally counts it.
        """
        ended, reasons = list[Ended](), list[str]()
        for message in messages:
            names = ("id", "beatd-entry", "beatd-due-at", "beatd-after")
            run_id, entry, due_at, after = (message.headers.get(name) for name in names)
            if _is_text(run_id) and _is_text(entry):
                reason = redacted_text(message.reason, at_most=REASON_MAX)
                record = RunRecord(run_id=run_id, state=REFUSED, end_ms=0, type="Refused", message=reason)
                due = due_at if isinstance(due_at, str) else None
                after_ms = after if isinstance(after, int) else None
                ended.append(Ended(run_id, entry, due, REFUSED, record=encoded(record), after_ms=after_ms))
                reasons.append(reason)
        if not ended:
            return []
        kinds = self._note_ends(*note_arguments(self._part, ended, kept_ms=REFUSED_KEPT_MS, refusals=reasons))
        return [(end.entry, history.refused_word(kind)) for end, kind in zip(ended, kinds, strict=True)]
