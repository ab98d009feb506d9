"""How vLLM's OpenAI server is started, whatever computes behind it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from appliance.engines import vllm_arguments
from appliance.engines.driver import Launch
from appliance.plan.desired import EngineSpec

MEDIA = "allowed_media_domains"
NO_MEDIA = ("none.invalid",)
"""To vLLM an empty list means every host. This one cannot exist (RFC 2606)."""


def given(spec: EngineSpec, launch: Launch, defaults: Mapping[str, Any]) -> dict[str, Any]:
    """The file's arguments, over what the checkpoint decides, over a driver's defaults."""
    return {**defaults, **{choice.argument: choice.value for choice in launch.chosen}, **spec.arguments}


def command(module: str, spec: EngineSpec, launch: Launch, defaults: Mapping[str, Any]) -> tuple[str, ...]:
    arguments = given(spec, launch, defaults)
    media = arguments.pop(MEDIA, NO_MEDIA)
    return (
        str(launch.python),
        "-m",
        module,
        f"--model={launch.model}",
        f"--uds={launch.socket}",
        "--served-model-name",
        spec.model,
        *vllm_arguments.flags(MEDIA, media),
        "--disable-uvicorn-access-log",
        "--disable-fastapi-docs",
        *(word for name, value in sorted(arguments.items()) for word in vllm_arguments.flags(name, value)),
    )


def environ(spec: EngineSpec, launch: Launch) -> dict[str, str]:
    return {
        "VLLM_API_KEY": launch.key,
        "VLLM_NO_USAGE_STATS": "1",
        "DO_NOT_TRACK": "1",
        "HF_HUB_OFFLINE": "1",
        # Kept responses are never forgotten; the gateway asks for it only where its client does.
        "VLLM_ENABLE_RESPONSES_API_STORE": "1",
        "VLLM_MEDIA_URL_ALLOW_REDIRECTS": "0",  # an allowed host could send the engine anywhere
        "PYTHONSAFEPATH": "1",  # `-m` puts the working directory first on the path
        # Adapters come and go without a restart. The routes are on this engine's own socket; the gateway has none.
        **({"VLLM_ALLOW_RUNTIME_LORA_UPDATING": "1"} if spec.arguments.get("enable_lora") else {}),
    }
