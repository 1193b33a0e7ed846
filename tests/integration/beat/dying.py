"""A daemon that is killed, as by SIGKILL, at one of the arrows between heap, claim and advance.

``python -m tests.integration.beat.dying POINT NUMBER --config beat.toml``: at the NUMBERth claim.
"""

import itertools
import os
import signal
import sys

from beatd.beat.heap import DueHeap
from beatd.cli import main
from beatd.store import claims, script

POINTS = ("before the claim", "claim under way", "claimed, not heard", "heard, not advanced", "advanced")


def die_at(point, number):  # noqa: C901 - four ways to die
    """Put the kill into the way of the ``number``th claim that has runs."""
    counter = itertools.count(1)

    def reached(here):
        return here == point and next(counter) == number

    def die():
        os.kill(os.getpid(), signal.SIGKILL)

    claim, stream, advance = claims.Claims.claim, script.Script.stream, DueHeap.advance

    def dying_claim(self, batches, *, lease_value):
        batches = [list(batch) for batch in batches]
        if any(batches) and reached("before the claim"):
            die()
        for claimed in claim(self, batches, lease_value=lease_value):
            if any(batches) and reached("heard, not advanced"):
                die()
            yield claimed

    def dying_stream(self, calls, *rest):
        calls = list(calls)
        has_runs = any(args.number > 3 for _, args in calls) and "LPUSH" in self._text
        if has_runs and reached("claim under way"):
            connection = self._client.connection_pool.get_connection()
            connection.send_packed_command([self.packed(calls[0], known=False)])
            die()
        answers = stream(self, calls, *rest)
        if has_runs and reached("claimed, not heard"):
            next(answers)
            die()
        return answers

    def dying_advance(self, outcomes):
        advance(self, outcomes)
        if outcomes and reached("advanced"):
            die()

    claims.Claims.claim, script.Script.stream, DueHeap.advance = dying_claim, dying_stream, dying_advance


if __name__ == "__main__":
    die_at(sys.argv[1], int(sys.argv[2]))
    sys.argv[1:3] = []
    main()
