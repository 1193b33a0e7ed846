"""A state store behind TLS: with the right authority it works, and what is wrong with another one is said."""

import re
import shutil
import subprocess

import pytest
import redis

from beatd.exceptions import StoreUnavailable
from beatd.store.client import border, connect
from beatd.store.keys import Keys
from beatd.store.lease import Leases
from tests.conftest import missing


def openssl(folder, *words):
    subprocess.run(["openssl", *words], cwd=folder, check=True, capture_output=True, timeout=30)


@pytest.fixture(scope="module")
def certificates(tmp_path_factory):
    """``ca.pem`` and ``server.pem``, signed by it for 127.0.0.1; ``other.pem`` is an authority that signed nothing."""
    if shutil.which("openssl") is None:
        missing("openssl")
    folder = tmp_path_factory.mktemp("certificates")
    for name in ("ca", "other"):
        subject = ("-subj", f"/CN=beatd test {name}", "-addext", "basicConstraints=critical,CA:TRUE")
        key = ("-newkey", "rsa:2048", "-nodes", "-keyout", f"{name}.key")
        openssl(folder, "req", "-x509", *key, "-out", f"{name}.pem", "-days", "2", *subject)
    openssl(
        folder, "req", "-newkey", "rsa:2048", "-nodes", "-keyout", "server.key", "-out", "csr", "-subj", "/CN=redis"
    )
    (folder / "names").write_text("subjectAltName=IP:127.0.0.1\n")
    signed = ("-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial", "-days", "2", "-extfile", "names")
    openssl(folder, "x509", "-req", "-in", "csr", "-out", "server.pem", *signed)
    return folder


@pytest.fixture
def tls_url(start_server, certificates, free_port):
    """The ``rediss://`` URL of a server, without what says whom to trust."""
    port = free_port()
    files = ("--tls-cert-file", "server.pem", "--tls-key-file", "server.key", "--tls-ca-cert-file", "ca.pem")
    in_folder = [word if word.startswith("--") else str(certificates / word) for word in files]
    try:
        start_server("--tls-port", str(port), "--tls-auth-clients", "no", *in_folder)
    except AssertionError as error:
        if not re.search("TLS support|Bad directive", str(error)):
            raise
        missing("a server that can speak TLS")
    return f"rediss://127.0.0.1:{port}/0"


def reach(url):
    with connect(url, timeout_ms=2_000) as client, border(client):
        return client.ping()


def test_a_server_whose_authority_is_known_is_used(tls_url, certificates):
    with connect(f"{tls_url}?ssl_ca_certs={certificates}/ca.pem") as client:
        leases = Leases(client, Keys("beatd"), daemon_id="a", ttl_ms=60_000)
        assert leases.take([0]) == {0: 1}
        with leases.releases() as wait:
            leases.release({0: 1})
            assert wait(5.0)
        assert client.connection_pool.connection_class is redis.SSLConnection


@pytest.mark.parametrize("query", ["", "?ssl_ca_certs={}/other.pem"])
def test_a_server_with_another_authority_is_refused_with_the_reason(tls_url, certificates, query):
    with pytest.raises(StoreUnavailable, match=r"127\.0\.0\.1:\d+/0: .*CERTIFICATE_VERIFY_FAILED"):
        reach(tls_url + query.format(certificates))


def test_a_certificate_for_another_name_is_refused_with_the_reason(tls_url, certificates):
    with pytest.raises(StoreUnavailable, match="Hostname mismatch"):
        reach(tls_url.replace("127.0.0.1", "localhost") + f"?ssl_ca_certs={certificates}/ca.pem")


def test_a_file_of_authorities_that_is_not_there_is_named(tls_url, certificates):
    with pytest.raises(StoreUnavailable, match="No such file"):
        reach(f"{tls_url}?ssl_ca_certs={certificates}/missing.pem")
