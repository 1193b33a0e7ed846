"""A state store that is whatever its sentinels call the primary."""

import pytest
import redis

from beatd.exceptions import StoreRefused, StoreUnavailable
from beatd.store.claims import Claim, Claims
from beatd.store.client import connect, translate_errors
from beatd.store.keys import Keys
from beatd.store.lease import Leases
from beatd.store.server_check import same
from tests.sentinels import SERVICE, watched

ENTRY = [("tick", "every 1s")]


@pytest.fixture
def sentinels(start_server, tmp_path, free_port):
    with watched(start_server, tmp_path, free_port) as sentinels:
        yield sentinels


@pytest.fixture
def client(sentinels):
    with connect(sentinels.url) as client:
        yield client


def answers(client):
    """Whether a write goes through."""
    try:
        with translate_errors(client):
            return client.set("probe", "1")
    except StoreUnavailable:
        return False


def ping(client):
    with translate_errors(client):
        client.ping()


def test_a_lease_and_claims_go_on_at_the_new_primary(sentinels, client, wait_until):
    keys = Keys("beatd")
    leases = Leases(client, keys, daemon_id="a", ttl_ms=60_000)
    claims = Claims(client, keys)
    lease_value = leases.value(leases.take([0])[0])
    assert [name for name, _ in claims.load_entries(ENTRY, lease_value=lease_value, now_ms=1_000)] == ["tick"]

    def claim(due_ms):
        """Two batches, so that one is sent while the other is under way."""
        batches = [[Claim("tick", due_ms, "celery", b"one")], [Claim("tick", due_ms + 1, "celery", b"two")]]
        return [one.left_out for one in claims.claim(batches, lease_value=lease_value)]

    assert claim(2_000) == [frozenset(), frozenset()]
    wait_until(lambda: client.wait(1, 500), 20, "the replica to have all of it")
    sentinels.primary.kill()
    with pytest.raises(StoreUnavailable, match=f"state store {SERVICE}/0 of the sentinels 127.0.0.1:"):
        claim(3_000)
    wait_until(lambda: answers(client), 40, "the next primary")
    assert claim(2_000) == [frozenset({0}), frozenset({0})], "claimed before the failover"
    assert claim(3_000) == [frozenset(), frozenset()]
    assert client.lrange("celery", 0, -1) == [b"two", b"one", b"two", b"one"]


def test_standbys_hear_of_a_release_at_the_new_primary(sentinels, client, wait_until):
    leases = Leases(client, Keys("beatd"), daemon_id="a", ttl_ms=1_000)
    with leases.listen() as wait:
        sentinels.primary.kill()
        with pytest.raises(StoreUnavailable):
            wait(5.0)

    def is_heard():
        try:
            tokens = leases.take([0])
            with leases.listen() as wait:
                leases.release(tokens)
                return wait(1.0)
        except StoreUnavailable:  # the failover is not over
            return False

    wait_until(is_heard, 40, "a release at the next primary")


def test_a_primary_that_is_replaced_is_left_within_a_second(sentinels, client, wait_until):
    """A failover that somebody ordered: the old primary is alive, takes writes, and they will be lost."""
    assert answers(client)
    before = sentinels.primary
    with redis.Redis(port=sentinels.ports[0]) as sentinel:
        sentinel.execute_command("SENTINEL", "FAILOVER", SERVICE)
    wait_until(lambda: sentinels.primary not in (None, before), 20, "another primary")
    with redis.Redis.from_url(sentinels.primary.url) as direct:
        direct.delete("probe")
        wait_until(lambda: answers(client) and direct.get("probe"), 10, "the client to follow")


def test_sentinels_that_are_gone_are_passed_over_until_none_is_left(sentinels, wait_until):
    first, second, third = sentinels.ports
    sentinels.kill(first)
    sentinels.kill(second)
    with connect(sentinels.url) as client:
        assert answers(client)
    sentinels.kill(third)
    with connect(sentinels.url) as client, pytest.raises(StoreUnavailable, match=f"{third}: .*Connection refused"):
        ping(client)


def test_a_service_that_nobody_watches_is_refused(sentinels):
    with (
        connect(sentinels.url.replace(SERVICE, "other")) as client,
        pytest.raises(StoreRefused, match="no service named 'other'"),
    ):
        ping(client)


def test_two_clients_of_one_service_meet_and_a_fixed_address_is_another_server(sentinels, client):
    first, *others = sentinels.url.removeprefix("sentinel://").partition("/")[0].split(",")
    with connect(f"sentinel://{','.join(others)}/{SERVICE}") as other, connect(sentinels.primary.url) as fixed:
        assert same(client, other)
        assert not same(client, fixed), "a failover would part them"
    with connect(f"sentinel://{first}/{SERVICE}/1") as other:
        assert not same(client, other)


def test_sentinels_and_servers_have_passwords_of_their_own(sentinels):
    for server in sentinels.servers:
        with redis.Redis.from_url(server.url) as direct:
            direct.config_set("requirepass", "server")
    for port in sentinels.ports:
        with redis.Redis(port=port) as sentinel:
            sentinel.execute_command("SENTINEL", "SET", SERVICE, "auth-pass", "server")
            sentinel.execute_command("ACL", "SETUSER", "default", "resetpass", ">sentinel")
    url = sentinels.url.replace("//", "//:server@", 1)
    with connect(f"{url}?sentinel_password=sentinel") as client:
        assert answers(client)
    with connect(url) as client, pytest.raises(StoreRefused, match=r"add \?sentinel_password="):
        ping(client)
    wrong = f"{url.replace('server', 'wrong')}?sentinel_password=sentinel"
    with connect(wrong) as client, pytest.raises(StoreRefused, match="invalid username-password pair") as caught:
        ping(client)
    assert "wrong" not in str(caught.value).replace("WRONGPASS", "")


@pytest.mark.parametrize(
    ("url", "text"),
    [
        ("redis://127.0.0.1:{port}/0", "127.0.0.1:{port}/0: Connection refused"),
        ("unix://{folder}/none.sock?db=0", "{folder}/none.sock: No such file or directory"),
    ],
)
@pytest.mark.parametrize("role", ["state store", "broker", "result backend"])
def test_an_error_names_role_and_place_once_and_no_number(role, url, text, free_port, tmp_path):
    port = free_port()
    with (
        connect(url.format(port=port, folder=tmp_path), role=role) as client,
        pytest.raises(StoreUnavailable) as raised,
        translate_errors(client),
    ):
        client.ping()
    assert str(raised.value) == f"{role} {text.format(port=port, folder=tmp_path)}"


def test_a_connection_that_breaks_is_named_in_words(start_server):
    server = start_server()
    with connect(server.url) as client:
        ping(client)
        server.kill()
        with pytest.raises(StoreUnavailable) as raised:
            ping(client)
    assert "Error" not in str(raised.value)
    assert str(raised.value).count(str(server.port)) == 1
