"""Templates, reasoning, and what a model is for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from appliance.errors import ConfigError
from appliance.migrate.inputs import inside, read_input
from appliance.migrate.transforms.setting import AS_THE_RULE_SAYS, Result, Setting, dropped, manual, put
from appliance.migrate.words import integer, mapping, truth

LONGEST_TEMPLATE = 64 * 1024  # it is one word of a command line, of which Linux takes 128 KiB


def template(setting: Setting) -> Result:
    """A file becomes an absolute path; the name of one of llama.cpp's own templates means nothing."""
    text, model = str(setting.value or ""), setting.found.model
    if not text:
        return dropped("Empty: the checkpoint's own template.")
    if "{" in text or "\n" in text:
        return put(setting, setting.models, "arguments", "chat_template", text)
    looks_like_a_file = "/" in text or text.endswith((".jinja", ".jinja2", ".j2", ".tmpl", ".txt"))
    if not looks_like_a_file:
        return dropped("A template built into llama.cpp; the checkpoint brings its own.")
    if model is None:
        return manual("A file; write it under `engine.chat_template` of the model that needs it.")
    path = model.base / Path(model.host_path(text)).expanduser()
    if not inside(path, model.base) or not path.is_file():
        return manual("A file that is not in this folder; write its text under `engine.chat_template`.")
    try:
        content = read_input(path).text
    except ConfigError as problem:
        return manual(f"The file cannot be read: {problem.message.splitlines()[-1].strip()}.")
    if len(content) > LONGEST_TEMPLATE or "{" not in content:
        return manual("Not a Jinja template of less than 64 KiB; write its text under `engine.chat_template`.")
    model.arguments["chat_template"] = content
    return Result("mapped", "The file's text, so that the profile needs no other file.", value=f"the text of {text}")


def template_arguments(setting: Setting) -> Result:
    value = mapping(setting.value)
    return manual("Not a JSON object.") if value is None else _template_defaults(setting, value)


def thinking(setting: Setting) -> Result:
    if str(setting.value).lower() == "auto":
        return dropped("As the template decides: that is the default.")
    stated = truth(setting.value)
    if stated is None:
        return manual("Neither on nor off.")
    return _template_defaults(setting, {"enable_thinking": stated})


def reasoning_budget(setting: Setting) -> Result:
    budget = integer(setting.value)
    if budget is None:
        return manual("Not a number of tokens.")
    if budget < 0:
        return dropped("No limit: that is the default.")
    if budget > 0:
        return manual("A budget in tokens is a request's own here: send `thinking_token_budget`.")
    result = _template_defaults(setting, {"enable_thinking": False})
    return result if result.level else Result(value=False)


def _template_defaults(setting: Setting, values: dict[str, Any]) -> Result:
    for model in setting.models:
        given = model.arguments.get("default_chat_template_kwargs")
        model.arguments["default_chat_template_kwargs"] = {**(given if isinstance(given, dict) else {}), **values}
    return AS_THE_RULE_SAYS if setting.models else manual("No model that it could be set for was found.")


def reasoning_format(setting: Setting) -> Result:
    if str(setting.value) in ("auto", "none"):
        return dropped("Without a reasoning parser the model's words arrive as they are.")
    return AS_THE_RULE_SAYS


def embeddings(setting: Setting) -> Result:
    if truth(setting.value) is False:
        return dropped("It was off.")
    return _pooling(setting)


def reranking(setting: Setting) -> Result:
    if truth(setting.value) is False:
        return dropped("It was off.")
    return _pooling(setting)


def _pooling(setting: Setting) -> Result:
    result = put(setting, setting.models, "arguments", "runner", "pooling")
    return result if result.level else Result(value="pooling")


def runner_mode(setting: Setting) -> Result:
    match str(setting.value):
        case "completion":
            return dropped("Answers in words: that is the default.")
        case "embedding" | "reranking":
            return _pooling(setting)
    return manual("Images are not generated here.")


def task(setting: Setting) -> Result:
    word = str(setting.value)
    if word in ("embed", "embedding", "score", "classify", "reward"):
        return _pooling(setting)
    return (
        dropped("Answers in words: that is the default.")
        if word in ("auto", "generate")
        else manual("Not a task known here.")
    )


def pooling(setting: Setting) -> Result:
    kinds = {"mean": "MEAN", "cls": "CLS", "last": "LAST"}
    word = str(setting.value).lower()
    if word == "rank":
        return _pooling(setting)
    if word not in kinds:
        return manual("vLLM pools by mean, cls or last.")
    for model in setting.models:
        model.arguments["pooler_config"] = {"pooling_type": kinds[word]}
        model.arguments.setdefault("runner", "pooling")
    return Result(value=kinds[word])


def normalize(setting: Setting) -> Result:
    if integer(setting.value) == 2:
        return dropped("vLLM normalises embeddings to length 1 too.")
    return manual("vLLM normalises to length 1 or not at all; see `engine.pooler_config`.")
