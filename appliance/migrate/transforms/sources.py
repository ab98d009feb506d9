"""Where a model's weights come from now."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

from appliance.migrate import catalogue
from appliance.migrate.draft import Model, shown_path
from appliance.migrate.transforms.setting import AS_THE_RULE_SAYS, Result, Setting, dropped, manual

_DEFAULT_TYPE = "Q4_K_M"
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
    return _for_one(setting, _gguf_repository)


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
        model.source = _placeholder(model.reference)
        return _asked("A base model that llama-server chooses", model.reference)
    return _docker_model(reference, model, setting)


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
        model.source = chosen
        model.parameters = model.parameters or catalogue.parameters_in(chosen)
        return Result("mapped", "As said with `--source`.", value=chosen)
    model.parameters = model.parameters or catalogue.parameters_in(text)
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
    model.source = _placeholder(text)
    return _asked("Neither `organisation/name` on the hub nor a path", text)


def _repository(name: str, model: Model, setting: Setting) -> Result:
    source = f"hf:{name}"
    if not catalogue.acceptable(source):
        model.source = _placeholder(name)
        return _asked("Not the name of a repository that a source can name", name)
    model.source = source
    apple, kind = setting.draft.apple, catalogue.foreign_quantization(name)
    if catalogue.base_name(name) != name.rpartition("/")[2] and name.lower().endswith("-gguf"):
        return _gguf_repository(name, model, setting)
    if kind and apple:
        suggested = catalogue.suggestion(name, apple=True)
        why = f"Weights in {kind.upper()} are for CUDA kernels; look for `{suggested}` and say so with `--source`."
        return manual(why)
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
    suggested = catalogue.suggestion(text, apple=setting.draft.apple)
    if full.is_file():
        problem = catalogue.gguf_problem(full)
        if problem is None:
            return AS_THE_RULE_SAYS
        return manual(f"The importer does not read this file ({_shortened(problem)}); look for `{suggested}`.")
    if catalogue.names_an_encoder(text):
        return manual("By its name an encoder, which the importer does not read from GGUF; name its safetensors.")
    kind = catalogue.gguf_type(text)
    if kind and not catalogue.importable_type(kind):
        return manual(f"The importer does not read {kind}; look for `{suggested}` and say so with `--source`.")
    return Result("kept", "A GGUF file is a source; it has to lie at this path on the new machine.")


def _gguf_repository(text: str, model: Model, setting: Setting) -> Result:
    name, _, tag = text.partition(":")
    kind = tag or _DEFAULT_TYPE
    one = f"hf:{name}#{kind}"
    if catalogue.importable_type(kind.upper()) and catalogue.acceptable(one):
        model.source = one
        why = f"The repository's {kind} file, converted once." + ("" if tag else " llama.cpp takes it by default.")
        return Result("mapped", why, value=one)
    suggested = catalogue.suggestion(name, apple=setting.draft.apple)
    if not catalogue.acceptable(suggested) or "ORGANISATION" in suggested:
        suggested = f"hf:{name}"
    model.source = suggested if catalogue.acceptable(suggested) else _placeholder(name)
    detail = f" in {tag}" if tag else ""
    return Result(
        "manual",
        f"A repository of GGUF files{detail}. `{suggested}` is a guess: see that it is there, or use `--source`.",
        value=model.source,
    )


def _docker_model(text: str, model: Model, setting: Setting) -> Result:
    if hub := catalogue.hub_reference(text):
        name, tag = hub
        if "gguf" in name.lower():
            return _gguf_repository(f"{name}:{tag}" if tag else name, model, setting)
        result = _repository(name, model, setting)
        return result if result.level else Result("mapped", "The same repository, read from the hub.")
    origin = catalogue.docker_origin(text, apple=setting.draft.apple)
    if origin is not None:
        model.source, model.parameters = origin.source, origin.parameters
        if origin.task == "embed":
            model.arguments.setdefault("runner", "pooling")
        what = (
            "quantized to 4 bits for MLX" if origin.quantized and origin.source.startswith("hf:") else "from its origin"
        )
        if origin.source.startswith("pypi:"):
            what = "in 4 bits, from a Python package"
        return Result("mapped", f"Docker packs it as GGUF; here it is the same model {what}.", value=origin.source)
    return _chosen(model, text)


def _chosen(model: Model, text: str) -> Result:
    """Nobody but the person can say. The artifact's own name keeps its place, and is right where it can be pulled."""
    source = f"oci:{catalogue.normal(text)}"
    model.source = source
    if catalogue.acceptable(source):
        return Result("mapped", "The same artifact, from the registry.", value=source)
    return _asked("Not a model known here", text)


def _asked(what: str, text: str) -> Result:
    return manual(f"{what}; say where its safetensors are: `--source {_quoted(text)}=hf:ORGANISATION/NAME`.")


def _ollama_model(text: str, model: Model, setting: Setting) -> Result:
    if _is_path(text):
        return _hub_model(text, model, setting)
    if catalogue.hub_reference(text):
        return _docker_model(text, model, setting)
    origin = catalogue.docker_origin(_ollama_to_docker(text), apple=setting.draft.apple)
    if origin is not None:
        model.source, model.parameters = origin.source, origin.parameters
        return Result(
            "mapped", "Ollama packs it as GGUF; here it is the same model from its origin.", value=origin.source
        )
    return manual(
        f"Of Ollama's library; say where its safetensors are: `--source {_quoted(text)}=hf:ORGANISATION/NAME`."
    )


def _ollama_to_docker(text: str) -> str:
    name, _, tag = text.partition(":")
    return f"ai/{name}:{tag}" if tag else f"ai/{name}"


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


def _placeholder(text: str) -> str:
    """A path where the person may put the weights: it keeps the model's settings in the file, and starts nothing."""
    return f"./models/{re.sub(r'[^A-Za-z0-9._-]+', '-', text).strip('-.')[:80] or 'model'}"


def _here(path: str, model: Model, setting: Setting) -> str:
    """A path of the input as one of the file that is written."""
    full = model.base / Path(path).expanduser()
    return shown_path(full, setting.draft.folder) if not path.startswith("~") else path


def _shortened(text: str) -> str:
    return text if len(text) <= 160 else text[:159] + "…"


def _quoted(text: str) -> str:
    return text if re.fullmatch(r"[\w./:@-]+", text) else f"'{text}'"
