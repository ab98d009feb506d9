"""What a rule's `how` does to the draft, by name."""

from __future__ import annotations

from collections.abc import Mapping

from appliance.migrate.readers.container import engine_of_image
from appliance.migrate.transforms import artifacts, chat, engine, lifecycle, limits, names, sampling, server, sources
from appliance.migrate.transforms.setting import AS_THE_RULE_SAYS, Result, Setting, Transform
from appliance.migrate.writers import dockerfile


def nothing(setting: Setting) -> Result:  # noqa: ARG001 - the signature of a transform
    """For what others act upon: a volume is looked up by paths, an image by its name."""
    return AS_THE_RULE_SAYS


def flags(setting: Setting) -> Result:
    """Arguments that could not be taken apart: there are none, or they are in no form that has any."""
    if setting.value in (None, "", [], {}):
        return Result("dropped", "Empty.")
    return Result("manual", "Neither a list of arguments nor a command line.")


def base_image(setting: Setting) -> Result:
    before = f"FROM {setting.value}"
    after = dockerfile.rewritten(before).partition("\n")[0]
    if dockerfile.BASE.fullmatch(before):
        return Result(value=after.removeprefix("FROM ")) if after != before else Result("kept", "The base already.")
    if engine_of_image(str(setting.value).split()[0]):
        return Result("manual", "A container on a Mac has no Metal: run `appliance up` on the host, not this image.")
    return Result("kept", "Not an engine; it stays as it is.")


def consumer(setting: Setting) -> Result:
    """A Compose service that is told where the model is; its name is the second part of the key."""
    service = setting.found.key.split(".")[1]
    told = [each for each in setting.reading.consumers if each.service == service and each.model is setting.found.model]
    variables = ", ".join(f"{each.url_variable}, {each.model_variable}" for each in told)
    return Result(to=f"services.{service}.environment", value=variables or "the appliance's address")


TRANSFORMS: Mapping[str, Transform] = {
    "adapters": engine.adapters,
    "api_key": server.api_key,
    "api_key_file": server.api_key_file,
    "base_image": base_image,
    "batched_tokens": limits.batched_tokens,
    "cache_type": limits.cache_type,
    "client_sampling": sampling.client_sampling,
    "consumer": consumer,
    "container_memory": limits.container_memory,
    "context": limits.context,
    "docker_model": sources.docker_model,
    "draft_model": engine.draft_model,
    "draft_tokens": engine.draft_tokens,
    "drain_timeout": lifecycle.drain_timeout,
    "embeddings": chat.embeddings,
    "env": engine.env,
    "flags": flags,
    "generation_config": sampling.generation_config,
    "generation_default": sampling.generation_default,
    "gguf_file": sources.gguf_file,
    "gguf_repository": sources.gguf_repository,
    "hf_overrides": engine.hf_overrides,
    "host": server.host,
    "host_and_port": server.host_and_port,
    "hub_model": sources.hub_model,
    "hub_token": server.hub_token,
    "idle_seconds": lifecycle.idle_seconds,
    "image": nothing,
    "keep_alive": lifecycle.keep_alive,
    "listed_fact": artifacts.listed_fact,
    "load_format": engine.load_format,
    "lora_files": engine.lora_files,
    "max_tokens": sampling.max_tokens,
    "memory_share": limits.memory_share,
    "metal_device": server.metal_device,
    "metrics": server.metrics,
    "model_path": sources.model_path,
    "names": names.names,
    "no_metrics": server.no_metrics,
    "normalize": chat.normalize,
    "ollama_model": sources.ollama_model,
    "pooling": chat.pooling,
    "port": server.port,
    "prefix_caching": limits.prefix_caching,
    "preload": lifecycle.preload,
    "preset": sources.preset,
    "published_port": server.published_port,
    "quantization": engine.quantization,
    "reasoning_budget": chat.reasoning_budget,
    "reasoning_format": chat.reasoning_format,
    "reranking": chat.reranking,
    "revision": sources.revision,
    "routed_model": sources.routed_model,
    "runner_backend": engine.runner_backend,
    "runner_host": server.runner_host,
    "runner_mode": chat.runner_mode,
    "same": engine.same,
    "sampling": sampling.sampling,
    "sampling_top_k": sampling.sampling_top_k,
    "seed": sampling.seed,
    "sequences": limits.sequences,
    "sleep_mode": lifecycle.sleep_mode,
    "speculation_type": engine.speculation_type,
    "task": chat.task,
    "template": chat.template,
    "template_arguments": chat.template_arguments,
    "thinking": chat.thinking,
    "token_variable": server.token_variable,
    "unified": limits.unified,
    "unless_off": server.unless_off,
    "verbosity": engine.verbosity,
    "volume": nothing,
}
