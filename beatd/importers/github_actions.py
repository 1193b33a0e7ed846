"""Workflows of GitHub Actions with ``on: schedule``: the ``run`` steps of each job become a ``beatd.command`` entry.

What only GitHub has (actions, runners, expressions) is named; a job of actions alone has no counterpart.
"""

from __future__ import annotations

from pathlib import PurePath
from typing import Any

from beatd.importers.collected import Collected, command, leftovers, seconds
from beatd.importers.report import FoundSchedule
from beatd.importers.yaml_file import Table, read_yaml, scalar

_SHELLS = ("bash", "sh")
_JOB = {
    "name", "runs-on", "steps", "env", "timeout-minutes", "defaults", "if", "strategy", "container", "services",
    "needs", "permissions",
}  # fmt: skip
_STEP = {"name", "id", "run", "uses", "with", "env", "if", "shell", "working-directory"}
_WORKFLOW = {"name", "on", "jobs", "env", "defaults", "permissions", "run-name"}
_SET_UP = ("actions/checkout", "actions/setup-", "actions/cache")


def read_github_actions(data: bytes, *, shown: str, timezone: str | None = None) -> FoundSchedule:
    """The schedule of a workflow file; GitHub's times are in UTC."""
    collected = Collected(shown)
    for document in read_yaml(data, shown):
        if document is None:
            continue
        if not isinstance(document, Table):
            collected.note(shown, "", "expected a workflow: a mapping with on and jobs")
            continue
        events = document.get("on")
        crons = events.tables("schedule") if isinstance(events, Table) else []
        crons = [each for each in crons if each.text("cron")]
        if not crons:
            collected.note(collected.place(document.line), "", "expected a workflow with a cron under on.schedule")
            continue
        jobs = document.table("jobs")
        for key in jobs:
            job = jobs.table(key)
            with collected.reading(collected.place(job.line)):
                _take(collected, document, str(key), job, crons)
    return collected.found("UTC" if timezone is None else timezone)


def _take(collected: Collected, workflow: Table, key: str, job: Table, crons: list[Table]) -> None:
    if job.text("uses"):
        raise ValueError(f"the job {key[:60]} is another workflow: {job.text('uses')[:100]}")
    steps = job.tables("steps")
    scripts = [step for step in steps if step.text("run")]
    if not scripts:
        raise ValueError(f"the job {key[:60]} has no run steps: actions have no counterpart")
    if odd := next((shell for step in scripts if (shell := _shell(workflow, job, step)) not in _SHELLS), None):
        raise ValueError(f"the job {key[:60]} has a step for the shell {odd[:60]}: only bash and sh have a counterpart")
    times, zones = [each.text("cron") for each in crons], {each.text("timezone", "UTC") for each in crons}
    if len(zones) > 1:
        raise ValueError("on.schedule: several time zones in one workflow: write an entry for each")
    script = "\n".join(_script(workflow, job, step, alone=len(scripts) == 1) for step in scripts)
    env = {**_env(workflow), **_env(job)}
    minutes = job.text("timeout-minutes")
    fields: dict[str, Any] = command(
        ["/bin/bash", "-e", "-c", script],
        env=env,
        timeout=seconds(minutes, "timeout-minutes") * 60 if minutes else None,
    )
    fields |= {"schedule": times[0] if len(times) == 1 else times, "timezone": zones.pop()}
    stem = workflow.text("name") or PurePath(collected.shown).stem
    name = collected.add(stem if len(workflow.table("jobs")) == 1 else f"{stem} {key}", fields)
    for about, why in _different(job, steps, script, env):
        collected.note(name, about, why)
    leftovers(workflow, _WORKFLOW, lambda why: collected.note(name, "workflow", why))
    leftovers(job, _JOB, lambda why: collected.note(name, "job", why))
    leftovers({key: step for step in steps for key in step}, _STEP, lambda why: collected.note(name, "steps", why))


def _shell(workflow: Table, job: Table, step: Table) -> str:
    """The name of the shell of a step, which is bash where nothing names one."""
    return (_named(workflow, job, step, "shell") or "bash").split()[0]


def _named(workflow: Table, job: Table, step: Table, key: str) -> str:
    """A setting of a step: its own, the default of the job, or that of the workflow."""
    defaults = (each.table("defaults").table("run").text(key) for each in (job, workflow))
    return step.text(key) or next(filter(None, defaults), "")


def _script(workflow: Table, job: Table, step: Table, *, alone: bool) -> str:
    """The lines of a step in its folder; a shell that is named ``bash`` has ``pipefail`` there.

    Each of several has a shell of its own, as at GitHub: ``cd``, ``exit`` and variables end with the step.
    """
    text = step.text("run").rstrip("\n")
    exports = "".join(f"export {name}={_quoted(value)}\n" for name, value in _env(step).items())
    folder = _named(workflow, job, step, "working-directory")
    enter = f"cd {_quoted(folder)}\n" if folder else ""
    strict = "set -o pipefail\n" if _named(workflow, job, step, "shell") == "bash" else ""
    text = f"{strict}{enter}{exports}{text}"
    return text if alone else f"(\n{text}\n)"


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "'\\''") + "'"


def _env(table: Table) -> dict[str, str]:
    return {str(key): scalar(value) for key, value in table.table("env").items() if value is not None}


def _different(job: Table, steps: list[Table], script: str, env: dict[str, str]) -> list[tuple[str, str]]:
    found = []
    actions = [step.text("uses") for step in steps if step.text("uses")]
    set_up = [action for action in actions if action.startswith(_SET_UP)]
    if set_up:
        found.append(
            ("steps", f"{', '.join(set_up)[:200]}: the program runs where the worker is; its code must be there")
        )
    if others := [action for action in actions if action not in set_up]:
        found.append(("steps", f"left out: {', '.join(others)[:200]}"))
    if "${{" in script or any("${{" in value for value in env.values()):
        found.append(("steps", "expressions such as ${{ secrets.X }} are not replaced: give the worker variables"))
    if any(step.text("if") for step in steps) or job.text("if"):
        found.append(("if", "conditions are not carried over: all run steps run"))
    if job.table("strategy"):
        found.append(("strategy", "a matrix is not carried over: write an entry for each"))
    found += [(key, "not carried over") for key in ("container", "services", "needs") if job.get(key)]
    return found
