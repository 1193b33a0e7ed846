"""API v1: the endpoints of its operations. They answer in JSON, with ``error`` for what was not done."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import anyio
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from beatd.web import openapi
from beatd.web.access import Access
from beatd.web.actions import Operator
from beatd.web.body import read_body, read_json
from beatd.web.documents import Documents
from beatd.web.operations import OPERATIONS, ROOT, Call, Operation
from beatd.web.parameters import read_parameters
from beatd.web.routing import NAME


class JsonResponse(Response):
    """A document. What JSON does not have, such as a date in a schedule, is text."""

    media_type = "application/json"

    def render(self, content: Any) -> bytes:
        """Return the document as bytes."""
        return json.dumps(content, default=str).encode()


class Api:
    """The endpoints. Actions have threads of their own, so that none can keep pages waiting."""

    def __init__(self, documents: Documents, operator: Operator, access: Access, acting: anyio.CapacityLimiter) -> None:
        self._documents, self._operator, self._access, self._acting = documents, operator, access, acting
        self._openapi = openapi.document(OPERATIONS)

    def routes(self) -> list[BaseRoute]:
        """The routes, paths with more parts first: the name of an entry may have slashes."""
        by_path: dict[str, dict[str, Operation]] = {}
        for one in OPERATIONS:
            by_path.setdefault(one.path, {})[one.method] = one
        paths = sorted(by_path, key=lambda path: -path.count("/"))
        document = Route(f"{ROOT}/openapi.json", self._document)
        return [document, *(self._route(path, by_path[path]) for path in paths)]

    def _route(self, path: str, operations: Mapping[str, Operation]) -> Route:
        async def endpoint(request: Request) -> Response:
            return await self._answer(request, operations["GET" if request.method == "HEAD" else request.method])

        return Route(ROOT + path.replace("{name}", NAME), endpoint, methods=list(operations))

    async def _answer(self, request: Request, operation: Operation) -> Response:
        person = self._access.require(request, operation.role)
        if operation.role == "operate":
            self._access.check_origin(request, person, request.headers.get("x-csrf-token", ""))
        values = read_parameters(request.query_params, operation.parameters)
        body = await read_body(request) if operation.role == "operate" else b""
        document = read_json(request, body, operation.body) if operation.body else None
        call = Call(self._documents, request.path_params, values, person.name, document, self._operator)
        limiter = self._acting if operation.role == "operate" else None
        return JsonResponse(await anyio.to_thread.run_sync(operation.call, call, limiter=limiter))

    def _document(self, request: Request) -> Response:
        self._access.require(request, "read")
        return JsonResponse(self._openapi)
