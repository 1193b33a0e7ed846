"""``python -m tests.chaos --seconds 300 --seed 7``: break everything, and count."""

from __future__ import annotations

import argparse
import secrets
import sys

from tests.chaos.broker_faults import BROKER_FAULTS
from tests.chaos.run import Result, Trial, run


def main() -> int:
    parser = argparse.ArgumentParser(prog="tests.chaos", description=__doc__)
    parser.add_argument("--seconds", type=float, default=300)
    parser.add_argument("--seed", type=int, default=secrets.randbelow(1_000_000), help="the choices of another run")
    parser.add_argument("--broker", choices=("store", "rabbitmq"), default="store")
    parser.add_argument("--shards", type=int, default=1)
    parser.add_argument("--size", type=int, help="seven runs a second for each; default: 100, with RabbitMQ 50")
    parser.add_argument("--ttl", type=int, default=5_000, help="of the lease (ms)")
    parser.add_argument("--longest", type=float, default=40, help="seconds for which a daemon may be frozen")
    parser.add_argument("--power-loss", action="store_true", help="everysec: the store forgets its last second")
    parser.add_argument("--faults", nargs="+", choices=sorted(set(BROKER_FAULTS)), default=(), help="only these")
    parser.add_argument("--store", choices=("redis", "valkey"), default="redis")
    given = parser.parse_args()
    if given.power_loss and given.broker != "store":
        parser.error("what a store that loses power does to another broker is not accounted for")
    print(f"seed {given.seed}, {given.seconds:g} s", flush=True)
    result = run(
        Trial(
            given.seconds,
            given.seed,
            ttl_ms=given.ttl,
            longest=given.longest,
            broker=given.broker,
            shards=given.shards,
            size=given.size or (100 if given.broker == "store" else 50),
            power_loss=given.power_loss,
            kinds=tuple(given.faults),
            store=given.store,
        )
    )
    for fault in result.faults:
        print(f"  {fault}")
    print(result)
    if not result.good:
        _tell(result)
    return 0 if result.good else 1


def _tell(result: Result) -> None:
    account, executions = result.account, result.executions
    print(f"lost {account.lost[:10]}\ndoubled {account.doubled[:10]}\nstrange {account.strange[:10]}")
    if executions is not None:
        print(f"not executed {executions.missing[:10]}\nexecuted twice {executions.twice[:10]}")
    print(f"logs: {result.folder}")


if __name__ == "__main__":
    sys.exit(main())
