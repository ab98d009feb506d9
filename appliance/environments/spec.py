"""Which environment a backend needs on this host: pure, given the host and the lists."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from appliance.config.models import Environment
from appliance.engines import vllm_metal
from appliance.environments.host import Host
from appliance.environments.requirements import RequirementList
from appliance.errors import ProvisionError

_PLATFORM_CLASS = {"cpu": "CpuPlatform", "cuda": "CudaPlatform"}
_BACKENDS = ("auto", "vllm", "vllm-metal")


@dataclass(frozen=True)
class EnvironmentSpec:
    """`requirements` is None where `python` is an interpreter that is there already.

    `expected_platform` is the vLLM platform class that the preflight must find; empty: any but `UnspecifiedPlatform`.
    `variables` are what the preflight runs with beside the user's own, as the engine will.
    """

    name: str
    backend: str
    requirements: RequirementList | None
    python: Path | None
    expected_platform: str
    variables: tuple[tuple[str, str], ...] = ()

    @property
    def identity(self) -> str:
        return str(self.python) if self.python else self.name


def choose(backend: str, environment: Environment, host: Host, lists: Mapping[str, RequirementList]) -> EnvironmentSpec:
    """1. a given interpreter; 2. the accelerator; 3. the list for this platform; 4. what the list asks of the host."""
    if backend not in _BACKENDS:
        raise ProvisionError(
            f"no engine environment is known for the backend `{backend}`",
            hint="`backend: vllm` has one; a backend from `backends:` brings its own command and needs none",
        )
    if backend == "vllm-metal":
        return _metal(environment, host, lists)
    if environment.python is not None:
        expected = _PLATFORM_CLASS.get(environment.accelerator, "")
        return EnvironmentSpec("given", "vllm", None, environment.python.expanduser().absolute(), expected)
    accelerator = environment.accelerator
    if accelerator == "auto":
        accelerator = "cuda" if host.nvidia and f"vllm-cuda-{host.platform}" in lists else "cpu"
    requirements = _find_list(f"vllm-{accelerator}-{host.platform}", host, lists)
    _check_host(requirements, host)
    return EnvironmentSpec(_name(requirements, host), "vllm", requirements, None, _PLATFORM_CLASS[accelerator])


def _metal(environment: Environment, host: Host, lists: Mapping[str, RequirementList]) -> EnvironmentSpec:
    """The plug-in is never in the environment: it comes from the running appliance, and the preflight proves that."""
    variables = tuple(sorted(vllm_metal.plugin_environ().items()))
    if environment.python is not None:
        python = environment.python.expanduser().absolute()
        return EnvironmentSpec("given", "vllm-metal", None, python, vllm_metal.PLATFORM, variables)
    requirements = _find_list(f"vllm-metal-{host.platform}", host, lists)
    _check_host(requirements, host)
    name = _name(requirements, host)
    return EnvironmentSpec(name, "vllm-metal", requirements, None, vllm_metal.PLATFORM, variables)


def _name(requirements: RequirementList, host: Host) -> str:
    return f"{requirements.name}-py{host.python.replace('.', '')}-{requirements.digest[:8]}"


def _find_list(name: str, host: Host, lists: Mapping[str, RequirementList]) -> RequirementList:
    if host.translated:
        raise ProvisionError(
            f"this Python is built for {host.machine} and runs under Rosetta, where no process reaches Metal",
            hint="install an arm64 Python (`arch -arm64 brew install python@3.12`) and the appliance under it",
        )
    if host.bits != 64:
        raise ProvisionError(
            f"this Python is a {host.bits}-bit one and vLLM has 64-bit builds only",
            hint="run the appliance under a 64-bit Python",
        )
    if found := lists.get(name):
        return found
    known = ", ".join(f"`{each}`" for each in sorted(lists))
    if host.system == "macos" and host.machine == "aarch64":
        hint = "`backend: vllm-metal` is what runs vLLM on this machine"
    elif host.system == "macos":
        hint = "MLX has no build for Intel processors: name another server under `backends:`, llama.cpp's for one"
    else:
        hint = "set `environment.python` to an interpreter that has vLLM"
    raise ProvisionError(f"there is no pinned list `{name}` for this machine (there are {known})", hint=hint)


def _check_host(requirements: RequirementList, host: Host) -> None:
    if host.system == "linux" and requirements.glibc > host.glibc:
        wanted = _words(requirements.glibc)
        got = f"glibc {_words(host.glibc)}" if host.glibc else "another C library (musl?)"
        raise ProvisionError(
            f"`{requirements.name}` needs glibc {wanted} or newer, and this machine has {got}",
            hint="vLLM's builds are for glibc: use a distribution from 2020 or later, not Alpine",
        )
    if host.system == "macos" and host.macos < requirements.macos:
        raise ProvisionError(
            f"`{requirements.name}` needs macOS {_words(requirements.macos)} or newer, which MLX is built for, and this"
            f" machine has {_words(host.macos) or 'one that does not tell its version'}",
            hint="update macOS in System Settings, General, Software Update",
        )
    if requirements.pythons and host.python not in requirements.pythons:
        raise ProvisionError(
            f"`{requirements.name}` is pinned for Python {', '.join(requirements.pythons)}, and this is {host.python}",
            hint="run the appliance under one of these, or set `environment.python`",
        )


def _words(version: tuple[int, ...]) -> str:
    return ".".join(map(str, version))
