"""The schedule in Django's admin: entries with outcomes, next and last runs; pause, resume, run now, add, edit, remove.

The admin has no tables of its own: it shows what files, app and state store have, and acts through the state store.
Permissions are Django's, of the model :class:`~beatd.contrib.django.models.Entry`; changes are in beatd's audit under
the name of the user. While the state store is away, a page says so.
"""

from __future__ import annotations

import glob
from collections.abc import Callable
from functools import partial, wraps
from typing import Any
from urllib.parse import urlencode

from django.contrib import admin, messages
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect, JsonResponse
from django.template.response import TemplateResponse
from django.urls import path, reverse
from django.views.decorators.http import require_POST
from starlette.exceptions import HTTPException

from beatd.client.audit import change_text
from beatd.client.entries import kind_of
from beatd.config.writer import to_toml
from beatd.contrib.django.form import EntryForm, explanation
from beatd.contrib.django.installation import Installation, installation
from beatd.contrib.django.models import Entry
from beatd.contrib.django.rows import entry_row, facts_of, id_of, in_current_zone, moment, name_of, run_row
from beatd.exceptions import BrokerError, ConfigError, StoreError
from beatd.store.outage import unreachable_text
from beatd.web.actions import PauseUntil, RunNow
from beatd.web.selection import FILTERS, ORDERS, Slice, View

PER_PAGE = 100
RUNS_SHOWN = 100
_LAST = 10
_CHANGES_SHOWN = 50
_SELECTED_MAX = 500
_SOURCES = {"": "All", "file": "Files", "app": "App", "runtime": "State store"}
_LISTING = frozenset({"q", "only", "source", "sort", "page"})
ACTIONS = {"run": "Run now", "pause": "Pause", "resume": "Resume"}

Page = Callable[..., HttpResponse]


def _in_words(view: Page) -> Page:
    """The view, with a page that says why it cannot be shown now."""

    @wraps(view)
    def answered(self: EntryAdmin, request: HttpRequest, *args: Any, **more: Any) -> HttpResponse:
        try:
            return view(self, request, *args, **more)
        except StoreError as error:
            return self.message(request, 503, unreachable_text(error))
        except ConfigError as error:
            return self.message(request, 503, "The schedule cannot be read.", [str(fault) for fault in error.faults])
        except BrokerError as error:
            return self.message(request, 502, str(error))
        except HTTPException as error:
            return self.message(request, error.status_code, error.detail)

    return answered


@admin.register(Entry)
class EntryAdmin(admin.ModelAdmin):  # type: ignore[misc]  # Django has no types
    """Views of the schedule in place of those of a table."""

    def get_urls(self) -> list[Any]:
        """The places: the names are Django's own, so that links of the index work."""
        view = self.admin_site.admin_view
        return [
            path("", view(self.changelist_view), name="beatd_entry_changelist"),
            path("add/", view(self.add_view), name="beatd_entry_add"),
            path("explain/", view(self.explain_view), name="beatd_entry_explain"),
            path("<path:object_id>/history/", view(self.history_view), name="beatd_entry_history"),
            path("<path:object_id>/delete/", view(self.delete_view), name="beatd_entry_delete"),
            path("<path:object_id>/edit/", view(self.edit_view), name="beatd_entry_edit"),
            path("<path:object_id>/act/", view(require_POST(self.act_view)), name="beatd_entry_act"),
            path("<path:object_id>/change/", view(self.change_view), name="beatd_entry_change"),
        ]

    @_in_words
    def changelist_view(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> HttpResponse:
        """The entries that match, with their state; actions on those that are selected."""
        self._require(self.has_view_or_change_permission(request))
        installed = installation()
        if request.method == "POST":
            return self._act_on_selected(request, installed)
        values = {key: request.GET[key] for key in _LISTING if request.GET.get(key)}
        view = _view_of(values)
        documents = installed.documents
        part = documents.selector.slice(view)
        return self._page(
            request,
            "list",
            "Schedule",
            rows=[entry_row(look, part.outcome(look.entry.name)) for look in part.outlooks],
            part=part,
            links=_links(values, part),
            problems=[{**one, "text": in_current_zone(one["text"])} for one in documents.problems()["problems"]],
            actions=ACTIONS if self.has_change_permission(request) else {},
            file=str(documents.schedule.path),
            **(extra_context or {}),
        )

    @_in_words
    def change_view(
        self,
        request: HttpRequest,
        object_id: str,
        form_url: str = "",  # noqa: ARG002 - Django's signature
        extra_context: dict[str, Any] | None = None,
    ) -> HttpResponse:
        """One entry: its schedule in words, state, next runs, last runs with errors, and what one may do."""
        self._require(self.has_view_or_change_permission(request))
        name, documents = name_of(object_id), installation().documents
        seen = documents.description(name)
        table = seen.table
        return self._page(
            request,
            "detail",
            name,
            name=name,
            entry_id=id_of(name),
            facts=facts_of(seen),
            following=[(f"{run.local:%a %Y-%m-%d %H:%M:%S %Z}", run.note) for run in seen.following],
            runs=[run_row(run) for run in seen.runs[:_LAST]],
            paused=seen.pause,
            kind=kind_of(seen.entry),
            is_stored=kind_of(seen.entry) == "runtime",
            table="" if table is None else to_toml({name: table}, timezone="").partition("\n\n")[2],
            **(extra_context or {}),
        )

    @_in_words
    def history_view(
        self, request: HttpRequest, object_id: str, extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        """The last runs of an entry, and who changed it."""
        self._require(self.has_view_or_change_permission(request))
        name, documents = name_of(object_id), installation().documents
        documents.entry_named(name)
        runs, _ = documents.store.history(name, documents.clock.now_ms())
        changes = [
            {"at": moment(one.at_ms), "by": one.by or "not said", "text": in_current_zone(change_text(one))}
            for one in documents.changes(_CHANGES_SHOWN, glob.escape(name))
        ]
        runs = runs[:RUNS_SHOWN]
        shown: dict[str, Any] = {
            "name": name,
            "entry_id": id_of(name),
            "runs": [run_row(run) for run in runs],
            "changes": changes,
        }
        return self._page(request, "history", f"History of {name}", **shown, **(extra_context or {}))

    @_in_words
    def add_view(
        self,
        request: HttpRequest,
        form_url: str = "",  # noqa: ARG002 - Django's signature
        extra_context: dict[str, Any] | None = None,
    ) -> HttpResponse:
        """The form of a new entry of the state store."""
        self._require(self.has_add_permission(request))
        installed = installation()
        form = EntryForm(request.POST or None, rules=_rules(installed))
        if request.method == "POST" and "_explain" not in request.POST and form.is_valid():
            name = form.cleaned_data["name"]
            if _exists(installed, name):
                form.add_error("name", "an entry of this name is there already")
            else:
                return self._saved(request, installed, name, form)
        return self._form(request, "Add entry", form, installed, **(extra_context or {}))

    @_in_words
    def edit_view(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """The form of an entry of the state store."""
        self._require(self.has_change_permission(request))
        name, installed = name_of(object_id), installation()
        _stored_only(installed, name)
        table = installed.operator.stored_table(name)
        form = EntryForm(
            request.POST or None, rules=_rules(installed), fixed_name=name, initial=EntryForm.initial_of(table)
        )
        if request.method == "POST" and "_explain" not in request.POST and form.is_valid():
            return self._saved(request, installed, name, form)
        return self._form(request, f"Edit {name}", form, installed, name=name, entry_id=id_of(name))

    @_in_words
    def delete_view(
        self, request: HttpRequest, object_id: str, extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        """Remove an entry from the state store, after a question."""
        self._require(self.has_delete_permission(request))
        name, installed = name_of(object_id), installation()
        _stored_only(installed, name)
        if request.method == "POST":
            self._tell(request, lambda: installed.operator.remove(_who(request), name)["done"])
            return HttpResponseRedirect(reverse(f"{self.admin_site.name}:beatd_entry_changelist"))
        shown: dict[str, Any] = {"name": name, "entry_id": id_of(name)}
        return self._page(request, "remove", f"Remove {name}?", **shown, **(extra_context or {}))

    @_in_words
    def act_view(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """Run, pause or resume one entry."""
        self._require(self.has_change_permission(request))
        name = name_of(object_id)
        self._tell(request, lambda: _act(installation(), _who(request), request.POST.get("action", ""), name, request))
        return HttpResponseRedirect(reverse(f"{self.admin_site.name}:beatd_entry_change", args=(id_of(name),)))

    def explain_view(self, request: HttpRequest) -> HttpResponse:
        """The schedule of the form in words, as JSON."""
        self._require(self.has_view_or_change_permission(request) or self.has_add_permission(request))
        try:
            zone = request.GET.get("timezone") or _rules(installation())["timezone"]
        except (ConfigError, StoreError) as error:
            return JsonResponse({"error": str(error)})
        said = explanation(request.GET.get("schedule", ""), zone, request.GET.get("name", ""))
        return JsonResponse(said._asdict())

    def message(self, request: HttpRequest, code: int, text: str, lines: list[str] | None = None) -> HttpResponse:
        """A page that says why something is not there or not possible."""
        return self._page(request, "message", "Schedule", code, text=text, lines=lines or [])

    def _act_on_selected(self, request: HttpRequest, installed: Installation) -> HttpResponse:
        self._require(self.has_change_permission(request))
        names = request.POST.getlist("_selected_action")[:_SELECTED_MAX]
        if not names:
            messages.warning(request, "Select entries first; nothing was changed.")
        action, who = request.POST.get("action", ""), _who(request)
        for name in names:
            self._tell(request, partial(_act, installed, who, action, name, request))
        return HttpResponseRedirect(request.get_full_path())

    def _saved(self, request: HttpRequest, installed: Installation, name: str, form: EntryForm) -> HttpResponse:
        try:
            done = installed.operator.put(_who(request), name, form.table)
        except HTTPException as error:
            form.add_error(None, error.detail)
            return self._form(request, name, form, installed)
        messages.success(request, f"Done: {name} is {done['change']}; it is in force on all daemons within a second.")
        for fault in done["warnings"]:
            messages.warning(request, str(fault))
        return HttpResponseRedirect(reverse(f"{self.admin_site.name}:beatd_entry_change", args=(id_of(name),)))

    def _form(
        self, request: HttpRequest, title: str, form: EntryForm, installed: Installation, **facts: Any
    ) -> HttpResponse:
        tasks = sorted({entry.task for entry in installed.documents.schedule.listing.entries} | _known_tasks())
        return self._page(
            request, "form", title, 400 if form.is_bound and form.errors and "_explain" not in request.POST else 200,
            form=form, tasks=tasks, explained=form.explained, **facts,
        )  # fmt: skip

    def _tell(self, request: HttpRequest, act: Callable[[], str]) -> None:
        """Do something, and say what was done, or why not."""
        try:
            messages.success(request, in_current_zone(f"Done: {act()}."))
        except HTTPException as error:
            messages.error(request, f"Not done: {error.detail}")
        except (StoreError, BrokerError) as error:
            messages.error(request, f"Not done: {error}")

    def _page(self, request: HttpRequest, template: str, title: str, code: int = 200, **facts: Any) -> HttpResponse:
        rights = {
            "may_add": self.has_add_permission(request),
            "may_change": self.has_change_permission(request),
            "may_delete": self.has_delete_permission(request),
        }
        context = {**self.admin_site.each_context(request), "title": title, "opts": self.opts, **rights, **facts}
        request.current_app = self.admin_site.name
        return TemplateResponse(request, f"admin/beatd/entry/{template}.html", context, status=code)

    @staticmethod
    def _require(allowed: bool) -> None:
        if not allowed:
            raise PermissionDenied


def _who(request: HttpRequest) -> str:
    return str(request.user.get_username())


def _act(installed: Installation, who: str, action: str, name: str, request: HttpRequest) -> str:
    """Carry an action out; returns what was done. Raises HTTPException, StoreError, BrokerError."""
    match action:
        case "run":
            done = installed.operator.run_now(who, name, RunNow())
        case "pause":
            wanted = PauseUntil(reason=request.POST.get("reason", ""), length=request.POST.get("for", ""))
            done = installed.operator.pause(who, name, wanted)
        case "resume":
            done = installed.operator.resume(who, name)
        case _:
            raise HTTPException(400, "choose an action first")
    return str(done["done"])


def _rules(installed: Installation) -> dict[str, Any]:
    schedule = installed.documents.schedule
    return {"timezone": schedule.settings.timezone, "defaults": schedule.defaults}


def _exists(installed: Installation, name: str) -> bool:
    installed.documents.selector.overlay()
    return installed.documents.schedule.listing.entry(name) is not None


def _stored_only(installed: Installation, name: str) -> None:
    """Raise HTTPException 409 for an entry of the files or the app."""
    entry = installed.documents.entry_named(name)
    if kind_of(entry) != "runtime":
        raise HTTPException(409, f"{name} is in {entry.source}, and that counts: change it there")


def _known_tasks() -> set[str]:
    """The names of the app's tasks."""
    from beatd.contrib.django.conf import project_app  # noqa: PLC0415

    try:
        app = project_app()
    except ConfigError:
        return set()
    return {name for name in (app.tasks if app is not None else ()) if not name.startswith(("celery.", "beatd."))}


def _view_of(values: dict[str, str]) -> View:
    only, sort, source = values.get("only", ""), values.get("sort", "name"), values.get("source", "")
    page = values.get("page", "1")
    return View(
        values.get("q", ""),
        only if only in FILTERS else "",
        sort if sort in ORDERS else "name",
        source if source in _SOURCES else "",
        max(1, int(page)) if page.isdecimal() and len(page) < 7 else 1,
        PER_PAGE,
    )


_AROUND = 3
"""Pages on both sides of the one that is shown."""


def _near(page: int, pages: int) -> list[int]:
    """The numbers of the first and last page, and of those around the one that is shown."""
    around = range(max(1, page - _AROUND), min(pages, page + _AROUND) + 1)
    return sorted({1, pages, *around})


def _links(values: dict[str, str], part: Slice) -> dict[str, Any]:
    """The links of filters, orders and pages."""

    def link(**changed: str) -> str:
        left = {key: value for key, value in {**values, "page": "", **changed}.items() if value}
        return f"?{urlencode(left)}"

    def choices(key: str, options: dict[str, str], chosen: str) -> list[tuple[str, str, bool]]:
        return [(label, link(**{key: value}), value == chosen) for value, label in options.items()]

    return {
        "only": choices("only", {"": "All", **FILTERS}, part.view.only),
        "source": choices("source", _SOURCES, part.view.source),
        "sort": choices("sort", ORDERS, part.view.sort),
        "pages": [(number, link(page=str(number)), number == part.page) for number in _near(part.page, part.pages)],
        "hidden": [(key, values[key]) for key in ("only", "source", "sort") if key in values],
    }
