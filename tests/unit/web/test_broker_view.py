"""The broker as the page sees it."""

import pytest

from beatd.exceptions import ConfigError, Fault
from beatd.model import Settings
from beatd.web import broker_view
from beatd.web.broker_view import BrokerView
from tests.fakes import FakeClock


@pytest.fixture
def view(monkeypatch):
    """The view of a broker whose certificate has gone since the start."""

    def refuse(*_):
        raise ConfigError([Fault("rediss://broker", None, "", "ssl_ca_certs: there is no file ca.pem")])

    monkeypatch.setattr(broker_view, "WorkerClient", refuse)
    return BrokerView("beat.toml", Settings, lambda: "redis://store", FakeClock())


def test_a_broker_that_cannot_be_asked_is_a_problem_of_the_document(view):
    assert "ca.pem" in view.workers()["problem"]
    assert view.queues([])["queues"] == []
    assert "ca.pem" in view.queues([])["problem"]
