"""The environment an engine starts with."""

from __future__ import annotations

from collections.abc import Mapping

from appliance.process.shim.trace import MARKER

# An engine behaves as the file says, on whatever shell the appliance was started from: settings for vLLM belong under
# `env:` of the model. PYTHON… would bend another interpreter than the one it was meant for, and an engine needs none of
# the appliance's own secrets.
_DROPPED_PREFIXES = ("VLLM_", "APPLIANCE_", "PYTHON")
_DROPPED = frozenset({"API_KEY", "HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "MODEL_PATH", "PORT", "VIRTUAL_ENV"})

OWNED_VARIABLES = frozenset({"VLLM_API_KEY", "TMPDIR", MARKER})
"""What every engine gets from the appliance; a file that sets one would cut the gateway off from its engine."""


def inherited(environ: Mapping[str, str]) -> dict[str, str]:
    """What an engine may take over from the appliance's own environment."""
    return {
        name: value
        for name, value in environ.items()
        if name not in _DROPPED and not name.startswith(_DROPPED_PREFIXES)
    }
