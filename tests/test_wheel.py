"""The wheel, installed alone, is the whole product."""

from __future__ import annotations

import json
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A virtual environment's bin directory with the wheel in it; its dependencies are this test run's own."""
    scratch = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", str(scratch), str(ROOT)]
    subprocess.run(build, check=True, capture_output=True, timeout=300)
    venv = scratch / "venv"
    subprocess.run([sys.executable, "-m", "venv", str(venv)], check=True, timeout=120)
    site = sysconfig.get_path("purelib", vars={"base": str(venv), "platbase": str(venv)})
    (wheel,) = scratch.glob("*.whl")
    install = [str(venv / "bin" / "python"), "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", str(wheel)]
    subprocess.run(install, check=True, capture_output=True, timeout=120)
    # Dependencies come from the running environment, after the wheel on the path: only the wheel is on trial.
    (Path(site) / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return venv / "bin"


def appliance(installed: Path, *arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    command = [str(installed / "python"), "-P", "-m", "appliance", *arguments]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=60, check=False)


def package(installed: Path, attribute: str, *, cwd: Path) -> str:
    command = [str(installed / "python"), "-P", "-c", f"import appliance; print(appliance.{attribute})"]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=True).stdout.strip()


def test_the_installed_package_is_the_wheel_and_not_this_checkout(installed: Path, tmp_path: Path) -> None:
    assert str(ROOT / "appliance") not in package(installed, "__file__", cwd=tmp_path)


def test_the_wheel_carries_profiles_and_migrations(installed: Path, tmp_path: Path) -> None:
    data = Path(package(installed, "__file__", cwd=tmp_path)).parent / "data"
    assert sorted(each.name for each in data.iterdir()) == ["migrations", "profiles"]


def test_the_wheel_carries_every_file_of_the_page(installed: Path, tmp_path: Path) -> None:
    shipped = Path(package(installed, "__file__", cwd=tmp_path)).parent / "gateway" / "ui"
    here = ROOT / "appliance" / "gateway" / "ui"
    assert sorted(each.name for each in shipped.iterdir()) == sorted(each.name for each in here.iterdir())
    assert (shipped / "index.html").read_text() == (here / "index.html").read_text()


def test_the_installed_command_validates_the_example_with_its_shipped_profile(installed: Path, tmp_path: Path) -> None:
    (tmp_path / "model-runner.yaml").write_text((ROOT / "model-runner.yaml").read_text())
    result = appliance(installed, "validate", cwd=tmp_path)
    assert result.returncode == 0, result.stderr


def test_the_installed_command_prints_the_schema(installed: Path, tmp_path: Path) -> None:
    result = appliance(installed, "config", "--format", "schema", cwd=tmp_path)
    assert "models" in json.loads(result.stdout)["properties"]
