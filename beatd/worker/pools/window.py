"""How far ahead of the work each process or thread is supplied: some milliseconds' worth, whatever the tasks take."""

from __future__ import annotations

_AHEAD_S = 0.02
_DEEPEST = 64
_WEIGHT = 0.05


class Window:
    """Learns from the run times. Long tasks are handed out one by one: none waits behind another for nothing."""

    def __init__(self) -> None:
        self._mean: float | None = None

    def observe(self, runtime: float) -> None:
        """Take note of a run time (seconds). A long one counts at once, short ones have to become the rule."""
        if self._mean is None or runtime > self._mean * 8:
            self._mean = max(runtime, 1e-6)
        else:
            self._mean += _WEIGHT * (runtime - self._mean)

    @property
    def depth(self) -> int:
        """How many jobs one process should hold, the running one included."""
        if self._mean is None:
            return 1
        return max(1, min(_DEEPEST, int(_AHEAD_S / max(self._mean, 1e-6))))
