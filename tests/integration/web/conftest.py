"""The page's application over a real store, for somebody who may operate."""

import asyncio

import httpx
import pytest

from beatd import config
from beatd.clock import SystemClock
from beatd.web.app import Guards, PageSources, create
from beatd.web.broker_view import BrokerView
from beatd.web.entries import EntryListing
from beatd.web.security import LOCAL_NAMES
from beatd.web.store_view import StoreView
from beatd.web.tokens import Tokens
from tests.unit.web.conftest import document

OPERATE, READ = "operate-0123456789abcdef", "read-0123456789abcdef"
CONFIG = """
[redis]
url = "{url}"
[beat_schedule.tick]
task = "tasks.tick"
schedule = "*/5 * * * *"
[beat_schedule."a/b c"]
task = "tasks.other"
schedule = 30.0
blackout = ["22:00-06:00"]
timezone = "Europe/Berlin"
"""


def write_tokens(path):
    path.write_text(f"# who may act\nann operate {OPERATE}\nbob read {READ}\n")
    path.chmod(0o600)
    return str(path)


class Real:
    """The application, asked in this process."""

    def __init__(self, folder, url):
        file, clock = folder / "beat.toml", SystemClock()
        file.write_text(CONFIG.format(url=url))
        self.schedule = EntryListing(file, lambda: config.load(file, env={}), clock)
        settings = self.schedule.first().settings
        self.store = StoreView(lambda _client: document(), lambda: url, settings.redis, clock)
        broker = BrokerView(str(file), lambda: self.schedule.settings, lambda: url, clock)
        tokens = Tokens(write_tokens(folder / "tokens"))
        self.app = create(PageSources(self.schedule, self.store, broker, clock), Guards(LOCAL_NAMES, tokens))

    def ask(self, method, url, token=OPERATE, **more):
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        headers |= more.pop("headers", {})

        async def ask():
            transport = httpx.ASGITransport(app=self.app)
            async with httpx.AsyncClient(transport=transport, base_url="http://localhost:8800") as client:
                return await client.request(method, url, headers=headers, **more)

        return asyncio.run(ask())


@pytest.fixture
def real(tmp_path, redis_url):
    real = Real(tmp_path, redis_url)
    yield real
    real.store.close()
