"""``python -m tests.chaos --seconds 300 --seed 7``: break everything, and count."""

from __future__ import annotations

import argparse
import secrets
import sys

from tests.chaos.faults import FAULTS
from tests.chaos.run import run


def main() -> int:
    parser = argparse.ArgumentParser(prog="tests.chaos", description=__doc__)
    parser.add_argument("--seconds", type=float, default=300)
    parser.add_argument("--seed", type=int, default=secrets.randbelow(1_000_000), help="the choices of another run")
    parser.add_argument("--ttl", type=int, default=5_000, help="of the lease (ms)")
    parser.add_argument("--longest", type=float, default=40, help="seconds for which a daemon may be frozen")
    parser.add_argument("--power-loss", action="store_true", help="everysec: the store forgets its last second")
    parser.add_argument("--faults", nargs="+", choices=sorted(set(FAULTS)), default=FAULTS, help="only these")
    parser.add_argument("--store", choices=("redis", "valkey"), default="redis")
    given = parser.parse_args()
    print(f"seed {given.seed}, {given.seconds:g} s", flush=True)
    result = run(
        given.seconds,
        given.seed,
        ttl_ms=given.ttl,
        longest=given.longest,
        power_loss=given.power_loss,
        kinds=given.faults,
        store_kind=given.store,
    )
    for fault in result.faults:
        print(f"  {fault}")
    print(result)
    if not result.good:
        account = result.account
        print(f"lost {account.lost[:10]}\ndoubled {account.doubled[:10]}\nstrange {account.strange[:10]}")
        print(f"logs: {result.folder}")
    return 0 if result.good else 1


if __name__ == "__main__":
    sys.exit(main())
