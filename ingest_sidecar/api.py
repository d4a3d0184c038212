"""The sidecar's HTTP: what the coordinator, Prometheus and people ask it, and control of single versions (openapi.py describes it).

Rules:
- With a token in the settings, everything but health and readiness asks for it.
- Refusals are `RedkvError.to_json` with a status: 401 no token, 404 unknown, 409 refused as things stand, 503 this node can't now,
  400 anything else.
"""

from __future__ import annotations

import hmac
from collections.abc import Awaitable, Callable

from pydantic import ValidationError
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from ingest_sidecar.openapi import ACTIONS, description
from ingest_sidecar.reconcile import Reconciler
from pipeline.format.errors import NodeError, RedkvError, UnknownVersionError, UsageError, VersionActiveError
from pipeline.load.status import Limits

OPEN_PATHS = frozenset({"/v1/health", "/v1/ready"})  # for probes, which have no secrets
BODY_BYTES_MAX = 4096

Handler = Callable[[Request], Awaitable[Response]]


def application(reconciler: Reconciler, token: str | None) -> Starlette:
    """The routes of pipeline/load/status.py and of control."""
    api = _Api(reconciler)
    routes: list[tuple[str, Handler, list[str]]] = [
        ("/v1/status", api.status, ["GET"]),
        ("/v1/wake", api.wake, ["POST"]),
        ("/v1/health", api.health, ["GET"]),
        ("/v1/ready", api.ready, ["GET"]),
        ("/v1/metrics", api.metrics, ["GET"]),
        ("/v1/openapi.json", api.openapi, ["GET"]),
        ("/v1/limits", api.limits, ["GET", "PUT"]),
        ("/v1/versions/{dataset}/{version}/check", api.check, ["POST"]),
        ("/v1/versions/{dataset}/{version}/{action}", api.control, ["POST"]),
    ]
    return Starlette(routes=[Route(path, _guarded(handler, token), methods=methods) for path, handler, methods in routes])


class _Api:
    """One handler per path."""

    def __init__(self, reconciler: Reconciler) -> None:
        self._reconciler = reconciler

    async def status(self, _: Request) -> Response:
        return Response(self._reconciler.status().to_json(), media_type="application/json")

    async def wake(self, _: Request) -> Response:
        self._reconciler.wake()
        return JSONResponse({"woken": True}, status_code=202)

    async def health(self, _: Request) -> Response:
        idle_s = self._reconciler.turn_idle_s()
        return JSONResponse({"healthy": idle_s is None, "idle_s": idle_s}, status_code=200 if idle_s is None else 503)

    async def ready(self, _: Request) -> Response:
        missing = self._reconciler.not_ready()
        return JSONResponse({"ready": not missing, "missing": missing}, status_code=503 if missing else 200)

    async def metrics(self, _: Request) -> Response:
        return Response(self._reconciler.metrics_text(), media_type="text/plain; version=0.0.4")

    async def openapi(self, _: Request) -> Response:
        return JSONResponse(description())

    async def limits(self, request: Request) -> Response:
        if request.method == "PUT":
            self._reconciler.set_limits(await _limits(request))
        return Response(self._reconciler.limits().to_json(), media_type="application/json")

    async def check(self, request: Request) -> Response:
        found = await self._reconciler.check(request.path_params["dataset"], request.path_params["version"])
        return Response(found.to_json(), media_type="application/json")

    async def control(self, request: Request) -> Response:
        action = request.path_params["action"]
        if action not in ACTIONS:
            raise UnknownVersionError(f"there is no control call {action!r}; there are {', '.join(ACTIONS)}")
        await self._reconciler.control(action, request.path_params["dataset"], request.path_params["version"])
        return JSONResponse({"accepted": action}, status_code=202)


def _guarded(handler: Handler, token: str | None) -> Handler:
    expected = f"Bearer {token}".encode()

    async def guarded(request: Request) -> Response:
        given = request.headers.get("authorization", "").encode()
        if token is not None and request.url.path not in OPEN_PATHS and not hmac.compare_digest(given, expected):
            refused = UsageError("this sidecar asks for its token: send `Authorization: Bearer TOKEN`")
            return JSONResponse(refused.to_json(), status_code=401, headers={"WWW-Authenticate": "Bearer"})
        try:
            return await handler(request)
        except RedkvError as failed:
            return JSONResponse(failed.to_json(), status_code=_status_of(failed))

    return guarded


def _status_of(failed: RedkvError) -> int:
    match failed:
        case UnknownVersionError():
            return 404
        case VersionActiveError():
            return 409
        case NodeError():
            return 503
        case _:
            return 400


async def _limits(request: Request) -> Limits:
    body = b""
    async for chunk in request.stream():
        body += chunk
        if len(body) > BODY_BYTES_MAX:
            raise UsageError(f"limits take less than {BODY_BYTES_MAX} bytes")
    try:
        return Limits.model_validate_json(body)
    except ValidationError as wrong:
        lines = "; ".join(f"{'.'.join(map(str, one['loc'])) or 'limits'}: {one['msg']}" for one in wrong.errors())
        raise UsageError(f"these limits can't be: {lines}") from wrong
