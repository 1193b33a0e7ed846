"""The page as HTML: everything that others wrote is text, and what is wrong stands at the top."""

import base64
import json
import re
from hashlib import sha256
from html.parser import HTMLParser
from urllib.parse import quote

import pytest

from beatd.exceptions import StoreUnavailable
from beatd.planning.problems import Problem
from beatd.web.documents import MISMATCH_AFTER_S
from tests.unit.web.conftest import NOW, daemon, document, shard

EVIL = """</title></style></script><script>alert('1')</script>"><img src=x onerror='a()'>{{ 7*7 }}"""


def written(text):
    """A file with an entry of that name and task; JSON's strings are TOML's, too."""
    name = json.dumps(text)
    secret = "s3cret"
    return (
        f'[beat_schedule.{name}]\ntask = {name}\nschedule = "1m"\n'
        f'args = ["{secret}"]\nkwargs = {{ password = "{secret}" }}\n'
    )


class Reader(HTMLParser):
    """The page as a browser reads it: elements with their attributes, and the text outside of style and script."""

    def __init__(self, html):
        super().__init__()
        self.elements, self.text, self._raw = [], "", False
        self.feed(html)

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))
        self.text += " "
        self._raw = tag in ("script", "style")

    def handle_endtag(self, tag):
        self._raw = False

    def handle_data(self, data):
        if not self._raw:
            self.text += data

    def tags(self, name):
        return [attributes for tag, attributes in self.elements if tag == name]


def page(site, url="/"):
    return Reader(site.get(url).text)


def words(site, url="/"):
    return " ".join(page(site, url).text.split())


def test_whatever_others_wrote_is_text(site):
    site.write(written(EVIL))
    site.store.document = document(
        [daemon(EVIL, host=EVIL, version=EVIL, digest=EVIL, config=EVIL)], problems=[Problem("clock_skew", EVIL)]
    )
    site.store.document["state_store"] = {"place": EVIL, "server": EVIL, "prefix": EVIL}
    seen = page(site)
    assert "img" not in [tag for tag, _ in seen.elements]
    assert len(seen.tags("script")) == 1
    assert seen.text.count("alert('1')") >= 6
    assert seen.text.count("{{ 7*7 }}") == seen.text.count("alert('1')")


def test_the_search_stands_in_its_box_as_text(site):
    seen = page(site, f"/?q={quote(EVIL)}")
    [box] = [each for each in seen.tags("input") if each["name"] == "q"]
    assert box["value"] == EVIL
    assert len(seen.tags("script")) == 1
    assert "0 of 1 entry match" in " ".join(seen.text.split())


def test_arguments_are_never_shown(site):
    site.write(written("fine"))
    for path in ("/", "/api/entries", "/api/status", "/metrics"):
        assert "s3cret" not in site.get(path).text


def test_the_policy_names_the_style_and_the_script_of_the_page(site):
    answer = site.get("/")
    policy = answer.headers["content-security-policy"]
    for tag, rule in (("style", "style-src"), ("script", "script-src")):
        [inside] = re.findall(rf"<{tag}>(.*?)</{tag}>", answer.text, re.DOTALL)
        digest = base64.b64encode(sha256(inside.encode()).digest()).decode()
        assert f"{rule} 'sha256-{digest}'" in policy


def test_nothing_is_loaded_from_elsewhere_and_no_inline_style_or_handler_is_needed(site):
    elements = page(site).elements
    assert "main" in {name for name, _ in elements}
    for _, attributes in elements:
        assert "style" not in attributes
        assert not any(name.startswith("on") for name in attributes)
        for name in ("src", "href", "action"):
            assert attributes.get(name, "/").startswith(("/", "?", "#main", "data:")), attributes


def test_a_page_in_order(site):
    site.known("tick", last_due_ms=NOW - 200_000, runs=1234)
    seen = words(site)
    for text in ("Healthy", "host-one leads, term 3", "1 alive", "Redis 7.2.4", "1,234", "0 messages", "1 entry"):
        assert text in seen
    assert "host-one 7 leads, term 3" in words(site, "/fleet")
    assert "3 min 20 s ago 14:10 UTC" in seen
    assert "in 1 min 40 s 14:15 UTC" in seen


def test_a_zone_of_its_own_is_shown_beside_utc(site):
    site.write('[beat_schedule.a]\ntask = "t"\nschedule = "30 4 * * *"\ntimezone = "Asia/Tokyo"\n')
    assert "in 5 h 16 min 22 Sep 04:30 JST" in words(site)
    assert "in 5 h 16 min 22 Sep 04:30:00 JST 21 Sep 19:30:00 UTC" in words(site, "/entries/a")


def test_problems_stand_at_the_top_in_words(site):
    skew = "vm-1: its clock is 2.0 s ahead of the state store's"
    problems = [Problem("nobody_leads", "nobody leads"), Problem("clock_skew", skew, subject="vm-1")]
    site.store.document = document([daemon(digest=site.schedule.listing.digest, shards=[])], problems=problems)
    site.store.document["shards"] = [shard(leader=None)]
    seen = words(site)
    assert "2 problems" in seen
    assert seen.index("Nobody leads") < seen.index("vm-1: its clock") < seen.index("State store")
    assert "standby" in words(site, "/fleet")


def test_shards_with_their_leaders(site):
    both = [{"shard": 0, "term": 3}, {"shard": 2, "term": 9}]
    site.store.document = document(
        [daemon(shards=both), daemon("gone", alive=False, shards=[], seen_ms_ago=65_000)],
        shards=[shard(0), shard(1, leader=None, outbox=1200), shard(2)],
    )
    seen = words(site, "/fleet")
    assert "leads 0 (term 3), 2 (term 9)" in seen
    assert "gone; last heartbeat 1 min 5 s ago" in seen
    assert "1 nobody – 1,200" in seen


def test_a_store_that_is_down_leaves_a_page_that_says_so(site):
    site.store.error = StoreUnavailable("state store h:1/0: Connection refused")
    seen = words(site)
    assert "Cannot reach the state store h:1/0: Connection refused" in seen
    assert "1 problem" in seen
    assert "Healthy" not in seen


@pytest.mark.parametrize(("age", "told"), [(MISMATCH_AFTER_S - 1, False), (MISMATCH_AFTER_S + 1, True)])
def test_a_file_that_no_daemon_has_is_told_when_it_lasts(site, age, told):
    site.store.document = document([daemon(digest="another")])
    site.clock.mono += age
    assert ("No daemon has the schedule of" in words(site)) == told


def test_no_entries_and_no_daemons(site):
    site.write("")
    site.store.document = document(daemons=[], problems=[Problem("no_daemon", "no daemon is alive")])
    seen = words(site)
    assert "No daemon is alive" in seen
    assert "has no entries" in seen
    assert "No daemon has reported yet" in words(site, "/fleet")


def test_pages_link_to_each_other_within_the_search(site):
    site.write("".join(f'[beat_schedule."a&b {n}"]\ntask = "t"\nschedule = "1m"\n' for n in range(401)))
    seen = page(site, "/?q=a%26b&page=2")
    links = {each["rel"]: each["href"] for each in seen.tags("a") if "rel" in each}
    assert links == {"prev": "?q=a%26b", "next": "?q=a%26b&page=3"}
    assert "Page 2 of 3" in " ".join(seen.text.split())
    links = {each["rel"]: each["href"] for each in page(site, "/?page=3").tags("a") if "rel" in each}
    assert links == {"prev": "?page=2"}


def test_places_without_content_say_so(site):
    site.write("")
    assert "No runs in the next 24 hours" in words(site, "/timeline")
    assert "No runs in the next 7 days" in words(site, "/timeline?window=7d")
    site.broker.seen = {"workers": [], "problem": "broker h:1/0: Connection refused"}
    seen = words(site, "/workers")
    assert "Workers are unknown: broker h:1/0: Connection refused" in seen
    assert "0 workers" not in seen
