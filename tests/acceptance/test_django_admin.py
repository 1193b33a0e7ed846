"""The schedule in Django's admin: in a browser, by Django's own test client, and with other versions of Django."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.acceptance.django_project import python, run, write_project
from tests.conftest import missing
from tests.forked import environment

BEAT = """
timezone = "Europe/Berlin"
[redis]
url = {url!r}
[beat_schedule.nightly]
task = "shop.tasks.add_item"
schedule = "30 4 * * *"
args = ["pear"]
[beat_schedule."a/b ä <b>"]
task = "shop.tasks.count"
schedule = "0 5 * * mon"
"""
ADMIN = {"DJANGO_SETTINGS_MODULE": "proj.admin_settings"}
CLIENT = """
import html, json, re, django
django.setup()
from django.contrib.auth.models import Permission, User
from django.test import Client

def client(name, *rights, csrf=False):
    user, made = User.objects.get_or_create(username=name, is_staff=True)
    user.user_permissions.set(Permission.objects.filter(content_type__app_label="beatd", codename__in=rights))
    one = Client(enforce_csrf_checks=csrf)
    one.force_login(user)
    return one

def text(answer):
    words = re.sub(r"<(script|style)[^>]*>.*?</\\1>", "", answer.content.decode(), flags=re.S)
    return re.sub(r"\\s+", " ", html.unescape(re.sub(r"<[^>]+>", " ", words)))

LIST = "/admin/beatd/entry/"
NEW = {"name": "new", "task": "shop.tasks.count", "schedule": "9 * * * *", "enabled": "on"}
ALL = "view_entry", "add_entry", "change_entry", "delete_entry"
"""


@pytest.fixture
def project(tmp_path, redis_url):
    (tmp_path / "beat.toml").write_text(BEAT.format(url=redis_url))
    return write_project(tmp_path, redis_url)


@pytest.fixture
def ask(project):
    """``ask(code)`` runs code with a client of Django's, after the tables of Django are made; returns its output."""
    python(project, "manage.py", "migrate", "--run-syncdb", "-v", "0", **ADMIN)

    def answer(code, **env):
        return python(project, "-c", CLIENT + code, **ADMIN, **env)

    return answer


@pytest.mark.slow
def test_no_tables_of_its_own(project, ask):
    assert "No changes detected" in python(project, "manage.py", "makemigrations", "--check", "--dry-run", **ADMIN)
    names = ask("""
from django.db import connection
print([name for name in connection.introspection.table_names() if "beatd" in name])""")
    assert names == "[]\n"
    assert "beatd.entry" not in python(project, "manage.py", "dumpdata", "-a", **ADMIN)
    assert "no issues" in python(project, "manage.py", "check", **ADMIN)


@pytest.mark.slow
def test_permissions(ask):
    said = json.loads(
        ask("""
said = {}
for right in ("", "view", "add", "change", "delete"):
    one = client("bob", f"{right}_entry")
    said[right] = [
        one.get(LIST).status_code, one.get(f"{LIST}nightly/change/").status_code,
        one.get(f"{LIST}nightly/history/").status_code, one.get(f"{LIST}add/").status_code,
        one.post(LIST, {"action": "pause", "_selected_action": "nightly"}).status_code,
        one.post(f"{LIST}nightly/act/", {"action": "resume"}).status_code,
        one.get(f"{LIST}nightly/edit/").status_code, one.get(f"{LIST}nightly/delete/").status_code,
        one.get(f"{LIST}explain/?schedule=@daily").status_code,
    ]
said["nobody"] = Client().get(LIST).status_code
said["csrf"] = client("bob", *ALL, csrf=True).post(f"{LIST}nightly/act/", {"action": "pause"}).status_code
said["get"] = client("bob", *ALL).get(f"{LIST}nightly/act/?action=pause").status_code
print(json.dumps(said))""")
    )
    no = 403
    assert said == {
        "": [no, no, no, no, no, no, no, no, no],
        "view": [200, 200, 200, no, no, no, no, no, 200],
        "add": [no, no, no, 200, no, no, no, no, 200],
        "change": [200, 200, 200, no, 302, 302, 409, no, 200],
        "delete": [no, no, no, no, no, no, no, 409, no],
        "nobody": 302,
        "csrf": 403,
        "get": 405,
    }


def test_what_is_off_stays_off_when_an_entry_is_edited(ask):
    said = json.loads(
        ask("""
from beatd.contrib.django.form import EntryForm
rules = {"timezone": "UTC", "defaults": {"queue": "q", "timezone": "Asia/Tokyo", "expires": "1h"}}
off = {"task": "t", "schedule": "@daily", "timezone": False, "queue": False, "expires": False}

def submitted(**fields):
    form = EntryForm({"name": "a", **EntryForm.initial_of(off), **fields}, rules=rules)
    return form.is_valid(), form.table, form.errors.get_json_data()

print(json.dumps([submitted(), submitted(queue="own"), submitted(more="enabled = false")]))""")
    )
    off = {"task": "t", "schedule": "@daily", "timezone": False, "queue": False, "expires": False}
    assert said[0] == [True, off, {}]
    assert [list(errors) for _, _, errors in said[1:]] == [["more"], ["more"]]
    assert said[1][2]["more"][0]["message"] == "queue has a field of its own above"


def test_entries_are_listed_searched_filtered_and_changed(ask, beatd):
    said = json.loads(
        ask("""
anna = client("anna", *ALL)

def show(path="", **query):
    return text(anna.get(LIST + path, query))

def post(path="", follow=True, **fields):
    return anna.post(LIST + path, fields, follow=follow)

both = ["nightly", "a/b ä <b>"]
said = {"list": show(), "search": show(q="NIGHT"), "odd": show(only="x", page="x", sort="%", source="y")}
said["paused"] = text(post(action="pause", _selected_action=both, reason="move", **{"for": "2h"}))
said["none"] = text(post(action="pause"))
said["what"] = text(post(action="", _selected_action="nightly"))
said["only"] = show(only="paused", source="file")
said["for"] = text(post("nightly/act/", action="pause", **{"for": "2 apples"}))
said["resumed"] = text(post("nightly/act/", action="resume"))
said["run"] = text(post("nightly/act/", action="run"))
wrong = {"zone": {"timezone": "Mars"}, "cron": {"schedule": "99 * * * *"}, "args": {"args": "{}"}}
wrong |= {"more": {"more": "foo = 1"}, "toml": {"more": "= 1"}, "own": {"more": "queue = 'q'"}}
for name, more in {**wrong, "taken": {"name": "nightly"}}.items():
    answer = post("add/", **NEW | more)
    said[name] = [answer.status_code, text(answer)]
said["added"] = text(post("add/", **NEW | {"more": 'expires = "1h"', "args": "[null]"}))
said["edit"] = anna.get(LIST + "new/edit/").content.decode()
said["edited"] = text(post("new/edit/", **NEW | {"schedule": "{ every = '2h' }", "enabled": ""}))
said["explained"] = text(post("new/edit/", **NEW | {"schedule": "*/7 * * * *", "_explain": "1"}))
said["removed"] = text(post("new/delete/"))
said["history"] = show("nightly/history/")
said["nobody"] = anna.get(LIST + "nobody/change/").status_code
print(json.dumps(said))""")
    )
    words = r"nightly shop\.tasks\.add_item at 04:30, every day, Europe/Berlin time - - \S+ 04:30:00 file"
    assert re.search(words, said["list"])
    assert "a/b ä <b> shop.tasks.count" in said["list"]
    assert "3 of 3 entries" in said["list"]
    assert ("nightly" in said["search"], "a/b" in said["search"], "3 entries" in said["odd"]) == (True, False, True)
    assert "Done: nightly is paused until" in said["paused"]
    assert "Done: a/b ä <b> is paused until" in said["paused"]
    assert "move" in said["paused"].partition("Reason")[2]
    assert "Select entries first" in said["none"]
    assert "choose an action first" in said["what"]
    assert "2 of 3 entries" in said["only"]
    assert 'Not done: for: "2 apples"' in said["for"]
    assert "Done: nightly is resumed" in said["resumed"]
    assert "Not done: no daemon is alive" in said["run"]
    for name, words in {
        "zone": 'unknown time zone "Mars"',
        "cron": "99 is out of range",
        "args": "expected a JSON list",
        "more": 'foo: unknown setting "foo"',
        "toml": "this is no TOML",
        "own": "queue has a field of its own above",
        "taken": "an entry of this name is there already",
    }.items():
        assert said[name][0] == 400
        assert words in said[name][1]
    assert "Done: new is added; it is in force on all daemons within a second." in said["added"]
    assert 'value="[null]"' in said["edit"]
    assert "expires = &quot;1h&quot;" in said["edit"]
    assert "Done: new is changed" in said["edited"]
    assert "every 2h" in said["edited"]
    assert "every 7 minutes" in said["explained"]
    assert "Warning:" in said["explained"]
    assert "Done: new is removed." in said["removed"]
    assert re.search(r"[\d:]{8} \w+ anna reason: move; until: [\d-]{10} [\d:]{8} \w+", said["history"])
    assert "+00:00" not in said["history"]
    assert said["nobody"] == 404
    changes = json.loads(beatd("audit", "--json").stdout)["changes"]
    assert [(each["action"], each["by"]) for each in changes] == [
        (action, "anna") for action in ("remove", "change", "add", "resume", "pause", "pause")
    ]


DOTTED = (".", "..", "../..", "~..", "_2E", "...", "a/../b", "x/.")


def test_every_link_leads_to_its_entry_in_a_browser(ask):
    code = f"""
import sys
sys.path.insert(0, {str(Path(__file__).parents[2])!r})
from tests.browser_urls import browser_path
anna, seen = client("anna", *ALL), {{}}

def links(path):
    page = html.unescape(anna.get(path).content.decode())
    return {{browser_path(link) for link in re.findall('(?:href|action)="(' + LIST + '[^"?]+)"', page)}}

def title(page):
    return re.search(r"<title>(.*?)\\s+[|]", html.unescape(page.content.decode()), re.S)[1].strip()

for name in {DOTTED!r}:
    anna.post(LIST + "add/", NEW | {{"name": name}})
for entry in [link for link in links(LIST) if link.endswith("/change/")]:
    for link in links(entry) | {{entry}}:
        if (kind := link.rsplit("/", 2)[1]) != "add":
            page = anna.post(link, {{"action": "pause"}}, follow=True) if kind == "act" else anna.get(link)
            seen.setdefault(kind, []).append(title(page))
print(json.dumps(seen))"""
    titles = {"change": "{}", "act": "{}", "history": "History of {}", "edit": "Edit {}", "delete": "Remove {}?"}
    seen = json.loads(ask(code))
    assert seen.keys() == titles.keys()
    for kind, title in titles.items():
        others = ["nightly", "a/b ä <b>", "count"] if kind in ("change", "act", "history") else []
        assert sorted(set(seen[kind])) == sorted(map(title.format, [*DOTTED, *others])), kind


def test_a_project_without_time_zones_and_arguments_as_text(project, ask, beatd):
    settings = project / "proj" / "settings.py"
    settings.write_text(f"{settings.read_text()}\nUSE_TZ = False\nTIME_ZONE = 'Asia/Tokyo'\n")
    beatd("add", "new", "--task", "shop.tasks.count", "--schedule", "1h", "--set", 'args="[null]"')
    said = json.loads(
        ask("""
anna = client("anna", *ALL)
said = {"list": text(anna.get(LIST)), "edit": anna.get(LIST + "new/edit/").content.decode()}
said["history"] = text(anna.get(LIST + "new/history/"))
print(json.dumps(said))""")
    )
    assert re.search(r"nightly .*? [\d-]{10} 1[12]:30:00 file", said["list"])  # 04:30 in Berlin
    assert re.search(r"[\d-]{10} [\d:]{8} JST", said["history"])
    assert 'value="[null]"' in said["edit"]


@pytest.mark.slow
def test_what_is_away_is_said(project, ask, redis_server, free_port):
    code = """
anna = client("anna", *ALL)
for path in ("", "nightly/change/", "nightly/history/", "add/", "new/edit/", "new/delete/", "explain/?schedule=@daily"):
    answer = anna.get(LIST + path)
    print(answer.status_code, text(answer))
answer = anna.post(LIST + "nightly/act/", {"action": "pause"})
print(answer.status_code)
answer = anna.post(LIST + "add/", NEW, follow=True)
print(answer.status_code, text(answer))
"""
    beat = project / "beat.toml"
    beat.write_text(BEAT.format(url=f"redis://:secret@127.0.0.1:{free_port()}/0"))
    said = ask(code)
    codes = [line[:3] for line in said.splitlines()]
    assert codes == ["503", "503", "503", "200", "503", "503", "200", "302", "503"]
    assert "Cannot reach the state store" in said
    assert "secret" not in said
    beat.write_text("[beat_schedule.x]\ntask = 'x'\n")
    said = ask(code, PYTHONWARNINGS="ignore")
    assert "The schedule cannot be read." in said
    assert "beat.toml:1:1: beat_schedule.x" in said
    beat.unlink()
    settings = project / "proj" / "settings.py"
    settings.write_text(f"{settings.read_text()}\nBEATD_APP = 'nowhere'\n")
    assert "no module named 'nowhere'" in ask(code)


@pytest.fixture
def tab(browser):
    """A tab of a browser."""
    page = browser.new_page()
    page.set_default_timeout(20_000)
    page.complaints = []
    page.on("pageerror", lambda error: page.complaints.append(str(error)))
    return page


def admin_in_a_browser(project, tab, start_beatd, wait_until, port, more):
    """The way of an operator through the admin: list, pause, run now, add, edit, history, remove."""
    python(project, "manage.py", "migrate", "--run-syncdb", "-v", "0", **ADMIN, **more)
    user = ["createsuperuser", "--noinput", "--username", "anna", "--email", "anna@example.com"]
    python(project, "manage.py", *user, DJANGO_SUPERUSER_PASSWORD="pears", **ADMIN, **more)
    start_beatd("worker", "-A", "proj", "-c", "1", "-P", "threads", **more).expect(r"ready\.", timeout=40)
    start_beatd("run", **more).expect("Leading shard 0", timeout=40)
    with (project / "server.log").open("wb") as log:
        server = subprocess.Popen(
            [sys.executable, "manage.py", "runserver", "--noreload", f"127.0.0.1:{port}"],
            cwd=project, env=environment(**ADMIN, **more), stdout=log, stderr=log,
        )  # fmt: skip
    try:
        wait_until(lambda: "Quit the server" in (project / "server.log").read_text(), 40, "the server to be there")
        _walk(tab, f"http://127.0.0.1:{port}/admin/")
    finally:
        server.terminate()
        server.wait(20)


def _walk(tab, root):
    tab.goto(root)
    tab.fill("[name=username]", "anna")
    tab.fill("[name=password]", "pears")
    tab.click("[type=submit]")
    tab.click("a:text-is('Schedule') >> nth=0")
    row = tab.locator("#result_list tr", has_text="nightly")
    assert "at 04:30, every day" in row.inner_text()
    row.locator("input[type=checkbox]").check()
    tab.select_option("select[name=action]", "pause")
    tab.fill("[name=reason]", "stock-taking")
    tab.click("button:text-is('Go')")
    assert "Done: nightly is paused until somebody resumes it." in tab.inner_text(".messagelist")
    assert "stock-taking" in tab.locator("#result_list tr", has_text="nightly").inner_text()
    tab.click("nav#changelist-filter >> text=Paused")
    tab.wait_for_load_state()
    assert tab.locator("#result_list tbody tr").count() == 1
    tab.click("#result_list >> text=nightly")
    tab.click("text=Resume")
    assert "Done: nightly is resumed" in tab.inner_text(".messagelist")
    tab.click("button:text-is('Run now')")
    assert re.search(r"Done: run \w{8} of nightly sent", tab.inner_text(".messagelist"))
    for _ in range(100):
        tab.click(".object-tools >> text=History")
        if "success" in tab.inner_text(".beatd-runs"):
            break
        tab.go_back()
        tab.reload()
    assert "success" in tab.inner_text(".beatd-runs")
    assert "anna" in tab.inner_text("#content-main")
    tab.goto(f"{root}beatd/entry/add/")
    tab.fill("[name=name]", "prices/new ä")
    tab.fill("[name=task]", "shop.tasks.count")
    tab.fill("[name=schedule]", "*/7 * * * *")
    tab.wait_for_selector("#explanation >> text=every 7 minutes from the start of each hour")
    tab.fill("[name=schedule]", "61 * * * *")
    tab.wait_for_selector("#explanation >> text=61 is out of range")
    tab.click("[name=_save]")
    assert "61 is out of range" in tab.inner_text(".field-schedule .errorlist")
    tab.fill("[name=schedule]", "every 10 minutes")
    tab.click("[name=_save]")
    assert "Done: prices/new ä is added" in tab.inner_text(".messagelist")
    tab.click(".object-tools >> text=Edit")
    tab.fill("[name=schedule]", "@daily")
    tab.click("[name=_explain]")
    assert "at 00:00, every day" in tab.inner_text("#explanation")
    tab.click("[name=_save]")
    assert "Done: prices/new ä is changed" in tab.inner_text(".messagelist")
    tab.click(".object-tools >> text=Remove")
    tab.click("text=Yes, remove it")
    assert "Done: prices/new ä is removed." in tab.inner_text(".messagelist")
    assert tab.complaints == []


@pytest.mark.slow
def test_in_a_browser(project, tab, start_beatd, wait_until, free_port):
    admin_in_a_browser(project, tab, start_beatd, wait_until, free_port(), {})


@pytest.mark.slow
@pytest.mark.parametrize("version", ["django==4.2.*", "django"])
def test_with_other_versions_of_django(version, project, tab, start_beatd, wait_until, free_port, tmp_path_factory):
    folder = tmp_path_factory.mktemp("django")
    pip = [sys.executable, "-m", "pip", "install", "-q", "--no-warn-conflicts", "--target", str(folder), version]
    done = subprocess.run(pip, capture_output=True, text=True, timeout=300, check=False)
    if done.returncode:
        missing(f"{version} ({done.stderr.strip().splitlines()[-1:]})")
    more = {"PYTHONPATH": os.pathsep.join([str(folder), str(project)])}
    shown = run(project, "-c", "import django; print(django.__file__)", **more).stdout
    assert shown.startswith(str(folder))
    assert "no issues" in python(project, "manage.py", "check", **ADMIN, **more)
    admin_in_a_browser(project, tab, start_beatd, wait_until, free_port(), more)
