"""The OpenAPI 3.1 description of `/-/api/v1`, made from the endpoints' own declarations. Pure."""

import re
from collections.abc import Iterator, Mapping, Sequence
from importlib.metadata import version
from typing import Any, cast

import msgspec

from gateway.endpoints import Endpoint, Problem

SECURITY = {
    "bearer": {"type": "http", "scheme": "bearer", "description": "A gateway key, or a key with a role."},
    "header": {"type": "apiKey", "in": "header", "name": "x-outlay-key", "description": "The same."},
}
ERROR = {"$ref": "#/components/schemas/Problem"}
ROLE_NAMES = {
    "key": "Any gateway key.",
    "viewer": "A key with the role viewer, finops or admin.",
    "finops": "A key with the role finops or admin.",
    "admin": "A key with the role admin.",
}


def document(endpoints: Sequence[Endpoint]) -> dict[str, Any]:
    kinds = [kind for each in endpoints for kind in (each.answer, each.body) if kind is not None]
    schemas, components = msgspec.json.schema_components(
        [*kinds, Problem], schema_hook=_schema, ref_template="#/components/schemas/{name}"
    )
    by_kind = {repr(kind): schema for kind, schema in zip(kinds, schemas, strict=False)}
    paths: dict[str, dict[str, Any]] = {}
    for each in endpoints:
        paths.setdefault(plain_path(each.path), {})[each.method.lower()] = _operation(each, by_kind)
    return cast(
        dict[str, Any],
        _amounts(
            {
                "openapi": "3.1.0",
                "info": {
                    "title": "Outlay",
                    "version": version("outlay"),
                    "description": "What keys, tasks and tickets have cost, and the administration of the gateway.",
                    "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
                },
                "servers": [{"url": "/"}],
                "security": [{name: []} for name in SECURITY],
                "paths": paths,
                "components": {"schemas": components, "securitySchemes": SECURITY},
            }
        ),
    )


def plain_path(path: str) -> str:
    """As the document has it: without the patterns of its parts."""
    return re.sub(r"\{(\w+):[^}]*\}", r"{\1}", path)


def _operation(each: Endpoint, by_kind: Mapping[str, Any]) -> dict[str, Any]:
    names = re.findall(r"\{(\w+)", each.path)
    operation: dict[str, Any] = {
        "operationId": each.serve.__name__,
        "summary": each.summary,
        "description": ROLE_NAMES[each.access],
        "responses": {str(status): answer for status, answer in sorted(_responses(each, by_kind))},
    }
    parameters = [
        {"name": name, "in": "path", "required": True, "schema": _shape(each.shapes.get(name))} for name in names
    ]
    if each.query is not None:
        parameters += _query(each.query)
    if parameters:
        operation["parameters"] = parameters
    if each.body is not None:
        content = {"application/json": {"schema": by_kind[repr(each.body)]}}
        operation["requestBody"] = {"required": True, "content": content}
    return operation


def _shape(pattern: str | None) -> dict[str, Any]:
    return {"type": "string", "minLength": 1} | ({} if pattern is None else {"pattern": f"^{pattern}$"})


def _query(kind: Any) -> Iterator[dict[str, Any]]:
    _, components = msgspec.json.schema_components([kind], schema_hook=_schema)
    schema = components[kind.__name__]
    for name, value in schema["properties"].items():
        # Whoever leaves a parameter out writes no null.
        options = [option for option in value.get("anyOf", ()) if option != {"type": "null"}]
        plain = options[0] if options else {key: inner for key, inner in value.items() if key != "default"}
        yield {"name": name, "in": "query", "required": name in schema.get("required", ()), "schema": plain}


def _responses(each: Endpoint, by_kind: Mapping[str, Any]) -> Iterator[tuple[int, dict[str, Any]]]:
    content: dict[str, Any] = {"application/json": {"schema": by_kind[repr(each.answer)]}}
    if each.may_be_line:
        content["text/plain"] = {"schema": {"type": "string"}}
    yield each.status, {"description": "Done.", "content": content}
    refuses = {400: "What was sent cannot be read; the message names the field.", 401: "No key, or none in force."}
    if each.access != "key":
        refuses[403] = "The key may not do this."
    if each.body is not None:
        refuses |= {408: "The body takes too long.", 413: "The body is too large."}
        refuses |= {415: "The body is not sent as application/json."}
    for status, description in {**refuses, **each.refuses}.items():
        yield status, {"description": description, "content": {"application/json": {"schema": ERROR}}}


def _schema(kind: type) -> dict[str, Any]:
    """Of what msgspec knows no schema for."""
    if kind is msgspec.Raw:
        return {}
    raise NotImplementedError(kind)


def _amounts(value: Any) -> Any:
    """Exact amounts are numbers here, with all their decimals; what takes them may take strings as well."""
    if isinstance(value, dict):
        if value.get("format") == "decimal":
            rest = {key: inner for key, inner in value.items() if key not in ("type", "format")}
            return rest if "anyOf" in rest else {**rest, "type": "number"}
        return {key: _amounts(inner) for key, inner in value.items()}
    return [_amounts(inner) for inner in value] if isinstance(value, list) else value
