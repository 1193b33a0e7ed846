"""Shutdown: warm, soft or cold, in Celery's words. Signals and remote control ask for it, the loop reads it.

Warm: nothing more is taken, what runs is finished, for as long as the grace lasts. Soft: the same, with a time of its
own, on the way to the cold end. Cold: what runs is ended and given back. A second wish makes the first more urgent.
"""

from __future__ import annotations

import enum
import logging
import math
from collections.abc import Callable

log = logging.getLogger("celery.worker")


class Phase(enum.Enum):
    RUNNING = "running"
    WARM = "Warm"
    SOFT = "Soft"
    COLD = "Cold"


class Shutdown:
    """The phase that a worker is in.

    ``grace_s`` bounds a warm end; ``soft_s`` is how long a soft one lasts, 0 for none, ``soft_on_idle`` also with
    nothing to wait for.
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
        self.phase = Phase.RUNNING

    def ask(self, *, cold: bool = False) -> Phase:
        """Have the worker end; returns how. May be called from signal handlers."""
        phase = self.next(cold=cold)
        if phase is not Phase.COLD:
            self._until = self._monotonic() + (self._grace_s if phase is Phase.WARM else self.soft_s)
        self.phase = phase
        return phase

    def next(self, *, cold: bool) -> Phase:
        """The phase that :meth:`ask` would lead to."""
        if self.phase is Phase.RUNNING and not cold:
            return Phase.WARM
        return Phase.SOFT if self.phase in (Phase.RUNNING, Phase.WARM) and self.soft_s > 0 else Phase.COLD

    @property
    def begun(self) -> bool:
        """True if nothing more is to be taken."""
        return self.phase is not Phase.RUNNING

    def is_over(self, *, busy: bool) -> bool:
        """True if the worker is to leave now; a time that has run out makes the shutdown a cold one."""
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
        return not busy and not (self.phase is Phase.SOFT and self._soft_on_idle)

    def due_in(self) -> float:
        """Seconds until the time of this phase has run out."""
        return self._until - self._monotonic() if self.phase in (Phase.WARM, Phase.SOFT) else math.inf
