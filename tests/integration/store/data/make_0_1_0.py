"""Fill a Redis by the code of version 0.1.0, and write its contents as JSON: ``store_0_1_0.json``.

    PYTHONPATH=<a checkout of 0.1.0> python make_0_1_0.py redis://127.0.0.1:6379/0 > store_0_1_0.json

The database is flushed. Times to live are left out: the test is to find the keys years later.
"""

# ruff: noqa
# mypy: ignore-errors
import json
import sys

from beatd.clock import SystemClock
from beatd.message import build, envelope
from beatd.model import run_id
from beatd.store import records
from beatd.store.claims import Claim, Claims, Gap
from beatd.store.client import connect
from beatd.store.keys import Keys
from beatd.store.lease import Leases
from beatd.store.outbox import DeadLetter, Outbox
from beatd.store.registry import Registry, Status
from beatd.store.requests import Answer, Backfill, Parcel, Requests, Step, Trigger
from beatd.store.results import RedisResults, Stored
from beatd.store.revoked import RevokedStore
from beatd.store.runtime import Pause, Runtime
from beatd.store.waiting_messages import Waiting, WaitingMessages
from beatd.epoch import iso_ms
from beatd.worker.consumers.redis import RedisConsumer
from beatd.worker.finished import Ended, FinishedRuns

NOW, DAY = 1_790_000_000_000, 86_400_000
YEARS = 100 * 365 * DAY
KEYS = Keys()
URL = sys.argv[1]
client = connect(URL)
client.flushdb()


def message(task, task_id, **more):
    return envelope(build(task, task_id, ["ä"], **more), queue="celery", exchange="")


leases = Leases(client, KEYS, daemon_id="old-host-1-aaaaaaaa", ttl_ms=60_000)
leases.release(leases.take([0]))
lease = leases.value(leases.take([0])[0])

claims = Claims(client, KEYS)
entries = [
    ("tick", "every 30 s"),
    ("näme with spaces", "off every 60 s"),
    ("changed", "old"),
    ("outboxed", "x"),
    ("gone", "x"),
]
list(claims.adopt(entries, lease_value=lease, now_ms=NOW))
claims.pass_over([Gap("tick", NOW, NOW + 60_000)], lease_value=lease)
cells = records.Cells()
runs = [
    Claim(
        "tick",
        NOW + 60_000,
        "celery",
        message("t", run_id("tick", NOW + 60_000)),
        "",
        cells.sent(NOW + 60_000, NOW + 60_000, NOW + 60_005),
    ),
    Claim(
        "tick",
        NOW + 90_000,
        "celery",
        message("t", run_id("tick", NOW + 90_000)),
        f"{run_id('tick', NOW + 90_000)} {NOW + 150_000}",
        cells.sent(NOW + 90_000, NOW + 90_500, NOW + 95_000),
    ),
    Claim("tick", NOW + 120_000, record=records.skipped("overlap", NOW + 120_000, NOW + 120_000, NOW + 120_001)),
    Claim(
        "outboxed",
        NOW + 60_000,
        KEYS.shard().outbox,
        message("t", run_id("outboxed", NOW + 60_000)),
        "",
        cells.sent(NOW + 60_000, NOW + 60_000, NOW + 60_000),
    ),
    Claim(
        "outboxed",
        NOW + 90_000,
        KEYS.shard().outbox,
        message("t", run_id("outboxed", NOW + 90_000)),
        "",
        cells.sent(NOW + 90_000, NOW + 90_000, NOW + 90_000),
    ),
]
list(claims.claim([runs], lease_value=lease))
claims.sweep([name for name, _ in entries if name != "gone"], lease_value=lease, now_ms=NOW, keep_ms=30 * DAY)

outbox = Outbox(client, KEYS)
[oldest] = outbox.oldest(1)
outbox.strike([oldest], [DeadLetter(oldest, iso_ms(NOW), "no queue gets it", "celery")], lease_value=lease)

requests = Requests(client, KEYS)
requests.ask("done", Trigger(entry="tick", by="me"), good_for_ms=YEARS)
[asked] = requests.open()
triggered = records.by_hand(records.TRIGGERED, NOW + 130_000, NOW + 130_000, "00000000-0000-4000-8000-000000000001")
step = Step(
    Answer(state="done", entry="tick", run_id="00000000-0000-4000-8000-000000000001", total=1, sent=1),
    None,
    [Parcel("00000000-0000-4000-8000-000000000001", message("t", "00000000-0000-4000-8000-000000000001"), triggered)],
    "celery",
    "",
    "triggered",
)
requests.step(asked, step, lease_value=lease)
requests.ask(
    "pending",
    Backfill(entry="tick", by="me", from_ms=NOW, to_ms=NOW + 60_000, rate=10.0, at_most=100),
    good_for_ms=YEARS,
)

FinishedRuns(URL, KEYS).remember([Ended(run_id("tick", NOW + 60_000), "tick", iso_ms(NOW + 60_000), "SUCCESS", 1.5)])

runtime = Runtime(client, KEYS)
runtime.put("from-store", {"task": "t", "schedule": 30})
runtime.put("removed", {"task": "t", "schedule": 30})
runtime.remove("removed")
runtime.pause(["tick"], Pause(since_ms=NOW, by="me", reason="maintenance"))

Registry(client, KEYS).answer(
    Status(id="old-host-1-aaaaaaaa", host="old-host", pid=1, version="0.1.0", entries=4), shards=1
)
RevokedStore(URL, KEYS).remember(["revoked-1"], NOW)
WaitingMessages(client, KEYS).add([(Waiting("celery", message("t", "waiting-1")), NOW + DAY)])

client.lpush("work", *(message("t", f"w{number}") for number in range(4)))
consumer = RedisConsumer(URL, ["work"], name="old", clock=SystemClock(), keys=KEYS)
consumer.start()
parked, buried, held, _ = consumer.take(4)
consumer.park([(parked, NOW + DAY)])
consumer.bury([(buried, "not registered")])

results = RedisResults(URL)
results.store(
    [
        Stored(
            "result-1",
            json.dumps(
                {
                    "status": "SUCCESS",
                    "result": 42,
                    "traceback": None,
                    "children": [],
                    "date_done": "2026-09-21T14:13:20+00:00",
                    "task_id": "result-1",
                }
            ).encode(),
        )
    ]
)

dump = {}
for raw in sorted(client.keys()):
    key, kind = raw.decode("latin-1"), client.type(raw).decode()
    if kind == "string":
        value = client.get(raw).decode("latin-1")
    elif kind == "list":
        value = [item.decode("latin-1") for item in client.lrange(raw, 0, -1)]
    elif kind == "hash":
        value = {k.decode("latin-1"): v.decode("latin-1") for k, v in sorted(client.hgetall(raw).items())}
    elif kind == "set":
        value = sorted(item.decode("latin-1") for item in client.smembers(raw))
    else:
        value = [[k.decode("latin-1"), score] for k, score in client.zrange(raw, 0, -1, withscores=True)]
    dump[key] = {"type": kind, "value": value}
print(json.dumps(dump, indent=1))
