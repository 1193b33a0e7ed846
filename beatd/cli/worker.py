"""``beatd worker``: the bundled worker in the foreground."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from beatd.app.app import App


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--app", "-A", "app_name", metavar="MODULE[:APP]", help="The app whose tasks are run.")
@click.option("--config", "config_file", metavar="FILE", help="Take broker, results, app and timezone from beat.toml.")
@click.option("--broker", "-b", envvar="BEATD_BROKER_URL", metavar="URL", help="Where messages come from.")
@click.option("--result-backend", envvar="BEATD_RESULT_BACKEND", metavar="URL", help="Where results go.")
@click.option("--concurrency", "-c", type=click.IntRange(1), metavar="N", help="Processes or threads; default: CPUs.")
@click.option(
    "--pool", "-P", type=click.Choice(["prefork", "threads", "asyncio", "solo"]), help="Where tasks run; prefork."
)
@click.option("--queues", "-Q", metavar="A,B", help="Queues to take from; default: celery.")
@click.option("--hostname", "-n", metavar="NAME", help="The worker's name; %h is the host. Default: celery@%h.")
@click.option("--loglevel", "-l", default="info", metavar="LEVEL", help="debug, info, warning, error or critical.")
@click.option("--log-format", type=click.Choice(["celery", "text", "json"]), default="celery", help="Of log lines.")
@click.option("--task-events", "-E", is_flag=True, help="Tell monitors, such as Flower, what becomes of each task.")
@click.option("--beat", "-B", is_flag=True, help="For development: run a daemon beside the worker.")
@click.option("--builtin", metavar="NAMES", help="Run beatd's own tasks too: command, http.")
@click.option("--max-tasks-per-child", type=click.IntRange(1), metavar="N", help="Replace a process after N tasks.")
@click.option("--max-memory-per-child", type=click.IntRange(1), metavar="KIB", help="Replace a larger process.")
@click.option("--autoscale", metavar="MAX,MIN", help="Between so many processes or threads, as there is work.")
@click.option("--grace", type=click.FloatRange(0), metavar="SECONDS", help="A warm shutdown waits so long; for ever.")
@click.option("--logfile", "-f", metavar="FILE", help="Log there; %n is the name, %i and %I number the processes.")
@click.option("--pidfile", metavar="FILE", help="Keep the process id there, locked, while it runs.")
@click.pass_obj
def worker(app: App | None, /, **options: Any) -> None:
    """Run tasks until told to stop: SIGTERM or Ctrl-C once to finish what runs, twice to leave at once."""
    from beatd.cli.worker_start import start  # noqa: PLC0415 - keeps ``beatd --help`` quick

    start(options, app)


def run_for_app(app: App, argv: list[str]) -> None:
    """The worker of an app that starts itself (``app.worker_main()``); ``argv`` with or without the word ``worker``."""
    words = [word for index, word in enumerate(argv) if not (index == 0 and word == "worker")]
    worker.main(args=words, prog_name="worker", obj=app)
