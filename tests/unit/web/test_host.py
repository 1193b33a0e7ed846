"""A Host header is read strictly: what looks like this machine's name must be all of it."""

import pytest

from beatd.web.security import host_name


@pytest.mark.parametrize(
    ("header", "name"),
    [
        ("localhost", "localhost"),
        ("LOCALHOST:8800", "localhost"),
        ("[::1]:8800", "[::1]"),
        ("[::1].evil.example", None),
        ("[::1]evil", None),
        ("[::1]:80:80", None),
        ("localhost:evil", None),
        ("localhost:", None),
        ("user@localhost", None),
        ("localhost/x", None),
        ("localhost, evil.example", None),
        ("", None),
        ("localhost:٨", None),
    ],
)
def test_host_name(header, name):
    assert host_name(header) == name
