"""The admin API, served on the unix socket in the state directory, where file permissions are the authentication."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Protocol

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from appliance.plan.changes import Change


class Outcome(Protocol):
    """What an apply came to."""

    @property
    def changes(self) -> tuple[Change, ...]: ...

    @property
    def problem(self) -> str | None: ...


class Stop(Protocol):
    def __call__(self, *, keep_engines: bool) -> None: ...


def create_admin_app(
    status: Callable[[], Mapping[str, Any]],
    stop: Stop,
    restart: Callable[[], Awaitable[str | None]],
    apply: Callable[[], Awaitable[Outcome]],
    plan: Callable[[], Awaitable[Mapping[str, Any]]],
) -> Starlette:
    """`stop` and `restart` are asked for, not waited for: the caller sees the socket close when it is done.

    A restart that cannot be, answers why.
    """

    async def get_status(_: Request) -> Response:
        return JSONResponse(status())

    async def post_stop(request: Request) -> Response:
        stop(keep_engines=request.query_params.get("keep_engines") == "true")
        return JSONResponse({"stopping": True}, status_code=202)

    async def post_restart(_: Request) -> Response:
        return JSONResponse({"problem": await restart()}, status_code=202)

    async def post_apply(_: Request) -> Response:
        outcome = await apply()
        changes = [{"path": change.path, "cost": change.cost} for change in outcome.changes]
        return JSONResponse({"problem": outcome.problem, "changes": changes})

    async def get_plan(_: Request) -> Response:
        return JSONResponse(await plan())

    return Starlette(
        routes=[
            Route("/admin/v1/status", get_status, methods=["GET"]),
            Route("/admin/v1/plan", get_plan, methods=["GET"]),
            Route("/admin/v1/stop", post_stop, methods=["POST"]),
            Route("/admin/v1/restart", post_restart, methods=["POST"]),
            Route("/admin/v1/apply", post_apply, methods=["POST"]),
        ]
    )
