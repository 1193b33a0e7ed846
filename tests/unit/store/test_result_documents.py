"""Result documents that are none, and exceptions that must not end a client."""

from __future__ import annotations

import pytest

from beatd.exceptions import MessageError
from beatd.store.result_document import exception_from
from beatd.store.results import decode


@pytest.mark.parametrize(
    "raw", [b"[1]", b"{}", b'{"status": []}', b'{"status": null}', b"1", b"null", b"", b"\x80pickle"]
)
def test_what_is_no_result_document_is_named_so(raw: bytes) -> None:
    with pytest.raises(MessageError, match=r"not a result document|not a JSON document"):
        decode(raw)


def test_a_document_without_a_result_has_none() -> None:
    assert decode(b'{"status": "SUCCESS"}') == {"status": "SUCCESS", "result": None}


@pytest.mark.parametrize("name", ["SystemExit", "KeyboardInterrupt", "GeneratorExit", "BaseException"])
def test_an_exception_that_would_end_the_client_becomes_an_ordinary_one(name: str) -> None:
    error = exception_from({"exc_type": name, "exc_message": [1], "exc_module": "builtins"})
    assert isinstance(error, Exception)
    assert (type(error).__name__, error.args) == (name, (1,))
