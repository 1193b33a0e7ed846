"""Connections that are lent again and again."""

import pytest

from beatd.store.client import connect


@pytest.fixture
def client(redis_url):
    with connect(redis_url, name="lent") as client:
        client.ping()
        yield client


@pytest.fixture
def admin(redis_url):
    with connect(redis_url, name="admin") as client:
        yield client


def ids(admin):
    """The open connections of the client, as the server knows them."""
    return [one["id"] for one in admin.client_list() if one["name"] == "lent"]


def test_one_connection_serves_one_command_after_the_other(client, admin):
    before = ids(admin)
    for _ in range(5):
        client.ping()
        client.pipeline(transaction=False).ping().ping().execute()
        client.pipeline(transaction=True).ping().ping().execute()
    assert len(before) == 1
    assert ids(admin) == before


def test_a_connection_that_has_ended_is_replaced_before_a_command_is_sent(client, admin):
    for _ in range(120):  # more often than redis-py's pools have connections
        admin.client_kill_filter(_id=ids(admin)[0])
        assert client.echo("a") == b"a"
    assert len(ids(admin)) == 1


def test_an_answer_that_was_not_read_is_not_taken_for_that_to_the_next_command(client, admin):
    before = ids(admin)
    client.set_response_callback("GET", lambda _: 1 / 0)
    pipeline = client.pipeline(transaction=False).get("x").blpop("x", 0.2)  # the second answer comes later
    with pytest.raises(ZeroDivisionError):
        pipeline.execute()
    assert client.echo("a") == b"a"
    assert len(ids(admin)) == 1
    assert ids(admin) != before


def test_an_error_of_the_server_leaves_the_connection_open(client, admin):
    before = ids(admin)
    client.set("x", "text")
    answers = client.pipeline(transaction=False).llen("x").get("x").execute(raise_on_error=False)
    assert "WRONGTYPE" in str(answers[0])
    assert answers[1] == b"text"
    assert ids(admin) == before
