"""Forms: the actions of the page, without JavaScript. After each the browser goes back, with a note on it."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

import anyio
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import BaseRoute, Route

from beatd.web import session
from beatd.web.access import Access
from beatd.web.actions import BackfillWindow, Operator, PauseUntil, RunNow, Sentence, read_toml
from beatd.web.body import convert, read_body, read_form
from beatd.web.routing import NAME, name_in_path

Fields = Mapping[str, str]
Action = Callable[[Operator, str, Mapping[str, str], Fields], Sentence]

_OWN = frozenset({"csrf", "back"})


def _run(operator: Operator, who: str, path: Mapping[str, str], fields: Fields) -> Sentence:
    given: dict[str, Any] = {**fields}
    for name in ("args", "kwargs"):
        if name in given:
            try:
                given[name] = json.loads(given[name], parse_constant=_no_number)
            except (ValueError, RecursionError):
                raise HTTPException(400, f"{name}: expected JSON") from None
    return operator.run_now(who, path["name"], convert(given, RunNow))


def _no_number(name: str) -> None:
    raise ValueError(f"{name} is not a JSON value")


def _backfill(operator: Operator, who: str, path: Mapping[str, str], fields: Fields) -> Sentence:
    done = operator.backfill(who, path["name"], convert(fields, BackfillWindow))
    if dues := done.get("dues_at"):
        more = ", …" if len(dues) > 5 else ""
        done = {**done, "done": f"{done['done']}: {', '.join(dues[:5])}{more}"}
    return done


def _put(operator: Operator, who: str, path: Mapping[str, str], fields: Fields) -> Sentence:
    name = path.get("name") or fields.get("name", "")
    return operator.put(who, name.strip(), read_toml(fields.get("table", "")))


ACTIONS: Mapping[str, Action] = {
    f"/entries/{NAME}/run": _run,
    f"/entries/{NAME}/pause": lambda o, who, path, f: o.pause(who, path["name"], convert(f, PauseUntil)),
    f"/entries/{NAME}/resume": lambda o, who, path, _: o.resume(who, path["name"]),
    f"/entries/{NAME}/backfill": _backfill,
    f"/entries/{NAME}/put": _put,
    f"/entries/{NAME}/remove": lambda o, who, path, _: o.remove(who, path["name"]),
    "/entries": _put,
    "/runs/{id}/stop": lambda o, who, path, _: o.stop(who, path["id"]),
    "/dead-letters/{id}/requeue": lambda o, who, path, f: o.requeue(who, path["id"], alike="alike" in f),
    "/dead-letters/{id}/purge": lambda o, who, path, f: o.purge(who, path["id"], alike="alike" in f),
}


class Forms:
    """The endpoints of all actions, and of the login."""

    def __init__(
        self,
        operator: Operator,
        access: Access,
        acting: anyio.CapacityLimiter,
        edit_form: Callable[..., Response],
        *,
        secure: bool,
    ) -> None:
        self._operator, self._access, self._acting, self._secure = operator, access, acting, secure
        self._edit_form = edit_form

    def routes(self) -> list[BaseRoute]:
        """The routes."""
        acting: list[BaseRoute] = [Route(path, self._endpoint(act), methods=["POST"]) for path, act in ACTIONS.items()]
        login = Route("/login", self._login, methods=["POST"])
        return [*acting, login, Route("/logout", self._logout, methods=["POST"])]

    def _endpoint(self, action: Action) -> Callable[[Request], Any]:
        async def endpoint(request: Request) -> Response:
            person = self._access.require(request, "operate")
            fields = read_form(request, await read_body(request))
            self._access.check_origin(request, person, fields.get("csrf", ""))
            given = {name: text for name, text in fields.items() if name not in _OWN}
            path: Mapping[str, str] = request.path_params
            try:
                done = await anyio.to_thread.run_sync(
                    action, self._operator, person.name, path, given, limiter=self._acting
                )
            except HTTPException as error:
                if action is not _put:
                    raise
                name, table = path.get("name", given.get("name", "")), given.get("table", "")
                return self._edit_form(request, name=name, is_new="name" not in path, table=table, error=error.detail)
            fallback = f"/entries/{name_in_path(path['name'])}" if "name" in path else "/"
            return self._back(fields.get("back", ""), fallback, str(done["done"]))

        return endpoint

    async def _login(self, request: Request) -> Response:
        fields = read_form(request, await read_body(request))
        self._access.check_site(request)  # who has no session yet has no token of a form
        token = self._access.token(request, fields.get("token", "").strip())
        answer = self._back(fields.get("back", ""), "/", f"logged in as {token.name}, who may {token.role}")
        value = self._access.session_of(token)
        answer.set_cookie(session.SESSION, value, session.SESSION_S, **self._cookie)
        return answer

    async def _logout(self, request: Request) -> Response:
        person = self._access.person(request)
        fields = read_form(request, await read_body(request))
        self._access.check_origin(request, person, fields.get("csrf", ""))
        answer = self._back("", "/", "logged out")
        answer.delete_cookie(session.SESSION, **self._cookie)
        return answer

    def _back(self, back: str, fallback: str, note: str) -> Response:
        is_ours = back.startswith("/") and not back.startswith(("//", "/\\")) and back.isprintable()
        answer = RedirectResponse(back if is_ours else fallback, 303)
        answer.set_cookie(session.NOTE, self._access.note(note), session.NOTE_S, **self._cookie)
        return answer

    @property
    def _cookie(self) -> dict[str, Any]:
        return {"httponly": True, "samesite": "strict", "secure": self._secure, "path": "/"}
