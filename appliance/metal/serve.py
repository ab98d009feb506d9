"""`python -m appliance_metal.serve …`: vLLM's OpenAI server, once it is certain that it runs on this platform.

vLLM swallows whatever a platform plug-in raises and goes on with another platform: a server that answers, many times
slower, from other code. So the platform is looked at before anything is served.
"""

from __future__ import annotations

import runpy
import sys

SERVER = "vllm.entrypoints.openai.api_server"


def prove() -> None:
    from vllm.platforms import current_platform

    from .platform import MetalPlatform

    if not isinstance(current_platform, MetalPlatform):
        sys.exit(
            f"serve: error: vLLM selected `{type(current_platform).__name__}` instead of `MetalPlatform`: another"
            " plug-in is active, VLLM_PLUGINS leaves this one out, or VLLM_TARGET_DEVICE is set"
        )


# A process that the engine spawns runs this file again under another name.
if __name__ == "__main__":
    prove()
    runpy.run_module(SERVER, run_name="__main__", alter_sys=True)
