"""Command lines of Celery in files that deploy a project."""

from __future__ import annotations

import pytest

from beatd.importers.command_lines import command_uses

MANIFEST = """
spec:
  containers:
    - name: beat
      command: ["celery"]
      args:
        # of the beat
        - -A
        - proj
        - beat
    - name: worker
      command:
        - celery
        - "-A"
        - "proj"
        - "worker"
      image: x
"""


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("beat: celery -A proj beat\n", [(1, "celery -A proj beat")]),
        (MANIFEST, [(5, "celery -A proj beat"), (12, "celery -A proj worker")]),
        ("exec celery \\\n  -A proj \\\n  beat\nx\n", [(1, "celery -A proj beat")]),
        ("ExecStart=/bin/sh -c '${CELERY_BIN} -A ${CELERY_APP} beat'\n", [(1, "celery -A ${CELERY_APP} beat")]),
        ("depends_on:\n  - celery\n  - beat\n", []),
        ("# celery -A proj beat\n", []),
        ("command: celery\nargs: [-A, proj, beat]\n", [(1, "celery -A proj beat")]),
    ],
)
def test_command_lines(text, found):
    assert [(use.line, use.what) for use in command_uses("x", text)] == found
