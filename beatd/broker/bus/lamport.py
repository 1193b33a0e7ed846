"""Lamport's logical clock, by which monitors order events of different workers."""

from __future__ import annotations


class LamportClock:
    """Counts what this process sends, and is never behind what it has heard. For one thread."""

    def __init__(self) -> None:
        self.value = 0

    def forward(self) -> int:
        """The time of the next thing that is sent."""
        self.value += 1
        return self.value

    def adjust(self, heard: object) -> int:
        """Take note of the time on something that was received; what is no time is let pass."""
        if isinstance(heard, int) and not isinstance(heard, bool) and 0 <= heard < _ABSURD:
            self.value = max(self.value, heard)
        return self.forward()


_ABSURD = 1 << 62
"""A value that a counter cannot have reached: believing it would break the clocks of all who hear of it."""
