"""Command handler: carries out commands that operators give this daemon through the store (reload, step down)."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

from beatd.clock import Backoff
from beatd.exceptions import StoreError, StoreRefused
from beatd.store.daemon_commands import CommandReply, DaemonCommands

log = logging.getLogger("beatd.beat")


class CommandHandler:
    """Carries out each command for this daemon once, except those sent before it started.

    ``reload`` starts reading the files; the reader calls :meth:`begin` and :meth:`end`, and the command is answered
    with the result of an attempt that began after it. ``step_down`` is called with the seconds.
    """

    def __init__(
        self, commands: DaemonCommands, me: str, *, reload: Callable[[], None], step_down: Callable[[float], None]
    ) -> None:
        self._commands = commands
        self._me = me
        self._reload = reload
        self._step_down = step_down
        self._seen: set[str] | None = None
        self._changing = threading.Lock()
        self._waiting: set[str] = set()
        self._under_way: set[str] = set()
        self._refusals = Backoff(1.0, 1.0)

    def look(self) -> None:
        """Read new commands and begin to carry them out. Raises :class:`~beatd.exceptions.StoreUnavailable`.

        A refusal concerns commands only, and is logged: entries in the store are followed all the same.
        """
        try:
            recent = self._commands.recent()
        except StoreRefused as error:
            self._refusals.failed()
            text = "Commands to daemons cannot be read%s: %s"
            log.log(
                self._refusals.level, text, self._refusals.since_text, error, extra={"event": "commands_unreadable"}
            )
            return
        if self._refusals.attempts:
            log.info("Commands to daemons can be read again", extra={"event": "commands_readable"})
        self._refusals.succeeded()
        new = recent.keys() - (recent.keys() if self._seen is None else self._seen)
        self._seen = set(recent)
        for command_id in new:
            command = recent[command_id]
            if command.what == "reload":
                log.info("Told to read the schedule again", extra={"event": "reload_asked"})
                with self._changing:
                    self._waiting.add(command_id)
                self._reload()
            elif command.daemon == self._me:
                seconds = command.rest_ms / 1000
                text = "Told to step down, and not to lead for %g s while another daemon can"
                log.info(text, seconds, extra={"event": "step_down_asked", "seconds": seconds})
                self._step_down(seconds)

    def begin(self) -> None:
        """Note that the files are about to be read."""
        with self._changing:
            self._under_way |= self._waiting
            self._waiting.clear()

    def end(self, answer: CommandReply) -> None:
        """Answer the reloads that were waiting: the files have been read, and are in force unless they are invalid."""
        with self._changing:
            done, self._under_way = self._under_way, set()
        for command_id in done:
            try:
                self._commands.answer(command_id, self._me, answer)
            except StoreError as error:
                log.warning("A command cannot be answered: %s", error, extra={"event": "answer_lost"})
