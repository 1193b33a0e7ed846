"""Option ``global_keyprefix`` in the URL of a Redis: the beginning of keys and channels, as in kombu and Celery.

Clients that share a server and have different prefixes do not see each other's queues, control commands, events and
results. It is a part of the URL, so that it goes wherever the URL goes.
"""

from __future__ import annotations

from urllib.parse import parse_qsl, quote, unquote

OPTION = "global_keyprefix"


def global_keyprefix(url: str | None) -> str:
    """Return the prefix in a URL; empty without one."""
    if not url or OPTION not in url:
        return ""
    return dict(parse_qsl(url.partition("?")[2])).get(OPTION, "")


def with_keyprefix(url: str, prefix: str) -> str:
    """Return the URL with a prefix; one that it has already stays."""
    if not prefix or global_keyprefix(url):
        return url
    return f"{url}{'&' if '?' in url else '?'}{OPTION}={quote(prefix, safe='')}"


def without_keyprefix(url: str) -> str:
    """Return the URL without its prefix."""
    if not global_keyprefix(url):
        return url
    place, _, query = url.partition("?")
    left = "&".join(pair for pair in query.split("&") if unquote(pair.partition("=")[0]) != OPTION)
    return f"{place}{'?' if left else ''}{left}"


def difference(url: str | None, wanted: str | None) -> str:
    """Return what is wrong with the URL of a broker for an app with the prefix ``wanted``; empty if nothing is."""
    here = global_keyprefix(url)
    if not wanted or here == wanted:
        return ""
    said = f"{OPTION} is {here!r}" if here else f"it has no {OPTION}"
    return f"{said}, and the app's is {wanted!r}: write ?{OPTION}={quote(wanted, safe='')} into the URL of [broker]"


def own_prefix(url: str | None, prefix: str = "beatd") -> str:
    """Return the prefix of beatd's own keys on the server at ``url``: after its ``global_keyprefix``."""
    before = global_keyprefix(url)
    return prefix if prefix.startswith(before) else f"{before}{prefix}"


def result_prefix(url: str | None) -> str:
    """Return the prefix of results in a URL; it ends with a separator, as Celery has it."""
    prefix = global_keyprefix(url)
    return prefix if not prefix or prefix[-1] in ":_-." else f"{prefix}_"
