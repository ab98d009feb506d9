"""What engines that do not run would take, as far as what is on this machine tells."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from appliance.config.models import Appliance
from appliance.engines import driver_for
from appliance.engines.driver import Driver, Launch, Shape
from appliance.environments.provision import Environments, EnvironmentSpec
from appliance.models.shape import shape
from appliance.models.sources import parse_source
from appliance.models.store import Store
from appliance.plan.desired import EngineSpec
from appliance.state import StateDirectory


def what_fits(driver: Driver, spec: EngineSpec, launch: Launch, shape: Shape, available: int) -> str | None:
    """What to write under `engine` so that this engine takes no more than so many bytes; None where nothing helps."""
    arguments = driver.fitting(spec, launch, shape, available)
    if not arguments:
        return None
    words = ", ".join(f"{name}: {value}" for name, value in arguments.items())
    return f"`engine: {{{words}}}` would fit"


@dataclass(frozen=True, slots=True)
class Estimator:
    """For the engines of one configuration, whether it is in force or not. Every call touches the disk."""

    appliance: Appliance
    state: StateDirectory
    environments: Mapping[str, EnvironmentSpec]

    def memory(self, spec: EngineSpec) -> int | None:
        """Bytes; None where the weights or the environment are not here yet."""
        found = self._find(spec)
        return found[0].memory(spec, *found[1:]) if found else None

    def what_fits(self, spec: EngineSpec, available: int) -> str | None:
        found = self._find(spec)
        return what_fits(found[0], spec, *found[1:], available) if found else None

    def _find(self, spec: EngineSpec) -> tuple[Driver, Launch, Shape] | None:
        environment = self.environments.get(spec.backend)
        installed = Environments(self.state.environments).find(environment) if environment else None
        checkpoint = Store(self.state.models).find(parse_source(spec.source, base=Path("/")))
        if checkpoint is None or (environment is not None and installed is None):
            return None
        launch = Launch(
            python=installed.python if installed else None,
            platform=installed.platform if installed else "",
            versions=installed.libraries if installed else (),
            model=checkpoint.path,
            directory=Path(),
            key="",
        )
        driver = driver_for(spec.backend, self.appliance)
        return driver, launch, shape(checkpoint.path, driver.format, bits=spec.quantize)
