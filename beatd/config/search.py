"""Search for the file to load."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from beatd.exceptions import ConfigError, Fault

FILE_VARIABLE = "BEATD_CONFIG"
PLACES = ("beat.toml", "/etc/beatd/beat.toml")


def find(path: str | Path | None = None, env: Mapping[str, str] | None = None) -> Path:
    """The file to load: ``path``, else ``$BEATD_CONFIG``, ``./beat.toml``, ``/etc/beatd/beat.toml``.

    Only the last two are looked for; what was named must exist when it is loaded. Raises ConfigError with the places
    that were tried.
    """
    named = path or (os.environ if env is None else env).get(FILE_VARIABLE)
    if named:
        return Path(named)
    for place in map(Path, PLACES):
        if place.exists():
            return place
    tried = f"tried ${FILE_VARIABLE} (not set), " + ", ".join(f"./{p}" if not p.startswith("/") else p for p in PLACES)
    text = f"no configuration file; {tried}; name one with --config, or write one with beatd init"
    raise ConfigError([Fault("beat.toml", None, "", text)])
