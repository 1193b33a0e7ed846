"""``global_keyprefix`` as a part of a URL, and the names that it makes: those of kombu and Celery."""

import pytest

from beatd.app.conf import Conf
from beatd.broker.kombu import connection
from beatd.broker.redis_keys import RedisKeys
from beatd.config.loader import load_settings
from beatd.exceptions import ConfigError, WrongUrl
from beatd.url_keyprefix import (
    difference,
    global_keyprefix,
    own_prefix,
    result_prefix,
    with_keyprefix,
    without_keyprefix,
)
from beatd.urls import RedisUrl, check_broker
from tests.conftest import needed

PREFIXES = ["env1:", "a", "a b", "äö/", "{x}:", "a&b=c?#@%", "…"]


@pytest.mark.parametrize("prefix", PREFIXES)
@pytest.mark.parametrize(
    "url",
    [
        "redis://h",
        "redis://:p%40w@h:1/2?socket_timeout=2",
        "unix:///tmp/s.sock?db=1",
        "redis+socket:///tmp/s.sock?virtual_host=1",
        "sentinel://a:1,b:2/main/3",
        "rediss+cluster://a:1,b:2",
    ],
)
def test_a_prefix_comes_out_of_a_url_as_it_went_in(url, prefix):
    made = with_keyprefix(url, prefix)
    assert global_keyprefix(made) == prefix
    assert without_keyprefix(made) == url
    assert with_keyprefix(made, "other") == made
    bare, read = RedisUrl.parse(url), RedisUrl.parse(made)
    assert (read.arguments, read.place) == (bare.arguments, bare.place)
    assert global_keyprefix(url) == ""


@pytest.mark.parametrize("url", [None, "", "embedded", "redis://h", "amqp://h//", "sqs://"])
def test_without_a_prefix_nothing_is_different(url):
    assert global_keyprefix(url) == result_prefix(url) == ""
    assert own_prefix(url, "beatd") == "beatd"
    if url:
        assert without_keyprefix(url) == url


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("redis://h?global_keyprefix=", "is a text without control characters"),
        ("redis://h?global_keyprefix=a%00", "is a text without control characters"),
        ("redis://h?global_keyprefix=a&global_keyprefix=b", "is there twice"),
        ("amqp://h//?global_keyprefix=a", "does not exist"),
        ("sentinel://a:1;sentinel://b:1?global_keyprefix=a", "without kombu"),
        ("sqs://h?global_keyprefix=a", "without kombu"),
    ],
)
def test_a_prefix_that_would_be_half_of_one_is_refused(url, reason):
    with pytest.raises(WrongUrl, match=reason):
        check_broker(url)


def test_a_state_store_has_a_prefix_of_its_own(tmp_path):
    (tmp_path / "beat.toml").write_text('[redis]\nurl = "redis://h?global_keyprefix=a"\n')
    with pytest.raises(ConfigError, match="global_keyprefix is not for the state store") as caught:
        load_settings(tmp_path / "beat.toml")
    assert [fault.path for fault in caught.value.faults] == ["redis.url"]


def test_own_keys_have_the_prefix_once():
    url = "redis://h?global_keyprefix=env1%3A"
    assert own_prefix(url) == own_prefix(url, "env1:beatd") == "env1:beatd"
    assert own_prefix(url, "cron") == "env1:cron"


@pytest.mark.parametrize("prefix", ["env1", "env1_", "env1:", "env1-", "env1."])
def test_the_prefix_of_results_is_celerys(prefix):
    celery = needed("celery")
    app = celery.Celery(backend="redis://h", set_as_current=False)
    app.conf.result_backend_transport_options = {"global_keyprefix": prefix}
    theirs = app.backend.get_key_for_task("x").decode()
    assert theirs == f"{result_prefix(with_keyprefix('redis://h', prefix))}celery-task-meta-x"


def test_names_are_those_of_kombu():
    ours = connection("redis://h/3?global_keyprefix=env1%3A")
    assert ours.transport_options == {"global_keyprefix": "env1:"}
    keys = RedisKeys("env1:")
    assert keys.queue("q", 9) == "env1:q\x06\x169"
    assert keys.bindings("x") == "env1:_kombu.binding.x"
    assert keys.permanent_bindings("x") == "env1:_kombu.binding_permanent.x"
    assert keys.channel(3, "celeryev", "task.sent") == "env1:/3.celeryev/task.sent"
    assert RedisKeys().channel(0, "celery.pidbox") == "/0.celery.pidbox"


def test_transport_options_of_an_app_become_a_part_of_its_urls():
    options = {"global_keyprefix": "env1:"}
    conf = Conf({"broker_url": ["redis://a", "redis://b/1?db=1"], "broker_transport_options": options})
    assert conf.broker_url == ["redis://a?global_keyprefix=env1%3A", "redis://b/1?db=1&global_keyprefix=env1%3A"]
    assert conf.broker_read_url == conf.broker_write_url == conf.broker_url
    assert conf.result_backend is None
    conf = Conf({"broker_url": "amqp://h//;amqp://i//", "broker_transport_options": options})
    assert conf.broker_url == "amqp://h//;amqp://i//"
    assert dict(conf.without_effect())
    conf = Conf({"result_backend": "redis://r", "result_backend_transport_options": options})
    assert conf.result_backend == "redis://r?global_keyprefix=env1%3A"
    assert conf.broker_url == "redis://localhost:6379/0"
    conf = Conf({"broker_url": "redis://h?global_keyprefix=mine%3A", "broker_transport_options": options})
    assert conf.broker_url == "redis://h?global_keyprefix=mine%3A"


def test_a_file_and_an_app_are_compared():
    assert difference("redis://h", None) == difference("redis://h?global_keyprefix=a", "a") == ""
    assert "it has no global_keyprefix, and the app's is 'a:'" in difference("redis://h", "a:")
    assert "global_keyprefix is 'b'" in difference("redis://h?global_keyprefix=b", "a:")
