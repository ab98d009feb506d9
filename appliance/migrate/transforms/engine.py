"""Arguments and variables of engines that go on as they are, and the few that need a word."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from appliance.migrate import catalogue
from appliance.migrate.draft import Model, shown_path
from appliance.migrate.found import is_secret_name, secrets_in
from appliance.migrate.repository_names import suggestion
from appliance.migrate.transforms.setting import AS_THE_RULE_SAYS, Result, Setting, dropped, manual, put
from appliance.migrate.words import integer, mapping


def same(setting: Setting) -> Result:
    """vLLM's own argument, value and all."""
    return put(setting, setting.models, "arguments", setting.name, setting.value)


def env(setting: Setting) -> Result:
    if setting.value in (None, ""):
        return dropped("Empty.")
    text = str(setting.value)
    if is_secret_name(setting.found.word) or secrets_in(text):
        return manual('Holds a secret; write it under the model\'s `env` as "${env:NAME}" or "${file:PATH}".')
    # `$` would be read as a reference in this file.
    return put(setting, setting.models, "env", setting.found.word, text.replace("${", "$${"))


def verbosity(setting: Setting) -> Result:
    level = integer(setting.value) if not isinstance(setting.value, bool) else 5
    name = "DEBUG" if level is None or level >= 4 else "INFO" if level == 3 else "WARNING"
    result = put(setting, setting.models, "env", "VLLM_LOGGING_LEVEL", name)
    return result if result.level else Result(value=name)


def hf_overrides(setting: Setting) -> Result:
    """Docker's own examples put engine arguments here, where they never had an effect."""
    value = mapping(setting.value)
    if value is None:
        return manual("Not a JSON object.")
    rest = dict(value)
    for model in setting.models:
        if (length := integer(rest.get("max_model_len"))) and model.context is None:
            model.context = length
        if isinstance(rest.get("dtype"), str):
            model.arguments.setdefault("dtype", rest["dtype"])
    misplaced = sorted({"max_model_len", "dtype", "gpu_memory_utilization"} & rest.keys())
    for name in misplaced:
        rest.pop(name)
    for model in setting.models if rest else ():
        model.arguments["hf_overrides"] = rest
    if misplaced:
        words = ", ".join(f"`{name}`" for name in misplaced)
        to = None if rest else "models.*.engine"
        return Result("mapped", f"{words}: the engine's own arguments, so they go there; only the rest overrides.", to)
    return AS_THE_RULE_SAYS if setting.models else manual("No model that it could be set for was found.")


def quantization(setting: Setting) -> Result:
    word = str(setting.value or "").lower()
    if not setting.draft.apple:
        result = put(setting, setting.models, "arguments", "quantization", setting.value)
        return result if result.level else Result("kept", "vLLM's own argument, and vLLM is the engine here too.")
    if word in ("", "none", "auto"):
        return dropped("The checkpoint's config says it.")
    model = setting.found.model
    suggested = suggestion(model.reference if model else "", apple=True)
    if word == "gguf":
        return dropped("A GGUF file says itself how it is quantized.")
    return manual(f"Kernels for CUDA; the Metal plug-in loads MLX's own quantization: look for `{suggested}`.")


def load_format(setting: Setting) -> Result:
    word = str(setting.value or "").lower()
    if word in ("", "auto", "safetensors"):
        return dropped("safetensors, found by itself.")
    if word in ("dummy", "pt", "npcache"):
        return manual("The Metal plug-in reads safetensors; convert the checkpoint or name another source.")
    return AS_THE_RULE_SAYS


def runner_backend(setting: Setting) -> Result:
    if str(setting.value) == "diffusers":
        return manual("Images are not generated here.")
    return AS_THE_RULE_SAYS


def adapters(setting: Setting) -> Result:
    """vLLM's --lora-modules: `name=path`, a JSON object, or a list of them."""
    model = setting.found.model
    value = setting.value
    entries = [_adapter(item) for item in (value if isinstance(value, list) else [value])]
    found = [each for entry in entries for each in entry]
    if model is None or not found or not all(entries):
        return manual("Not of the form NAME=PATH; write each under `adapters`.")
    for name, path in found:
        source = _source(path, model, setting)
        if any(adapter["name"] == name for adapter in model.adapters):
            continue
        model.adapters.append({"name": name, "source": source})
    return AS_THE_RULE_SAYS


def _adapter(item: Any) -> list[tuple[str, str]]:
    if isinstance(item, str) and item.lstrip().startswith(("{", "[")):
        try:
            item = json.loads(item)
        except (ValueError, RecursionError):
            return []
    if isinstance(item, list):
        return [each for inner in item for each in _adapter(inner)]
    if isinstance(item, dict):
        name, path = item.get("name"), item.get("path")
        return [(name, path)] if isinstance(name, str) and isinstance(path, str) else []
    name, equals, path = str(item).partition("=")
    return [(name, path)] if equals and name and path else []


def _source(path: str, model: Model, setting: Setting) -> str:
    if catalogue.acceptable(f"hf:{path}") and not path.startswith((".", "/", "~")):
        return f"hf:{path}"
    full = model.base / Path(model.host_path(path)).expanduser()
    return shown_path(full, setting.draft.folder)


def lora_files(setting: Setting) -> Result:  # noqa: ARG001 - the signature of a transform
    return AS_THE_RULE_SAYS


def draft_model(setting: Setting) -> Result:
    """A draft that is a safetensors repository goes on; one that is GGUF needs another name."""
    text = str(setting.value or "")
    hub = catalogue.hub_reference(text)
    name = hub[0] if hub else None
    artifact = None if hub else catalogue.registry_source(text)
    if artifact and (known := catalogue.known(artifact)) and known.origin:
        name = known.origin.removeprefix("hf:")
    generating = [model for model in setting.models if model.arguments.get("runner") != "pooling"]
    if name is None or "gguf" in name.lower() or not generating:
        return AS_THE_RULE_SAYS
    for model in generating:
        config = model.arguments.setdefault("speculative_config", {})
        config.setdefault("model", name)
        config.setdefault("num_speculative_tokens", 3)
    return Result("mapped", "The draft's safetensors; it has to have the same tokenizer.", value=name)


def draft_tokens(setting: Setting) -> Result:
    count = integer(setting.value)
    if count is None or count <= 0:
        return manual("Not a number of tokens.")
    found = [model for model in setting.models if isinstance(model.arguments.get("speculative_config"), dict)]
    if not found:
        return dropped("Without a draft model there is nothing to guess with.")
    for model in found:
        model.arguments["speculative_config"]["num_speculative_tokens"] = count
    return AS_THE_RULE_SAYS


def speculation_type(setting: Setting) -> Result:
    if str(setting.value).lower() == "none":
        return dropped("It was off.")
    return AS_THE_RULE_SAYS
