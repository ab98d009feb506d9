"""What Ollama's clients may not do here, and what to do instead."""

from __future__ import annotations

from starlette.types import Receive

from appliance.errors import RequestError
from appliance.gateway.call import Call


async def refuse(call: Call, _: Receive) -> None:
    """A pull, a push, a deletion and whatever else would change which models there are."""
    raise RequestError(
        f"{call.method} {call.path}: models are not changed by requests here; edit `models:` in model-runner.yaml, and "
        "the appliance fetches, starts and stops what the file says",
        status=409,
        code="declared_in_file",
    )
