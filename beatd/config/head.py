"""The settings of the main file alone.

Commands that operate a running system need to know where it is, and have to work while an entry is being mended.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from beatd.config.faults import Report
from beatd.config.settings import read_settings
from beatd.config.shapes import read_defaults
from beatd.config.text import Document, read
from beatd.config.variables import substitute
from beatd.exceptions import ConfigError
from beatd.model import Settings


class Head(NamedTuple):
    """What the main file says beside its entries."""

    settings: Settings
    defaults: dict[str, Any]


def head(path: str | Path, *, env: Mapping[str, str] | None = None) -> Head:
    """The settings and ``[defaults]`` in the file at ``path``; its entries and what it includes are not looked at.

    Raises ConfigError with everything that is wrong with them.
    """
    shown = str(path)
    report = Report()
    text = read(Path(path), shown)
    document = Document(shown, text)
    env = os.environ if env is None else env
    raw = substitute(document.settings, env, report, ()) if "${" in text else document.settings
    settings = read_settings(raw, Path(path).absolute(), env, report)
    defaults = read_defaults(raw.get("defaults", {}), settings.timezone, report)
    if report:
        raise ConfigError(report.faults(shown, document.line_of))
    return Head(settings, defaults)
