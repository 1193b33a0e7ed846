"""Each action of the page in a real browser, and hostile visits over real sockets."""

import contextlib
import json
import shutil
import socket
import ssl
import subprocess

import httpx
import pytest

from beatd.store.client import connect
from beatd.store.dead_letters import DeadLetters, encode
from beatd.store.keys import Keys
from tests.conftest import missing

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
def tab():
    """A tab of a browser that confirms what it is asked."""
    sync_api = pytest.importorskip("playwright.sync_api")
    binary = shutil.which("chromium") or shutil.which("google-chrome")
    if binary is None:
        missing("chromium")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=binary, args=["--no-sandbox"])
        page = browser.new_page()
        page.set_default_timeout(15_000)
        page.complaints = []
        page.on("dialog", lambda dialog: dialog.accept())
        page.on("pageerror", lambda error: page.complaints.append(str(error)))
        page.on("console", lambda line: line.type == "error" and page.complaints.append(line.text))
        yield page
        browser.close()


def test_every_action_in_a_browser(start_beatd, file, url, tab, redis_url, wait_until, beatd):
    path = file()
    with connect(redis_url) as client:
        letters = DeadLetters(client, Keys("beatd"))
        message = json.dumps({"body": "", "headers": {"task": "lost.task", "id": "1"}, "properties": {}}).encode()
        for number in range(2):
            raw = message + b" " * number
            letters.add([encode(raw, reason="no task <b>", queue="other", at="2026-01-01T00:00:00")])
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
    assert "no task <b>" in tab.inner_text("table")
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


def test_tls_and_a_file_with_wrong_rights(file, url, tmp_path, beatd):
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    command += ["-keyout", "web.key", "-out", "web.crt", "-subj", "/CN=localhost", "-days", "2"]
    subprocess.run([*command, "-addext", "subjectAltName=IP:127.0.0.1"], cwd=tmp_path, check=True, capture_output=True)
    path = file(more='tls_cert = "web.crt"\ntls_key = "web.key"')
    root = url(path)
    assert root.startswith("https://")
    context = ssl.create_default_context(cafile=str(tmp_path / "web.crt"))
    with httpx.Client(base_url=root, verify=context, trust_env=False) as client:
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
