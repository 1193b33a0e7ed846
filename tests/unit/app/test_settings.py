"""Every setting of Celery is known: beatd reads it, a class of Celery's does, or the reason is said why nobody does."""

import itertools
import re
import ssl
from pathlib import Path

import pytest
from celery.app.defaults import NAMESPACES, flatten

from beatd.app import settings
from beatd.app.conf import Conf
from beatd.app.conf_urls import broker_urls
from beatd.app.publishing import retry_policy
from beatd.app.settings import DEFAULTS, WITHOUT_EFFECT
from beatd.broker.publisher import publish_with_retries
from beatd.exceptions import BrokerError
from beatd.store.celery_results import CeleryResults
from beatd.urls import BrokerUrl, RedisUrl

CELERYS = {name: option.default for name, option in flatten(NAMESPACES)}
ROOT = Path(__file__).parents[3] / "beatd"
TABLES = ("app/settings.py", "app/conf.py", "importers/", "store/groups.py")
"""Modules that name settings without reading them; an error of the last one names what a worker of Celery needs."""
SOURCES = [path for path in ROOT.rglob("*.py") if not str(path.relative_to(ROOT)).startswith(TABLES)]
WORDS = {word for path in SOURCES for word in re.findall(r"\w+", path.read_text())}

OTHER_DEFAULTS = {
    "accept_content",
    "broker_connection_retry_on_startup",
    "broker_url",
    "result_expires",
    "task_default_queue_type",
    "worker_max_memory_per_child",
}
"""A list for a tuple, seconds for a timedelta, and what beatd has for no value."""


def test_every_setting_of_celery_is_known_with_its_default():
    assert sorted(CELERYS.keys() - DEFAULTS.keys()) == []
    differing = {name for name, default in CELERYS.items() if DEFAULTS[name] != default}
    assert differing <= OTHER_DEFAULTS


@pytest.mark.parametrize("name", sorted(CELERYS))
def test_no_setting_is_ignored_in_silence(name):
    if name in WITHOUT_EFFECT:
        assert name not in WORDS, "it is read: it has no place among those without effect"
    elif name in settings._OF_BACKENDS:
        assert name.startswith(CeleryResults.SETTINGS)
    else:
        assert name in WORDS, "no code reads it: honour it, or say why not in app/settings.py"


@pytest.mark.parametrize("name", sorted(WITHOUT_EFFECT))
def test_a_setting_without_effect_is_named_once_it_is_set(name):
    assert dict(Conf({name: object()}).without_effect()) == {name: WITHOUT_EFFECT[name]}
    assert dict(Conf({name: DEFAULTS[name]}).without_effect()) == {}


def test_settings_of_a_class_of_celerys_have_their_effect():
    assert dict(Conf({"result_backend": "db+sqlite:///x", "result_compression": "gzip"}).without_effect()) == {}
    assert dict(Conf({"result_backend": "redis://", "result_compression": "gzip"}).without_effect())


def test_options_of_a_transport_that_is_not_used_are_named():
    told = dict(Conf({"broker_transport_options": {"visibility_timeout": 1, "new": 2}}).without_effect())
    assert "another worker's only when its own has died" in told["broker_transport_options.visibility_timeout"]
    assert "kombu's" in told["broker_transport_options.new"]
    results = {"result_chord_ordered": True, "global_keyprefix": "x"}
    told = dict(Conf({"result_backend": "redis://", "result_backend_transport_options": results}).without_effect())
    assert not told
    amqp = Conf({"broker_url": "amqp://", "broker_transport_options": {"confirm_publish": True}})
    assert dict(amqp.without_effect()) == {"broker_transport_options.confirm_publish": "each message is confirmed"}
    assert not dict(Conf({"broker_url": "sqs://", "broker_transport_options": {"region": "x"}}).without_effect())


@pytest.mark.parametrize(
    ("given", "url"),
    [
        ({}, "redis://localhost:6379/0"),
        ({"BROKER_HOST": "h", "BROKER_USER": "me", "BROKER_PASSWORD": "p/w", "BROKER_VHOST": "/"}, "amqp://me:p%2Fw@h/%2F"),
        ({"broker_transport": "redis", "broker_host": "h", "broker_port": 7, "broker_vhost": 2}, "redis://h:7/2"),
        ({"broker_write_url": "amqp://w//", "broker_read_url": "amqp://r//"}, "amqp://w//"),
        ({"broker_url": "amqp://h//", "broker_use_ssl": True}, "amqps://h//"),
        ({"broker_url": ["redis://a", "redis://b"], "broker_use_ssl": True}, ["rediss://a", "rediss://b"]),
        ({"broker_url": "memory://", "broker_use_ssl": True}, "memory://"),
    ],
)  # fmt: skip
def test_a_broker_is_what_all_settings_say_together(given, url):
    conf = Conf()
    conf.update(given)
    assert conf.broker_url == url


def test_workers_and_clients_may_have_a_broker_each():
    conf = Conf({"broker_url": "amqp://h//", "broker_write_url": "amqp://w//", "broker_use_ssl": True})
    assert (conf.broker_read_url, conf.broker_write_url) == ("amqps://h//", "amqps://w//")


def test_tls_of_settings_is_that_of_the_url():
    tls = {"ssl_cert_reqs": ssl.CERT_REQUIRED, "ssl_ca_certs": "/a b/ca.pem"}
    conf = Conf({"broker_url": "redis://h/1", "broker_use_ssl": tls, "result_backend": "redis://r/2"})
    url = RedisUrl.parse(conf.broker_url)
    assert (url.parts.scheme, url.host, url.database) == ("rediss", "h", 1)
    assert "ssl_ca_certs=%2Fa%20b%2Fca.pem" in conf.broker_url
    assert conf.result_backend == "redis://r/2"
    conf.redis_backend_use_ssl = {"ssl_cert_reqs": "none"}
    assert conf.result_backend == "rediss://r/2?ssl_cert_reqs=none"
    amqp = Conf({"broker_url": "pyamqp://h//", "broker_use_ssl": {"ca_certs": "/ca.pem", "cert_reqs": ssl.CERT_NONE}})
    assert BrokerUrl.parse(amqp.broker_url).parts.scheme == "amqps"


def test_the_environment_names_the_servers_of_an_app_that_names_none(monkeypatch):
    monkeypatch.setenv("CELERY_BROKER_URL", "amqp://env//")
    monkeypatch.setenv("CELERY_RESULT_BACKEND", "redis://env")
    assert (Conf().broker_url, Conf().result_backend) == ("amqp://env//", "redis://env")
    assert Conf({"broker_url": "redis://own"}).broker_url == "redis://own"


@pytest.mark.parametrize(
    ("options", "given", "pauses"),
    [
        ({"retry": False}, {}, []),
        ({}, {"task_publish_retry": False}, []),
        ({"retry": True}, {"task_publish_retry": False, "task_publish_retry_policy": {"max_retries": 1}}, [0.0]),
        ({"retry_policy": {"interval_start": 0.1, "interval_max": 0.2}}, {}, [0.1, 0.2, 0.2]),
        ({"retry_policy": {"max_retries": None, "retry_errors": None}}, {}, [0, 0.2, 0.4, 0.6, 0.8, 1.0, 1.0]),
    ],
)
def test_a_client_retries_by_the_policy(options, given, pauses):
    policy = retry_policy(options, Conf(given))
    assert list(itertools.islice(policy.pauses(), 7)) == pytest.approx(pauses)


def test_the_policy_decides_how_often_it_is_tried():
    tried = []

    def attempt():
        tried.append(1)
        raise BrokerError("away")

    policy = retry_policy({"retry_policy": {"max_retries": 2, "interval_step": 0}}, Conf())
    with pytest.raises(BrokerError):
        publish_with_retries(attempt, policy)
    assert len(tried) == 3
    assert retry_policy({}, Conf()) is None


@pytest.mark.parametrize(
    ("given", "url"),
    [
        ("amqp://a//", "amqp://a//"),
        (["amqp://a//", "amqp://b//"], "amqp://a//;amqp://b//"),
        ("amqp://a//;amqp://b//", "amqp://a//;amqp://b//"),
        ("amqp://a//;redis://b", "amqp://a//"),
        (["redis://a/0", "redis://b/0"], "redis://a/0"),
        ("", ""),
        (None, ""),
    ],
)
def test_alternatives_of_a_rabbitmq_stay(given, url):
    assert broker_urls(given) == url
