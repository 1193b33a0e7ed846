"""``beatd web`` beside real daemons, over HTTP and in a real browser; and as a part of ``beatd dev``."""

import html
import http.client
import json
import re
import signal
import socket

import httpx
import pytest

from tests.browser_urls import browser_path
from tests.unit.web.test_routing import odd_names

CONFIG = """
[redis]
url = "{url}"
[leader]
ttl = "10s"
renew = "500ms"
[beat_schedule.tick]
task = "tasks.tick"
schedule = 0.1
[beat_schedule.report]
task = "reports.weekly"
schedule = "30 7 * * mon"
timezone = "Asia/Baku"
"""
URL = r"Status page at (http://\S+)"


class Web:
    """A ``beatd web`` and a client of its own."""

    def __init__(self, process):
        self.process = process
        self.url = process.expect(URL)[0][1]
        self.client = httpx.Client(base_url=self.url, timeout=10, trust_env=False)

    def get(self, path):
        return self.client.get(path)

    def runs(self, name="tick"):
        found = {each["name"]: each["runs"] for each in self.get("/api/entries").json()["entries"]}
        return found[name]


@pytest.fixture
def write(tmp_path, redis_url):
    def write(text=CONFIG, *, url=redis_url, more=""):
        path = tmp_path / "beat.toml"
        path.write_text(text.format(url=url) + more)
        return str(path)

    return write


@pytest.fixture
def start_web(start_beatd):
    """``start_web("--config", file)`` at a free port."""
    started = []

    def start(*arguments):
        started.append(Web(start_beatd("web", "--port", "0", *arguments)))
        return started[-1]

    yield start
    for web in started:
        web.client.close()


def test_a_tokens_file_that_others_may_read_locks_everybody_out_until_it_is_mended(start_web, write, tmp_path):
    tokens, token = tmp_path / "tokens", "operate-0123456789abcdef"
    tokens.write_text(f"ann operate {token}\n")
    tokens.chmod(0o600)
    web = start_web("--config", write(more='[web]\ntokens_file = "tokens"\n'))

    def answers():
        login = {"Authorization": f"Bearer {token}"}
        paths = ("/api/v1/entries/tick/pause", "/api/v1/entries/tick/resume")
        return [web.client.post(path, headers=login).status_code for path in paths]

    def use(mode):
        tokens.chmod(mode)
        return answers()

    assert use(0o600) == [200, 200]
    assert use(0o644) == [401, 401]
    web.process.expect("ERROR .* No token is valid: .*the tokens file can be used by others: its rights are 0644")
    assert use(0o644) == [401, 401]
    assert len(web.process.find("No token is valid")) == 1, "once, not for each request"
    assert token not in web.process.text
    assert use(0o600) == [200, 200]
    assert use(0o604) == [401, 401]
    web.process.expect("No token is valid", times=2)


def test_it_shows_what_a_daemon_does(start_beatd, start_web, write, beatd, wait_until):
    file = write()
    start_beatd("--config", file).expect("Leading")
    web = start_web("--config", file)
    first = wait_until(web.runs, what="a run")
    wait_until(lambda: web.runs() > first, what="more runs")
    page = wait_until(lambda: "Healthy" in (text := web.get("/").text) and text, 20, "a healthy page")
    for text in ("leads, term 1", "tasks.tick", "every 100ms", "30 7 * * mon", "Asia/Baku"):
        assert text in page
    assert web.get("/healthz").status_code == web.get("/readyz").status_code == 200
    [row] = web.get("/api/entries?q=weekly").json()["entries"]
    assert row["next_due_at"].endswith("T03:30:00.000+00:00"), "07:30 in Baku"
    metrics = web.get("/metrics")
    assert metrics.headers["content-type"].startswith("text/plain; version=0.0.4")
    assert int(re.findall(r'^beatd_runs_total\{entry="tick"\} (\d+)\.0$', metrics.text, re.MULTILINE)[0]) > first


BY_COMMAND = {"workers", "workers_problem", "queues", "unattended_queues"}
"""Parts that have places of their own on the page."""


def test_status_is_what_the_command_says(start_beatd, start_web, write, beatd, wait_until):
    file = write()
    start_beatd("--config", file).expect("Leading")
    web = start_web("--config", file)

    def lasting(document):
        for daemon in document["daemons"]:
            for name in ("seen_ms_ago", "turned_ms_ago", "clock_offset_ms", "late_ms"):
                assert isinstance(daemon.pop(name), int | None)
        for shard in document["shards"]:
            assert isinstance(shard.pop("lease_ms"), int)
        return {name: value for name, value in document.items() if name not in BY_COMMAND}

    def told():
        """By both, one after the other: a daemon that stands still may be a problem for one of them."""
        over_http = lasting(web.get("/api/status").json())
        by_command = lasting(json.loads(beatd("status", "--config", file, "--json").stdout))
        print(over_http, by_command, sep="\n")
        return over_http == by_command and over_http["daemons"]

    wait_until(told, 30, "the same from both")


def test_daemons_come_and_go(start_beatd, start_web, write, wait_until):
    file = write()
    web = start_web("--config", file)
    assert "No daemon is alive" in web.get("/").text
    assert (web.get("/readyz").status_code, web.get("/healthz").status_code) == (503, 200)
    daemon = start_beatd("--config", file)
    wait_until(lambda: web.get("/readyz").status_code == 200, what="a leader")
    wait_until(lambda: "Healthy" in web.get("/").text, what="a healthy page")
    daemon.end(signal.SIGKILL)
    wait_until(lambda: web.get("/readyz").status_code == 503, 30, "the leader's end to be seen")
    wait_until(lambda: "is gone: its last heartbeat" in web.get("/").text, 30, "the daemon to be missed")


def test_a_store_that_goes_is_said_and_its_return_seen(start_server, start_web, write, wait_until):
    server = start_server()
    patient = CONFIG.replace("[leader]", 'timeout = "1m"\n[leader]')  # a daemon may wait so long, and no page
    web = start_web("--config", write(patient, url=server.url))
    assert web.get("/healthz").status_code == 200
    server.kill()
    for path in ("/", "/api/status", "/api/entries", "/healthz", "/readyz"):
        answer = wait_until(
            lambda path=path: (seen := web.get(path)).status_code == 503 and seen, what=f"503 from {path}"
        )
        assert "state store 127.0.0.1" in answer.text
        assert "Traceback" not in answer.text
    wait_until(lambda: "since" in web.get("/api/status").json(), what="the moment since when")
    assert f", since {web.get('/api/status').json()['since'][:10]} " in web.get("/healthz").text
    metrics = web.get("/metrics")  # stays up: an alert on a sum must not go silent with the store
    assert metrics.status_code == 200
    assert "\nbeatd_store_up 0.0\n" in metrics.text
    assert float(re.search(r"^beatd_store_down_seconds (\S+)$", metrics.text, re.MULTILINE)[1]) > 0
    server.start()
    wait_until(lambda: web.get("/healthz").status_code == 200, what="the store's return")
    server.pause()
    wait_until(lambda: web.get("/healthz").status_code == 503, 30, "an end of the wait")
    server.resume()
    assert "Traceback" not in web.process.text


def test_no_password_is_shown(start_web, write, free_port):
    web = start_web("--config", write(url=f"redis://user:s3cret@127.0.0.1:{free_port()}/0"))
    for path in ("/", "/api/status", "/api/entries", "/healthz", "/metrics"):
        answer = web.get(path)
        assert answer.status_code == (200 if path == "/metrics" else 503)
        assert "s3cret" not in answer.text
    assert "s3cret" not in web.process.text


def test_an_embedded_store_is_joined_and_never_started(start_web, start_beatd, write, tmp_path, wait_until):
    file = write(url="embedded")
    web = start_web("--config", file)
    assert "does not run" in web.get("/").text
    assert not (tmp_path / ".beatd").exists()
    start_beatd("--config", file).expect("Leading")
    wait_until(lambda: web.get("/readyz").status_code == 200, what="the daemon's store")


def test_a_file_that_breaks_is_said_and_nothing_hidden(start_web, write, wait_until):
    file = write()
    web = start_web("--config", file)
    write(more="[beat_schedule.bad]\n")
    page = wait_until(
        lambda: (text := web.get("/").text) and "The file has errors" in text and text, what="the faults on the page"
    )
    assert "beat_schedule.bad" in page
    assert "reports.weekly" in page
    write(more='[beat_schedule.good]\ntask = "t"\nschedule = "1h"\n')
    wait_until(lambda: ">good<" in web.get("/").text, what="the new entry")
    assert "The file has errors" not in web.get("/").text


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_ends_at_once_with_exit_code_0(start_web, write, number):
    web = start_web("--config", write())
    web.get("/")  # the connection stays open
    with httpx.stream("GET", f"{web.url}live", timeout=10, trust_env=False) as answer:  # which has no end
        assert next(answer.iter_lines()) == "retry: 5000"
        assert web.process.end(number) == 0
    assert "Traceback" not in web.process.text


def test_mistakes_of_the_user_are_told_in_words(beatd, write):
    file = write()
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = beatd("web", "--config", file, "--port", str(port))
    assert done.returncode == 1
    assert done.stderr == f"Error: port {port} of 127.0.0.1 is taken; choose another with --port\n"
    done = beatd("web", "--config", file, "--host", "no-such-host.invalid", "--port", "0")
    assert (done.returncode, "--host" in done.stderr) == (1, True)
    done = beatd("web", "--config", write(more="[beat_schedule.bad]\n"), "--port", "0")
    assert done.returncode == 2
    assert "beat_schedule.bad" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.fixture
def without_uvicorn(tmp_path):
    """An environment in which that package cannot be found."""
    folder = tmp_path / "blocked"
    folder.mkdir()
    (folder / "sitecustomize.py").write_text('import sys\nsys.modules["uvicorn"] = None\n')
    return {"PYTHONPATH": str(folder)}


def test_packages_that_are_missing_are_named(beatd, write, without_uvicorn):
    done = beatd("web", "--config", write(), **without_uvicorn)
    assert done.returncode == 1
    assert "uvicorn" in done.stderr
    assert "pip install 'beatd[web]'" in done.stderr
    assert "Traceback" not in done.stderr


def test_dev_serves_it_and_says_where(start_beatd, write, wait_until):
    dev = start_beatd("dev", "--config", write(url="embedded"), "--no-worker", "--web-port", "0")
    with httpx.Client(base_url=dev.expect(r"^web +\| .*" + URL)[0][1], timeout=10, trust_env=False) as client:
        wait_until(lambda: client.get("/readyz").status_code == 200, what="a leader")
        assert dev.end(signal.SIGINT, timeout=30) == 0
    assert dev.find(r"^web +\| .*Status page stopped")


@pytest.mark.slow
def test_dev_goes_on_without_it(start_beatd, write, without_uvicorn):
    file = write(url="embedded")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        dev = start_beatd("dev", "--config", file, "--no-worker", "--web-port", str(port))
        dev.expect("Dispatched tick")
        assert len(dev.find(f"No status page: port {port} of 127.0.0.1 is taken; choose another with --web-port")) == 1
        assert dev.end() == 0
    dev = start_beatd("dev", "--config", file, "--no-worker", "--no-web")
    dev.expect("Dispatched tick")
    assert dev.end() == 0
    assert "tatus page" not in dev.text
    dev = start_beatd("dev", "--config", file, "--no-worker", **without_uvicorn)
    dev.expect("Dispatched tick")
    assert len(dev.find(r"No status page: uvicorn not installed; pip install 'beatd\[web\]' brings it")) == 1
    assert dev.end() == 0


@pytest.fixture
def browse(browser, wait_until):
    """``browse(url, runs)``: the page's elements once it has refreshed itself, and the entry ``tick`` has had more runs
    than that; also what the browser complained of."""

    def browse(url, runs):
        complaints, page = [], browser.new_page()
        page.on("console", lambda line: complaints.append(line.text))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.goto(url)
        served = page.get_attribute("body", "data-served")
        page.wait_for_selector(f'#as-of:not([data-as-of="{served}"])', timeout=20_000)
        dom = wait_until(lambda: runs_in(found := page.content()) > runs and found, 20, "more runs on the page")
        return dom, complaints

    return browse


def test_the_page_refreshes_itself_in_a_browser(start_beatd, start_web, write, browse, wait_until):
    file = write(more="""[beat_schedule."<img src=x onerror=alert(1)>"]\ntask = "t"\nschedule = "1h"\n""")
    start_beatd("--config", file).expect("Leading")
    web = start_web("--config", file)
    before = wait_until(web.runs, what="a run")
    first, complaints = browse(web.url, before)
    served, as_of = (int(re.findall(rf'{name}="(\d+)"', first)[0]) for name in ("data-served", "data-as-of"))
    assert as_of > served, "the script replaced what it had loaded"
    browse(web.url, runs_in(first))
    assert "&lt;img src=x onerror=alert(1)&gt;" in first
    assert complaints == [], "neither the policy nor the script has anything to complain of"
    assert re.search(r'<p id="lost"[^>]* hidden=""', first)


def runs_in(dom):
    """The run count of the entry ``tick`` in the page."""
    [row] = [row for row in re.findall(r"<tr.*?</tr>", dom, re.DOTALL) if ">tick<" in row]
    return int(re.findall(r'data-label="Runs"[^>]*><span>([\d,]+)<', row)[0].replace(",", ""))


ODD = [b"\x16\x03\x01\x02\x00\x01\r\n\r\n", b"GET / HTTP/1.1\r\n\r\n", b"\0\r\n\r\n"]
UPGRADE = {"Connection": "Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Version": "13", "Sec-WebSocket-Key": "eA=="}


def test_odd_requests_are_answered_and_leave_no_lines_in_the_log(start_web, write):
    web = start_web("--config", write())
    address = web.client.base_url.host, web.client.base_url.port
    for request in ODD * 10:
        with socket.create_connection(address, timeout=10) as connection:
            connection.sendall(request)
            assert connection.recv(1000).startswith(b"HTTP/1.1 400 ")
    assert web.client.get("/", headers=UPGRADE).status_code == 200
    assert not web.process.find("Invalid HTTP|WebSocket|upgrade")


def test_each_entry_of_the_list_opens_its_page_whatever_its_name(start_web, write, tmp_path):
    names = {name for name in odd_names(40) if not name.isspace()}
    tables = (f"[beat_schedule.{json.dumps(name)}]\ntask = 't'\nschedule = '1h'\n" for name in sorted(names))
    (tmp_path / "tokens").write_text("ann operate operate-0123456789abcdef\n")
    (tmp_path / "tokens").chmod(0o600)
    web = start_web("--config", write(more="".join(tables) + '[web]\ntokens_file = "tokens"\n'))
    connection = http.client.HTTPConnection(*web.url.removeprefix("http://").rstrip("/").split(":"), timeout=20)

    def ask(path, method="GET"):
        connection.request(method, browser_path(path), headers={"Authorization": "Bearer operate-0123456789abcdef"})
        answer = connection.getresponse()
        return answer.status, html.unescape(answer.read().decode())

    links = re.findall(r'<th scope="row"><a href="([^"]*)">(.*?)</a>', web.get("/").text)
    named = {html.unescape(name): html.unescape(link) for link, name in links}
    assert names <= set(named)
    for name, link in named.items():
        status, page = ask(link)
        assert status == 200, (name, link)
        assert f"<h1>{name}" in page, (name, link)
        [action] = re.findall(r'action="(/entries/[^"]*/pause)"', page)
        assert action.removesuffix("/pause") == link
    status, said = ask(f"/api/v1{named['a/../b']}/pause", "POST")
    assert (status, json.loads(said)["done"][:16]) == (200, "a/../b is paused")
    connection.close()
