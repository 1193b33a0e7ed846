"""The tasks of an app, by name."""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING, Any

from beatd.exceptions import NotRegistered

if TYPE_CHECKING:
    from beatd.app.task import Task


class TaskRegistry(dict[str, "Task[..., Any]"]):
    """A dict that raises :class:`~beatd.exceptions.NotRegistered` for a name it does not have."""

    def __missing__(self, name: str) -> Task[..., Any]:
        raise NotRegistered(name)

    def near(self, name: str) -> list[str]:
        """Names that somebody may have meant: spelt alike, or the same function elsewhere."""
        function = name.rpartition(".")[2]
        same = [known for known in self if known.rpartition(".")[2] == function]
        return list(dict.fromkeys([*same, *difflib.get_close_matches(name, self, 3)]))[:3]
