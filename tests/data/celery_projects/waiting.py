"""Waiting of a project's client, with a bound."""

import time

WAIT = 40
"""Seconds."""


def wait_for(ask, enough):
    """The first answer that is enough."""
    deadline = time.monotonic() + WAIT
    while not enough(answer := ask()):
        assert time.monotonic() < deadline, f"still {answer!r}"
        time.sleep(0.05)
    return answer
