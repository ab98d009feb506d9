"""Where a model's weights come from now."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from appliance.migrate import catalogue
from appliance.migrate.draft import Model, shown_path
from appliance.migrate.importer import of_file, unread
from appliance.migrate.repository_names import (
    base_name,
    foreign_quantization,
    gguf_type,
    parameters_in,
    suggestion,
)
from appliance.migrate.transforms.artifacts import (
    asked,
    docker_artifact,
    elsewhere,
    ollama_artifact,
    placeholder,
    repository_of_ggufs,
    stays_behind,
)
from appliance.migrate.transforms.setting import AS_THE_RULE_SAYS, Result, Setting, dropped, manual

_PRESETS = {
    "--embd-gemma-default": "ai/embeddinggemma",
    "--gpt-oss-20b-default": "ai/gpt-oss:20B",
    "--gpt-oss-120b-default": "ai/gpt-oss:120B",
    "--vision-gemma-4b-default": "ai/gemma3:4B",
    "--vision-gemma-12b-default": "ai/gemma3:12B",
    "--fim-qwen-30b-default": "ai/qwen3-coder:30B",
}
_Form = Callable[[str, Model, Setting], Result]

_CACHED = re.compile(r".*/models--([\w.-]+?)--([\w.-]+?)(?:/snapshots/([0-9a-f]{7,40}))?/?")
_REPOSITORY = re.compile(r"[\w][\w.-]*/[\w][\w.-]*")


def hub_model(setting: Setting) -> Result:
    """vLLM's --model: a repository of the hub, a directory, or a GGUF file."""
    return _for_one(setting, _hub_model)


def model_path(setting: Setting) -> Result:
    """MODEL_PATH: whatever Model Runner's convention takes."""
    text = str(setting.value or "")
    form: _Form = (
        _hub_model if _is_path(text) or (not text.startswith("ai/") and _REPOSITORY.fullmatch(text)) else _docker_model
    )
    if setting.value and catalogue.acceptable(text) and re.match(r"(?:hf|pypi):", text):
        form = _as_written
    return _for_one(setting, form)


def gguf_file(setting: Setting) -> Result:
    return _for_one(setting, _gguf_file)


def gguf_repository(setting: Setting) -> Result:
    return _for_one(setting, repository_of_ggufs)


def docker_model(setting: Setting) -> Result:
    return _for_one(setting, _docker_model)


def ollama_model(setting: Setting) -> Result:
    return _for_one(setting, _ollama_model)


def routed_model(setting: Setting) -> Result:
    """LiteLLM's `provider/model`."""
    return _for_one(setting, _routed_model)


def preset(setting: Setting) -> Result:
    """llama-server's own choices, where Docker's catalogue has the same model."""
    model = setting.found.model
    if model is None:
        return manual("Names no model.")
    reference = _PRESETS.get(setting.found.word)
    model.reference = reference or setting.found.word.lstrip("-")
    if reference is None:
        model.source = placeholder(model.reference)
        return asked("A base model that llama-server chooses", model.reference)
    result = _docker_model(reference, model, setting)
    if result.level != "kept":
        return result
    return replace(
        result, level="mapped", why="llama-server takes a repository of its own; this is Docker's GGUF of it."
    )


def revision(setting: Setting) -> Result:
    for model in setting.models:
        if model.source and model.source.startswith("hf:") and "@" not in model.source:
            pinned = f"{model.source}@{setting.value}"
            if not catalogue.acceptable(pinned):
                return manual("Not a revision that a source can name.")
            model.source = pinned
            return Result(value=pinned)
    return dropped("Its model has no source on the hub to pin.")


def _for_one(setting: Setting, form: _Form) -> Result:
    model = setting.found.model
    text = setting.value
    if model is None or not isinstance(text, str) or not text.strip() or "\0" in text:
        return manual("Names no model.")
    text = text.strip()
    model.reference = model.reference or text
    if chosen := _answered(setting, text, model):
        if chosen.startswith("oci:"):
            docker_artifact(chosen, model, setting)
        model.source = chosen
        model.parameters = model.parameters or parameters_in(chosen)
        return Result("mapped", "As said with `--source`.", value=chosen)
    model.parameters = model.parameters or parameters_in(text)
    result = form(text, model, setting)
    if result.value is None and model.source and result.level != "manual":
        return Result(result.level, result.why, result.to, model.source)
    return result


def _answered(setting: Setting, text: str, model: Model) -> str | None:
    answers = setting.draft.sources
    names = (text, catalogue.normal(text), model.label, *model.names)
    return next((answers[name] for name in names if name in answers), None)


def _as_written(text: str, model: Model, _: Setting) -> Result:
    model.source = text
    return AS_THE_RULE_SAYS


def _is_path(text: str) -> bool:
    return text.startswith(("/", "./", "../", "~")) or text.endswith(".gguf")


def _hub_model(text: str, model: Model, setting: Setting) -> Result:
    if cached := _CACHED.fullmatch(text):
        pinned = f"@{cached[3]}" if cached[3] else ""
        return _repository(f"{cached[1]}/{cached[2]}{pinned}", model, setting)
    if text.endswith(".gguf"):
        return _gguf_file(text, model, setting)
    if _is_path(text):
        path = model.host_path(text)
        if path == text and model.mounts and text.startswith("/"):
            model.source = text
            return manual("A directory inside the container; give its path on this machine with `--source`.")
        model.source = _here(path, model, setting)
        return Result("kept", "The directory, used where it lies.")
    if _REPOSITORY.fullmatch(text):
        return _repository(text, model, setting)
    model.source = placeholder(text)
    return asked("Neither `organisation/name` on the hub nor a path", text)


def _repository(name: str, model: Model, setting: Setting) -> Result:
    source = f"hf:{name}"
    if not catalogue.acceptable(source):
        model.source = placeholder(name)
        return asked("Not the name of a repository that a source can name", name)
    model.source = source
    apple, kind = setting.draft.apple, foreign_quantization(name)
    if base_name(name) != name.rpartition("/")[2] and name.lower().endswith("-gguf"):
        return repository_of_ggufs(name, model, setting)
    if kind and apple:
        suggested = suggestion(name, apple=True)
        why = f"Weights in {kind.upper()} are for CUDA kernels; look for `{suggested}` and say so with `--source`."
        return manual(why)
    if stays_behind(catalogue.family(name), setting):
        return elsewhere()
    if name.startswith("mlx-community/") and not apple:
        return manual("MLX weights need the Metal plug-in; name the original with `--source`.")
    return AS_THE_RULE_SAYS


def _gguf_file(text: str, model: Model, setting: Setting) -> Result:
    path = model.host_path(text)
    if path == text and model.mounts and text.startswith("/"):
        model.source = text
        return manual("A file inside the container; give its path on this machine with `--source`.")
    full = model.base / Path(path).expanduser()
    model.source = _here(path, model, setting)
    known, model.stored = catalogue.family(base_name(text)), gguf_type(text)
    here = full.is_file()
    if here:
        found = of_file(full)
        if isinstance(found, str):
            return _not_read(f"This file is not read ({_shortened(found)})", text, setting)
        known, model.stored = found
    if stays_behind(known, setting):
        return elsewhere()
    if problem := unread(known, None if here else model.stored):
        model.stored = None
        return _not_read(f"A GGUF {problem}, which the importer does not read", text, setting)
    if here:
        return AS_THE_RULE_SAYS
    return Result("kept", "A GGUF file is a source; it has to lie at this path on the new machine.")


def _not_read(what: str, text: str, setting: Setting) -> Result:
    return manual(f"{what}; look for `{suggestion(text, apple=setting.draft.apple)}` and say so with `--source`.")


def _docker_model(text: str, model: Model, setting: Setting) -> Result:
    hub = catalogue.hub_reference(text)
    if hub is None:
        return docker_artifact(text, model, setting)
    name, tag = hub
    if "gguf" in name.lower():
        return repository_of_ggufs(f"{name}:{tag}" if tag else name, model, setting)
    result = _repository(name, model, setting)
    return result if result.level else Result("kept", "The same repository, read from the hub.")


def _ollama_model(text: str, model: Model, setting: Setting) -> Result:
    if _is_path(text):
        return _hub_model(text, model, setting)
    if catalogue.hub_reference(text):
        return _docker_model(text, model, setting)
    return ollama_artifact(text, model, setting)


def _routed_model(text: str, model: Model, setting: Setting) -> Result:
    provider, _, name = text.partition("/")
    if provider == "docker_model_runner":
        model.reference = name
        return _docker_model(name, model, setting)
    if provider in ("ollama", "ollama_chat"):
        model.reference = name
        return _ollama_model(name, model, setting)
    if provider in ("hosted_vllm", "vllm", "openai", "llamafile"):
        model.reference = name
        return _hub_model(name, model, setting)
    return _docker_model(text, model, setting)


def _here(path: str, model: Model, setting: Setting) -> str:
    """A path of the input as one of the file that is written."""
    full = model.base / Path(path).expanduser()
    return shown_path(full, setting.draft.folder) if not path.startswith("~") else path


def _shortened(text: str) -> str:
    return text if len(text) <= 160 else text[:159] + "…"
