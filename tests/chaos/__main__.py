"""``python -m tests.chaos --seconds 300 --seed 7``: break everything, and count."""

from __future__ import annotations

import argparse
import secrets
import sys

from tests.chaos.cluster import MASTERS
from tests.chaos.run import Result, Trial, run


def main() -> int:
    parser = argparse.ArgumentParser(prog="tests.chaos", description=__doc__)
    parser.add_argument("--seconds", type=float, default=300)
    parser.add_argument("--seed", type=int, default=secrets.randbelow(1_000_000), help="the choices of another run")
    parser.add_argument("--cluster", type=int, default=0, choices=(3, 6, 9), help="nodes; from 6 on with replicas")
    parser.add_argument("--wait-replicas", type=int, help="of a cluster; default: 1 with replicas")
    parser.add_argument(
        "--broker", choices=("store", "redis", "rabbitmq"), help="default: the store; of a cluster redis"
    )
    parser.add_argument("--shards", type=int, help="default: 1; of a cluster 3")
    parser.add_argument("--size", type=int, help="seven runs a second for each; default: 100, with a broker 50")
    parser.add_argument("--ttl", type=int, default=5_000, help="of the lease (ms)")
    parser.add_argument("--longest", type=float, default=40, help="seconds for which a daemon may be frozen")
    parser.add_argument("--power-loss", action="store_true", help="everysec: the store forgets its last second")
    parser.add_argument("--faults", nargs="+", default=(), help="only these")
    parser.add_argument("--older", default="", help="a checkout of another version: two of the daemons are of that")
    parser.add_argument("--keep", action="store_true", help="keep the logs, although all is well")
    parser.add_argument("--store", choices=("redis", "valkey"), default="redis")
    given = parser.parse_args()
    broker = given.broker or ("redis" if given.cluster else "store")
    if given.power_loss and (broker != "store" or given.cluster):
        parser.error("what a store that loses power does to another broker is not accounted for")
    if given.cluster and broker == "store":
        parser.error("a cluster is no broker")
    replicated = given.cluster > MASTERS
    trial = Trial(
        given.seconds,
        given.seed,
        ttl_ms=given.ttl,
        longest=given.longest,
        broker=broker,
        cluster=given.cluster,
        wait_replicas=int(replicated) if given.wait_replicas is None else given.wait_replicas,
        shards=given.shards or (3 if given.cluster else 1),
        size=given.size or (100 if broker == "store" else 50),
        power_loss=given.power_loss,
        kinds=tuple(given.faults),
        store=given.store,
        older=given.older,
        keep=given.keep,
    )
    if unknown := set(given.faults) - set(trial.all_faults):
        parser.error(f"not a fault of this installation: {', '.join(sorted(unknown))}")
    print(f"seed {given.seed}, {given.seconds:g} s", flush=True)
    result = run(trial)
    for fault in result.faults:
        print(f"  {fault}")
    print(result)
    if not result.good:
        _tell(result)
    if given.keep or not result.good:
        print(f"logs: {result.folder}")
    return 0 if result.good else 1


def _tell(result: Result) -> None:
    account, executions = result.account, result.executions
    print(f"lost {account.lost[:10]}\ndoubled {account.doubled[:10]}\nstrange {account.strange[:10]}")
    if executions is not None:
        print(f"not executed {executions.missing[:10]}\nexecuted twice {executions.twice[:10]}")


if __name__ == "__main__":
    sys.exit(main())
