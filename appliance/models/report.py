"""Child processes that report in JSON, one object a line: progress, then a result or an error."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from appliance.errors import SourceError, SourceNotFound, TransferFailed, UnsupportedModel
from appliance.models.work import run_child
from appliance.progress import Progress, Report

_ERRORS: Mapping[str, type[SourceError]] = {
    "missing": SourceNotFound,
    "transfer": TransferFailed,
    "full": TransferFailed,
    "unsupported": UnsupportedModel,
    "damaged": SourceError,
}


def source_error(kind: str, message: str, *, hint: str | None) -> SourceError:
    """What a child process, or the importer's own code in this one, calls `kind`, as an error of ours."""
    return _ERRORS.get(kind, SourceError)(message, hint=hint)


async def said(
    argv: Sequence[str],
    report: Report,
    *,
    subject: str,
    unit: Literal["bytes", "items"],
    environ: Mapping[str, str],
    keep: int,
    what: str,
) -> dict[str, Any]:
    """Run `argv`, hand on its progress and return its last other object; its `error` is raised as one of ours."""
    result: dict[str, Any] = {}

    def line(text: str) -> None:
        value = _object(text)
        if step := value.get("step"):
            report(Progress(subject, str(step), value.get("done"), value.get("total"), unit))
        else:
            result.update(value)

    ended = await run_child(argv, environ=environ, keep=keep, line=line)
    if error := result.get("error"):
        message = error["message"] if f"`{what}`" in error["message"] else f"{what}: {error['message']}"
        raise source_error(error["kind"], message, hint=error["hint"])
    if ended.code != 0:
        last = next((each for each in reversed(ended.errors) if each.strip()), "no output")
        raise SourceError(
            f"{what}: `{argv[-1]}` ended with {ended.code}: {last}", hint="this is a bug; please report it"
        )
    return result


def _object(text: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}
