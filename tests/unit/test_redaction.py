"""Secrets are hidden by their names, and nothing else is."""

from __future__ import annotations

import base64
import json
import random
import re
import string
import time
from pathlib import Path

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
        ('{"headers": {"X-Api-Key": "abc"}}', '{"headers": {"X-Api-Key": "***"}}'),
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


PIECE = "q7"
"""Each secret of the generators is made of it and of what may be special somewhere."""


def wrapped(dice, value, *, only_json=False):
    """The value as text, within texts within texts."""
    for _ in range(dice.randint(1, 4)):
        value = repr(value) if not only_json and dice.random() < 0.3 else json.dumps(value)
        if dice.random() < 0.3:
            value = {"body": value, "n": 1}
    return value if isinstance(value, str) else json.dumps(value)


def secret_of(dice, special):
    return PIECE + "".join(dice.choice(special) + PIECE for _ in range(dice.randint(1, 5)))


def nested(count, seed=7):
    dice = random.Random(seed)
    for _ in range(count):
        secret = secret_of(dice, ["\\", '"', "'", " ", ", ", "}", "\n", "ü", "\\\\", '\\"', ": ", ")"])
        value = dice.choice([secret, secret, [secret, 1], {"user": "me", "value": [secret]}])
        only_json = dice.random() < 0.5
        name = dice.choice(["password", "db_token", "X-Api-Key", "auth"])
        yield wrapped(dice, {"first": "kept1", name: value, "last": "kept2"}, only_json=only_json), only_json


def test_no_text_within_a_text_shows_its_secret():
    for text, only_json in nested(2_000):
        shown = redacted_text(text)
        assert PIECE not in shown, text
        assert "kept1" in shown, text
        if only_json:
            assert "kept2" in shown, (text, shown)
            json.loads(shown)


def test_no_cut_within_a_text_within_a_text_shows_a_part():
    for text, _ in nested(60, seed=8):
        for length in range(len(text)):
            assert "q" not in redacted_text(text, at_most=length).replace('\\"', ""), (text, length)


def headers(dice):
    """Lines with a secret, in texts as a program would print them, and whether what follows is shown."""
    plain = secret_of(dice, ".-_~+/")
    basic = "Basic " + base64.b64encode(f"user:{plain}".encode()).decode() + PIECE
    cookie = f"session={plain}; theme={PIECE}, {PIECE}; Path=/"
    name, value = dice.choice(
        [
            ("Authorization", f"Bearer {plain}"),
            ("authorization", basic),
            ("Authorization", f'Digest username="{PIECE}", response="{plain}"'),
            ("Proxy-Authorization", basic),
            ("X-Api-Key", plain),
            ("api-key", plain),
            ("X-Auth-Token", plain),
            ("X-Amz-Security-Token", plain),
            ("Cookie", cookie),
            ("Set-Cookie", cookie),
        ]
    )
    line = f"{name}:{dice.choice([' ', '', '  '])}{value}"
    lines = f"GET / HTTP/1.1\r\n{line}\r\nHost: kept2\r\n"
    return dice.choice(
        [
            (lines, True),
            (f"> GET /\n> {line}\n> Host: kept2", True),
            (repr(lines), True),
            (repr(lines.encode()), True),
            (json.dumps({"raw": lines}), True),
            (json.dumps(json.dumps({"raw": lines})), True),
            (json.dumps([line, "kept2"]), True),
            (json.dumps(json.dumps([line, "kept2"])), True),
            (f"curl -H '{line}' http://h/ kept2", True),
            (f"the server refused {line}", False),
        ]
    )


def test_no_header_shows_its_value():
    dice = random.Random(7)
    for _ in range(2_000):
        text, is_kept = headers(dice)
        shown = redacted_text(text)
        assert PIECE not in shown, text
        assert not is_kept or "kept2" in shown, (text, shown)
        for length in range(0, len(text), 7):
            assert "q" not in redacted_text(text, at_most=length), (text, length)


def prose(dice):
    """A text with a secret as people and drivers write it, and whether what follows is shown."""
    plain = secret_of(dice, "-_~+/!%^@.")
    word = dice.choice([PIECE, PIECE + "x", "x" + PIECE, plain])
    name = dice.choice(
        ["password", "Password", "passwd", "pwd", "db_password", "Token", "secret", "API key", "client_secret"]
    )
    sign = dice.choice([": ", ":", " : "])
    key = "AKIA" + "".join(dice.choices(string.ascii_uppercase + string.digits, k=16))
    aws = "".join(dice.choices("q7/+", k=38)) + PIECE
    form = dice.choice(["ghp_", "github_pat_", "glpat-", "xoxb-", "sk_live_"]) + (PIECE + dice.choice("-_q7")) * 8
    driver = dice.choice(
        ["Server=tcp:h,1433;Database=d;User ID=sa;", "Driver={SQL Server};Server=h;UID=sa;", "Host=h;Username=u;"]
    )
    secrets = f"{plain} {PIECE}"
    return dice.choice(
        [
            (f"{name}{sign}{word}", False),
            (f"user: bob\n{name}{sign}{word}\nhost: kept2", True),
            (f"- host: h\n  {name}{sign}{word}  \n  port: kept2", True),
            (repr(f"user: bob\n{name}{sign}{word}\nhost: kept2"), True),
            (f"login failed (user: bob, {name}{sign}{word}, host: kept2)", True),
            (f"ValueError: the wrong {name}{sign}{plain}long9. See kept2", True),
            (f'{name}{sign}"{plain} {PIECE}" is kept2', True),
            (json.dumps({"error": f'the {name}{sign}"{plain} {PIECE}" is kept2'}), True),
            (f"[client]\n{name.replace(' ', '_')} = {plain}!long9\nhost = kept2", True),
            (f"{driver}{dice.choice(['Password', 'Pwd', 'PWD'])}={secrets};Encrypt=yes; kept2", True),
            (f"cannot connect to '{driver}Password={plain};Encrypt=yes' kept2", True),
            (f"aws_access_key_id = {key}\naws_secret_access_key = {aws}\nregion = kept2", True),
            (f"InvalidSignature: {key} with {aws} is kept2", True),
            (f"({key!r}, {aws!r}) kept2", True),
            (f"cannot push to github with {form} kept2", True),
            (f"sent eyJhbGciOiJI.{PIECE * 9}.{PIECE * 9}-{PIECE} kept2", True),
            (
                f"-----BEGIN EC PRIVATE KEY-----\n{PIECE * 30}\n{PIECE * 30}==\n-----END EC PRIVATE KEY-----\nkept2",
                True,
            ),
        ]
    )


def test_no_prose_shows_its_secret():
    dice = random.Random(7)
    for _ in range(3_000):
        text, is_kept = prose(dice)
        shown = redacted_text(text)
        assert PIECE not in shown, (text, shown)
        assert not is_kept or "kept2" in shown, (text, shown)
        for length in range(0, len(text), 5):
            assert "q" not in redacted_text(text, at_most=length), (text, length)


HIDDEN_BEFORE = re.compile(r"(?m)^.*Authorization.*$|\S+://\S+|\b[\w-]+=\S+|\"[\w-]+\": \S+")
"""Headers, URLs, parameters and JSON, which are examples there."""


def test_the_documentation_has_no_secrets():
    """False alarms are rare: it speaks of passwords and tokens on nearly every page."""
    changed = [
        (path.name, line, redacted_text(line))
        for path in sorted((Path(__file__).parents[2] / "docs").rglob("*.md"))
        for line in re.sub(
            r"(?m)^.*Authorization.*$|\S+://\S+|\b[\w-]+=\S+|\"[\w-]+\": \S+", "", path.read_text()
        ).splitlines()
        if redacted_text(line) != line
    ]
    assert changed == []


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (r'"{\"password\": \"x\", \"n\": 1}"', r'"{\"password\": \"***\", \"n\": 1}"'),
        (r"{\\\"token\\\": null}", r"{\\\"token\\\": \\\"***\\\"}"),
        (r'{"password": "a\\", "token": "b"}', '{"password": "***", "token": "***"}'),
        ("Authorization: Bearer abc", "Authorization: ***"),
        ("sent Bearer eyJhbGciOi.x and waited", "sent Bearer *** and waited"),
        ("auth=('me', 'se)same'), n=1", "auth=***, n=1"),
        ("login(password=b'a b', n=1)", "login(password=***, n=1)"),
        ("next=/a?token=x&n=1", "next=/a?token=***&n=1"),
        (r'{"url": "/a?n=1\u0026token=x\u0026m=2"}', r'{"url": "/a?n=1\u0026token=***\u0026m=2"}'),
    ],
)
def test_secrets_in_other_forms(text, shown):
    assert redacted_text(text) == shown


@pytest.mark.parametrize(
    "text",
    [
        "Basic authentication failed; bearer token expired: see the Basic HTTP-auth guide",
        "the token: it is missing; no cookie: none was sent",
        "failed Authorization: user bob may not",
        "the csrf-token: missing or incorrect",
        "redis.password: expected a text, got a number",
        "Password: required",
        "password: ${DB_PASSWORD}",
        'password = "${DB_PASSWORD}"',
        "password: the file /run/secrets/db cannot be read",
        "secret: /run/secrets/db",
        "SyntaxError: unexpected token: 'identifier_2'",
        "    token = self._tokens.named(value[0])\n    password = self._password",
        "def prolong(self, token: int, password: str) -> None:",
        "AKIAIOSFODNN7EXAMPLE is unknown at 356a192b7913b04c54574d18c28d46e6395428ab12",
        '{"prompt": "Password: ", "next": "x"}',
        "the commit 356a192b7913b04c54574d18c28d46e6395428ab; eyJ and ghp_ begin tokens; it has begun",
        "Token: 5 of 7 parsed",
        "Host: example.org\nContent-Type: text/plain\nIdempotency-Key: 5\nAuthor: me",
        r'"{\"author\": \"me\", \"key\": \"a\", \"tokenizer\": \"bpe\"}"',
        r"C:\new\table: 5, C:\temp\tokens",
        "SELECT 'a': 'b'; it's 5 o'clock, isn't it",
        "at 10:15: {'n': 1, \"m\": [2, (3)]}",
    ],
)
def test_ordinary_text_is_shown(text):
    assert redacted_text(text) == text


HOSTILE = [
    *("\\", '"', "'", "a-", "x-", "a-token:", "x-token: a\n", "Bearer ", "Basic a", "token=", "token='", 'token="\n'),
    *("'token':", "'token': '", "'token': [", "'token': [\"", '\\"token\\": \\"', "'token': '\\", "\\\\'token\\\\': ("),
    *(
        "password: ",
        "password: '",
        "a password: q7q7q7",
        "pwd=a b;",
        ";Password=a b",
        "AKIAIOSFODNN7EXAMPLE ",
        "eyJhbGciOi.",
        "ghp_",
    ),
    *("-----BEGIN PRIVATE KEY-----", "token = a1b2c3d4 ", "a_b-"),
    *('token=["', "'Cookie: a", "\\nCookie: a", "cookie: a", "://", " \t", "(", "'token': '\\\\' "),
]


@pytest.mark.parametrize("piece", HOSTILE)
def test_time_grows_with_the_length(piece):
    took = []
    for length in (20_000, 80_000):
        text, best = piece * (length // len(piece)), float("inf")
        for _ in range(3):
            begin = time.process_time()
            redacted_text(text)
            best = min(best, time.process_time() - begin)
        took.append(best)
    assert took[1] < 0.05 or took[1] < 10 * took[0]


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
