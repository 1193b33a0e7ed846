"""Badge of an entry: a small SVG with its name and its state, for a readme or a wall."""

from __future__ import annotations

from html import escape

from beatd.client.entries import Description

_WIDTH, _PAD = 6.6, 8
_GOOD, _BAD, _QUIET = "#15803d", "#b93c0b", "#57534e"
_NAME_MAX = 60


def state_of(seen: Description) -> tuple[str, str]:
    """The state of an entry in a word, and its colour."""
    outcome = seen.outcome
    if seen.look.held:
        return "held back", _BAD
    if seen.pause is not None:
        return "paused", _QUIET
    if outcome.failing_since_ms is not None:
        return "failing", _BAD
    if outcome.is_late:
        return "overdue", _BAD
    if not seen.entry.policies.enabled:
        return "disabled", _QUIET
    return ("passing", _GOOD) if outcome.word == "success" else (outcome.word or "no run yet", _QUIET)


def badge(name: str, state: str, colour: str) -> str:
    """The badge as an SVG document."""
    name = name if len(name) <= _NAME_MAX else f"{name[: _NAME_MAX - 1]}…"
    left, right = (round(len(text) * _WIDTH + 2 * _PAD) for text in (name, state))
    title = escape(f"{name}: {state}")
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{left + right}" height="20" role="img" aria-label="{title}">'
        f'<title>{title}</title><rect width="{left + right}" height="20" rx="3" fill="#292524"/>'
        f'<path d="M{left} 0h{right - 3}a3 3 0 0 1 3 3v14a3 3 0 0 1 -3 3h-{right - 3}z" fill="{colour}"/>'
        '<g fill="#fff" font-family="Verdana,DejaVu Sans,sans-serif" font-size="11" text-anchor="middle">'
        f'<text x="{left / 2}" y="14" textLength="{left - 2 * _PAD}">{escape(name)}</text>'
        f'<text x="{left + right / 2}" y="14" textLength="{right - 2 * _PAD}">{escape(state)}</text></g></svg>'
    )
