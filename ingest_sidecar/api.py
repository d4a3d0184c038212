"""The sidecar's HTTP: what the coordinator and people ask it. Loopback only; nothing here changes what the desired state does not say."""

from __future__ import annotations

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from ingest_sidecar.reconcile import Reconciler


def application(reconciler: Reconciler) -> Starlette:
    """The routes of pipeline/load/status.py."""

    async def status(_: Request) -> Response:
        return Response(reconciler.status().to_json(), media_type="application/json")

    async def wake(_: Request) -> Response:
        reconciler.wake()
        return JSONResponse({"woken": True}, status_code=202)

    async def health(_: Request) -> Response:
        return JSONResponse({"healthy": True})

    return Starlette(
        routes=[
            Route("/v1/status", status),
            Route("/v1/wake", wake, methods=["POST"]),
            Route("/v1/health", health),
        ]
    )
