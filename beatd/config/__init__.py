"""``beat.toml``: from text to frozen values.

The promise: what comes out has been checked completely, and nothing behind this package looks at raw configuration or
the environment again. What goes in and is wrong comes out as one :class:`~beatd.exceptions.ConfigError` with all the
faults, each at its line, in words that say what would be right. Values of variables are never shown.
"""

from beatd.config.digest import digest, joined
from beatd.config.entries import entry
from beatd.config.environment import Environment, environment
from beatd.config.loader import Config, load
from beatd.config.search import find

__all__ = ["Config", "Environment", "digest", "entry", "environment", "find", "joined", "load"]
