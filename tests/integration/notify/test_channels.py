"""Channels against real receivers: a webhook that hangs, redirects or fails, SMTP by apprise, commands, monitors."""

from __future__ import annotations

import asyncio
import json
import tracemalloc
from collections.abc import Iterator
from email import message_from_bytes
from email.policy import default as email_policy

import pytest
from aiosmtpd.controller import Controller

from beatd import config
from beatd.model import NotifyTarget
from beatd.notify import monitors
from beatd.notify.channels import deliver
from beatd.notify.http_request import DeliveryFailed
from tests.receivers import Receiver, receiver

BODY = {"title": "beatd: a fails", "text": "a <fails> & more", "kind": "problem", "problems": []}
NOW = 1_800_000_000_000
RUN = {"run_id": "07ab9fd7-1f9b-56cc-ad2b-3cabc12ccb9c", "runtime_ms": 1500, "error": "ValueError: no\nsecond"}


@pytest.fixture
def web() -> Iterator[Receiver]:
    with receiver() as made:
        yield made


def hook(url: str, **more) -> NotifyTarget:
    return NotifyTarget(name="ops", webhook=url, **more)


def failure(target: NotifyTarget) -> DeliveryFailed:
    with pytest.raises(DeliveryFailed) as caught:
        deliver(target, BODY, now_ms=NOW)
    assert "SECRET" not in str(caught.value)
    return caught.value


def test_a_webhook_gets_json_that_slack_takes(web):
    deliver(hook(f"{web.url}/hook", headers={"Authorization": "Bearer x"}), BODY, now_ms=NOW)
    [got] = web.requests
    assert got.json == {**BODY, "text": "a &lt;fails&gt; &amp; more"}
    assert got.headers["Authorization"] == "Bearer x"
    assert got.headers["Content-Type"] == "application/json"


def test_a_path_may_have_any_character(web):
    deliver(hook(f"{web.url}/hök%20a/é?x=ü&y=%C3%BC"), BODY, now_ms=NOW)
    assert web.requests[0].path == "/h%C3%B6k%20a/%C3%A9?x=%C3%BC&y=%C3%BC"


@pytest.mark.parametrize(("status", "passing"), [(301, False), (302, True), (307, True), (308, False)])
def test_no_redirect_is_followed(web, status, passing):
    with receiver() as other:
        for place in (f"{web.url}/final", f"{other.url}/SECRET", "/final", "https://localhost:1/SECRET"):
            web.location = place
            error = failure(hook(f"{web.url}/to/{status}/elsewhere", headers={"Authorization": "Bearer SECRET"}))
            host = "https://localhost" if "localhost" in place else "http://127.0.0.1"
            assert f"answered {status}" in str(error)
            assert str(error).endswith(f", a redirect to {host}, which is not followed")
            assert error.passing is passing
        assert not web.of("/final")
        assert not other.requests


@pytest.mark.parametrize("place", ["http://[SECRET", "//[::1", "https:///SECRET", "mailto:SECRET", ""])
def test_a_redirect_to_no_web_address_is_said(web, place):
    web.location = place
    assert "a redirect to no web address" in str(failure(hook(f"{web.url}/to/307/elsewhere")))


def test_an_answer_that_has_taken_the_message_is_none(web):
    deliver(hook(f"{web.url}/to/303/final"), BODY, now_ms=NOW)
    assert not web.of("/final")


@pytest.mark.parametrize("event", ["start", "success", "fail"])
def test_a_ping_follows_no_redirect(web, event):
    with receiver() as other:
        web.location = f"{other.url}/SECRET"
        entry = config.entry("a", {"task": "t", "schedule": 30, "ping": f"{web.url}/to/302/elsewhere"})
        with pytest.raises(DeliveryFailed, match=r"a redirect to http://127\.0\.0\.1, which is not followed"):
            monitors.ping(entry, {"what": event, **RUN}, NOW)
        assert not other.requests


def test_a_webhook_that_hangs_is_left(web):
    error = failure(hook(f"{web.url}/hang?key=SECRET", timeout_ms=200))
    assert str(error) == "127.0.0.1 did not answer within 0.2 s"
    assert error.passing


@pytest.mark.parametrize(("status", "passing"), [(500, True), (404, True), (403, True), (400, False), (410, False)])
def test_answers_that_may_pass_are_told_from_others(web, status, passing):
    error = failure(hook(f"{web.url}/status/{status}/SECRET"))
    assert f"answered {status}" in str(error)
    assert error.passing is passing


@pytest.mark.parametrize(
    ("said", "seconds"),
    [
        *(("7", 7.0), ("Fri, 15 Jan 2027 08:00:30 GMT", 30.0), ("junk", 0.0), ("9" * 30, 0.0), ("²", 0.0)),
        ("Fri, 15 Jan 99999999999999999999 08:00:30 GMT", 0.0),
        ("Fri, 15 Jan 2027 08:00:30 +9999999999", 0.0),
    ],
)
def test_retry_after_is_heeded_within_bounds(web, said, seconds):
    web.retry_after = said
    assert failure(hook(f"{web.url}/status/429")).after_s == seconds


def test_an_unreachable_host_is_said(free_port):
    assert "Connection refused" in str(failure(hook(f"http://127.0.0.1:{free_port()}/SECRET")))
    assert "host.invalid" in str(failure(hook("http://host.invalid/SECRET", timeout_ms=2000)))


def texts_of(mail: bytes) -> dict[str, str]:
    """The texts of a mail by their type."""
    parts = message_from_bytes(mail, policy=email_policy).walk()
    return {
        part.get_content_type(): part.get_content().strip() for part in parts if part.get_content_maintype() == "text"
    }


def test_apprise_sends_mail_and_each_address_gets_it_once(free_port):
    mails: list[bytes] = []

    class Inbox:
        async def handle_DATA(self, server, session, envelope):
            mails.append(envelope.content)
            await asyncio.sleep(0)
            return "250 OK"

    smtp = Controller(Inbox(), hostname="127.0.0.1", port=free_port())
    smtp.start()
    try:
        good = f"mailto://127.0.0.1:{smtp.port}?from=a@example.com&to=b@example.com"
        bad = f"json://127.0.0.1:{free_port()}/SECRET"
        two = {**BODY, "text": "a <fails> & more\nb <img src=x> fails, too"}
        with pytest.raises(DeliveryFailed) as caught:
            deliver(NotifyTarget(name="ops", urls=(good, bad)), two, now_ms=NOW)
    finally:
        smtp.stop()
    assert len(mails) == 1
    assert b"Subject: beatd: a fails" in mails[0]
    texts = texts_of(mails[0])
    assert texts["text/plain"].splitlines() == ["a <fails> & more", "b <img src=x> fails, too"]
    assert "<img" not in texts.get("text/html", "")
    assert caught.value.left == (1,), "only this one is tried again"
    assert "SECRET" not in str(caught.value)


def test_a_command_gets_the_message(tmp_path):
    words = ("sh", "-c", f'cat > {tmp_path}/got; echo "$BEATD_TITLE" > {tmp_path}/title')
    deliver(NotifyTarget(name="ops", command=words), BODY, now_ms=NOW)
    assert json.loads((tmp_path / "got").read_text()) == BODY
    assert (tmp_path / "title").read_text() == "beatd: a fails\n"


@pytest.mark.parametrize(
    ("words", "timeout_ms", "said"),
    [
        (("sh", "-c", "echo no route; exit 3"), 60_000, "the command ended with 3: no route"),
        (("sh", "-c", "sleep 60 & wait"), 300, "the command did not end within 0.3 s"),
        (("/no/such/program",), 60_000, "/no/such/program: No such file or directory"),
        (("true",), 60_000, None),
    ],
)
def test_a_command_that_fails_or_hangs(words, timeout_ms, said):
    target = NotifyTarget(name="ops", command=words, timeout_ms=timeout_ms)
    if said is None:
        deliver(target, BODY, now_ms=NOW)  # it did not read its input
    else:
        assert str(failure(target)) == said


def test_the_output_of_a_command_is_bounded_and_half_of_a_secret_is_not_shown():
    words = ("sh", "-c", "head -c 20000000 /dev/zero | tr '\\0' x; echo; printf 'no %s' \"$0\"; exit 3")
    url = f"https://bot:{'SECRET' * 60}@host.example it is away"
    tracemalloc.start()
    try:
        error = failure(NotifyTarget(name="ops", command=(*words, url), timeout_ms=10_000))
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert str(error).endswith("it is away")
    assert len(str(error)) < 400
    assert most < 2_000_000


def test_the_error_of_a_ping_is_one_line_without_secrets(web):
    entry = config.entry("a", {"task": "t", "schedule": 30, "ping": f"{web.url}/ping"})
    monitors.ping(entry, {**RUN, "what": "fail", "error": "no\ud800 \x1b[2J password=hunter2\nmore"}, NOW)
    assert web.requests[0].body == rb"no\ud800 \x1b[2J password=***"


def test_pings_of_healthchecks(web):
    entry = config.entry("a", {"task": "t", "schedule": 30, "ping": f"{web.url}/ping/uuid"})
    for what in ("start", "success", "fail"):
        monitors.ping(entry, {**RUN, "what": what}, NOW)
    rid = f"rid={RUN['run_id']}"
    assert [(one.method, one.path, one.body) for one in web.requests] == [
        ("GET", f"/ping/uuid/start?{rid}", b""),
        ("GET", f"/ping/uuid?{rid}", b""),
        ("POST", f"/ping/uuid/fail?{rid}", b"ValueError: no"),
    ]


def test_the_url_of_a_ping_is_called_as_it_is_written(web):
    entry = config.entry("a", {"task": "t", "schedule": 30, "ping": f"{web.url}/push/?key&msg=a%20b'"})
    for what in ("success", "start"):
        monitors.ping(entry, {**RUN, "what": what}, NOW)
    rest = f"?key&msg=a%20b'&rid={RUN['run_id']}"
    assert [one.path for one in web.requests] == [f"/push/{rest}", f"/push/start{rest}"]


def test_check_ins_of_sentry(web):
    dsn = web.url.replace("://", "://pubkey@") + "/42"
    fields = {"task": "t", "schedule": "0 3 * * *", "expect_within": "2h", "sentry": {"dsn": dsn}}
    entry = config.entry("Nightly Report", fields)
    monitors.check_in(entry, entry.policies.sentry, {**RUN, "what": "fail"}, NOW)
    [got] = web.requests
    assert got.path == "/api/42/cron/nightly-report/pubkey/"
    assert got.json == {
        "check_in_id": "07ab9fd71f9b56ccad2b3cabc12ccb9c",
        "monitor_slug": "nightly-report",
        "status": "error",
        "environment": "production",
        "duration": 1.5,
        "monitor_config": {
            "schedule": {"type": "crontab", "value": "0 3 * * *"},
            "timezone": "UTC",
            "max_runtime": 120,
        },
    }
