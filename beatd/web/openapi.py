"""OpenAPI 3.1 document of API v1, made of its operations."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

import beatd
from beatd.web.operations import ROOT, Operation
from beatd.web.schemas import COMPONENTS, ref

ABOUT = (
    "Read and operate an installation of beatd. Instants are ISO 8601 in UTC. What changes something needs a token of"
    " the role *operate* (`Authorization: Bearer TOKEN`) and is written to the audit."
)
_ALWAYS = {
    "400": "A parameter or the body is not valid.",
    "401": "The token is missing or unknown.",
    "403": "The token may not do this.",
    "421": "The host's name is not allowed.",
    "429": "Too many requests.",
    "503": "The state store cannot be reached.",
}
_NOT_FOUND = "No such entry, run or dead letter."
_CHANGES = {
    "409": "Not possible as things are now.",
    "413": "The body is too large.",
    "415": "The body is not JSON.",
    "502": "The broker cannot be reached.",
}


def document(operations: Iterable[Operation]) -> dict[str, Any]:
    """The document, for ``/api/v1/openapi.json``."""
    paths: dict[str, dict[str, Any]] = {}
    components = dict(COMPONENTS)
    for one in operations:
        paths.setdefault(one.path, {})[one.method.lower()] = _operation(one, components)
    return {
        "openapi": "3.1.0",
        "info": {"title": "beatd", "version": beatd.__version__, "description": ABOUT},
        "servers": [{"url": ROOT}],
        "paths": paths,
        "components": {
            "schemas": components,
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
        },
    }


def _operation(one: Operation, components: dict[str, Any]) -> dict[str, Any]:
    in_path = re.findall(r"\{(\w+)\}", one.path)
    errors = {**_ALWAYS, **({"404": _NOT_FOUND} if in_path or one.id == "list_runs" else {})}
    if one.method != "GET":
        errors |= _CHANGES
    found: dict[str, Any] = {
        "operationId": one.id,
        "summary": one.summary,
        "security": [{"token": []}] if one.role == "operate" else [{}, {"token": []}],
        "parameters": [
            *(
                {"name": name, "in": "path", "required": True, "schema": {"type": "string", "minLength": 1}}
                for name in in_path
            ),
            *(
                {"name": each.name, "in": "query", "description": each.about, "schema": each.schema}
                for each in one.parameters
            ),
        ],
        "responses": {
            "200": {"description": "Done.", "content": _json(one.answer)},
            **{code: {"description": text, "content": _json(ref("Error"))} for code, text in sorted(errors.items())},
        },
    }
    if one.body is not None:
        found["requestBody"] = {"required": True, "content": _json(_body_schema(one.body, components))}
    return found


def _body_schema(body: type[msgspec.Struct], components: dict[str, Any]) -> Mapping[str, Any]:
    [schema], definitions = msgspec.json.schema_components([body], ref_template="#/components/schemas/{name}")
    components.update(definitions)
    return schema


def _json(schema: Mapping[str, Any]) -> dict[str, Any]:
    return {"application/json": {"schema": schema}}
