"""Record of a run: one attempt after its end, with its error, its output and its result, as the outcomes keep it."""

from __future__ import annotations

import zlib

import msgspec
from msgspec import structs

from beatd.redaction import encodable, redacted, redacted_text, safe_repr
from beatd.states import FAILURE, IGNORED, REJECTED, RETRY, REVOKED, SUCCESS

MESSAGE_MAX, TRACEBACK_MAX, OUTPUT_MAX, ARGUMENTS_MAX, RESULT_MAX = 500, 8_000, 16 << 10, 500, 500
"""Characters of the texts in a record."""
_COMPRESSED_FROM = 512

REFUSED = "REFUSED"
"""The outcome of a run that the broker refused."""

LOST = "LOST"
"""The outcome of a run whose process or worker died."""

WORDS = {
    SUCCESS: "success",
    IGNORED: "success",
    FAILURE: "failure",
    REJECTED: "failure",
    REFUSED: "failure",
    REVOKED: "revoked",
    RETRY: "retry",
    LOST: "lost",
}
"""The outcome as a word, for each state."""
EXPIRED = "expired"
"""Error message of a run that was revoked because its message had expired. It counts as a failure of the entry."""
MARKS = {"success": "s", "failure": "f", "lost": "l", "revoked": "v", "retry": "r"}


class RunRecord(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One attempt of a run, after its end. Texts are bounded, and secrets in them are hidden."""

    run_id: str
    state: str
    """A state of :mod:`beatd.states`, or ``LOST``."""
    end_ms: int
    start_ms: int | None = None
    worker: str = ""
    task: str = ""
    attempt: int = 1
    """1 for the first."""
    type: str = ""
    """The class of the exception."""
    message: str = ""
    traceback: str = ""
    output: str = ""
    args: str = ""
    kwargs: str = ""
    result: str = ""
    """The value that a successful attempt returned, as text; empty for None."""

    @property
    def word(self) -> str:
        """The outcome in a word."""
        return WORDS.get(self.state, self.state.lower())

    @property
    def mark(self) -> str:
        """The outcome as a letter of the summary."""
        return "e" if self.state == REVOKED and self.message == EXPIRED else MARKS.get(self.word, "")


_BEFORE = 4
"""Text is looked at for secrets from so many times the length that is shown."""
_PLAIN_MODULES = ("builtins", "__main__", "beatd.exceptions")


def is_of_builtin_task(error: object) -> bool:
    """True for an error of beatd's own tasks: its text says everything, and its traceback is about beatd's code."""
    return str(type(error).__module__).startswith("beatd.worker.builtin.")


def bounded(text: str, at_most: int) -> str:
    """The text with secrets hidden; of a longer one the beginning and the end."""
    if len(text) <= at_most:
        return redacted_text(text)
    return f"{redacted_text(text, at_most=at_most // 4)}\n{tail(text, at_most - at_most // 4)}"


def tail(text: str, at_most: int = OUTPUT_MAX) -> str:
    """The end of the text, from the beginning of a line, with secrets hidden."""
    if len(text) <= at_most:
        return redacted_text(text)
    # what is cut may begin with half of a secret: secrets are hidden while there is more before it
    end = redacted_text(text[-_BEFORE * at_most :])[-at_most:]
    return "…\n" + (end.partition("\n")[2] or end.partition(" ")[2])


def arguments_text(value: object) -> str:
    """Arguments as text, with secrets hidden; empty for none."""
    return _shown(value, ARGUMENTS_MAX) if value else ""


def result_text(value: object) -> str:
    """The value that a task returned as text, with secrets hidden; empty for None."""
    return "" if value is None else _shown(value, RESULT_MAX)


def _shown(value: object, at_most: int) -> str:
    """The ``repr`` with secrets hidden, also those in keys, in sets and in what an object says of itself."""
    return redacted_text(safe_repr(redacted(value, at_most=at_most)), at_most=at_most)


def error_texts(error: BaseException, traceback: str | None = None) -> dict[str, str]:
    """The fields of a record for an exception."""
    kind = type(error)
    is_ours = is_of_builtin_task(error)
    is_plain = is_ours or kind.__module__ in _PLAIN_MODULES
    name = kind.__qualname__ if is_plain else f"{kind.__module__}.{kind.__qualname__}"
    try:
        message = str(error)
        if len(error.args) == 1 and message.startswith(f"{kind.__name__}("):  # a text that is the exception's repr
            message = str(error.args[0])
    except Exception:  # noqa: BLE001 - an exception's own method may do anything
        message = "its text cannot be shown"
    return {
        "type": name,
        "message": redacted_text(message, at_most=MESSAGE_MAX),
        "traceback": bounded(traceback, TRACEBACK_MAX) if traceback and not is_ours else "",
    }


def encoded(record: RunRecord) -> bytes:
    """The record as it is stored: JSON, compressed when that makes it smaller."""
    try:
        raw = msgspec.json.encode(record)
    except UnicodeEncodeError:  # lone surrogates, as of file names that are no UTF-8
        texts = {name: encodable(text) for name, text in structs.asdict(record).items() if isinstance(text, str)}
        raw = msgspec.json.encode(structs.replace(record, **texts))
    return raw if len(raw) < _COMPRESSED_FROM else zlib.compress(raw, 1)


def decoded(raw: bytes) -> RunRecord | None:
    """The record; None for bytes that are none."""
    try:
        if raw[:1] != b"{":
            unpack = zlib.decompressobj()
            raw = unpack.decompress(raw, 1 << 20)
        return msgspec.json.decode(raw, type=RunRecord)
    except (zlib.error, msgspec.MsgspecError, UnicodeDecodeError):
        return None
