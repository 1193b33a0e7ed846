"""Secrets are hidden by their names, and nothing else is."""

from __future__ import annotations

import random
import string

import pytest

from beatd.notify.channels import _without_secrets
from beatd.redaction import is_secret, redacted, redacted_text
from beatd.store.run_record import arguments_text, bounded, tail
from beatd.worker.builtin.http import HttpFailed, http


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
        "PGPASSWORD",
        "password2",
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


def urls(count, seed=7):
    """URLs as people write them, each with its password: also unquoted ones that no server would take."""
    dice = random.Random(seed)
    alphabet = string.ascii_letters + string.digits + "%,;'()<>\"!$*+=|~^{}[]:/?@#"
    for _ in range(count):
        secret = "S3" + "".join(dice.choices(alphabet, k=12)) + "cr3t"
        scheme = dice.choice(["redis", "rediss", "amqp", "amqps", "sentinel", "rediss+cluster", "https", "postgresql"])
        yield dice.choice([f"{scheme}://{user}:{secret}@h1:1,h2:2/0" for user in ("", "user", "a%40b")]), secret
        yield f"amqp://u:{secret}@h1//;amqp://u:{secret}@h2//", secret
        plain = secret.translate(dict.fromkeys(map(ord, "&;#'()\"<>,"), "x")) + dice.choice(
            [",b", ";b", "'b", ")b", ""]
        )
        yield f"{scheme}://h/0?db=1&{dice.choice(['password', 'ssl_password', 'api%5Fkey'])}={plain}", plain


def test_no_url_shows_its_password():
    for url, secret in urls(300):
        for text in (f"cannot connect to {url}", f"{url} is away", f"{url}\nand more"):
            shown = redacted_text(text)
            assert secret not in shown, text
            assert "cr3t" not in shown, text


def test_no_cut_shows_half_of_a_password():
    url = "redis://user:seSAme0123456789@host/0"
    for at in range(380, 430):
        text = "x" * at + f" {url} " + "y " * 2000
        assert "seSA" not in bounded(text, 1600), at
    quoted = "{'password': 'correct horse battery staple'} "
    for at in range(60, 110):
        assert "staple" not in tail("z " * 100 + quoted + "y" * at, 120), at


class _Talkative:
    def __repr__(self):
        return "Client(url='redis://user:sesame@host', password=sesame)"


@pytest.mark.parametrize(
    "value", [{"redis://u:sesame@h"}, {"redis://u:sesame@h": 1}, b"redis://u:sesame@h", _Talkative(), [_Talkative()]]
)
def test_what_has_a_secret_in_its_repr(value):
    assert "sesame" not in arguments_text([value])


def test_a_header_with_a_line_end_is_in_no_error():
    with pytest.raises(HttpFailed) as failed:
        http("http://127.0.0.1:9/", headers={"Authorization": "Bearer sesame\n"})
    assert "sesame" not in str(failed.value)
    assert "header" in str(failed.value)


def test_an_address_that_begins_like_another_is_hidden_whole():
    assert _without_secrets("no sesame0123 there", ["slack://h1/sesame", "slack://h2/sesame0123"]) == "no *** there"
