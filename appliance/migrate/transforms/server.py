"""Who may ask, and where."""

from __future__ import annotations

import hashlib
import ipaddress
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from appliance.errors import ConfigError
from appliance.migrate.draft import Draft
from appliance.migrate.inputs import inside, read_input
from appliance.migrate.transforms.setting import AS_THE_RULE_SAYS, Result, Setting, dropped, manual
from appliance.migrate.words import integer, truth

_PORT = re.compile(
    r"(?:(?P<host>\[[0-9a-fA-F:]+\]|[0-9.]+):(?=\d+:|:))?(?:(?P<published>\d+):)?(?P<target>\d+)(?:/tcp)?"
)


def host(setting: Setting) -> Result:
    model, text = setting.found.model, str(setting.value or "")
    if model is not None and model.contained:
        return dropped("The address inside the container; the gateway listens on the host.")
    return _address(setting.draft, text)


def _address(draft: Draft, text: str) -> Result:
    if "/" in text or text.endswith(".sock") or "," in text:
        return manual("The gateway listens on one TCP address; put a proxy in front for more.")
    if is_loopback(text):
        return Result("kept", "The gateway listens there.", value="127.0.0.1") if text else dropped("The default.")
    if not draft.keys:
        draft.was_open = True
        why = "Every address; the gateway stays on 127.0.0.1 until `appliance key create NAME` has made a key."
        return Result("manual", why)
    if not re.fullmatch(r"[\w.:-]{1,255}", text):
        return manual("Not an address.")
    draft.host = draft.host or text
    return AS_THE_RULE_SAYS


def is_loopback(text: str) -> bool:
    if text in ("", "localhost"):
        return True
    try:
        return ipaddress.ip_address(text.strip("[]")).is_loopback
    except ValueError:
        return False


def port(setting: Setting) -> Result:
    number, model = integer(setting.value), setting.found.model
    if number is None or not 1 <= number <= 65535:
        return manual("Not a port.")
    if model is not None and model.published:
        return dropped("The port inside the container; clients used the published one.")
    return _take_port(setting.draft, number)


def _take_port(draft: Draft, number: int, *, published: bool = False) -> Result:
    if number not in draft.ports:
        draft.ports.append(number)
    if draft.port is None or (published and not draft.port_published):
        draft.port, draft.port_published = number, published
    if draft.port != number:
        return Result(
            "mapped", f"All models are on one port here, {draft.port}; the model's name chooses.", value=draft.port
        )
    return AS_THE_RULE_SAYS


def host_and_port(setting: Setting) -> Result:
    """OLLAMA_HOST: `0.0.0.0:11434`, with either part left out."""
    text = str(setting.value or "").removeprefix("http://").rstrip("/")
    name, _, number = text.rpartition(":") if re.search(r":\d+$", text) else (text, "", "")
    result = _take_port(setting.draft, int(number)) if number and 1 <= int(number) <= 65535 else AS_THE_RULE_SAYS
    address = _address(setting.draft, name)
    return address if address.level == "manual" else result


def published_port(setting: Setting) -> Result:
    """Compose's `ports`, one of `docker run -p`, or what `docker inspect` calls PortBindings."""
    found = list(_published(setting.value))
    if not found:
        return dropped("Publishes no port that stays the same.")
    results = []
    for address, number in found:
        results.append(_take_port(setting.draft, number, published=True))
        if address is None or not is_loopback(address):
            setting.draft.was_open = True
    other = next((result for result in results if result.value), None)
    return other or Result(value=found[0][1])


def _published(value: Any) -> Iterator[tuple[str | None, int]]:
    match value:
        case str() | int():
            matched = _PORT.fullmatch(str(value).strip())
            number = int(matched["published"] or matched["target"]) if matched else 0
            if matched and 1 <= number <= 65535:
                yield matched["host"], number
        case {"published": published, **rest}:
            if (number := integer(published) or 0) and 1 <= number <= 65535:
                yield str(rest["host_ip"]) if rest.get("host_ip") else None, number
        case dict():
            for bindings in value.values():
                for binding in bindings if isinstance(bindings, list) else ():
                    number = (integer(binding.get("HostPort")) or 0) if isinstance(binding, dict) else 0
                    if 1 <= number <= 65535:
                        yield binding.get("HostIp") or None, number
        case list():
            for item in value:
                yield from _published(item)


def api_key(setting: Setting) -> Result:
    value = setting.value
    found = [str(each) for each in value] if isinstance(value, list) else str(value or "").split(",")
    return _hashed(setting.draft, (each.strip() for each in found), setting)


def api_key_file(setting: Setting) -> Result:
    model = setting.found.model
    path = (model.base if model else Path()) / (model.host_path(str(setting.value)) if model else str(setting.value))
    if model is None or not inside(path, model.base) or not path.is_file():
        return manual("The file is not in this folder; run `appliance key create NAME` for each client.")
    try:
        text = read_input(path).text
    except ConfigError as problem:
        return manual(f"The file cannot be read: {problem.message.splitlines()[-1].strip()}.")
    lines = [line.strip() for line in text.splitlines()]
    return _hashed(setting.draft, (line for line in lines if not line.startswith("#")), setting)


def _hashed(draft: Draft, clear: Iterable[str], setting: Setting) -> Result:
    added = 0
    for key in clear:
        if not key or key.startswith(("os.environ/", "${")):
            continue
        setting.reading.hide(key)
        if not key.isascii() or not key.isprintable() or " " in key:
            return manual(
                "Holds characters that no HTTP header can carry; make another with `appliance key create NAME`."
            )
        digest = hashlib.sha256(key.encode()).hexdigest()
        added += 1
        if all(entry["sha256"] != digest for entry in draft.keys):
            number = len(draft.keys) + 1
            draft.keys.append({"name": "migrated" if number == 1 else f"migrated-{number}", "sha256": digest})
    if not added:
        text = str(setting.value or "")
        if text:
            return manual("Its value is not in this file; make a key with `appliance key create NAME`.")
        return dropped("Empty, so nobody had to send a key.")
    return AS_THE_RULE_SAYS


def metrics(setting: Setting) -> Result:
    if truth(setting.value) is False:
        return dropped("Metrics are off unless `server.metrics` is set.")
    setting.draft.metrics = True
    return Result(value=True)


def no_metrics(setting: Setting) -> Result:
    if truth(setting.value):
        return dropped("Metrics are off unless `server.metrics` is set.")
    setting.draft.metrics = True
    return Result(value=True)


def runner_host(setting: Setting) -> Result:
    if isinstance(setting.value, str) and setting.value not in setting.draft.addresses:
        setting.draft.addresses.append(setting.value)
    return AS_THE_RULE_SAYS


def unless_off(setting: Setting) -> Result:
    """A switch that was off has nothing for a person to do."""
    return dropped("It was off.") if truth(setting.value) is False else AS_THE_RULE_SAYS


def hub_token(setting: Setting) -> Result:
    setting.draft.token_needed = True
    return AS_THE_RULE_SAYS


def token_variable(setting: Setting) -> Result:
    setting.draft.token_needed = bool(setting.value) or setting.draft.token_needed
    return AS_THE_RULE_SAYS


def metal_device(setting: Setting) -> Result:
    value = str(setting.value or "").lower()
    if value not in ("default", "gpu", "cpu"):
        return manual("Not a device of MLX: default, gpu or cpu.")
    setting.draft.metal_device = value
    return AS_THE_RULE_SAYS
