"""``beatd shell``: a Python shell with an app and its tasks."""

from __future__ import annotations

import code
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import click

import beatd
from beatd.cli.app_client import SETTINGS, client_app, place_options
from beatd.cli.output import print_line

_OF_CANVAS = ("signature", "group", "chain", "chord", "chunks", "xmap", "xstarmap")
_PACKAGES = {"ipython": "IPython", "bpython": "bpython"}


@click.command(context_settings=SETTINGS)
@place_options
@click.option("--ipython", "-I", "interpreter", flag_value="ipython", help="Use IPython.")
@click.option("--bpython", "-B", "interpreter", flag_value="bpython", help="Use bpython.")
@click.option(
    "--python", "-P", "interpreter", flag_value="python", help="Use Python's own. Default: IPython, if it is there."
)
@click.option("--without-tasks", "-T", is_flag=True, help="Do not give the shell the tasks by name.")
@click.option("--eventlet", "--gevent", "patched", is_flag=True, help="No effect: nothing is monkey-patched.")
def shell(
    *,
    app_name: str | None,
    config_file: str | None,
    broker: str | None,
    result_backend: str | None,
    interpreter: str | None,
    without_tasks: bool,
    patched: bool,
) -> None:
    """Start a Python shell with app, its tasks by name, and Task, signature, group, chain, chord, AsyncResult, …"""
    from beatd import Task, canvas  # noqa: PLC0415

    if patched:
        print_line("--eventlet and --gevent have no effect: nothing is monkey-patched.", err=True)
    app = client_app(app_name, broker, config_file, result_backend)
    app.import_tasks()
    names: dict[str, Any] = {"app": app, "celery": app, "Task": Task, "subtask": canvas.signature}
    names |= {name: getattr(canvas, name) for name in _OF_CANVAS}
    names |= {name: getattr(app, name) for name in ("AsyncResult", "GroupResult", "ResultSet")}
    if not without_tasks:
        own = (name for name in app.tasks if not name.startswith("celery."))
        names |= {name.rpartition(".")[2]: app.tasks[name] for name in own}
    kind = interpreter or ("ipython" if find_spec("IPython") else "python")
    if kind != "python" and not find_spec(_PACKAGES[kind]):
        raise click.ClickException(f"there is no {kind} here: pip install {kind}")
    if kind == "ipython":
        import_module("IPython").start_ipython(argv=[], user_ns=names)
    elif kind == "bpython":
        import_module("bpython").embed(names)
    else:
        code.interact(banner=f"beatd {beatd.__version__}: app is {app.main!r}", local=names, exitmsg="")
