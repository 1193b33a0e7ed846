"""Cost of a message for clusters of some nodes and some shards: claimed into the outbox, read, and struck off.

    python benchmarks/cluster.py [-n 40000] [--store valkey]

Microseconds of processor time for each message: of this process, and of all nodes together. Flat from 1 to 8 shards and
from 1 to 3 nodes means that neither costs anything. "plain" is a server that is no cluster.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from beatd.store.claims import Claim, Claims
from beatd.store.client import connect
from beatd.store.keys import Keys, shard_of
from beatd.store.lease import Leases
from beatd.store.outbox import Outbox
from tests.clusters import Cluster
from tests.conftest import Server, server_binary

BATCH = 500
MESSAGE = b"x" * 700


def server_s(servers: Sequence[Server]) -> float:
    """Processor time (s) that the servers have taken."""
    ticks = 0
    for server in servers:
        fields = Path(f"/proc/{server.pid}/stat").read_text().rpartition(")")[2].split()
        ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


def cost(url: str, servers: Sequence[Server], shards: int, messages: int) -> tuple[float, float, float]:
    """Microseconds a message: of this process, of the servers, and of the clock on the wall."""
    with connect(url) as client:
        keys = Keys("beatd", parts=shards if "cluster" in url else 1)
        leases = Leases(client, keys, daemon_id="d", ttl_ms=600_000)
        tokens = leases.take(range(shards))
        names = [f"entry-{number}" for number in range(5_000)]
        parts = [[name for name in names if shard_of(name, shards) == shard] for shard in range(shards)]
        sides = [
            (Claims(client, keys, shard=shard, shards=shards), Outbox(client, keys, shard=shard, shards=shards))
            for shard in range(shards)
        ]
        done, due_ms = 0, 1_790_000_000_000
        own, theirs, wall = time.process_time(), server_s(servers), time.perf_counter()
        while done < messages:
            due_ms += 1_000
            for shard, (claims, outbox) in enumerate(sides):
                value = leases.value(tokens[shard])
                runs = [Claim(name, due_ms, outbox.key, MESSAGE) for name in parts[shard]]
                for start in range(0, len(runs), BATCH):
                    list(claims.claim([runs[start : start + BATCH]], lease_value=value))
                    outbox.strike(outbox.oldest(BATCH), lease_value=value)
                done += len(runs)
        spent = (time.process_time() - own, server_s(servers) - theirs, time.perf_counter() - wall)
    return tuple(1e6 * seconds / done for seconds in spent)  # type: ignore[return-value]


def figures(kind: str, messages: int) -> Iterator[tuple[str, int, tuple[float, float, float]]]:
    binary = server_binary(kind)
    assert binary is not None, f"no {kind}-server here"
    with contextlib.closing(Server(binary)) as plain:
        for shards in (1, 8):
            plain.start().flush()
            yield "plain", shards, cost(plain.url, [plain], shards, messages)
    for nodes in (1, 2, 3):
        with contextlib.closing(Cluster(kind, nodes, arguments=("--appendonly", "no"))) as cluster:
            for shards in (1, 2, 4, 8):
                cluster.reset()
                yield f"{nodes} nodes", shards, cost(cluster.url, cluster.servers, shards, messages)


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-n", type=int, default=40_000, help="messages for each figure")
    parser.add_argument("--store", default="redis", choices=("redis", "valkey"))
    chosen = parser.parse_args()
    print(f"{'servers':<10} {'shards':>6} {'client µs':>10} {'servers µs':>11} {'wall µs':>8}")
    for what, shards, (own, theirs, wall) in figures(chosen.store, chosen.n):
        print(f"{what:<10} {shards:>6} {own:>10.1f} {theirs:>11.1f} {wall:>8.1f}", flush=True)


if __name__ == "__main__":
    main()
