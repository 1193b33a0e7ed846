"""Kubernetes CronJobs: each manifest becomes a ``beatd.command`` entry that runs in the worker's own container."""

from __future__ import annotations

from typing import Any

from beatd.importers.collected import (
    OVERLAPS,
    Collected,
    command,
    instant,
    leftovers,
    robfig_times,
    seconds,
    without_zone,
)
from beatd.importers.report import FoundSchedule
from beatd.importers.yaml_file import Table, read_yaml

_SPEC = {"schedule", "timeZone", "concurrencyPolicy", "suspend", "startingDeadlineSeconds", "jobTemplate"}
_SPEC |= {"successfulJobsHistoryLimit", "failedJobsHistoryLimit"}
_JOB = {"template", "activeDeadlineSeconds", "backoffLimit", "ttlSecondsAfterFinished", "completions", "parallelism"}
_POD = {"containers", "restartPolicy", "terminationGracePeriodSeconds", "dnsPolicy", "schedulerName", "securityContext"}
_CONTAINER = {"name", "image", "imagePullPolicy", "command", "args", "env", "workingDir"}
_CONTAINER |= {"terminationMessagePath", "terminationMessagePolicy"}


def read_kubernetes(data: bytes, *, shown: str, timezone: str | None = None) -> FoundSchedule:
    """The CronJobs of a YAML file, also of a ``List`` such as ``kubectl get cronjobs -o yaml`` prints."""
    collected = Collected(shown)
    for document in read_yaml(data, shown):
        is_list = isinstance(document, Table) and "items" in document
        of_list = "CronJob" if is_list and document.text("kind") == "CronJobList" else ""
        for item in document.tables("items") if is_list else [document]:
            if not isinstance(item, Table) or item.text("kind", of_list) != "CronJob":
                continue
            with collected.reading(collected.place(item.line)):
                _take(collected, item, timezone)
    if not collected.entries and not collected.notes:
        collected.note(shown, "", "has no CronJob")
    collected.note_gaps("Kubernetes", timezone)
    return collected.found(timezone)


def _take(collected: Collected, item: Table, timezone: str | None) -> None:
    metadata, spec = item.table("metadata"), item.table("spec")
    job = spec.table("jobTemplate").table("spec")
    pod = job.table("template").table("spec")
    fields = _fields(spec, job, pod)
    name = collected.add(metadata.text("name") or "cronjob", fields)
    for about, why in _different(spec, job, pod, timezone):
        collected.note(name, about, why)
    leftovers(spec, _SPEC, lambda why: collected.note(name, "spec", why))
    leftovers(job, _JOB, lambda why: collected.note(name, "jobTemplate", why))
    leftovers(pod, _POD, lambda why: collected.note(name, "template", why))
    leftovers(pod.tables("containers")[0], _CONTAINER, lambda why: collected.note(name, "container", why))
    collected.ran(name, instant(item.table("status").get("lastScheduleTime")))


def _fields(spec: Table, job: Table, pod: Table) -> dict[str, Any]:
    schedule, zone = _schedule(spec)
    containers = pod.tables("containers")
    if len(containers) != 1:
        raise ValueError(f"{len(containers)} containers: expected one, as one program is run")
    container = containers[0]
    args = [*container.texts("command"), *container.texts("args")]
    if not container.texts("command"):
        raise ValueError("its container has no command: the entry point of the image is not known here; write it down")
    timeout = job.text("activeDeadlineSeconds")
    env = {each.text("name"): each.text("value") for each in container.tables("env") if "value" in each}
    fields = command(
        args,
        env=env,
        cwd=container.text("workingDir"),
        timeout=seconds(timeout, "activeDeadlineSeconds") if timeout else None,
    )
    fields["schedule"] = schedule
    if zone:
        fields["timezone"] = zone
    if (overlap := OVERLAPS.get(spec.text("concurrencyPolicy", "Allow").lower(), "allow")) != "allow":
        fields["overlap"] = overlap
    if spec.flag("suspend"):
        fields["enabled"] = False
    if deadline := spec.text("startingDeadlineSeconds"):
        fields["catch_up_window"] = max(seconds(deadline, "startingDeadlineSeconds"), 1)
    return fields


def _schedule(spec: Table) -> tuple[str, str]:
    schedule, zone = without_zone(spec.text("schedule").strip())
    if not schedule:
        raise ValueError("spec.schedule is missing")
    return robfig_times(schedule), spec.text("timeZone") or zone


def _different(spec: Table, job: Table, pod: Table, timezone: str | None) -> list[tuple[str, str]]:
    container = pod.tables("containers")[0]
    found = [("image", f"{container.text('image')[:100]} is not used: the program must be in the image of the worker")]
    if not _schedule(spec)[1] and timezone is None:
        found.append(("timeZone", "is not set: the times are taken as UTC; --timezone names that of the controller"))
    if spec.text("concurrencyPolicy") == "Replace":
        found.append(("concurrencyPolicy", "Replace ends the run before; here the new run is skipped"))
    if job.text("backoffLimit") not in ("", "0") or pod.text("restartPolicy") == "OnFailure":
        found.append(("backoffLimit", "a failed run is not repeated"))
    found += [(key, "one program is run") for key in ("completions", "parallelism") if job.text(key, "1") != "1"]
    if any("valueFrom" in each for each in container.tables("env")):
        names = ", ".join(each.text("name") for each in container.tables("env") if "valueFrom" in each)
        found.append(("env", f"{names}: from a secret or config map; give it to the worker, which passes it on"))
    if any("$(" in arg for arg in [*container.texts("command"), *container.texts("args")]):
        found.append(("args", "$(NAME) is not replaced: use a shell and $NAME"))
    return found
