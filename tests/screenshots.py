"""Pictures of the page: ``python -m tests.screenshots OUT [--state NAME]… [--width N]… [--axe axe.min.js]``.

Each state is an installation of real processes: server, daemon, worker, page. Each place is taken at 360, 800 and
1440 px, light and dark. With ``--axe`` (the file of the package axe-core) each is also audited for accessibility.
What is wrong in a picture by itself is said: a page wider than its window, an error of the script, a finding.
"""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import httpx
from playwright.sync_api import Browser, Page, sync_playwright

from tests.conftest import Server, server_binary, wait_for

TOKEN = "screenshots-0123456789abcdef"
WIDTHS = (360, 800, 1440)
PLACES = {
    "entries": "/",
    "failing": "/?only=failing",
    "second": "/?page=2&sort=next",
    "no-match": "/?q=nothing-like-it",
    "entry": "/entries/billing-invoices",
    "entry-good": "/entries/nightly-report",
    "run": "/runs/{run}",
    "timeline": "/timeline",
    "week": "/timeline?window=7d",
    "workers": "/workers",
    "queues": "/queues",
    "dead-letters": "/dead-letters",
    "fleet": "/fleet",
    "audit": "/audit",
    "login": "/login",
    "form": "/edit",
    "not-found": "/entries/no-such-entry",
    "bad-parameter": "/?page=minus",
}
OF_OPERATORS = ("form",)

HEAD = """timezone = "Europe/Berlin"
[redis]
url = "{url}"
[web]
tokens_file = "tokens"
"""
SCHEDULES = {
    "nightly-report": ("reports.nightly", "30 2 * * *"),
    "billing-invoices": ("billing.invoices", "0 3 * * *"),
    "billing-reminders": ("billing.remind", "0 9 * * mon-fri"),
    "cache-warmup": ("shop.warm_cache", "*/5 * * * *"),
    "cleanup-sessions": ("accounts.cleanup", "15 * * * *"),
    "currency-rates": ("billing.rates", "0 */4 * * *"),
    "newsletter-weekly": ("marketing.newsletter", "0 8 * * mon"),
    "search-reindex": ("shop.reindex", "45 1 * * sun"),
    "stock-sync": ("shop.stock", "10m"),
    "backup-database": ("ops.backup", "0 1 * * *"),
}
PAST = {
    "nightly-report": "-8d",
    "billing-invoices": "-3d",
    "billing-reminders": "-9d",
    "cache-warmup": "-50m",
    "cleanup-sessions": "-9h",
    "currency-rates": "-30h",
    "newsletter-weekly": "-21d",
    "search-reindex": "-21d",
    "stock-sync": "-70m",
    "backup-database": "-8d",
}
TASKS = """
import os
from beatd import App
app = App("shop", broker={url!r}, backend={url!r})
FAILING = {failing!r}
ERRORS = [
    lambda: ConnectionError("cannot reach smtp.example.com:587: connection refused"),
    lambda: ValueError("invoice 2026-1187 has no address of a customer; 14 others were written"),
    lambda: TimeoutError("the bank's server did not answer within 30 s"),
]
def work(name, number):
    def run(*args, **kwargs):
        print(f"{{name}}: 1,204 rows read")
        print(f"{{name}}: done in 2 batches")
        if name in FAILING:
            raise ERRORS[number % len(ERRORS)]()
        return {{"rows": 1204}}
    app.task(name=name)(run)
for number, name in enumerate({tasks!r}):
    work(name, number)
"""


class State(NamedTuple):
    """State of an installation: its entries, what fails, and what is away."""

    entries: int = 10
    failing: tuple[str, ...] = ()
    daemon: bool = True
    worker: bool = True
    broken: bool = False
    store: bool = True
    letters: int = 0


ALL_TASKS = tuple(task for task, _ in SCHEDULES.values())
STATES = {
    "empty": State(entries=0, worker=False),
    "healthy": State(letters=3),
    "failing": State(failing=ALL_TASKS, letters=40),
    "few-failing": State(failing=ALL_TASKS[1:2], letters=1),
    "many": State(entries=10_000, failing=ALL_TASKS[1:4]),
    "broken": State(broken=True),
    "store-down": State(store=False),
    "nobody-leads": State(daemon=False, worker=False),
}


class Installation:
    """Processes of one state in a directory of their own."""

    def __init__(self, state: State, stack: ExitStack) -> None:
        self.state, self._stack = state, stack
        self.directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="beatd-pictures-")))
        binary = server_binary("redis") or server_binary("valkey")
        if binary is None:
            sys.exit("neither redis-server nor valkey-server is installed")
        self.server = Server(binary)
        stack.callback(self.server.close)
        self.server.start()
        self.file = self.directory / "beat.toml"
        self.root = ""

    def start(self) -> None:
        """Start what the state has, let runs happen, then break what it has broken."""
        (self.directory / "tokens").write_text(f"ann operate {TOKEN}\n")
        (self.directory / "tokens").chmod(0o600)
        tasks = TASKS.format(url=self.server.url, failing=self.state.failing, tasks=ALL_TASKS)
        (self.directory / "shop.py").write_text(tasks)
        self.file.write_text(self._config())
        self.root = self._beatd("web", "--port", "0", ready=r"Status page at (http\S+)/").group(1)
        if self.state.daemon:
            self._beatd("run", ready="Leading")
        if self.state.worker:
            self._beatd("worker", "-A", "shop", "-c", "1", ready="eady")
        with httpx.Client(
            base_url=self.root, headers={"Authorization": f"Bearer {TOKEN}"}, timeout=30, trust_env=False
        ) as client:
            if self.state.worker and self.state.daemon:
                self._act(client)
        self._dead_letters()
        if self.state.broken:
            self.file.write_text(self._config() + '\n[beat_schedule.late]\ntaks = "shop.late"\nschedule = "0 7 * *"\n')
        if not self.state.store:
            self.server.kill()
        told = {"broken": "has errors", "store": "Cannot reach the state store"}
        for fact, text in told.items():
            if getattr(self.state, fact) is (fact == "broken"):
                wait_for(lambda text=text: text in self._page(), 30, text)

    def run_id(self) -> str:
        """The id of a run, of a failed one where there is one."""
        if not self.state.store:
            return "unknown"
        with self._client() as client:
            runs = client.get("/api/v1/runs?limit=100").json()["runs"]
        runs.sort(key=lambda run: run.get("state") != "failure")
        return str(runs[0]["run_id"]) if runs else "unknown"

    def _page(self) -> str:
        with self._client() as client:
            return client.get("/").text

    def _client(self) -> httpx.Client:
        headers = {"Authorization": f"Bearer {TOKEN}"}
        return httpx.Client(base_url=self.root, headers=headers, timeout=30, trust_env=False)

    def _config(self) -> str:
        parts = [HEAD.format(url=self.server.url)]
        for number in range(self.state.entries):
            name, (task, schedule) = list(SCHEDULES.items())[number % len(SCHEDULES)]
            shown = name if number < len(SCHEDULES) else f"{name}-{number:05}"
            parts.append(f'[beat_schedule."{shown}"]\ntask = "{task}"\nschedule = "{schedule}"\n')
        return "".join(parts)

    def _act(self, client: httpx.Client) -> None:
        """Run each entry some times, and pause one."""
        for name, since in PAST.items() if self.state.entries else ():
            client.post(f"/api/v1/entries/{name}/backfill", json={"from": since, "rate": 100}).raise_for_status()
        for name in list(SCHEDULES)[: self.state.entries]:
            client.post(f"/api/v1/entries/{name}/run", json={}).raise_for_status()
        reason = {"for": "14h", "reason": "the warehouse moves; see the plan of operations"}
        client.post("/api/v1/entries/stock-sync/pause", json=reason).raise_for_status()

        def done() -> bool:
            runs = client.get("/api/v1/runs?limit=100").json()["runs"]
            return len(runs) >= 2 * len(SCHEDULES) and all(run["state"] in ("success", "failure") for run in runs)

        if self.state.entries:
            wait_for(done, 60, "all runs to end")

    def _dead_letters(self) -> None:
        from beatd.store.client import connect
        from beatd.store.dead_letters import DeadLetters, encode
        from beatd.store.keys import Keys

        with connect(self.server.url) as client:
            letters = DeadLetters(client, Keys("beatd"))
            for number in range(self.state.letters):
                headers = b'{"body": "", "headers": {"task": "shop.prices", "id": "%d"}, "properties": {}}' % number
                reason = "no task shop.prices is registered in this worker; did you mean shop.stock?"
                letters.add([encode(headers, reason=reason, queue="celery", at=f"2026-01-01T00:{number:02}:00")])

    def _beatd(self, *arguments: str, ready: str) -> re.Match[str]:
        log = self.directory / f"{arguments[0]}.log"
        with log.open("wb") as output:
            process = subprocess.Popen(
                [sys.executable, "-m", "beatd", *arguments, "--config", "beat.toml"],
                cwd=self.directory, stdout=output, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL,
            )  # fmt: skip
        self._stack.callback(_end, process)
        found: list[re.Match[str]] = []

        def seen() -> bool:
            assert process.poll() is None, log.read_text()
            found.extend(re.finditer(ready, log.read_text()))
            return bool(found)

        wait_for(seen, 60, f"{ready!r} of beatd {arguments[0]}")
        return found[0]


def _end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(15)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait(5)


@contextmanager
def installation(state: State) -> Iterator[Installation]:
    """Start an installation in that state; end it at the end."""
    with ExitStack() as stack:
        one = Installation(state, stack)
        one.start()
        yield one


def tab(browser: Browser, root: str, width: int, scheme: Any, token: str = "", scale: float = 1) -> Page:
    """A tab of that width and colour scheme, logged in when a token is given."""
    view: Any = {"width": width, "height": 700 if scale > 1 else 900}
    page = browser.new_context(viewport=view, color_scheme=scheme, device_scale_factor=scale).new_page()
    page.set_default_timeout(30_000)
    if token:
        page.goto(f"{root}/login")
        page.fill("[name=token]", token)
        page.click("main button")
        page.wait_for_selector(".who form")
    return page


def faults(page: Page, axe: str = "") -> list[str]:
    """Faults of the place that is shown: parts beyond the window, findings of axe-core."""
    found = []
    wide = page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
    if wide > 0:
        found.append(f"{wide} px wider than the window")
    if axe:
        page.evaluate(axe)
        for one in page.evaluate("axe.run().then(done => done.violations)"):
            where = ", ".join(str(node["target"]) for node in one["nodes"][:3])
            found.append(f"{one['impact']}: {one['help']} ({where})")
    return found


def take(one: Installation, browser: Browser, options: argparse.Namespace, say: Callable[[str], None]) -> None:
    """Take all places of an installation."""
    run = one.run_id()
    for scheme in options.scheme:
        for width in options.width:
            page = tab(browser, one.root, width, scheme, TOKEN if one.state.store else "")
            for place, path in PLACES.items():
                if options.place and place not in options.place:
                    continue
                page.goto(one.root + path.format(run=run))
                page.screenshot(path=options.out / f"{options.now}-{place}-{width}-{scheme}.png", full_page=True)
                for fault in faults(page, options.audit):
                    say(f"{options.now} {place} {width} {scheme}: {fault}")
            page.context.close()


def main() -> int:
    """Take the pictures; the exit code is 1 when something was found."""
    parser = argparse.ArgumentParser(prog="python -m tests.screenshots", description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("--state", action="append", choices=STATES)
    parser.add_argument("--place", action="append", choices=PLACES)
    parser.add_argument("--width", action="append", type=int)
    parser.add_argument("--scheme", action="append", choices=("light", "dark"))
    parser.add_argument("--axe", type=Path)
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    options.width, options.scheme = options.width or WIDTHS, options.scheme or ("light", "dark")
    options.audit = options.axe.read_text() if options.axe else ""
    said: list[str] = []

    def say(text: str) -> None:
        said.append(text)
        print(text, flush=True)

    binary = shutil.which("chromium") or shutil.which("google-chrome")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=binary, args=["--no-sandbox"])
        for name in options.state or STATES:
            options.now = name
            with installation(STATES[name]) as one:
                take(one, browser, options, say)
        browser.close()
    return 1 if said else 0


if __name__ == "__main__":
    sys.exit(main())
