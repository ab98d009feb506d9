"""How an engine is asked: as the client asks, unless the engine refuses what Anthropic's servers would take."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from appliance.errors import RequestError
from appliance.gateway import body as bodies
from appliance.routing import Route

TEMPLATE = frozenset(("chat_template_kwargs", "reasoning_effort"))
"""Fields that are the chat template's to understand."""


@dataclass(frozen=True, slots=True)
class Manner:
    unlimited: bool = False
    """Without `max_tokens`. Agents ask for as many tokens as their own models could give. Anthropic lets the context
    end such an answer; vLLM refuses it, unless it is asked for no number at all."""
    plain: bool = False
    """Without a word on thinking. vLLM refuses it for models whose tokenizer is Mistral's own."""

    def after(self, error: RequestError) -> Manner | None:
        """Another manner, if this refusal is about this one."""
        if error.status != 400:
            return None
        if not self.unlimited and (error.code == "context_length_exceeded" or error.param == "max_tokens"):
            return replace(self, unlimited=True)
        if not self.plain and "chat_template" in error.message:
            return replace(self, plain=True)
        return None

    def body(self, request: Mapping[str, Any], route: Route) -> bytes:
        left_out = {"max_tokens"} if self.unlimited else set()
        if self.unlimited:
            route = replace(route, defaults={k: v for k, v in route.defaults.items() if k != "max_tokens"})
        if self.plain:
            left_out |= TEMPLATE
        asked = {name: value for name, value in request.items() if name not in left_out}
        return bodies.for_engine(asked, None, "max_tokens", route)
