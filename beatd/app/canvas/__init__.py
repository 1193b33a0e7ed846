"""Calls made of calls: ``chain`` (one after the other), ``group`` (side by side), ``chord`` (a group, then one more).

The promise: what is composed here is, in JSON, what Celery's canvas writes. Any worker of either make can run any part
of it, and each composition can be put into any other.
"""

from __future__ import annotations

from beatd.app.canvas.chains import chain
from beatd.app.canvas.chords import chord
from beatd.app.canvas.groups import chunks, group, xmap, xstarmap
from beatd.app.canvas.signature import Signature

__all__ = ["chain", "chord", "chunks", "group", "xmap", "xstarmap"]

Signature.kinds.update(chain=chain, group=group, chord=chord, xmap=xmap, xstarmap=xstarmap, chunks=chunks)
