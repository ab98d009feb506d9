"""What schemathesis is told about the gateway; it loads this itself."""

from __future__ import annotations

from typing import Any

import schemathesis


@schemathesis.hook
def map_body(context: Any, body: Any) -> Any:
    """Three names in four are a real model's, or nearly nothing would get past the 404."""
    if isinstance(body, dict) and isinstance(body.get("model"), str) and len(body["model"]) % 4:
        return {**body, "model": "tiny"}
    return body
