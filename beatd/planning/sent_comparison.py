"""Comparison of two lists of runs of an entry: which of one have no partner in the other, near enough in time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple


class Unmatched(NamedTuple):
    """Runs (ms) that only the one or the other has, and how many both have."""

    only_first: tuple[int, ...]
    only_second: tuple[int, ...]
    both: int

    def between(self, since_ms: int, until_ms: int) -> Unmatched:
        """Only those in a span: next to its ends a partner may lie outside of what is known."""
        first, second = (
            tuple(ms for ms in runs if since_ms <= ms <= until_ms) for runs in (self.only_first, self.only_second)
        )
        return Unmatched(first, second, self.both)


def match(first: Sequence[int], second: Sequence[int], within_ms: int) -> Unmatched:
    """Match runs in their order: two are the same if they are no further apart than ``within_ms``."""
    one, two = sorted(first), sorted(second)
    only_first, only_second = [], []
    at_one = at_two = both = 0
    while at_one < len(one) and at_two < len(two):
        distance = two[at_two] - one[at_one]
        if abs(distance) <= within_ms:
            both, at_one, at_two = both + 1, at_one + 1, at_two + 1
        elif distance > 0:
            only_first.append(one[at_one])
            at_one += 1
        else:
            only_second.append(two[at_two])
            at_two += 1
    return Unmatched((*only_first, *one[at_one:]), (*only_second, *two[at_two:]), both)
