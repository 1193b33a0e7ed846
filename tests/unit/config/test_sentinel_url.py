"""URLs of a primary that sentinels are asked for."""

import pytest
from beatd.config.sentinel_url import SentinelUrl

from beatd.broker import is_redis
from beatd.exceptions import StoreRefused
from beatd.store.client import connect, place_of, redacted
from beatd.store.server import database


def test_all_parts_are_read():
    url = "sentinel://beat:p%40ss@one:1,[::1]:2,three/main/4?ssl=true&ssl_ca_certs=/ca.pem&sentinel_password=other"
    parsed = SentinelUrl.parse(url)
    assert parsed.sentinels == (("one", 1), ("::1", 2), ("three", 26379))
    assert (parsed.service, parsed.db, parsed.username, parsed.password) == ("main", 4, None, "other")
    assert parsed.primary == "rediss://beat:p%40ss@primary/4?ssl_ca_certs=%2Fca.pem"


def test_the_first_database_is_the_default():
    assert SentinelUrl.parse("sentinel://one/main").db == 0


@pytest.mark.parametrize(
    ("url", "text"),
    [
        ("sentinel://one:1", "names the service"),
        ("sentinel://one:1/0", "names the service"),
        ("sentinel://one:1/main/zero", "number of a database"),
        ("sentinel://one:1,/main/0", "has no host"),
        ("sentinel:///main/0", "has no host"),
        ("sentinel://one:port/main/0", "a port that is none"),
        ("sentinel://one:70000/main/0", "a port that is none"),
        ("sentinel://one/main/0?ssl=maybe", "true or false"),
        ("sentinel://user:secret@[one/main/0", "not a sentinel:// URL"),
        ("sentinel://user:secret@h\u2100/main/0", "not a sentinel:// URL"),
    ],
)
def test_what_is_wrong_is_said_without_secrets(url, text):
    with pytest.raises(ValueError, match=text) as caught:
        SentinelUrl.parse(url)
    assert "secret" not in str(caught.value)


def test_only_a_url_with_a_service_is_spoken_natively():
    """kombu's own form has several URLs and no service in them."""
    assert is_redis("sentinel://one:1,two:2/main/0")
    assert is_redis("sentinel://one:1/main")
    for url in (
        "sentinel://one:1",
        "sentinel://one:1/0",
        "sentinel://one:1/0;sentinel://two:2/0",
        "sentinel://one/?a=b",
    ):
        assert not is_redis(url), url


def test_a_client_is_called_after_its_service_and_passwords_are_left_out():
    url = "sentinel://beat:secret@one:1,two:2/main/3?sentinel_password=hidden&protocol=2"
    assert redacted(url) == "sentinel://beat:***@one:1,two:2/main/3?sentinel_password=***&protocol=2"
    with connect(url) as client:
        assert place_of(client) == "main/3 of the sentinels one:1, two:2"
        assert database(client) == 3


@pytest.mark.parametrize("url", ["redis://h:1/0", "unix:///tmp/redis.sock?db=1", "sentinel://a,b/main", "rediss://u@h"])
def test_urls_without_a_password_are_shown_as_they_are(url):
    assert redacted(url) == url


def test_a_url_that_cannot_be_read_is_refused_and_not_shown():
    with pytest.raises(StoreRefused, match=r"^sentinel://… is not a Redis URL: not a sentinel:// URL") as caught:
        connect("sentinel://user:secret@[one/main")
    assert "secret" not in str(caught.value)
