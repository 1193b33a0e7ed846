"""Write what version 0.1.0 leaves on a host: unit files, the start record and the pid file of a node of ``multi``.

    <a checkout of 0.1.0>/.venv/bin/python make.py    (in the folder of that checkout)

``beat.toml`` is config/beat.toml of 0.1.0; ``digest`` is the digest of its schedule.
"""

# ruff: noqa
# mypy: ignore-errors
import os
import sys
from pathlib import Path

from beatd import config
from beatd.cli.node_process import Memory, Started
from beatd.cli.pidfile import held
from beatd.cli.units import SYSUSERS, UNITS, Install, fitted, source

HERE = Path(__file__).parent
for folder, user in (("system", "beatd"), ("user", None)):
    for name in UNITS:
        install = Install(Path("/opt/beatd/bin/beatd"), Path("/etc/beatd/beat.toml"), user)
        (HERE / folder / name).write_text(fitted(source(name), install))
(HERE / "system" / SYSUSERS).write_text(source(SYSUSERS))
(HERE / "beat.toml").write_text(Path("config/beat.toml").read_text())
environment = {"REDIS_PASSWORD": "x", "RABBITMQ_PASSWORD": "x"}
(HERE / "digest").write_text(config.load(HERE / "beat.toml", env=environment).digest + "\n")
folder = "/var/lib/proj"
arguments = ["--app=proj", "--concurrency=1", "--queues=mail,letters", "--loglevel=INFO", "--task-events"]
Memory(HERE).remember(Started("celery1@host", arguments, folder, f"{folder}/celery1.pid", f"{folder}/celery1%I.log"))
path = HERE / "celery1.pid"
with held(path):
    content = path.read_text()
path.write_text(content)
