"""Compositions of tasks: ``from beatd.canvas import chain, group, chord``. Celery's names."""

from __future__ import annotations

from beatd.app.canvas import chain, chord, chunks, group, xmap, xstarmap
from beatd.app.canvas.signature import Signature, maybe_signature, signature
from beatd.app.canvas.stamps import StampingVisitor

__all__ = [
    "Signature",
    "StampingVisitor",
    "chain",
    "chord",
    "chunks",
    "group",
    "maybe_signature",
    "signature",
    "subtask",
    "xmap",
    "xstarmap",
]

subtask = signature
"""Celery's older name."""
