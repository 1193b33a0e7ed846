"""Secrets are hidden by their names, and nothing else is."""

from __future__ import annotations

import pytest

from beatd.redaction import is_secret, redacted, redacted_text


@pytest.mark.parametrize(
    "name",
    [
        "password",
        "PASSWORD",
        "db_password",
        "X-Api-Key",
        "apiKey",
        "Authorization",
        "Set-Cookie",
        "accessToken",
        "auth",
    ],
)
def test_secret_names(name):
    assert is_secret(name)


@pytest.mark.parametrize("name", ["author", "tokenizer", "passenger", "monkey", "key", "secretary", "compass", ""])
def test_other_names(name):
    assert not is_secret(name)


def test_values_at_any_depth():
    value = {"a": [{"token": "x", "n": 1}], "password": None, "url": "redis://u:sesame@host/0", "t": ("x", 2)}
    assert redacted(value) == {
        "a": [{"token": "***", "n": 1}],
        "password": None,
        "url": "redis://u:***@host/0",
        "t": ("x", 2),
    }


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("{'password': 'a\\'b', 'n': 1}", "{'password': '***', 'n': 1}"),
        ('{"headers": {"X-Api-Key": "abc"}}', '{"headers": {"X-Api-Key": \'***\'}}'),
        ("{'token': 'cut of…", "{'token': '***'"),
        ("{'author': 'me'}", "{'author': 'me'}"),
        ("amqp://guest:guest@host//", "amqp://guest:***@host//"),
    ],
)
def test_texts(text, shown):
    assert redacted_text(text) == shown
