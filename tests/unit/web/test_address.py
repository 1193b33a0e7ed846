"""Where the page listens, and in words why it does not."""

import errno
import sys

import pytest

from beatd.web.address import is_loopback, is_loopback_address, listen, missing_packages, url_of, why_not


def test_a_port_that_is_taken_is_told_with_the_option():
    with listen("127.0.0.1", 0) as first:
        port = first.getsockname()[1]
        with pytest.raises(OSError, match="in use") as caught:
            listen("127.0.0.1", port)
    told = why_not(caught.value, "127.0.0.1", port, port_option="--web-port")
    assert told == f"port {port} of 127.0.0.1 is taken; choose another with --web-port"


def test_the_url_names_the_port_that_was_free():
    with listen("127.0.0.1", 0) as listener:
        assert url_of(listener) == f"http://127.0.0.1:{listener.getsockname()[1]}/"
        assert is_loopback(listener)


def test_everywhere_is_not_loopback_and_has_a_url_of_this_machine():
    with listen("0.0.0.0", 0) as listener:
        assert url_of(listener).startswith("http://127.0.0.1:")
        assert not is_loopback(listener)


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("127.0.0.1", True),
        ("127.8.9.1", True),
        ("::1", True),
        ("::ffff:127.0.0.1", True),
        ("fe80::1%eth0", False),
        ("::1234", False),
        ("::1:2:3", False),
        ("::", False),
        ("::ffff:192.0.2.1", False),
        ("192.0.2.127", False),
    ],
)
def test_an_address_that_only_begins_like_loopback_is_none(address, expected):
    assert is_loopback_address(address) is expected


def has_ipv6():
    try:
        listen("::1", 0).close()
    except OSError:
        return False
    return True


@pytest.mark.skipif(not has_ipv6(), reason="this machine has no IPv6")
def test_ipv6():
    with listen("::1", 0) as listener:
        assert url_of(listener).startswith("http://[::1]:")
        assert is_loopback(listener)


@pytest.mark.parametrize("host", ["192.0.2.1", "no-such-host.invalid", "a..b", "\ud800", "a" * 300, "a\0b"])
def test_an_address_of_another_machine(host):
    with pytest.raises(OSError, match=r"assign|not known|resolution|idna|label|null") as caught:
        listen(host, 0)
    assert why_not(caught.value, host, 0) == f"{host} is not an address of this machine; choose another with --host"


def test_a_port_for_the_superuser():
    error = PermissionError(errno.EACCES, "Permission denied")
    assert "above 1023 with --port" in why_not(error, "127.0.0.1", 80)


def test_packages_that_are_missing_are_named(monkeypatch):
    assert missing_packages() == []
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    assert missing_packages() == ["uvicorn"]
