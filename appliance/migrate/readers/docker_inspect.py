"""`docker inspect` of a container: what it was really started with."""

from __future__ import annotations

from typing import Any

from appliance.migrate.draft import Mount
from appliance.migrate.found import Reading
from appliance.migrate.inputs import Input, Tree
from appliance.migrate.readers.container import Container, Setting, host_directory, read_container
from appliance.migrate.readers.engines import Variable
from appliance.migrate.words import listed

_STATE = frozenset(
    [
        "Id",
        "Created",
        "Path",
        "Args",
        "State",
        "Image",
        "ResolvConfPath",
        "HostnamePath",
        "HostsPath",
        "LogPath",
        "RestartCount",
        "Driver",
        "Platform",
        "MountLabel",
        "ProcessLabel",
        "AppArmorProfile",
        "ExecIDs",
        "GraphDriver",
        "SizeRw",
        "SizeRootFs",
        "ImageManifestDescriptor",
        "Storage",
    ]
)
_HOST = {
    "PortBindings": "ports", "RestartPolicy": "restart_policy", "DeviceRequests": "gpus", "Runtime": "runtime",
    "ShmSize": "shm_size", "IpcMode": "ipc", "Memory": "mem_limit", "NanoCpus": "cpus", "Ulimits": "ulimits",
    "Privileged": "privileged", "NetworkMode": "network_mode", "Devices": "devices", "CpusetCpus": "cpuset",
    "CapAdd": "cap_add", "CapDrop": "cap_drop", "SecurityOpt": "security_opt", "ExtraHosts": "extra_hosts",
    "ReadonlyRootfs": "read_only", "PidMode": "pid",
}  # fmt: skip


def read(source: Input, document: Tree, reading: Reading) -> None:
    for index, entry in enumerate(listed(document.data["items"])):
        if isinstance(entry, dict):
            _container(entry, f"[{index}].", source, reading)


def _container(entry: dict[str, Any], prefix: str, source: Input, reading: Reading) -> None:
    place, config, host = source.name, _mapping(entry, "Config"), _mapping(entry, "HostConfig")
    container = Container(
        label=str(entry.get("Name") or "default").lstrip("/"),
        image=str(config.get("Image") or ""),
        base=source.base,
        argv=[*map(str, listed(config.get("Entrypoint"))), *map(str, listed(config.get("Cmd")))],
        argv_key=f"{prefix}Config.Cmd",
        argv_place=place,
        variables_key=f"{prefix}Config.Env.",
        mounts=_mounts(entry, source),
    )
    for text in listed(config.get("Env")):
        name, equals, value = str(text).partition("=")
        container.variables.append(Variable(name, value if equals else None, place))
    container.settings.append(Setting("image", container.image, f"{prefix}Config.Image", place))
    if container.kind is None:
        why = "Not an engine; it stays as it is."
        reading.add(
            "containers", "image", container.image, key=f"{prefix}Config.Image", place=place, level="kept", why=why
        )
        return
    for name, value in host.items():
        if (word := _HOST.get(name)) and value not in (None, 0, False, "", [], {}):
            container.settings.append(Setting(word, value, f"{prefix}HostConfig.{name}", place))
    rest = [name for name in entry if name in _STATE]
    read_container(container, reading)
    for name, value in (*config.items(), *host.items()):
        known = name in _HOST or name in {"Image", "Env", "Cmd", "Entrypoint"}
        if not known and value not in (None, 0, False, "", [], {}):
            section = "Config" if name in config else "HostConfig"
            _fact(reading, f"{prefix}{section}.{name}", place, "About the container, which is gone.")
    for name in rest:
        _fact(reading, f"{prefix}{name}", place, "A fact about the container that runs now, not a setting.")
    for name in [name for name in entry if name not in _STATE and name not in ("Config", "HostConfig")]:
        _fact(reading, f"{prefix}{name}", place, "What Docker made of the settings above.")


def _fact(reading: Reading, key: str, place: str, why: str) -> None:
    reading.add("containers", "fact", None, key=key, place=place, level="dropped", why=why)


def _mapping(entry: dict[str, Any], name: str) -> dict[str, Any]:
    value = entry.get(name)
    return value if isinstance(value, dict) else {}


def _mounts(entry: dict[str, Any], source: Input) -> list[Mount]:
    found = []
    for mount in listed(entry.get("Mounts")):
        if isinstance(mount, dict) and isinstance(mount.get("Destination"), str):
            bound = mount.get("Type") == "bind" and isinstance(mount.get("Source"), str)
            found.append(Mount(mount["Destination"], host_directory(mount["Source"], source.base) if bound else None))
    return found
