"""Anthropic's API, translated onto chat completions, so that every engine has it and none has its own version of it."""

from __future__ import annotations

from appliance.gateway.anthropic.complete import Completions
from appliance.gateway.anthropic.messages import Messages
from appliance.gateway.anthropic.models import ModelList, by_client
from appliance.gateway.openai import Models
from appliance.gateway.proxy import Proxy
from appliance.gateway.routes import Endpoint, Routes


def routes(proxy: Proxy, models: Models) -> Routes:
    """All of it also under /anthropic, where Docker Model Runner has it. /v1/models is shared with OpenAI's clients."""
    messages, completions, listed = Messages(proxy), Completions(proxy), ModelList(models)
    own: Routes = {
        "/v1/messages": {"POST": Endpoint(messages.create, dialect="anthropic")},
        "/v1/messages/count_tokens": {"POST": Endpoint(messages.count, dialect="anthropic")},
        "/v1/complete": {"POST": Endpoint(completions.create, dialect="anthropic")},
    }
    return {
        **own,
        **{f"/anthropic{path}": methods for path, methods in own.items()},
        "/v1/anthropic/completions": own["/v1/complete"],
        "/anthropic/v1/models": {"GET": Endpoint(listed.list, dialect="anthropic")},
        "/anthropic/v1/models/*": {"GET": Endpoint(listed.retrieve, dialect="anthropic")},
        "/v1/models": {"GET": Endpoint(by_client(models.list, listed.list))},
        "/v1/models/*": {"GET": Endpoint(by_client(models.retrieve, listed.retrieve))},
    }
