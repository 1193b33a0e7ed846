"""Report of an installation, for bug reports: versions, platform, settings without passwords."""

from __future__ import annotations

import platform
from typing import TYPE_CHECKING

import beatd
from beatd import urls

if TYPE_CHECKING:
    from beatd.app.app import App


def bugreport(app: App) -> str:
    """Return the report, in Celery's layout."""
    broker, backend = app.conf.broker_url, app.conf.result_backend
    transport = urls.scheme_of(broker if isinstance(broker, str) else next(iter(broker), ""))
    return (
        f"software -> beatd:{beatd.__version__} py:{platform.python_version()} imp:{platform.python_implementation()}\n"
        f"platform -> system:{platform.system()} arch:{platform.machine()} kernel version:{platform.release()}\n"
        f"settings -> transport:{transport} results:{urls.shown(str(backend)) if backend else 'disabled'}\n\n"
        f"{app.conf.humanize()}\n"
    )
