"""URLs are read in one way or refused, and no secret is ever shown."""

import copy
import pickle
import random
import re

import pytest

from beatd import urls
from beatd.exceptions import ConfigError, WrongUrl
from beatd.model import BrokerSettings, RedisSettings
from beatd.store.client import connect
from beatd.store.client import place_of as place
from beatd.store.server_check import database
from beatd.urls import BrokerUrl, RedisUrl, check_broker, shown, with_login

MARKER = "tail9"


def test_all_parts_are_read():
    url = "sentinel://beat:p%40ss@one:1,[::1]:2,three/main/4?ssl=true&ssl_ca_certs=/ca.pem&sentinel_password=other"
    read = RedisUrl.parse(url)
    assert read.sentinels == (("one", 1), ("::1", 2), ("three", 26379))
    assert (read.service, read.database, read.username, read.password) == ("main", 4, "beat", "p@ss")
    assert (read.sentinel_username, read.sentinel_password, read.tls) == (None, "other", True)
    assert read.options == {"ssl_ca_certs": "/ca.pem"}
    plain = RedisUrl.parse("redis://:a%2Fb@[::1]:7/3?socket_timeout=2.5&protocol=2")
    assert (plain.host, plain.port, plain.password, plain.database) == ("::1", 7, "a/b", 3)
    assert plain.arguments["socket_timeout"] == 2.5
    rabbit = BrokerUrl.parse("amqps://u:p%3B@one:1/my%2Fhost?heartbeat=9&ssl_cert_reqs=CERT_NONE;amqps://u:q@two//")
    assert rabbit.hosts == (("one", 1), ("two", None))
    assert (rabbit.virtual_host, rabbit.password) == ("my/host", "p;")
    assert rabbit.options == {"heartbeat": 9, "ssl": {"cert_reqs": 0}}
    assert rabbit.shown == "amqps://u:***@one:1/my%2Fhost;amqps://u:***@two//"


@pytest.mark.parametrize("reqs", ["CERT_REQUIRED", "CERT_OPTIONAL", "CERT_NONE", "required", "optional", "none"])
def test_celerys_words_for_the_verification_of_certificates(reqs):
    read = RedisUrl.parse(f"rediss://h/0?ssl_cert_reqs={reqs}")
    assert read.options == {"ssl_cert_reqs": reqs.removeprefix("CERT_").lower()}


@pytest.mark.parametrize("url", ["unix:///tmp/s.sock?virtual_host=2", "redis+socket:///tmp/s.sock?virtual_host=2"])
def test_sockets_have_a_virtual_host(url):
    with connect(url) as client:
        assert database(client) == 2
        assert place(client) == "/tmp/s.sock"


@pytest.mark.parametrize(
    ("url", "text"),
    [
        ("redis://:Sek/tail9@h:6379/0", "percent-encode the password, or give `password` beside `url`"),
        ("redis://:4711/tail9@h:6379/0", "percent-encode"),
        ("redis://:Sek#tail9@h:6379/0", "percent-encode"),
        ("redis://:Sek?tail9@h:6379/0", "percent-encode"),
        ("redis://:Sek@tail9@h:6379/0", "percent-encode"),
        ("redis://:Sek%tail9@h:6379/0", "percent-encode"),
        ("redis://h/tail9", "its database is not a number"),
        ("redis://h:tail9/0", "its port is not a number"),
        ("redis://h:70000/0", "its port is not a number from 1 to 65535"),
        ("redis://h/1?visibility_timeout=3600", "broker_transport_options"),
        ("redis://h/1?foo=bar", "an option 'foo' that does not exist; use one of: "),
        ("redis://h/1?socket_timeot=3", "did you mean 'socket_timeout'"),
        ("redis://h/1?socket_timeout=tail9", "its option socket_timeout is a number of seconds"),
        ("redis://h/1?ssl_cert_reqs=none", "write rediss://"),
        ("redis://h/1?db=2", "two databases"),
        ("redis://:x@h?password=tail9", "twice"),
        ("rediss://h?ssl_cert_reqs=tail9", "is required, optional or none"),
        ("unix://tail9/socket", "absolute path"),
        ("http://u:tail9@h", "expected redis://"),
        ("sentinel://one:1", "names no service"),
        ("sentinel://one:1/main/zero", "number of a database"),
        ("sentinel://one:1,/main/0", "has no host"),
        ("sentinel://one:port/main/0", "its port is not a number"),
        ("sentinel://one/main/0?ssl=maybe", "true or false"),
        ("sentinel://user:tail9@[one/main/0", "its host cannot be read"),
        ("sentinel://user:tail9@h\u2100/main/0", "its host cannot be read"),
    ],
)
def test_what_is_wrong_is_said_without_secrets(url, text):
    with pytest.raises(WrongUrl) as caught:
        connect(url)
    assert text in str(caught.value)
    assert isinstance(caught.value, ConfigError)  # exit code 2
    assert MARKER not in f"{caught.value} {caught.value!r} {shown(url)}"


@pytest.mark.parametrize(
    ("url", "text"),
    [
        ("amqp://h//?connection_attempts=3", "'connection_attempts' that does not exist; "),
        ("amqp://u:4711/tail9@h//", "percent-encode"),
        ("amqp://u:4711;tail9@h//", "cannot be read"),
        ("amqp://h//?ssl_ca_certs=/x", "write amqps://"),
    ],
)
def test_wrong_brokers(url, text):
    with pytest.raises(WrongUrl) as caught:
        BrokerUrl.parse(url)
    assert text in str(caught.value)
    assert MARKER not in f"{caught.value!r} {shown(url)}"


def test_what_stands_beside_a_url_needs_no_encoding():
    whole = with_login("redis://h:6379/0", username="me", password="Sek/ta#il@9%?")
    read = RedisUrl.parse(whole)
    assert (read.username, read.password, read.host, read.port) == ("me", "Sek/ta#il@9%?", "h", 6379)
    assert with_login("redis:///1", host="::1", port=7) == "redis://[::1]:7/1"
    for beside in ({"password": "x"}, {"username": "x"}, {"host": "x"}, {"port": 1}):
        with pytest.raises(WrongUrl, match="leave one of them out"):
            with_login("redis://u:p@h:1", **beside)


def test_what_stands_beside_alternatives_holds_for_each_of_them():
    """After a failover the second broker would refuse the user guest."""
    whole = with_login("amqp://one/v;amqp://two:5673/w;three", username="me", password="Sek;/@")
    read = BrokerUrl.parse(whole)
    assert read.bare == "amqp://me:Sek%3B%2F%40@one/v;amqp://me:Sek%3B%2F%40@two:5673/w;three"
    assert read.hosts == (("one", None), ("two", 5673), ("three", None))
    assert "Sek" not in read.shown
    assert BrokerUrl.parse(with_login("amqp://a:b@one;amqp://c:d@two", port=7)).hosts == (("one", 7), ("two", 7))
    with pytest.raises(WrongUrl, match="it has a password, and `password` is given beside it"):
        with_login("amqp://one;amqp://u:p@two", password="x")


def test_a_value_never_shows_its_secrets():
    url = f"sentinel://beat:{MARKER}@one:1,two:2/main/3?sentinel_password={MARKER}&protocol=2"
    read = RedisUrl.parse(url)
    assert read.shown == str(read) == "sentinel://beat:***@one:1,two:2/main/3?sentinel_password=***&protocol=2"
    assert MARKER not in repr(read)
    assert MARKER not in repr(RedisSettings(url=url)) + repr(BrokerSettings(url=url))
    assert RedisUrl.parse(copy.copy(read)) == read
    with connect(url) as client:
        assert place(client) == "main/3 of the sentinels one:1, two:2"
        assert database(client) == 3


def test_a_user_without_a_password_may_be_one():
    assert shown("redis://tail9@h:1/0") == "redis://***@h:1/0"


@pytest.mark.parametrize("url", ["redis://h:1/0", "unix:///tmp/redis.sock?db=1", "sentinel://a,b/main", "memory://"])
def test_urls_without_a_secret_are_shown_as_they_are(url):
    assert shown(url) == url


def test_only_a_url_with_a_service_is_spoken_natively():
    """kombu's own form has several URLs and no service in them."""
    assert urls.is_redis("sentinel://one:1,two:2/main/0")
    assert urls.is_redis("sentinel://one:1/main")
    for url in (
        "sentinel://one:1",
        "sentinel://one:1/0",
        "sentinel://one:1/0;sentinel://two:2/0",
        "sentinel://one/?a=b",
    ):
        assert not urls.is_redis(url), url


def test_errors_survive_the_way_between_processes():
    error = pickle.loads(pickle.dumps(WrongUrl("redis://…", "it is wrong")))
    assert str(error) == "redis://…: it is wrong"


def test_no_url_however_strange_shows_its_secret():
    chance = random.Random(7)
    for _ in range(5_000):
        url = strange_url(chance)
        said = [shown(url)]
        try:
            urls.check_broker(url)
        except WrongUrl as error:
            said += [str(error), repr(error)]
        assert not any(MARKER in text for text in said), (url, said)


def strange_url(chance):
    """A URL with the marker in its password, and anything around it."""
    scheme = chance.choice(["redis", "rediss", "unix", "sentinel", "amqp", "amqps", "pyamqp", "sqs", "mongodb", "x+y"])
    junk = "/?#@%:;,[]&= '\"\\ab47.\u00e4"
    before, after = ("".join(chance.choices(junk, k=chance.randrange(5))) for _ in "12")
    host = chance.choice(["h:6379", "h", "[::1]:1", "", "h:port", "one:1,two:2"])
    tail = chance.choice(["/0", "", "//", "/abc", "/main/0", "/0?foo=bar", "?db=x"])
    return f"{scheme}://{chance.choice(['', 'user'])}:{before}{MARKER}{after}@{host}{tail}"


def test_a_cluster_is_named_by_some_of_its_nodes():
    url = RedisUrl.parse("rediss+cluster://user:secret@a:7000,b,[::1]:7002?ssl_check_hostname=false")
    assert url.nodes == (("a", 7000), ("b", 6379), ("::1", 7002))
    assert (url.username, url.password, url.tls, url.database) == ("user", "secret", True, 0)
    assert url.options == {"ssl_check_hostname": False}
    assert url.place == "cluster a:7000, b:6379, ::1:7002"
    assert "secret" not in str(url)
    assert shown("redis+cluster://:secret@a:1,b:2").startswith("redis+cluster://:")


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("redis+cluster://", "one of its nodes has no host"),
        ("redis+cluster://a,,b", "one of its nodes has no host"),
        ("redis+cluster://a/1", "a cluster has database 0 only"),
        ("redis+cluster://a:b", "its port is not a number"),
        ("redis+cluster://a?ssl_ca_certs=x", "write rediss+cluster://"),
        ("redis+cluster://a?ssl=true", "write rediss+cluster://"),
        ("redis+cluster://a?sentinel_username=x", "it is for sentinel:// URLs"),
    ],
)
def test_urls_of_clusters_that_are_wrong(text, reason):
    with pytest.raises(WrongUrl, match=re.escape(reason)):
        RedisUrl.parse(text)


def test_a_cluster_is_no_broker():
    with pytest.raises(WrongUrl, match="can be the state store, and no broker"):
        check_broker("redis+cluster://a:1")


def test_a_transport_that_kombu_lacks_is_refused_with_the_near_one():
    from kombu.transport import TRANSPORT_ALIASES

    for alias in TRANSPORT_ALIASES:
        check_broker(f"{alias}://" + ("h:1/s" if alias == "sentinel" else ""))
    check_broker("sqla+sqlite:///db.sqlite3")
    for url, hint in {"ampq://h": "amqp://", "reddis://h": "redis://", "sqs3://": "sqs://"}.items():
        with pytest.raises(WrongUrl, match=f"no such transport; did you mean {hint}"):
            check_broker(url)
    with pytest.raises(WrongUrl, match="expected one of amqp, amqps, azure"):
        check_broker("http://u:tail9@h")
