"""In what surroundings a program runs: its environment and its user."""

from __future__ import annotations

import os
import pwd
from collections.abc import Mapping, Sequence
from typing import Any

from beatd.config.inherited import inherited


def surroundings(env: Mapping[str, str] | None, inherit: bool | Sequence[str], user: str | None) -> dict[str, Any]:
    """What ``subprocess.Popen`` wants: ``env`` on top of what is inherited, and the user's id, groups and home.

    Raises ``ValueError`` for what is impossible.
    """
    found = _environment(env, inherit)
    if (one := _user(user)) is None:
        return {"env": found}
    own = {"HOME": one.pw_dir, "USER": one.pw_name, "LOGNAME": one.pw_name}
    groups = os.getgrouplist(one.pw_name, one.pw_gid)
    return {"env": {**found, **own, **(env or {})}, "user": one.pw_uid, "group": one.pw_gid, "extra_groups": groups}


def _environment(env: Mapping[str, str] | None, inherit: bool | Sequence[str]) -> dict[str, str]:
    if not isinstance(inherit, bool) and not (
        isinstance(inherit, list | tuple) and all(isinstance(name, str) for name in inherit)
    ):
        raise ValueError(f"inherit_env must be true, false or a list of names, not {inherit!r}")
    found = inherited(inherit)
    if env is not None and not isinstance(env, Mapping):
        raise ValueError(f"env must be a table of names and values, not {env!r}")
    for name, value in (env or {}).items():
        if not isinstance(value, str | int | float):
            raise ValueError(f"env: the value of {name} must be a string, not {value!r}")  # noqa: TRY004 - as the others
        found[str(name)] = str(value)
    return found


def _user(name: str | None) -> pwd.struct_passwd | None:
    """The user to become, None to stay who we are."""
    if name is None:
        return None
    try:
        user = pwd.getpwnam(name)
    except (KeyError, TypeError):
        raise ValueError(f"user: there is no {name!r} on this machine") from None
    if user.pw_uid == os.geteuid():
        return None
    if os.geteuid() != 0:
        raise ValueError(f"user: only a worker that runs as root can run programs as {name!r}")
    return user
