"""The site builds, and no link in it leads nowhere."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from appliance.cli import reference

ROOT = Path(__file__).parents[2]


def build(directory: Path, target: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(target)]
    environ = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    return subprocess.run(command, cwd=directory, env=environ, capture_output=True, text=True, check=False, timeout=120)


def test_the_site_builds_without_a_warning(tmp_path: Path) -> None:
    result = build(ROOT, tmp_path / "site")
    assert result.returncode == 0, result.stderr
    home = (tmp_path / "site" / "index.html").read_text()
    assert "fonts.googleapis" not in home, "reading it asks no other host"


def test_a_link_that_leads_nowhere_fails_the_build(tmp_path: Path) -> None:
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "index.md").write_text("[lost](nowhere.md) and [a file](../LOST)\n")
    settings = (ROOT / "mkdocs.yml").read_text().partition("\nnav:")[0]
    (tmp_path / "mkdocs.yml").write_text(settings.replace("tools/site_links.py", str(ROOT / "tools" / "site_links.py")))
    result = build(tmp_path, tmp_path / "site")
    assert result.returncode != 0
    assert "nowhere.md" in result.stderr
    assert "../LOST" in result.stderr


def test_the_commands_reference_is_up_to_date(tmp_path: Path) -> None:
    assert reference.main(["--check"]) == 0, f"run `{reference.WRITE}`"
    assert reference.main(["--check", "--root", str(tmp_path)]) == 1
    assert reference.main(["--write", "--root", str(tmp_path)]) == 0
    assert reference.main(["--check", "--root", str(tmp_path)]) == 0


def test_the_commands_reference_has_every_command_with_its_options() -> None:
    text = reference.reference_markdown()
    for command in ("up", "service install", "doctor", "compose up", "env verify", "key create"):
        assert f"## `appliance {command}`" in text
    assert "| `--bundle` |" in text
