"""When an engine is started and stopped."""

from __future__ import annotations

import re

from appliance.migrate.transforms.setting import AS_THE_RULE_SAYS, Result, Setting, dropped, manual
from appliance.migrate.words import number

_DURATION = re.compile(r"(?:\d{1,9}(?:\.\d{1,3})?(?:ms|s|m|h))+")


def keep_alive(setting: Setting) -> Result:
    """Go's durations; 0: as soon as it is unused; negative: never."""
    text = str(setting.value).strip()
    found = number(text)
    if text.startswith("-"):
        for model in setting.models:
            model.idle_unload, model.load = None, "startup"
        return Result("mapped", "Negative: the model stays in memory, which is the default here.", value="never")
    if found is not None:
        return _idle(setting, found)
    if not _DURATION.fullmatch(text) or not re.search(r"[1-9]", text):
        return _idle(setting, 0) if re.fullmatch(r"(?:0(?:\.0*)?(?:ms|s|m|h))+", text) else manual("Not a duration.")
    for model in setting.models:
        model.idle_unload = text
    return Result(value=text)


def idle_seconds(setting: Setting) -> Result:
    found = number(setting.value)
    if found is None:
        return manual("Not a number of seconds.")
    if found <= 0:
        return dropped("It was off: the model stays in memory.")
    return _idle(setting, found)


def _idle(setting: Setting, seconds: float) -> Result:
    if seconds > 3650 * 86_400:
        return manual("A duration of more than ten years.")
    text = f"{seconds:g}s" if seconds >= 1 else "1s"
    if seconds >= 60 and seconds % 60 == 0:
        text = f"{int(seconds // 60)}m"
    elif seconds >= 1:
        text = f"{int(seconds)}s"
    for model in setting.models:
        model.idle_unload = text
    if seconds < 1:
        return Result("mapped", "0 unloads a model as soon as it is unused; one second comes nearest.", value=text)
    return Result(value=text)


def preload(setting: Setting) -> Result:
    if setting.found.model is None:
        return manual("Names no model of this file.")
    setting.found.model.load = "startup"
    return Result(value="startup")


def drain_timeout(setting: Setting) -> Result:
    found = number(setting.value)
    if found is None or found < 0:
        return manual("Not a number of seconds.")
    if found == 0:
        return dropped("0 cuts requests off; here they may finish, for five minutes at most.")
    for model in setting.models:
        model.drain_timeout = f"{int(found) or 1}s"
    return Result(value=f"{int(found) or 1}s")


def sleep_mode(setting: Setting) -> Result:  # noqa: ARG001 - the signature of a transform
    return AS_THE_RULE_SAYS
