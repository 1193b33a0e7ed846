"""Shutdown of a worker: warm, soft or cold, as in Celery. Signals and remote control request it, the loop reads it.

Warm: take nothing more and finish the running tasks, within the grace period. Soft: the same with a limit of its own,
before the cold shutdown. Cold: end the running tasks and give them back. A second request is more urgent.
"""

from __future__ import annotations

import enum
import logging
import math
from collections.abc import Callable

log = logging.getLogger("celery.worker")


_SETTLE_S = 10.0
"""Time that a warm shutdown without running tasks has to store results and publish callbacks."""


class Phase(enum.Enum):
    RUNNING = "running"
    WARM = "Warm"
    SOFT = "Soft"
    COLD = "Cold"


class Shutdown:
    """The shutdown phase of a worker.

    ``grace_s`` bounds a warm shutdown. ``soft_s`` is the length of a soft one, 0 for none; ``soft_on_idle``: also while
    no task runs.
    """

    def __init__(
        self,
        monotonic: Callable[[], float],
        *,
        grace_s: float | None = None,
        soft_s: float = 0.0,
        soft_on_idle: bool = False,
    ) -> None:
        self._monotonic = monotonic
        self._grace_s = math.inf if grace_s is None else grace_s
        self.soft_s = soft_s
        self._soft_on_idle = soft_on_idle
        self._until = math.inf
        self._settle_until: float | None = None
        self.phase = Phase.RUNNING

    def request(self, *, cold: bool = False) -> Phase:
        """Enter the next phase and return it. May be called from signal handlers."""
        phase = self.next(cold=cold)
        if phase is not Phase.COLD:
            self._until = self._monotonic() + (self._grace_s if phase is Phase.WARM else self.soft_s)
        self.phase = phase
        return phase

    def next(self, *, cold: bool) -> Phase:
        """Return the phase that :meth:`request` would enter."""
        if self.phase is Phase.RUNNING and not cold:
            return Phase.WARM
        return Phase.SOFT if self.phase in (Phase.RUNNING, Phase.WARM) and self.soft_s > 0 else Phase.COLD

    @property
    def begun(self) -> bool:
        """True if no more messages are taken."""
        return self.phase is not Phase.RUNNING

    def is_over(self, *, busy: bool, unsettled: bool = False) -> bool:
        """True if the worker stops now; at the end of the grace period the shutdown becomes cold.

        ``busy``: tasks run. ``unsettled``: results, callbacks or acknowledgements could not be sent yet; they delay the
        end by a few seconds at most.
        """
        if self.phase in (Phase.RUNNING, Phase.COLD):
            return self.phase is Phase.COLD
        if self.due_in() <= 0:
            log.warning(
                "worker: Cold shutdown (MainProcess): the time for a %s one is over",
                self.phase.value.lower(),
                extra={"event": "worker_stopping", "how": Phase.COLD.value},
            )
            self.phase = Phase.COLD
            return True
        if busy or (self.phase is Phase.SOFT and self._soft_on_idle):
            return False
        if not unsettled:
            return True
        if self._settle_until is None:
            self._settle_until = self._monotonic() + _SETTLE_S
        return self._monotonic() >= self._settle_until

    def due_in(self) -> float:
        """Return the seconds until the end of this phase."""
        return self._until - self._monotonic() if self.phase in (Phase.WARM, Phase.SOFT) else math.inf
