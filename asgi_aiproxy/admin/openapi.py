"""The OpenAPI document of the routes, generated from the types that requests are
validated against.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import msgspec

from asgi_aiproxy.admin.routing import Route, TextBody

_REF = "#/components/schemas/{name}"


class ErrorDetail(msgspec.Struct, frozen=True):
    """The details of an error; `param` names the field."""

    message: str
    type: str
    param: str | None = None
    code: str | None = None


class Error(msgspec.Struct, frozen=True):
    """An error in the format of OpenAI's API."""

    error: ErrorDetail


def openapi_document(routes: Sequence[Route], *, version: str, server: str) -> dict[str, Any]:
    """Return an OpenAPI 3.1 document as plain values (https://spec.openapis.org/oas/v3.1.0).

    `server` is the URL below which the paths are.
    """
    types = [kind for route in routes for kind in (route.body, route.query, route.answer)]
    schemed = [kind for kind in (*types, Error) if _has_schema(kind)]
    schemas, components = msgspec.json.schema_components(schemed, ref_template=_REF)
    by_type = dict(zip(map(str, schemed), schemas, strict=True))
    paths: dict[str, dict[str, Any]] = {}
    for route in routes:
        entry = _operation(route, by_type, components)
        paths.setdefault(route.path, {})[route.method.lower()] = entry
    return {
        "openapi": "3.1.0",
        "info": {"title": "asgi_aiproxy administration", "version": version},
        "servers": [{"url": server or "/"}],
        "paths": paths,
        "components": {
            "schemas": components,
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
        },
    }


def _has_schema(kind: Any) -> bool:
    return kind is not None and kind is not bytes and kind is not TextBody


def _operation(route: Route, schemas: dict[str, Any], components: dict[str, Any]) -> dict[str, Any]:
    parameters = [
        {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}
        for name in re.findall(r"\{(\w+)\}", route.path)
    ]
    if route.query is not None:
        found = components[schemas[str(route.query)]["$ref"].rpartition("/")[2]]
        parameters += [
            {"name": name, "in": "query", "required": False, "schema": schema}
            for name, schema in found["properties"].items()
        ]
    answer: dict[str, Any] = {"description": "Done."}
    if _has_schema(route.answer):
        answer["content"] = {route.media_type: {"schema": schemas[str(route.answer)]}}
    else:
        answer["content"] = {route.media_type: {"schema": {"type": "string"}}}
    entry: dict[str, Any] = {
        "operationId": _operation_id(route),
        "summary": route.summary,
        "responses": {
            str(route.status): answer,
            "4XX": {
                "description": "The operation failed; the error gives the reason.",
                "content": {"application/json": {"schema": schemas[str(Error)]}},
            },
        },
    }
    if parameters:
        entry["parameters"] = parameters
    if route.body is bytes:
        content: dict[str, Any] = {"text/plain": {"schema": {"type": "string"}}}
        entry["requestBody"] = {"required": True, "content": content}
    elif route.body is not None:
        content = {"application/json": {"schema": schemas[str(route.body)]}}
        entry["requestBody"] = {"required": True, "content": content}
    if route.need != "nothing":
        entry["security"] = [{"token": []}]
        entry["description"] = (
            "Requires any valid token."
            if route.need == "token"
            else f"Requires a token with the scope `{route.need}`."
        )
    return entry


def _operation_id(route: Route) -> str:
    words = re.findall(r"\w+", route.path)
    return "_".join([route.method.lower(), *words])
