"""YAML files of other schedulers: plain values only, each mapping with the line on which it begins.

Scalars are texts as they are written: what YAML 1.1 makes of ``yes``, ``0755``, ``12:30`` or ``1.10`` is none of the
programs' whose files these are. Only null is a value of its own.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from beatd.exceptions import ConfigError, Fault

_TRUE = ("true", "yes", "on", "y", "1")
_KEPT = ("tag:yaml.org,2002:null", "tag:yaml.org,2002:merge")
"""Tags that plain scalars may get; others are texts."""


class Table(dict[Any, Any]):
    """A mapping of a YAML or JSON file; ``line`` is where it begins, 0 where that is not known."""

    line: int = 0

    def table(self, key: str) -> Table:
        """The mapping under a key; an empty one for anything else."""
        found = self.get(key)
        return found if isinstance(found, Table) else Table()

    def tables(self, key: str) -> list[Table]:
        """The mappings in the list under a key."""
        found = self.get(key)
        return [each for each in found if isinstance(each, Table)] if isinstance(found, list) else []

    def text(self, key: str, default: str = "") -> str:
        """The text under a key; numbers become text, and anything else the default."""
        found = self.get(key)
        if isinstance(found, bool):
            return str(found).lower()
        return str(found) if isinstance(found, str | int | float) else default

    def flag(self, key: str, *, default: bool = False) -> bool:
        """The truth under a key, in any of the words that YAML has for it."""
        text = self.text(key)
        return text.lower() in _TRUE if text else default

    def texts(self, key: str) -> list[str]:
        """The texts in the list under a key."""
        found = self.get(key)
        return [scalar(each) for each in found] if isinstance(found, list) else []


def scalar(value: Any) -> str:
    """A scalar as text. Raises ValueError for a list or mapping."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str | int | float):
        return str(value)
    raise ValueError(f"expected a text, not {type(value).__name__}")


def read_yaml(data: bytes, shown: str) -> list[Any]:
    """The documents of a YAML file. Raises ConfigError with the line of the first error."""
    try:
        import yaml  # noqa: PLC0415 - an optional dependency
    except ImportError:
        raise ConfigError([Fault(shown, None, "", "YAML files need pip install 'beatd[yaml]'")]) from None
    try:
        return list(yaml.load_all(data, Loader=_loader(yaml)))
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        why = " ".join((error.problem or str(error)).split())
        if b"{{" in data:
            why += "; a template of Helm? Import what helm template prints"
        raise ConfigError([Fault(shown, mark.line + 1 if mark else None, "", f"is no YAML: {why}")]) from None
    except (yaml.YAMLError, ValueError, RecursionError, OverflowError) as error:
        why = " ".join(str(error).split())[:200] or type(error).__name__
        raise ConfigError([Fault(shown, None, "", f"is no YAML: {why}")]) from None


def _loader(yaml: Any) -> Any:
    class Loader(yaml.SafeLoader):  # type: ignore[misc]
        """The safe loader with :class:`Table` for mappings, and texts for scalars."""

        yaml_implicit_resolvers = {  # noqa: RUF012 - as the library has it
            first: [one for one in resolvers if one[0] in _KEPT]
            for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
        }

        def construct_table(self, node: Any) -> Iterator[Table]:
            table = Table()
            table.line = node.start_mark.line + 1
            yield table
            table.update(self.construct_mapping(node))

    Loader.add_constructor("tag:yaml.org,2002:map", Loader.construct_table)
    return Loader


def tables_of(value: Any) -> Any:
    """A value of JSON with :class:`Table` for its objects."""
    if isinstance(value, dict):
        return Table({key: tables_of(each) for key, each in value.items()})
    return [tables_of(each) for each in value] if isinstance(value, list) else value
