"""A state store behind TLS: with the right authority it works, and what is wrong with another one is said."""

import os
import re
import subprocess
from contextlib import suppress
from urllib.parse import urlsplit

import pytest
import redis

from beatd.exceptions import StoreRefused, StoreUnavailable, WrongUrl
from beatd.store.client import connect, translate_errors
from beatd.store.keys import Keys
from beatd.store.lease import Leases
from tests.certificates import tls_arguments, tls_settings
from tests.conftest import missing, server_binary


@pytest.fixture
def tls_url(start_server, certificates, free_port):
    """The ``rediss://`` URL of a server, without what says whom to trust."""
    port = free_port()
    try:
        start_server(*tls_arguments(certificates, port))
    except AssertionError as error:
        if not re.search("TLS support|Bad directive", str(error)):
            raise
        missing("a server that can speak TLS")
    return f"rediss://127.0.0.1:{port}/0"


def reach(url, timeout_ms=10_000):
    with connect(url, timeout_ms=timeout_ms) as client, translate_errors(client):
        return client.ping()


def test_a_server_whose_authority_is_known_is_used(tls_url, certificates):
    with connect(f"{tls_url}?ssl_ca_certs={certificates}/ca.pem") as client:
        leases = Leases(client, Keys("beatd"), daemon_id="a", ttl_ms=60_000)
        assert leases.take([0]) == {0: 1}
        with leases.listen() as wait:
            leases.release({0: 1})
            assert wait(5.0)
        assert client.connection_pool.connection_class is redis.SSLConnection


@pytest.mark.parametrize("query", ["", "?ssl_ca_certs={}/other.pem"])
def test_a_server_with_another_authority_is_refused_with_the_reason(tls_url, certificates, query):
    expected = r"127\.0\.0\.1:\d+/0: its certificate is not trusted: .*self.signed certificate.*; .*\?ssl_ca_certs="
    with pytest.raises(StoreRefused, match=expected):
        reach(tls_url + query.format(certificates))


def test_a_certificate_for_another_name_is_refused_with_the_reason(tls_url, certificates):
    with pytest.raises(StoreRefused, match="Hostname mismatch"):
        reach(tls_url.replace("127.0.0.1", "localhost") + f"?ssl_ca_certs={certificates}/ca.pem")


def test_a_plain_url_of_a_tls_port_is_told_to_be_tls(tls_url):
    with pytest.raises(StoreUnavailable, match=r"so does a server that expects TLS: rediss://"):
        reach(tls_url.replace("rediss://", "redis://"))


def test_a_tls_url_of_a_plain_port_is_told_to_be_plain(redis_url):
    with pytest.raises(StoreUnavailable, match=r"it does not speak TLS on this port, write redis://"):
        reach(redis_url.replace("redis://", "rediss://"), timeout_ms=2_000)  # nothing is answered


@pytest.mark.parametrize("url", ["rediss://localhost?", "sentinel://localhost/main/0?ssl=true&"])
def test_a_file_of_authorities_that_is_not_there_is_named(url, tmp_path):
    with pytest.raises(WrongUrl, match=f"ssl_ca_certs: there is no file {tmp_path}/missing.pem"):
        connect(f"{url}ssl_ca_certs={tmp_path}/missing.pem")


def test_a_key_that_may_not_be_looked_at_is_named(tmp_path, monkeypatch):
    """As in ``/etc/ssl/private``, for who is not in its group."""
    stat = os.stat

    def refused(path, *more, **options):
        if "private" in str(path):
            raise PermissionError(13, "Permission denied", str(path))
        return stat(path, *more, **options)

    monkeypatch.setattr(os, "stat", refused)
    text = f"ssl_keyfile: the file {tmp_path}/private/key.pem cannot be read: Permission denied"
    with pytest.raises(WrongUrl, match=text):
        connect(f"rediss://localhost?ssl_keyfile={tmp_path}/private/key.pem")


def test_sentinels_and_primary_behind_tls(tls_url, certificates, free_port, tmp_path, server_kind, wait_until):
    port, primary = free_port(), urlsplit(tls_url).port
    settings = {"port": "0", "dir": str(tmp_path), **tls_settings(certificates, port)}
    lines = [f"{name} {value}\n" for name, value in settings.items()]
    config = tmp_path / "sentinel.conf"
    config.write_text("".join(lines) + f"sentinel monitor main 127.0.0.1 {primary} 1\n")
    with (tmp_path / "log").open("wb") as log:
        command = [server_binary(server_kind), str(config), "--sentinel"]
        process = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)
    try:
        url = f"sentinel://127.0.0.1:{port}/main/0?ssl=true&ssl_ca_certs={certificates}"
        wait_until(lambda: reaches(f"{url}/ca.pem"), 20, f"the sentinel to answer (see {tmp_path}/log)")
        with pytest.raises(StoreUnavailable, match=r"no sentinel names a primary .*CERTIFICATE_VERIFY_FAILED"):
            reach(f"{url}/other.pem")
    finally:
        process.kill()
        process.wait(10)


def reaches(url):
    with suppress(StoreUnavailable):
        return reach(url)
