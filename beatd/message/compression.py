"""Compression of bodies, by the names that kombu gives to the methods.

A body never unpacks to more than is allowed. The bound is kept while unpacking: of a bomb, no more than that ever comes
into memory.
"""

from __future__ import annotations

import bz2
import importlib
import lzma
import zlib
from collections.abc import Callable
from typing import Any

import msgspec

from beatd.exceptions import MessageError
from beatd.message.protocol import TaskMessage

_COMPRESS: dict[str, tuple[str, Callable[[bytes], bytes]]] = {
    **dict.fromkeys(("gzip", "zlib"), ("application/x-gzip", zlib.compress)),  # kombu's name for it; it is no gzip file
    **dict.fromkeys(("bzip2", "bzip"), ("application/x-bz2", bz2.compress)),
    **dict.fromkeys(("lzma", "xz"), ("application/x-lzma", lzma.compress)),
}
"""kombu's names of methods → value of the header ``compression``, and what does it."""


def compressed(message: TaskMessage, method: str) -> TaskMessage:
    """The message with its body compressed; raises :class:`MessageError` for a method that is not known."""
    wanted = next((found for name, found in _COMPRESS.items() if method in (name, found[0])), None)
    if wanted is None:
        raise MessageError(f"unknown compression {method!r}; use one of: {', '.join(_COMPRESS)}")
    kind, compress = wanted
    headers = {**message.headers, "compression": kind}
    return msgspec.structs.replace(message, body=compress(message.body), headers=headers)


Unpack = Callable[[bytes, int], bytes]
"""``unpack(data, at_most)``: the content, or its first ``at_most`` bytes. Raises whatever the method raises."""


def decompress(data: bytes, method: str, at_most: int) -> bytes:
    """The content of ``data``; raises :class:`MessageError` if it is broken, unknown or larger than ``at_most``."""
    unpack = _METHODS.get(method)
    if unpack is None:
        raise MessageError(f"compression {method!r} is not known here, only {', '.join(_KNOWN_METHODS)}")
    try:
        content = unpack(data, at_most + 1)
    except MessageError:
        raise
    except Exception as error:  # noqa: BLE001 - each method has errors of its own
        raise MessageError(f"its {method} body cannot be unpacked: {str(error) or type(error).__name__}") from None
    if len(content) > at_most:
        raise MessageError(f"its {method} body unpacks to more than {at_most:,} bytes")
    return content


def _zlib(data: bytes, at_most: int) -> bytes:
    """zlib's format, which kombu calls gzip, and gzip's own."""
    machine = zlib.decompressobj(wbits=zlib.MAX_WBITS | 32)
    content = machine.decompress(data, at_most)
    if not machine.eof and len(content) < at_most:
        raise MessageError("its compressed body ends too early")
    return content


def _with(make: Callable[[], Any]) -> Unpack:
    """The decompressors of bz2, lzma and zstd have the same methods."""

    def unpack(data: bytes, at_most: int) -> bytes:
        machine = make()
        content: bytes = machine.decompress(data, at_most)
        while not machine.eof and not machine.needs_input and len(content) < at_most:
            content += machine.decompress(b"", at_most - len(content))
        if not machine.eof and len(content) < at_most:
            raise MessageError("its compressed body ends too early")
        return content

    return unpack


def _zstd(data: bytes, at_most: int) -> bytes:
    """In the standard library from Python 3.14 on, and as a package for those before: kombu takes the same two."""
    for name in ("compression.zstd", "backports.zstd"):
        try:
            return _with(importlib.import_module(name).ZstdDecompressor)(data, at_most)
        except ImportError:
            continue
    raise MessageError("its body is compressed with zstd; install backports.zstd to read it")


def _brotli(data: bytes, at_most: int) -> bytes:
    try:
        machine = importlib.import_module("brotli").Decompressor()
    except ImportError:
        raise MessageError("its body is compressed with brotli; install brotli 1.2 or newer to read it") from None
    content = bytearray(machine.process(data, output_buffer_limit=at_most))
    while len(content) < at_most and not machine.is_finished() and not machine.can_accept_more_data():
        content += machine.process(b"", output_buffer_limit=at_most - len(content))
    if not machine.is_finished() and len(content) < at_most:
        raise MessageError("its compressed body ends too early")
    return bytes(content)


_bzip2, _lzma = _with(bz2.BZ2Decompressor), _with(lzma.LZMADecompressor)

_METHODS: dict[str, Unpack] = {
    **dict.fromkeys(("application/x-gzip", "gzip", "zlib"), _zlib),
    **dict.fromkeys(("application/x-bz2", "bzip2", "bzip"), _bzip2),
    **dict.fromkeys(("application/x-lzma", "lzma", "xz"), _lzma),
    **dict.fromkeys(("application/zstd", "zstd", "zstandard"), _zstd),
    **dict.fromkeys(("application/x-brotli", "brotli"), _brotli),
}
_KNOWN_METHODS = ("zlib", "gzip", "bzip2", "lzma", "zstd", "brotli")
