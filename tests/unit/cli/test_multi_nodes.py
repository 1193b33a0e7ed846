"""Names, ranges and options of ``beatd multi``."""

from __future__ import annotations

import click
import pytest

from beatd.cli.multi_nodes import Node, as_arguments, nodes, read_words
from beatd.cli.worker import worker


def names(*words: str) -> list[str]:
    return [node.name for node in nodes(words, host="host.example.com")]


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["1"], ["celery1"]),
        (["3"], ["celery1", "celery2", "celery3"]),
        (["2-4"], ["celery2", "celery3", "celery4"]),
        (["1", "2"], ["celery1", "celery2"]),
        (["web", "mail"], ["web", "mail"]),
        (["web,mail"], ["web", "mail"]),
    ],
)
def test_names(words, expected):
    assert names(*words) == [f"{name}@host.example.com" for name in expected]


def test_a_full_name_stays():
    assert names("web@other") == ["web@other"]


@pytest.mark.parametrize("words", [["3-1"], ["1-2000"], ["web", "web"], ["1-2", "2"]])
def test_odd_names_are_refused(words):
    with pytest.raises(click.UsageError):
        names(*words)


def options(node: Node, *words: str) -> list[str]:
    return as_arguments(read_words(words, worker).options_of(node))


def test_options_for_all_and_for_some():
    words = ("web", "mail", "-A", "proj", "-c", "4", "-c:2", "10", "-Q:web,3-5", "letters", "--loglevel=debug")
    web, mail = nodes(("web", "mail"), host="host")
    assert read_words(words, worker).names == ("web", "mail")
    assert options(web, *words) == ["--app=proj", "--concurrency=4", "--loglevel=debug", "--queues=letters"]
    assert options(mail, *words) == ["--app=proj", "--concurrency=10", "--loglevel=debug"]


def test_values_may_be_attached_and_have_placeholders():
    (node,) = nodes(("web",), host="a.example.com")
    words = ("-c3", "--logfile=/var/log/%n-%h-%d-%N%I.log", "--queues:1=a:b")
    assert options(node, *words) == [
        "--concurrency=3",
        "--logfile=/var/log/web-a.example.com-example.com-web@a.example.com%I.log",
        "--queues=a:b",
    ]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--concurency", "3"), "did you mean --concurrency?"),
        (("-c",), "-c needs a value"),
    ],
)
def test_slips_are_named(words, message):
    with pytest.raises(click.UsageError, match=message.replace("?", r"\?")):
        read_words(words, worker)
