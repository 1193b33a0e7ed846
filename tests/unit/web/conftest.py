"""The page's application without a server: a schedule from a file, a store that says what it is told to."""

import asyncio
from collections import Counter
from contextlib import nullcontext

import httpx
import pytest

from beatd import config
from beatd.client.outcomes import EntryOutcome, RunDetail, word_of
from beatd.model import EntryState, WebSettings
from beatd.planning.overdue import Bounds, bounds_of
from beatd.planning.problems import problem_facts
from beatd.store.daemon_registry import Sizes
from beatd.store.history_reader import Totals
from beatd.store.outage import OutageWatch
from beatd.web.app import Guards, PageSources, create
from beatd.web.broker_view import Letters
from beatd.web.entries import EntryListing
from beatd.web.security import LOCAL_NAMES
from beatd.web.tokens import Tokens
from tests.fakes import NOW, FakeClock


class Told:
    """Stands where the store view does: its answers are values, or an error that is raised."""

    def __init__(self, document):
        self.document = document
        self.known = {}
        self.past = {}
        self.held_back = {}
        self.last = {}
        self.outcome = {}
        self.details = {}
        self.summed = {}
        self.late = {}
        self.error = None
        self.outage = OutageWatch(FakeClock())
        self.tables = {}
        self.pauses = {}
        self.noted = []

    def status(self):
        if self.error is not None:
            raise self.error
        return self.document

    def sizes(self):
        self.status()
        return Sizes([], 3, 1)

    def mirror(self):
        self.status()
        return self

    def states(self, entries, *, now_ms):
        self.status()
        return [self.known.get(entry.name) for entry in entries]

    def held(self, names):
        return {name: self.held_back[name] for name in names if name in self.held_back}

    def waiting(self, entries, states, now_ms):
        return {}

    def last_dues(self, names):
        return {name: self.last[name] for name in names if name in self.last}

    def runs(self, names):
        self.status()
        return [self.known[name].runs if name in self.known else 0 for name in names]

    def history(self, name, now_ms):
        self.status()
        details = [RunDetail(record, word_of(record, {}, now_ms)) for record in self.past.get(name, [])]
        return [self.details.get(one.record.run_id, one) for one in details], Totals(7, Counter(overlap=2))

    def outcomes(self, names, now_ms, *, held):
        found = {name: self.outcome.get(name, EntryOutcome("held" if name in held else None, ())) for name in names}
        return {
            name: one._replace(runs=self.known[name].runs if name in self.known else 0) for name, one in found.items()
        }

    def bounds(self, entry):
        return bounds_of(entry.policies, Bounds())

    def failing(self):
        return self.summed

    def summaries(self):
        return self.summed

    def overdue(self):
        return self.late

    def newest(self, names, count, wanted, now_ms):
        records = [one for name in names for one in self.past.get(name, []) if wanted.takes(one)]
        return [RunDetail(one, word_of(one, {}, now_ms)) for one in records[:count]]

    def departures(self, names):
        return [(one.at_ms, "sent") for name in names for one in self.past.get(name, [])]

    def changes(self, limit, subject):
        return []

    def note_change(self, by, action, subject, *, before, after):
        self.noted.append((by, action, subject, after))

    def connection(self):
        return nullcontext((None, None))

    def too_long(self):
        return {}

    def find_run(self, run_id, names, now_ms):
        self.status()
        return [run for one, run in self.details.items() if one.startswith(run_id) and run.record.entry in names]


class ToldBroker:
    """Stands where the broker view does."""

    def __init__(self):
        self.seen = {"workers": [], "problem": None}
        self.letters = []
        self.stopped = []

    def workers(self):
        return self.seen

    def queues(self, entries):
        return {"queues": [], "problem": None}

    def stop(self, run_id):
        self.stopped.append(run_id)

    def dead_letters(self, wanted, limit):
        return Letters(self.letters, len(self.letters))

    def grouped_letters(self, wanted, limit):
        return Letters(self.letters, len(self.letters), [1] * len(self.letters))


def daemon(name="one", **more):
    return {
        "id": name,
        "host": f"host-{name}",
        "pid": 7,
        "version": "1.2.3",
        "alive": True,
        "eligible": True,
        "seen_ms_ago": 300,
        "started_at": "2026-09-21T14:10:00.000+00:00",
        "entries": 2,
        "runtime_entries": 0,
        "digest": "0123456789abcdef",
        "config": "ok",
        "clock_offset_ms": 4,
        "turned_ms_ago": 700,
        "late_ms": 0,
        "held_back": 0,
        "problem": None,
        "shards": [{"shard": 0, "term": 3}],
        **more,
    }


def shard(number=0, leader="one", outbox=0):
    return {"shard": number, "leader": leader, "term": leader and 3, "lease_ms": leader and 900, "outbox": outbox}


def document(daemons=None, shards=None, problems=(), not_ready=()):
    daemons = [daemon()] if daemons is None else daemons
    shards = shards or [shard()]
    return {
        "state_store": {"place": "redis.example.com:6379/0", "server": "Redis 7.2.4", "prefix": "beatd"},
        "daemons": daemons,
        "shards": shards,
        "outbox": sum(each["outbox"] for each in shards),
        "runtime": {"revision": 9, "entries": 2, "pauses": 1, "paused": {}},
        "same_schedule": len({each["digest"] for each in daemons if each["alive"]}) <= 1,
        "problems": [one.text for one in problems],
        "problem_details": [*map(problem_facts, problems)],
        "ready": not not_ready,
        "not_ready": list(not_ready),
        "dead_letters": 0,
        "held_back": [],
        "held_back_count": 0,
        "undelivered": [],
        "failing": [],
        "failing_count": 0,
        "overdue": [],
        "overdue_count": 0,
    }


class Site:
    """The application, and everything that its answers depend on."""

    def __init__(self, path):
        self.path = path
        self.clock = FakeClock()
        self.store = Told(document())
        self.schedule = EntryListing(path, lambda: config.load(path, env={}), self.clock)
        self.hosts = LOCAL_NAMES
        self.broker = ToldBroker()
        self.tokens = Tokens(None)
        self.settings = WebSettings()
        self.reads = True

    def write(self, text):
        self.path.write_text(text)
        self.schedule.first()
        self.store.document["daemons"][0]["digest"] = self.schedule.listing.digest

    def known(self, name, **state):
        self.store.known[name] = EntryState(**{"last_due_ms": NOW, "first_seen_ms": NOW, "runs": 0, **state})

    @property
    def app(self):
        seen = PageSources(self.schedule, self.store, self.broker, self.clock)
        return create(seen, Guards(self.hosts, self.tokens, self.settings, self.reads))

    def get(self, url, host="localhost:8800", method="GET", headers=(), peer="127.0.0.1", **more):
        async def ask():
            transport = httpx.ASGITransport(app=self.app, client=(peer, 1))
            async with httpx.AsyncClient(transport=transport, base_url="http://localhost:8800") as client:
                return await client.request(method, url, headers={"Host": host, **dict(headers)}, **more)

        return asyncio.run(ask())


@pytest.fixture
def site(tmp_path):
    site = Site(tmp_path / "beat.toml")
    site.write('[beat_schedule.tick]\ntask = "tasks.tick"\nschedule = "*/5 * * * *"\n')
    return site
