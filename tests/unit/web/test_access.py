"""Access to the page: tokens and roles, sessions, proxies, and requests that somebody did not mean."""

import re
from urllib.parse import unquote, urlencode

import pytest
from starlette.requests import Request

from beatd.client.runs import Triggered
from beatd.exceptions import ConfigError, StoreUnavailable
from beatd.model import WebSettings
from beatd.web import actions, rates, session
from beatd.web.access import Access
from beatd.web.app import create
from beatd.web.tokens import Tokens, read_tokens
from tests.fakes import FakeClock
from tests.unit.web.conftest import Site

OPERATE, READ = "operate-0123456789abcdef", "read-0123456789abcdef"
FORM = {"Origin": "http://localhost:8800", "Content-Type": "application/x-www-form-urlencoded"}
ACTION = "/api/v1/entries/tick/resume"


@pytest.fixture
def tokens(tmp_path):
    file = tmp_path / "tokens"
    file.write_text(f"# NAME ROLE TOKEN\nann operate {OPERATE}\n\nbob  read  {READ}\n")
    file.chmod(0o600)
    return file


@pytest.fixture
def guarded(site, tokens):
    site.tokens = Tokens(str(tokens))
    return site


def bearer(token):
    return {"Authorization": f"Bearer {token}"}


def cookie_of(answer, name="beatd_session"):
    return re.search(rf"{name}=([^;]+)", ",".join(answer.headers.get_list("set-cookie")))[1]


def log_in(site, token=OPERATE):
    answer = site.get("/login", method="POST", headers=FORM, content=f"token={token}&back=/fleet")
    assert (answer.status_code, answer.headers["location"]) == (303, "/fleet")
    return {"Cookie": f"beatd_session={cookie_of(answer)}"}


@pytest.mark.parametrize(
    ("mode", "text", "told"),
    [
        (0o644, f"ann operate {OPERATE}", "rights are 0644"),
        (0o620, f"ann operate {OPERATE}", "rights are 0620"),
        (0o600, f"ann admin {OPERATE}", "read or operate"),
        (0o600, "ann operate short", "fewer than 16"),
        (0o600, f"ann {OPERATE}", "NAME ROLE TOKEN"),
        (0o600, f"ann read {OPERATE}\nann read {READ}", "twice"),
    ],
)
def test_a_tokens_file_that_cannot_be_used_is_refused_without_showing_a_token(tokens, mode, text, told):
    tokens.write_text(text)
    tokens.chmod(mode)
    with pytest.raises(ConfigError, match=told) as caught:
        read_tokens(tokens)
    assert OPERATE not in str(caught.value)
    assert str(tokens) in str(caught.value)


def test_a_byte_order_mark_is_no_part_of_the_first_line(tokens):
    text = tokens.read_text()
    for start in ("", text.splitlines(keepends=True)[0]):
        tokens.write_text(f"\ufeff{text.removeprefix(start)}", encoding="utf-8")
        assert [token.name for token in read_tokens(tokens)] == ["ann", "bob"]


def test_a_missing_tokens_file_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="cannot be read: No such file"):
        Tokens(str(tmp_path / "none"))


def test_without_tokens_the_page_only_reads(site):
    answer = site.get(ACTION, method="POST")
    assert (answer.status_code, "tokens_file" in answer.json()["error"]) == (403, True)
    page = site.get("/").text
    assert "formaction" not in page
    assert "Log in" not in page
    assert site.get("/login").status_code == 404


@pytest.mark.parametrize(
    ("headers", "code"),
    [({}, 401), (bearer("x" * 30), 401), (bearer(READ), 403), ({"Authorization": "Basic YTpi"}, 401)],
)
def test_who_may_not_act_is_refused(guarded, headers, code):
    for method, path in (("POST", ACTION), ("DELETE", "/api/v1/entries/tick"), ("POST", "/entries/tick/run")):
        answer = guarded.get(path, method=method, headers=headers)
        assert answer.status_code == code, path
        assert (code != 401) or "Bearer" in answer.headers["www-authenticate"]


def test_who_may_not_read_is_sent_to_the_login(guarded):
    guarded.reads = False
    for path in ("/", "/entries/tick", "/fleet", "/badge/tick.svg", "/calendar.ics"):
        answer = guarded.get(path)
        assert (answer.status_code, answer.headers["location"][:12]) == (303, "/login?back=")
    for path in ("/api/v1/status", "/api/status", "/api/v1/openapi.json", "/metrics", "/live"):
        assert guarded.get(path).status_code == 401
        assert path == "/live" or guarded.get(path, headers=bearer(READ)).status_code == 200
    assert guarded.get("/healthz").status_code == guarded.get("/readyz").status_code == 200
    assert guarded.get("/", headers=log_in(guarded, READ)).status_code == 200


def test_a_session_acts_only_by_a_form_of_this_page(guarded):
    session = log_in(guarded)
    page = guarded.get("/entries/tick", headers=session).text
    csrf = re.search(r'name="csrf" value="(\w+)"', page)[1]
    good = {**session, **FORM}
    path, body = "/entries/gone/resume", f"csrf={csrf}"
    for headers, content in (
        ({**good, "Origin": "http://evil.example.com"}, body),
        ({**good, "Origin": "null"}, body),
        ({**good, "Sec-Fetch-Site": "cross-site"}, body),
        ({key: value for key, value in good.items() if key != "Origin"}, body),
        (good, "csrf=" + "0" * 64),
        (good, ""),
        ({**good, "Cookie": session["Cookie"] + "0"}, body),
    ):
        assert guarded.get(path, method="POST", headers=headers, content=content).status_code in (401, 403)
    done = guarded.get(path, method="POST", headers=good, content=body)
    assert done.status_code == 404, "it came through, and the entry is gone"
    assert "there is no entry &#39;gone&#39;".capitalize()[:5] in done.text


def test_a_session_cookie_cannot_be_read_by_scripts_or_sent_by_others(guarded):
    answer = guarded.get("/login", method="POST", headers=FORM, content=f"token={OPERATE}")
    [session] = [each for each in answer.headers.get_list("set-cookie") if each.startswith("beatd_session")]
    assert "HttpOnly" in session
    assert "SameSite=strict" in session


@pytest.mark.parametrize("back", ["//evil.example.com", "https://evil.example.com", "/\\evil", "javascript:alert(1)"])
def test_the_login_leads_nowhere_else(guarded, back):
    answer = guarded.get("/login", method="POST", headers=FORM, content=f"token={OPERATE}&back={back}")
    assert answer.headers["location"] == "/"


def test_a_session_ends_with_its_token(guarded, tokens):
    session = log_in(guarded)
    assert "Log out" in guarded.get("/", headers=session).text
    tokens.write_text(f"bob read {READ}\n")
    assert "Log out" not in guarded.get("/", headers=session).text
    tokens.chmod(0o644)
    assert guarded.get(ACTION, method="POST", headers=bearer(READ)).status_code == 401


def test_wrong_tokens_are_limited(guarded):
    app = guarded.app
    guarded.__class__ = type("Kept", (Site,), {"app": property(lambda _: app)})
    codes = [guarded.get(ACTION, method="POST", headers=bearer(f"{n:030}")).status_code for n in range(12)]
    assert codes == [401] * 10 + [429] * 2
    assert guarded.get("/api/v1/status", headers=bearer(READ)).status_code == 200, "others behind the same proxy go on"
    assert guarded.get("/").status_code == 200


def test_a_proxy_is_believed_at_its_address_only(site):
    site.settings = WebSettings(user_header="X-User", trusted_proxies=("10.1.0.0/16",), proxy_role="operate")
    name = {"X-User": "carol"}
    assert "carol" in site.get("/", headers=name, peer="10.1.2.3").text
    assert "carol" not in site.get("/", headers=name, peer="10.2.2.3").text
    page = site.get("/entries/tick", headers=name, peer="10.1.2.3").text
    csrf = re.search(r'name="csrf" value="(\w+)"', page)[1]
    ask = {"method": "POST", "headers": {**name, **FORM}}
    assert site.get("/entries/gone/resume", **ask, content=f"csrf={csrf}", peer="10.1.2.3").status_code == 404
    assert site.get("/entries/gone/resume", **ask, content="csrf=no", peer="10.1.2.3").status_code == 403
    assert site.get("/entries/gone/resume", **ask, content=f"csrf={csrf}", peer="10.2.2.3").status_code == 401


@pytest.mark.parametrize(
    ("headers", "content", "code"),
    [
        ({"Content-Type": "application/json"}, "{", 400),
        ({"Content-Type": "application/json"}, '{"reasn": "x"}', 400),
        ({"Content-Type": "text/plain"}, "{}", 415),
        ({"Content-Type": "application/json"}, "[" * 100_000, 400),
        ({"Content-Type": "application/json"}, "x" * 2_000_000, 413),
        ({"Content-Type": "application/json", "Content-Length": "9" * 18}, "{}", 413),
        ({"Content-Type": "application/json", "Origin": "http://evil.example.com"}, "{}", 403),
        ({"Host": "evil.example.com"}, "{}", 421),
    ],
)
def test_bodies_that_are_not_meant_are_refused(guarded, headers, content, code):
    answer = guarded.get(
        "/api/v1/entries/tick/pause", method="POST", headers={**bearer(OPERATE), **headers}, content=content
    )
    assert answer.status_code == code
    assert answer.json()["error"]


def test_who_asks_too_often_waits(site, monkeypatch):
    monkeypatch.setattr(rates, "READS", (3, 60.0))
    app = site.app
    site.__class__ = type("Kept", (Site,), {"app": property(lambda _: app)})
    assert [site.get("/api/v1/status").status_code for _ in range(4)] == [200, 200, 200, 429]
    assert site.get("/api/v1/status").headers["retry-after"]
    assert site.get("/healthz").status_code == 200
    assert site.get("/api/v1/status", peer="127.0.0.2").status_code == 200
    assert create


def test_unknown_parameters_get_near_names(site):
    assert site.get("/api/v1/entries?soort=name").json()["error"] == "unknown parameter 'soort'; did you mean sort?"
    assert "did you mean" in site.get("/?onyl=failing").text


@pytest.mark.parametrize("path", ["/timeline", "/timeline?window=7d", "/workers", "/queues", "/dead-letters", "/audit"])
def test_places_answer_and_show_names_as_text(site, path):
    evil = '</title><script>alert("1")</script>'
    site.write(f"[beat_schedule.'{evil}']\ntask = 't'\nschedule = '* * * * *'\nblackout = ['22:00-06:00']\n")
    worker = {"name": evil, "pid": 1, "uptime_s": 5, "pool": evil, "concurrency": 2, "ran": 3, "queues": [evil]}
    task = {"id": "1", "task": evil, "pid": 1, "started_at": None}
    site.broker.seen = {"workers": [{**worker, "active": [task], "active_count": 1}], "problem": evil}
    site.broker.letters = [
        {"id": "abcd", "at": "2026-01-01T00:00:00", "reason": evil, "queue": evil, "task": evil, "by": evil,
         "complete": True}
    ]  # fmt: skip
    text = site.get(path).text
    assert text.count("<script>") == 1
    assert "<h1" in text


def test_without_any_token_nobody_can_compute_the_key_of_forms(tokens):
    tokens.write_text("# nobody yet\n")
    keys = {Tokens(str(tokens)).key for _ in range(3)}
    assert len(keys) == 3


def test_names_with_marks_of_urls_survive_the_login_and_an_error(guarded):
    guarded.write('[beat_schedule."a?b#c%d"]\ntask = "t"\nschedule = 30\n')
    path = "/entries/a%3Fb%23c%25d"
    page = guarded.get(path, headers=log_in(guarded)).text
    assert f'action="{path}/run"' in page
    done = guarded.get(f"{path}/resume", method="POST", headers={**log_in(guarded), **FORM}, content="csrf=0")
    assert f'href="{path}"' in done.text
    guarded.reads = False
    [_, back] = guarded.get(path).headers["location"].split("back=")
    assert unquote(back) == path


def test_a_form_comes_through_a_proxy_that_gives_the_host_another_name(guarded):
    guarded.hosts = None
    form = {**log_in(guarded), "Origin": "https://beatd.example.com", "Content-Type": FORM["Content-Type"]}
    csrf = re.search(r'name="csrf" value="(\w+)"', guarded.get("/entries/tick", headers=form).text)[1]
    ask = {"method": "POST", "content": f"csrf={csrf}", "host": "10.0.0.7:8800"}
    codes = [
        guarded.get("/entries/gone/resume", **ask, headers={**form, **more}).status_code
        for more in ({"Sec-Fetch-Site": "same-origin"}, {}, {"Sec-Fetch-Site": "same-site"})
    ]
    assert codes == [404, 403, 403]


def test_a_proxy_may_pass_on_the_password_that_it_has_asked_for(site):
    site.settings = WebSettings(user_header="X-User", trusted_proxies=("10.1.0.0/16",), proxy_role="operate")
    asked = {"X-User": "carol", "Authorization": "Basic Y2Fyb2w6c2VjcmV0"}
    answer = site.get("/", headers=asked, peer="10.1.2.3")
    assert (answer.status_code, "carol" in answer.text) == (200, True)
    assert site.get("/", headers=asked, peer="10.2.2.3").status_code == 401


def test_no_other_site_logs_anybody_in(guarded):
    guarded.settings = WebSettings(user_header="X-User", trusted_proxies=("10.1.0.0/16",))
    evil = {**FORM, "Origin": "http://evil.example.com"}
    for more in ({}, {"X-User": "carol"}, log_in(guarded)):
        ask = {"headers": {**evil, **more}, "content": f"token={OPERATE}", "peer": "10.1.2.3"}
        assert guarded.get("/login", method="POST", **ask).status_code == 403


@pytest.mark.parametrize("char", ["x", "ю", "😀", "\udce9"])
def test_a_long_note_is_cut_so_that_its_cookie_is_not_dropped(char):
    access = Access(WebSettings(), Tokens(None), FakeClock(), reads=True)
    note = access.note(char * 5_000)
    assert len(note) < 3_900
    request = Request({"type": "http", "headers": [(b"cookie", f"{session.NOTE}={note}".encode())]})
    shown = access.read_note(request)
    assert shown == char * (session.NOTE_MAX - 1) + "…"


def test_while_the_store_is_away_a_place_is_loaded_again_and_an_action_is_not(guarded):
    headers = {**log_in(guarded), **FORM}
    csrf = re.search(r'name="csrf" value="(\w+)"', guarded.get("/entries/tick", headers=headers).text)[1]
    guarded.store.error = StoreUnavailable("state store redis:6379/0: Connection refused")
    place = guarded.get("/entries/tick", headers=headers)
    assert (place.status_code, 'id="overview" data-live' in place.text) == (503, True)
    done = guarded.get("/entries/tick/resume", method="POST", headers=headers, content=f"csrf={csrf}")
    assert (done.status_code, 'id="overview" data-live' in done.text) == (503, False)
    assert "may have been made" in done.text
    assert 'href="/entries/tick"' in done.text


def test_a_running_task_that_no_entry_has_sent_can_be_stopped(guarded):
    task = {"id": "5b3c2f1a-0000", "task": "shop.resize", "pid": 1, "started_at": None}
    guarded.broker.seen = {"workers": [{"name": "w", "active": [task]}], "problem": None}
    stop = {"method": "POST", "headers": bearer(OPERATE)}
    assert guarded.get("/api/v1/runs/5b3c2f1a-0001/stop", **stop).status_code == 404
    answer = guarded.get("/api/v1/runs/5b3c2f1a-0000/stop", **stop)
    assert answer.json()["done"] == "run 5b3c2f1a of shop.resize is being stopped"
    assert guarded.broker.stopped == ["5b3c2f1a-0000"]
    assert guarded.store.noted == [("ann", "stop-run", "shop.resize", {"run_id": "5b3c2f1a-0000"})]


@pytest.mark.parametrize(
    ("sent", "code", "noted"), [({}, 200, 1), ({"repeated": True}, 200, 0), ({"refused": "the queue is full"}, 409, 1)]
)
def test_the_audit_has_each_run_that_was_made(guarded, monkeypatch, sent, code, noted):
    class Runs:
        def __init__(self, *_):
            pass

        def trigger(self, name, *_, **__):
            return Triggered(name, "7c0e5b1f-3c1e", "once", **sent)

    monkeypatch.setattr(actions, "RunClient", Runs)
    asked = {"headers": {**bearer(OPERATE), "Content-Type": "application/json"}, "content": '{"args": [42]}'}
    assert guarded.get("/api/v1/entries/tick/run", method="POST", **asked).status_code == code
    change = ("ann", "trigger", "tick", {"run_id": "7c0e5b1f-3c1e", "args": [42]})
    assert guarded.store.noted == [change] * noted


@pytest.mark.parametrize("args", ["[NaN]", "[-Infinity]", "[16", "16"])
def test_arguments_of_a_form_are_json(guarded, args):
    headers = {**log_in(guarded), **FORM}
    csrf = re.search(r'name="csrf" value="(\w+)"', guarded.get("/entries/tick", headers=headers).text)[1]
    body = urlencode({"csrf": csrf, "args": args})
    assert guarded.get("/entries/tick/run", method="POST", headers=headers, content=body).status_code == 400


def test_a_program_that_goes_on_with_an_old_token_locks_nobody_out(guarded):
    app = guarded.app
    guarded.__class__ = type("Kept", (Site,), {"app": property(lambda _: app)})
    old = [guarded.get("/api/v1/status", headers=bearer("old-0123456789abcdef")).status_code for _ in range(30)]
    assert old == [401] * 30
    assert guarded.get("/api/v1/status", headers=bearer(READ)).status_code == 200
