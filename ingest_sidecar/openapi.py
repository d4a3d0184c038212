"""The OpenAPI description of the sidecar's HTTP, made from the records that it answers with."""

from __future__ import annotations

from typing import Any

from pipeline.load.status import Limits, NodeStatus, VersionCheck

ACTIONS = {
    "pause": "Stop work on it where it stands; what is staged stays. Survives restarts.",
    "resume": "Go on from there.",
    "cancel": "Stop work on it and remove all of it from this node; refused while clients read it. The load fails by that name.",
    "retry": "Begin anew after a failure or a cancellation, without waiting for the backoff.",
}


def description() -> dict[str, Any]:
    """The document at /v1/openapi.json."""
    schemas: dict[str, Any] = {}
    for record in (NodeStatus, Limits, VersionCheck):
        schema = record.model_json_schema(ref_template="#/components/schemas/{model}")
        schemas |= schema.pop("$defs", {})
        schemas[record.__name__] = schema
    names = [{"name": name, "in": "path", "required": True, "schema": {"type": "string"}} for name in ("dataset", "version")]
    paths: dict[str, Any] = {
        "/v1/status": {"get": _answers("What this node holds and does", "NodeStatus")},
        "/v1/wake": {"post": _plain("Read the documents now, and try again what failed", "202")},
        "/v1/limits": {
            "get": _answers("The limits that count now", "Limits"),
            "put": {
                **_answers("Change limits until the next start", "Limits"),
                "requestBody": {"required": True, "content": _json("Limits")},
            },
        },
        "/v1/metrics": {"get": _plain("Metrics for Prometheus", "200")},
        "/v1/health": {"get": {**_plain("The loop turns", "200"), "security": []}},
        "/v1/ready": {"get": {**_plain("Documents are followed and all shards answer; 503 says what is missing", "200"), "security": []}},
    }
    for action, text in ACTIONS.items():
        paths[f"/v1/versions/{{dataset}}/{{version}}/{action}"] = {"post": {**_plain(text, "202"), "parameters": names}}
    look = _answers("Look at it again: counts, build, and its samples through the shards", "VersionCheck")
    paths["/v1/versions/{dataset}/{version}/check"] = {"post": {**look, "parameters": names}}
    return {
        "openapi": "3.1.0",
        "info": {"title": "RedKV ingest sidecar", "version": "1"},
        "security": [{"bearer": []}],
        "paths": paths,
        "components": {"schemas": schemas, "securitySchemes": {"bearer": {"type": "http", "scheme": "bearer"}}},
    }


def _json(record: str) -> dict[str, Any]:
    return {"application/json": {"schema": {"$ref": f"#/components/schemas/{record}"}}}


def _answers(text: str, record: str) -> dict[str, Any]:
    return {"summary": text, "responses": {"200": {"description": text, "content": _json(record)}}}


def _plain(text: str, status: str) -> dict[str, Any]:
    return {"summary": text, "responses": {status: {"description": text}}}
