"""The certificate of the page: checked at the start, and renewed while the page serves."""

import asyncio
import shutil
import ssl
from pathlib import Path

import pytest

from beatd.exceptions import ConfigError
from beatd.model import WebSettings
from beatd.web.tls import certificate_of
from tests.certificates import sign


@pytest.fixture(scope="module")
def signed(tmp_path_factory):
    """Two pairs of certificate and key."""
    folder = tmp_path_factory.mktemp("certificates")
    sign(folder)
    return folder


@pytest.fixture
def files(signed, tmp_path):
    """Put a certificate and a key of these names where the page has them."""

    def put(certificate, key):
        shutil.copy(signed / f"{certificate}.pem", tmp_path / "web.crt")
        shutil.copy(signed / f"{key}.key", tmp_path / "web.key")
        return WebSettings(tls_cert=str(tmp_path / "web.crt"), tls_key=str(tmp_path / "web.key"))

    return put


def served(context):
    """The certificate that a client gets."""
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client.check_hostname, client.verify_mode = False, ssl.CERT_NONE
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    ends = [context.wrap_bio(to_server, to_client, server_side=True), client.wrap_bio(to_client, to_server)]
    for _ in range(10):
        for end in ends:
            try:
                end.do_handshake()
            except ssl.SSLWantReadError:
                continue
    return ssl.DER_cert_to_PEM_cert(ends[1].getpeercert(binary_form=True))


def events(caplog):
    return [record.event for record in caplog.records]


def test_a_renewed_certificate_is_served_without_a_restart(files, signed, caplog):
    caplog.set_level("INFO")
    certificate = certificate_of(files("ca", "ca"))
    asyncio.run(certificate.look())
    assert served(certificate.context) == (signed / "ca.pem").read_text()
    files("other", "other")
    asyncio.run(certificate.look())
    assert served(certificate.context) == (signed / "other.pem").read_text()
    assert events(caplog) == ["web_certificate_renewed"]


def test_a_certificate_that_does_not_fit_its_key_changes_nothing(files, signed, caplog):
    certificate = certificate_of(files("ca", "ca"))
    settings = files("other", "ca")
    for _ in range(2):
        asyncio.run(certificate.look())
    assert served(certificate.context) == (signed / "ca.pem").read_text()
    assert events(caplog) == ["web_certificate_refused"]
    Path(settings.tls_key).unlink()
    asyncio.run(certificate.look())
    assert served(certificate.context) == (signed / "ca.pem").read_text()
    files("other", "other")
    asyncio.run(certificate.look())
    assert served(certificate.context) == (signed / "other.pem").read_text()


def test_files_that_cannot_be_used_are_refused_at_the_start(files):
    with pytest.raises(ConfigError, match=r"web\.tls_cert: certificate and key cannot be used"):
        certificate_of(files("ca", "other"))
    assert certificate_of(WebSettings()) is None
