"""Each action of the page in a real browser, and hostile visits over real sockets."""

import contextlib
import gzip
import json
import socket
import ssl
import subprocess

import httpx
import pytest

from beatd.store.client import connect
from beatd.store.dead_letters import DeadLetters, encode
from beatd.store.keys import Keys
from beatd.web.stream import LISTENERS_MAX

OPERATE, READ = "operate-0123456789abcdef", "read-0123456789abcdef"
CONFIG = """
[redis]
url = "{url}"
[web]
tokens_file = "tokens"
{more}
[beat_schedule.nightly]
task = "page_tasks.quick"
schedule = "30 2 * * *"
[beat_schedule.long]
task = "page_tasks.slow"
schedule = "30 3 * * *"
"""
TASKS = """
import time
from beatd import App
app = App("page", broker={url!r}, backend={url!r})
@app.task(name="page_tasks.quick")
def quick(*args): print("did", args)
@app.task(name="page_tasks.slow")
def slow(): time.sleep(60)
"""
SCRIPT_NAME = "<img src=x onerror=alert(1)>"


@pytest.fixture
def file(tmp_path, redis_url):
    def write(more=""):
        (tmp_path / "tokens").write_text(f"ann operate {OPERATE}\nbob read {READ}\n")
        (tmp_path / "tokens").chmod(0o600)
        (tmp_path / "page_tasks.py").write_text(TASKS.format(url=redis_url))
        path = tmp_path / "beat.toml"
        path.write_text(CONFIG.format(url=redis_url, more=more))
        return str(path)

    return write


@pytest.fixture
def url(start_beatd):
    def start(file):
        return start_beatd("web", "--config", file, "--port", "0").expect(r"Status page at (http\S+)/")[0][1]

    return start


@pytest.fixture
def tab(browser):
    """A tab of a browser that confirms what it is asked."""
    page = browser.new_page()
    page.set_default_timeout(15_000)
    page.complaints = []
    page.on("dialog", lambda dialog: dialog.accept())
    page.on("pageerror", lambda error: page.complaints.append(str(error)))
    page.on("console", lambda line: line.type == "error" and page.complaints.append(line.text))
    return page


@pytest.mark.slow
def test_every_action_in_a_browser(start_beatd, file, url, tab, redis_url, wait_until, beatd):
    path = file()
    with connect(redis_url) as client:
        letters = DeadLetters(client, Keys("beatd"))
        message = json.dumps({"body": "", "headers": {"task": "lost.task", "id": "1"}, "properties": {}}).encode()
        for reason, count in (("late", 3), ("no task <b>", 41), ("refused", 1), ("unknown", 1)):
            raws = [
                encode(message + b" " * n, reason=reason, queue="other", at="2026-01-01T00:00:00") for n in range(count)
            ]
            letters.add(raws)
    start_beatd("run", "--config", path).expect("Leading")
    start_beatd("worker", "-A", "page_tasks", "--config", path, "-c", "1").expect("eady")
    root = url(path)

    def noted(text):
        tab.wait_for_selector(f".note:has-text({json.dumps(text)})")

    tab.goto(f"{root}/entries/nightly")
    assert tab.locator("text=Run now").count() == 0
    tab.click("text=Log in")
    tab.fill("[name=token]", OPERATE)
    tab.click("main button")
    noted("Logged in as ann")
    assert tab.url.endswith("/entries/nightly")

    tab.click("button:has-text('Run now') >> nth=0")
    noted("of nightly sent")
    tab.wait_for_selector("#entries .word:has-text('success')")
    tab.click("summary:has-text('Run with')")
    tab.fill("[name=args]", '["by hand"]')
    tab.click("details[open] button.main")
    noted("of nightly sent")
    tab.wait_for_selector("#entries :text('Output') >> nth=1")

    tab.click("summary:has-text('Pause')")
    tab.fill("[name=for]", "2h")
    tab.fill("[name=reason]", SCRIPT_NAME)
    tab.click("#pause button.main")
    noted("nightly is paused until")
    assert SCRIPT_NAME in tab.inner_text("#overview")
    tab.click("button:has-text('Resume')")
    noted("nightly is resumed")
    tab.click("summary:has-text('Backfill')")
    tab.fill("[name=from]", "-2d")
    tab.click("button:has-text('Count')")
    noted("runs of nightly would be sent")

    tab.goto(f"{root}/")
    tab.click("text=New entry")
    tab.fill("[name=name]", SCRIPT_NAME)
    tab.fill("[name=table]", 'task = "page_tasks.quick"\nschedule = "1h"\ntaks = "x"\n')
    tab.click("text=Save")
    tab.wait_for_selector(".problem:has-text('did you mean')")
    tab.fill("[name=table]", 'task = "page_tasks.quick"\nschedule = "1h"\n')
    tab.click("text=Save")
    noted("is added")
    tab.goto(f"{root}/")
    tab.fill("[name=q]", "img")
    tab.wait_for_selector("#entries:has-text('1 of 3 entries match')")
    tab.click("#entries th a")
    tab.click("text=Edit")
    tab.fill("[name=table]", 'task = "page_tasks.quick"\nschedule = "2h"\n')
    tab.click("text=Save")
    noted("is changed")
    gone = tab.url
    tab.click("button:has-text('Remove')")
    noted("is removed")
    assert tab.goto(gone).status == 404

    tab.goto(f"{root}/entries/long")
    tab.click("button:has-text('Run now') >> nth=0")
    noted("of long sent")
    tab.wait_for_selector("#entries .word:has-text('running')")
    tab.click("#entries td a")
    tab.click("button:has-text('Stop run')")
    noted("is being stopped")
    tab.wait_for_selector("h1 .word:has-text('revoked')")

    tab.goto(f"{root}/dead-letters")
    assert tab.locator("h1").inner_text() == "46 dead letters"
    assert "no task <b>" in tab.inner_text("table")
    assert tab.locator("tbody tr").count() == 4
    tab.click("text=and 2 like it")
    tab.wait_for_selector("p:has-text('Only those like')")
    assert tab.locator("tbody tr").count() == 3
    tab.click("text=show all")
    tab.click("text=show each")
    tab.wait_for_selector("tbody tr >> nth=45")
    tab.click("text=Those that are alike in one line")
    tab.click("button:has-text('Send all 41 again')")
    noted("41 dead letters like")
    tab.click("button:has-text('Throw all 3 away')")
    noted("3 dead letters like")
    tab.click("button:has-text('Send again') >> nth=0")
    noted("is sent again")
    tab.click("button:has-text('Throw away') >> nth=0")
    noted("is thrown away")
    assert "There are none" in tab.inner_text("#overview")

    for place in ("/workers", "/queues", "/fleet", "/timeline", "/timeline?window=7d"):
        assert tab.goto(root + place).status == 200
    tab.goto(f"{root}/audit")
    shown = tab.inner_text("#overview")
    for action in ("pause nightly", "resume nightly", "trigger nightly", "stop-run", "requeue", "purge", "remove"):
        assert action in shown
    tab.click("text=Log out")
    noted("logged out".capitalize())
    assert [line for line in tab.complaints if "404" not in line and "400" not in line] == []
    changes = json.loads(beatd("audit", "--config", path, "--json").stdout)["changes"]
    assert {change["by"] for change in changes if change["via"] == "page"} == {"ann"}


def test_hostile_visits(file, url):
    root = url(file())
    host, port = root.removeprefix("http://").split(":")
    with httpx.Client(base_url=root, trust_env=False, timeout=20) as client:
        asked = {"Authorization": f"Bearer {OPERATE}"}
        action = "/api/v1/entries/nightly/pause"
        assert client.post(action).status_code == 401
        assert client.post(action, headers={"Authorization": "Bearer nobody-nobody-nobody"}).status_code == 401
        assert client.post(action, headers={**asked, "Origin": "http://evil.example.com"}).status_code == 403
        assert client.post(action, headers={**asked, "Host": "evil.example.com"}).status_code == 421
        assert client.post("/entries/nightly/run", data={"csrf": "x"}, headers={"Origin": root}).status_code == 401
        assert client.get("/live", headers={"Host": "evil.example.com"}).status_code == 421
        large = client.build_request("POST", action, headers=asked, content=b"x" * 3_000_000)
        with contextlib.suppress(httpx.TransportError):  # the answer may come before the body has been sent
            assert client.send(large).status_code == 413
        with client.stream("GET", "/live") as stream:
            assert stream.headers["content-type"].startswith("text/event-stream")
            assert next(stream.iter_lines()) == "retry: 5000"
    with contextlib.ExitStack() as slow:
        for _ in range(400):
            one = slow.enter_context(socket.create_connection((host, int(port)), 5))
            with contextlib.suppress(OSError):  # those beyond the limit are closed at once
                one.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\nX-Slow: ")
        elsewhere = httpx.HTTPTransport(local_address="127.0.0.2")
        with httpx.Client(base_url=root, transport=elsewhere, trust_env=False, timeout=5) as other:
            assert other.get("/healthz").status_code == 200, "one address cannot keep others out"


def _raw(root, data):
    """The first line of what the server answers to bytes as they are; empty when it closes the connection."""
    host, port = root.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), 10) as one, contextlib.suppress(ConnectionError):
        one.sendall(data)
        return one.recv(4096).split(b"\r\n")[0].decode("latin-1")
    return ""


def test_odd_requests_are_answered_in_words(file, url):
    root = url(file())
    login = {"Authorization": f"Bearer {OPERATE}"}
    gets = {
        "/?page=-1": (400,), "/?page=0": (400,), "/?page=99999999999999999999999": (200, 400),
        "/?page=2&page=3": (200, 400), "/?q=%ff%fe": (200,), "/?q=" + "x" * 8000: (200, 400), "/?sort=%00": (400,),
        "/?nonsense=1": (200, 400), "/entries/..%2f..%2fetc%2fpasswd": (404,), "/entries/%00": (404,),
        "/entries/%ff": (404,), "/entries/" + "a" * 5000: (404,), "/runs/..": (200, 404), "/runs/%2e%2e%2fx": (404,),
        "/badge/../../etc/passwd.svg": (404,), "/audit?limit=1e9": (400,), "/audit?limit=-5": (400,),
        "/dead-letters?limit=9999999999999999999999": (200, 400), "/timeline?window=1000y": (400,),
        "/api/v1/entries?per_page=0": (400,), "/login?back=//evil.example.com": (200,),
        "/login?back=javascript:alert(1)": (200,), "/.git/config": (404,), "//evil.example.com": (404,),
    }  # fmt: skip
    with httpx.Client(base_url=root, trust_env=False, timeout=20, follow_redirects=False) as client:
        for path, codes in gets.items():
            answer = client.get(httpx.URL(root + path))
            assert answer.status_code in codes, (path, answer.status_code)
            assert "Traceback" not in answer.text
            assert not answer.headers.get("location", "").startswith("//")
        for method in ("OPTIONS", "TRACE", "PUT", "DELETE", "PATCH", "PROPFIND"):
            assert client.request(method, "/").status_code in (404, 405), method
        assert client.head("/").status_code == 200
        assert client.head("/").content == b""
        upgrade = {"Connection": "Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Key": "x" * 22 + "=="}
        assert client.get("/live-not", headers={**upgrade, "Sec-WebSocket-Version": "13"}).status_code in (400, 404)
        bomb = gzip.compress(b" " * 5_000_000)
        action = "/api/v1/entries/nightly/pause"
        packed = {**login, "Content-Encoding": "gzip", "Content-Type": "application/json"}
        assert client.post(action, content=bomb, headers=packed).status_code in (400, 415)
        for body in (b"[" * 100_000, b"\xff\xfe", b'{"for": ' + b"9" * 5000 + b"}", b"null", b'{"for": 1e999}'):
            answer = client.post(action, content=body, headers={**login, "Content-Type": "application/json"})
            assert answer.status_code in (400, 422), (body[:20], answer.status_code, answer.text[:200])
        answer = client.post("/login", data={"token": OPERATE, "back": "//evil.example.com"}, headers={"Origin": root})
        assert not answer.headers.get("location", "").startswith(("//", "http"))
        for raw in (
            b"GET / HTTP/1.1\r\n\r\n",
            b"GET / HTTP/1.1\r\nHost: localhost\r\nHost: evil.example.com\r\n\r\n",
            b"GET / HTTP/one\r\nHost: localhost\r\n\r\n",
            b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
            b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            b"GET / HTTP/1.1\r\nHost: localhost\r\nX: " + b"y" * 100_000 + b"\r\n\r\n",
        ):
            line = _raw(root, raw)
            assert not line or line.split(" ")[1] in ("400", "405", "413", "421", "431", "505"), (raw[:60], line)
        assert client.get("/healthz").status_code == 200


def test_only_so_many_pages_may_listen(file, url, wait_until):
    root = url(file())
    address = root.removeprefix("http://").split(":")

    def listen(stack):
        one = stack.enter_context(socket.create_connection((address[0], int(address[1])), 10))
        one.sendall(b"GET /live HTTP/1.1\r\nHost: localhost\r\n\r\n")
        answer = b""
        while b"retry: 5000" not in answer and b"too many" not in answer:
            part = one.recv(4096)
            assert part, answer
            answer += part
        return int(answer.split(b" ")[1])

    with contextlib.ExitStack() as stack:
        assert [listen(stack) for _ in range(LISTENERS_MAX)] == [200] * LISTENERS_MAX
        assert listen(stack) == 503
        assert httpx.get(root, trust_env=False, timeout=20).status_code == 200, "pages are shown, and ask by themselves"

    def has_room():
        with contextlib.ExitStack() as again:
            return listen(again) == 200

    wait_until(has_room, what="room for a listener")


@pytest.mark.slow
def test_the_keyboard_keeps_its_place_while_the_page_refreshes(file, url, tab, start_beatd):
    path = file()
    start_beatd("run", "--config", path).expect("Leading")
    root = url(path)
    tab.goto(f"{root}/login")
    tab.keyboard.type(OPERATE)
    tab.keyboard.press("Enter")
    tab.wait_for_selector(".note:has-text('Logged in')")
    tab.goto(root)
    reached = []
    for _ in range(60):
        tab.keyboard.press("Tab")
        reached.append(tab.evaluate("document.activeElement.innerText || document.activeElement.name"))
        outline = tab.evaluate("getComputedStyle(document.activeElement).outlineStyle")
        assert outline != "none", f"the focus is not seen at {reached[-1]!r}"
        if "Pause long" in reached[-1].replace("\n", " "):
            break
    shown = [" ".join(each.split()) for each in reached]
    for each in ("Skip to content", "Audit", "Log out", "q", "New entry", "Failing", "long", "Run long now"):
        assert each in shown, shown
    served = tab.get_attribute("#as-of", "data-as-of")
    tab.wait_for_selector(f'#as-of:not([data-as-of="{served}"])', timeout=20_000)
    assert "Pause long" in " ".join(tab.evaluate("document.activeElement.innerText").split()), "the focus is kept"
    tab.keyboard.press("/")
    assert tab.evaluate("document.activeElement.name") == "q"


def test_queues_tell_how_long_the_oldest_message_waits(start_beatd, file, url, beatd):
    path = file()
    start_beatd("run", "--config", path).expect("Leading")
    root = url(path)
    with httpx.Client(base_url=root, trust_env=False, timeout=20) as client:
        asked = {"Authorization": f"Bearer {OPERATE}"}
        assert client.post("/api/v1/entries/nightly/run", json={}, headers=asked).status_code == 200
        [queue] = client.get("/api/v1/queues").json()["queues"]
        assert (queue["messages"], queue["problem"]) == (1, f"no worker; start one: beatd worker -Q {queue['name']}")
        assert 0 <= queue["oldest_s"] < 60
        assert "Oldest waits" in client.get("/queues").text


def test_tls_and_a_file_with_wrong_rights(file, url, tmp_path, beatd):
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    command += ["-keyout", "web.key", "-out", "web.crt", "-subj", "/CN=localhost", "-days", "2"]
    subprocess.run([*command, "-addext", "subjectAltName=IP:127.0.0.1"], cwd=tmp_path, check=True, capture_output=True)
    path = file(more='tls_cert = "web.crt"\ntls_key = "web.key"')
    root = url(path)
    assert root.startswith("https://")
    context = ssl.create_default_context(cafile=str(tmp_path / "web.crt"))
    with httpx.Client(base_url=root, verify=context, trust_env=False, timeout=20) as client:
        assert client.get("/healthz").status_code == 200
        answer = client.post("/login", data={"token": OPERATE}, headers={"Origin": root})
        assert "Secure" in answer.headers["set-cookie"]
    (tmp_path / "tokens").chmod(0o644)
    done = beatd("web", "--config", path, "--port", "0")
    assert (done.returncode, "rights are 0644" in done.stderr) == (2, True)
    (tmp_path / "tokens").chmod(0o600)
    (tmp_path / "web.key").write_text("nonsense")
    done = beatd("web", "--config", path, "--port", "0")
    assert (done.returncode, "web.tls_cert" in done.stderr, "Traceback" in done.stderr) == (2, True, False)


@pytest.mark.slow
def test_an_open_page_whose_session_has_ended_goes_to_the_login(file, url, tab, tmp_path):
    root = url(file('anonymous = "none"'))
    tab.goto(f"{root}/fleet")
    tab.fill("[name=token]", OPERATE)
    tab.click("main button")
    tab.wait_for_selector("#overview h1:has-text('Fleet')")
    (tmp_path / "tokens").write_text(f"bob read {READ}\n")
    tab.wait_for_url("**/login?back=/fleet", timeout=30_000)
    tab.fill("[name=token]", READ)
    tab.click("main button")
    tab.wait_for_selector(".note:has-text('Logged in as bob')")
    assert tab.url == f"{root}/fleet"


@pytest.mark.slow
def test_the_search_shows_the_entries_for_the_last_words(file, url, tab):
    """Also when the answer to earlier words comes later."""
    tab.goto(url(file()))
    asked = []

    def answer(route):
        asked.append(route.request.url)
        if len(asked) == 1:
            waiting.append(route)
        else:
            route.continue_()

    waiting = []
    tab.route("**/?q=*", answer)
    with tab.expect_request("**/?q=nightly"):
        tab.fill("[name=q]", "nightly")
    tab.fill("[name=q]", "long")
    tab.wait_for_selector("#entries:has-text('match “long”')")
    waiting[0].continue_()
    tab.wait_for_timeout(2_500)
    assert "match “long”" in tab.inner_text("#entries")
    assert tab.url.endswith("/?q=long")
