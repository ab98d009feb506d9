"""The engines' drivers, by the name the file calls their backend."""

from __future__ import annotations

from appliance.config.models import Appliance
from appliance.engines.command import Command
from appliance.engines.driver import Driver
from appliance.engines.vllm import VLLM
from appliance.engines.vllm_metal import VLLMMetal
from appliance.errors import ConfigError

DRIVERS: dict[str, Driver] = {"vllm": VLLM(), "vllm-metal": VLLMMetal()}


def driver_for(backend: str, appliance: Appliance) -> Driver:
    """The driver of this backend: one of ours, or a command of the file's own."""
    if declared := appliance.backends.get(backend):
        return Command(name=backend, command=declared.command)
    if backend not in DRIVERS:
        known = ", ".join(f"`{name}`" for name in (*DRIVERS, *appliance.backends))
        raise ConfigError(f"there is no backend `{backend}`", hint=f"known here: {known}")
    return DRIVERS[backend]
