"""Signed values for a browser: its session, the token of its forms, and a note for the page that comes next.

Nothing is kept here: a value is valid if its signature is, and if its time is not over.
"""

from __future__ import annotations

import base64
import binascii
import hmac
import json
from typing import Any

SESSION, NOTE = "beatd_session", "beatd_note"
"""Names of the cookies."""
SESSION_S = 12 * 3600
NOTE_S = 60
NOTE_MAX = 400
"""Characters of a note: browsers drop a cookie of more than 4 KB."""


def sign(key: bytes, purpose: str, value: Any, until_ms: int) -> str:
    """The value as a text that :func:`verify` takes back, for that purpose and until then."""
    document = json.dumps([value, until_ms], ensure_ascii=False).encode(errors="backslashreplace")
    text = base64.urlsafe_b64encode(document).decode()
    return f"{text}.{_mac(key, purpose, text)}"


def verify(key: bytes, purpose: str, signed: str, now_ms: int) -> Any:
    """The value of a signed text; None if it is not ours or its time is over."""
    text, _, mac = signed.rpartition(".")
    if not hmac.compare_digest(mac.encode(), _mac(key, purpose, text).encode()):
        return None
    try:
        value, until_ms = json.loads(base64.urlsafe_b64decode(text))
    except (ValueError, TypeError, binascii.Error):
        return None
    return value if now_ms < until_ms else None


def form_token(key: bytes, identity: str) -> str:
    """Return the token for the forms of a person: no other site can know it."""
    return _mac(key, "form", identity)


def _mac(key: bytes, purpose: str, text: str) -> str:
    return hmac.digest(key, f"{purpose}\0{text}".encode(), "sha256").hex()
