"""Canvas: compositions of tasks. ``chain`` (in sequence), ``group`` (in parallel), ``chord`` (a group, then a body).

Contract: the JSON of a composition is that of Celery's canvas. Workers of beatd and of Celery can run any part of it,
and compositions nest.
"""

from __future__ import annotations

from beatd.app.canvas.chains import chain
from beatd.app.canvas.chords import chord
from beatd.app.canvas.groups import chunks, group, xmap, xstarmap
from beatd.app.canvas.signature import Signature

__all__ = ["chain", "chord", "chunks", "group", "xmap", "xstarmap"]

Signature.TYPES.update(chain=chain, group=group, chord=chord, xmap=xmap, xstarmap=xstarmap, chunks=chunks)
