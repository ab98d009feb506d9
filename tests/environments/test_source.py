"""What no index has a build of for a platform is built from its source distribution, without kernels."""

from __future__ import annotations

import asyncio
import hashlib
import io
import os
import re
import subprocess
import sys
import tarfile
import zipfile
from email import message_from_bytes
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from appliance.environments import source
from appliance.environments.provision import Environments
from appliance.environments.requirements import parse_list, shipped_lists
from appliance.errors import ProvisionError
from appliance.progress import Progress, silent
from tests.environments.conftest import CPU
from tests.environments.wheelhouse import LIST_NAME, fake_vllm, pip_environ, write_wheel

# Runs setup.py as a Mac would, and makes the wheel if what it decides on is to compile nothing.
BACKEND = """
import os, sys, types, zipfile
FILES = {files!r}
def device():
    mac = types.SimpleNamespace(platform="darwin")
    scope = {{"sys": mac, "VLLM_TARGET_DEVICE": os.environ["VLLM_TARGET_DEVICE"]}}
    exec(open("setup.py").read(), scope)
    return scope["VLLM_TARGET_DEVICE"]
def prepare_metadata_for_build_wheel(directory, config_settings=None):
    os.makedirs(os.path.join(directory, "vllm-0.32.0.dist-info"))
    with open(os.path.join(directory, "vllm-0.32.0.dist-info", "METADATA"), "w") as metadata:
        metadata.write(METADATA)
    return "vllm-0.32.0.dist-info"
METADATA = "Metadata-Version: 2.1\\nName: vllm\\nVersion: " + os.environ["VLLM_VERSION_OVERRIDE"] + "\\n"
def build_wheel(directory, config_settings=None, metadata_directory=None):
    import torch  # as the real one does: what was installed before is there
    if device() != "empty":
        raise SystemExit("it would compile for " + device())
    name = "vllm-0.32.0-py3-none-any.whl"
    with zipfile.ZipFile(os.path.join(directory, name), "w") as wheel:
        for path, text in FILES.items():
            wheel.writestr(path, text)
        wheel.writestr("vllm-0.32.0.dist-info/METADATA", METADATA)
        wheel.writestr("vllm-0.32.0.dist-info/WHEEL",
                       "Wheel-Version: 1.0\\nGenerator: test\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n")
        wheel.writestr("vllm-0.32.0.dist-info/RECORD", "")
    return name
"""
SETUP = f'{source.OVERRULES}\n    VLLM_TARGET_DEVICE = "cpu"\n'


def write_source(directory: Path, setup: str = SETUP) -> str:
    """Its hash."""
    files = {
        "pyproject.toml": '[build-system]\nrequires = []\nbuild-backend = "backend"\nbackend-path = ["."]\n',
        "backend.py": BACKEND.format(files=fake_vllm()),
        "setup.py": setup,
        "PKG-INFO": "Metadata-Version: 2.1\nName: vllm\nVersion: 0.32.0\n",
    }
    path = directory / "vllm-0.32.0.tar.gz"
    with tarfile.open(path, "w:gz") as archive:
        for name, text in files.items():
            member = tarfile.TarInfo(f"vllm-0.32.0/{name}")
            member.size = len(text.encode())
            archive.addfile(member, io.BytesIO(text.encode()))
    return hashlib.sha256(path.read_bytes()).hexdigest()


def environments_of(tmp_path: Path, digest: str) -> Environments:
    wheels = tmp_path / "wheels"
    write_wheel(wheels, "torch", "2.13.0", {"torch/__init__.py": '__version__ = "2.13.0"\n'})
    torch = hashlib.sha256((wheels / "torch-2.13.0-py3-none-any.whl").read_bytes()).hexdigest()
    pins = f"# builds: vllm\ntorch==2.13.0 \\\n    --hash=sha256:{torch}\nvllm==0.32.0 \\\n    --hash=sha256:{digest}\n"
    environ = pip_environ(wheels)
    return Environments(tmp_path / "environments", environ=environ, lists={LIST_NAME: parse_list(LIST_NAME, pins)})


@pytest.fixture
def wheels(tmp_path: Path) -> Path:
    (tmp_path / "wheels").mkdir()
    return tmp_path / "wheels"


def test_source_is_built_after_the_wheels_and_compiles_nothing_on_a_mac(tmp_path: Path, wheels: Path) -> None:
    environments = environments_of(tmp_path, write_source(wheels))
    steps: list[Progress] = []
    installed = asyncio.run(environments.ensure(environments.choose("vllm", CPU), steps.append))
    assert (installed.platform, installed.versions["torch"]) == ("CpuPlatform", "2.13.0")
    assert {"fetching vllm as source", "building vllm without kernels"} <= {step.step for step in steps}
    assert asyncio.run(environments.verify(environments.choose("vllm", CPU), silent)).platform == "CpuPlatform"
    assert list(installed.path.glob("lib/python*/site-packages/vllm/__pycache__/__init__.*.pyc"))
    assert not (installed.path / "tmp").exists()


def test_source_with_another_hash_is_not_built(tmp_path: Path, wheels: Path) -> None:
    write_source(wheels)
    environments = environments_of(tmp_path, "0" * 64)
    with pytest.raises(ProvisionError, match=r"(?s)pip failed.*(hash|HASH)"):
        asyncio.run(environments.ensure(environments.choose("vllm", CPU), silent))


def test_source_whose_build_is_not_known_is_not_built(tmp_path: Path, wheels: Path) -> None:
    environments = environments_of(tmp_path, write_source(wheels, 'VLLM_TARGET_DEVICE = "cuda"\n'))
    with pytest.raises(ProvisionError, match="not the one that this version of the appliance knows"):
        asyncio.run(environments.ensure(environments.choose("vllm", CPU), silent))


BUILD = ("setuptools-scm", "setuptools-rust", "wheel", "setuptools", "packaging", "vcs-versioning", "semantic-version")


@pytest.mark.engine
def test_vllms_own_source_is_built_and_needs_nothing_but_the_macos_list(metal_python: Path, tmp_path: Path) -> None:
    """The build for macOS, on Linux, where the same condition is asked and not met."""
    listed = shipped_lists()["vllm-metal-macos-aarch64"]
    pins = [f"{name}=={listed.pins[name]}" for name in BUILD]
    install: list[str | Path] = [
        sys.executable,
        "-m",
        "pip",
        "install",
        "--quiet",
        "--no-deps",
        "--target",
        tmp_path / "build",
        *pins,
    ]
    subprocess.run(install, check=True, capture_output=True)
    (tmp_path / "source.txt").write_text(listed.source)
    # torch of the environment, and what builds beside it: `-I` would leave both out.
    environ = {**os.environ, **source.variables("0.32.0"), "PYTHONPATH": str(tmp_path / "build")}

    def pip(argv: tuple[str | Path, ...]) -> None:
        words = [word for word in argv if word != "-I"]
        done = subprocess.run(words, env=environ, check=False, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]

    pip(source.fetch_argv(metal_python, tmp_path / "source.txt", tmp_path))
    tree = source.unpack(tmp_path, "vllm")
    wheel_argv = source.install_argv(metal_python, tree)
    pip(
        (*wheel_argv[: wheel_argv.index("install")], "wheel", "--no-deps", "--no-build-isolation", "-w", tmp_path, tree)
    )
    (wheel,) = tmp_path.glob("vllm-0.32.0-*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        metadata = message_from_bytes(archive.read("vllm-0.32.0.dist-info/METADATA"))
    assert "vllm/entrypoints/openai/api_server.py" in names
    assert [name for name in names if re.search(r"\.(so|dylib)$|/vllm-rs$", name)] == []
    assert wanting(metadata.get_all("Requires-Dist") or []) == []


def wanting(requirements: list[str]) -> list[str]:
    """What of these the macOS list does not meet on a Mac, with any Python that it is for."""
    listed = shipped_lists()["vllm-metal-macos-aarch64"]
    found = []
    for python in listed.pythons:
        mac = {"sys_platform": "darwin", "platform_system": "Darwin", "platform_machine": "arm64", "extra": ""}
        mac |= {"python_version": python, "python_full_version": f"{python}.1"}
        for requirement in map(Requirement, requirements):
            if requirement.marker and not requirement.marker.evaluate(mac):
                continue
            version = listed.pins.get(re.sub(r"[-_.]+", "-", requirement.name).lower(), "")
            if not version or not requirement.specifier.contains(version, prereleases=True):
                found.append(f"{python}: {requirement} (the list has {version or 'none'})")
    return found
