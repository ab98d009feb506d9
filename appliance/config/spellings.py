"""Keys that other tools, or earlier versions of this file, spell differently; and what to write here."""

from __future__ import annotations

from collections.abc import Mapping

from appliance.config.problems import KeyPath

_TOP: Mapping[str, str] = {
    "api_key": "auth.keys",
    "api_keys": "auth.keys",
    "apiKeys": "auth.keys",
    "keys": "auth.keys",
    "host": "server.host",
    "port": "server.port",
    "listen": "server.host` and `server.port",
    "metrics": "server.metrics",
    "hf_token": "huggingface.token",
    "device": "metal.device",
    "python": "environment.python",
    "default_backend": "backend",
    "includes": "profile",
    "extends": "profile",
    "model": "models.NAME.source",
    "services": "models",
}
_MODEL: Mapping[str, str] = {
    "alias": "aliases",
    "model": "source",
    "model_path": "source",
    "path": "source",
    "uri": "source",
    "repo": "source",
    "ttl": "idle_unload",
    "keep_alive": "idle_unload",
    "unload_after": "idle_unload",
    "preload": "load",
    "runtime_flags": "engine",
    "args": "engine",
    "extra_args": "engine",
    "environment": "env",
    "loras": "adapters",
    "lora": "adapters",
    "cmd": "backends.NAME.command",
    "context_size": "engine.max_model_len",
    "context_length": "engine.max_model_len",
    "ctx_size": "engine.max_model_len",
    "n_ctx": "engine.max_model_len",
    "max_context": "engine.max_model_len",
    "max_model_len": "engine.max_model_len",
    "max_num_seqs": "engine.max_num_seqs",
    "parallel": "engine.max_num_seqs",
    "gpu_memory_utilization": "memory.budget",
    "quantization": "engine.quantization",
    "dtype": "engine.dtype",
    "temperature": "sampling.temperature",
    "top_p": "sampling.top_p",
    "top_k": "sampling.top_k",
    "min_p": "sampling.min_p",
    "max_tokens": "sampling.max_tokens",
    "ready_timeout": "rollout.ready_timeout",
    "drain_timeout": "rollout.drain_timeout",
    "probe": "rollout.probe",
}
_KEY: Mapping[str, str] = {
    "key": "sha256",
    "token": "sha256",
    "hash": "sha256",
    "rate_limit": "limits.requests_per_minute",
    "rpm": "limits.requests_per_minute",
    "tpm": "limits.tokens_per_minute",
    "expiry": "expires",
    "expires_at": "expires",
}
_BACKEND: Mapping[str, str] = {"cmd": "command", "healthcheck": "health", "environment": "env"}


def known_as(path: KeyPath) -> str | None:
    """What an unknown key is called here, where another tool's word for it is known."""
    match path:
        case (str(key),):
            return _TOP.get(key)
        case ("models", _, str(key)):
            return _MODEL.get(key)
        case ("auth", "keys", _, str(key)):
            return _KEY.get(key)
        case ("backends", _, str(key)):
            return _BACKEND.get(key)
    return None
