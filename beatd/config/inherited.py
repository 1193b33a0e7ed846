"""What of this process's environment a program that it starts gets."""

from __future__ import annotations

import fnmatch
import os
from collections.abc import Sequence

NEEDED = ("PATH", "HOME", "USER", "LOGNAME", "SHELL", "TMPDIR", "TZ", "LANG", "LC_*")
"""What every program needs, and no secret is ever in."""


def inherited(names: bool | Sequence[str]) -> dict[str, str]:
    """All of the environment, or with false what is :data:`NEEDED`, or what has one of these names."""
    if names is True:
        return dict(os.environ)
    patterns = NEEDED if names is False else tuple(names)
    return {
        name: value for name, value in os.environ.items() if any(fnmatch.fnmatchcase(name, one) for one in patterns)
    }
