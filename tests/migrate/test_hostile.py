"""Inputs made to break the reader, the report or the disk."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from appliance.migrate.inputs import LARGEST
from tests.migrate.golden import contents, run

COMPOSE = "services: {app: {image: app, models: [llm]}}\nmodels: {llm: {model: ai/smollm2}}\n"


def migrated(directory: Path, *arguments: str, code: int = 1) -> str:
    found, printed = run(["migrate", *arguments, "--target", "m2-16gb"], directory, {})
    assert found == code, printed
    assert "Traceback" not in printed
    assert "bug:" not in printed
    return printed


def test_ten_megabytes_are_refused_before_they_are_parsed(tmp_path: Path) -> None:
    (tmp_path / "compose.yaml").write_text(COMPOSE + "# " + "x" * 10 * 1024 * 1024)
    assert f"at most {LARGEST:,} are read" in migrated(tmp_path, "compose.yaml")
    assert list(contents(tmp_path)) == ["compose.yaml"]


@pytest.mark.parametrize(
    "content",
    [
        b"\xff\xfe" + COMPOSE.encode("utf-16-le"),
        b"\xef\xbb\xbf" + COMPOSE.encode(),
        b"caf\xe9: 1\n",
        b"\x89PNG\r\n\x1a\n\x00\x00",
        b"a: \x00\n",
    ],
    ids=["utf-16", "byte order mark", "latin-1", "png", "nul"],
)
def test_files_that_are_no_text_are_refused(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "compose.yaml").write_bytes(content)
    migrated(tmp_path, "compose.yaml")
    assert list(contents(tmp_path)) == ["compose.yaml"]


@pytest.mark.parametrize(
    "text",
    ["[" * 200 + "]" * 200, "a: " * 1 + "{b: " * 100 + "1" + "}" * 100, "- " * 300 + "x"],
    ids=["lists", "mappings", "dashes"],
)
@pytest.mark.parametrize("name", ["compose.yaml", "inspect.json"])
def test_nesting_without_end_is_refused(name: str, text: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(text)
    migrated(tmp_path, name)


def test_a_directory_or_a_missing_file_is_no_input(tmp_path: Path) -> None:
    assert "is a directory" in migrated(tmp_path, ".")
    assert "there is no such file" in migrated(tmp_path, "compose.yaml")


def test_a_file_that_has_nothing_to_do_with_models_is_told_and_no_success(tmp_path: Path) -> None:
    (tmp_path / "backup.sh").write_text("rsync -a /home /mnt\n")
    assert "nothing in `backup.sh` runs a model" in migrated(tmp_path, "backup.sh", "--report", "report.md")
    assert list(contents(tmp_path)) == ["backup.sh"]


def test_a_file_that_may_not_be_read_is_refused(tmp_path: Path) -> None:
    (tmp_path / "compose.yaml").write_text(COMPOSE)
    (tmp_path / "compose.yaml").chmod(0)
    capabilities = "-dac_override,-dac_read_search"  # by which root may read everything
    as_anybody = ["setpriv", f"--bounding-set={capabilities}", f"--inh-caps={capabilities}"] if not os.geteuid() else []
    command = [*as_anybody, sys.executable, "-m", "appliance", "migrate", "compose.yaml", "--target", "m2-16gb"]
    environ = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(command, cwd=tmp_path, env=environ, timeout=60, check=False, capture_output=True, text=True)
    assert done.returncode == 1
    assert "error: `compose.yaml`" in done.stderr
    assert "permission denied" in done.stderr.lower()
    assert [path.name for path in tmp_path.iterdir()] == ["compose.yaml"]


def test_a_link_out_of_the_folder_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "secret.env").write_text("TOKEN=top-secret-value\n")
    project = tmp_path / "project"
    project.mkdir()
    (project / "link.env").symlink_to(tmp_path / "secret.env")
    (project / "link.yaml").symlink_to(tmp_path / "other.yaml")
    (project / ".env").symlink_to(tmp_path / "secret.env")
    (tmp_path / "other.yaml").write_text("services: {stolen: {image: x}}\n")
    (project / "compose.yaml").write_text(
        "include: [link.yaml]\nservices:\n  vllm: {image: vllm/vllm-openai, env_file: link.env,"
        " command: '--model Qwen/Qwen3-0.6B ${TOKEN}'}\n"
    )
    printed = migrated(project, "compose.yaml", code=4)
    assert "top-secret-value" not in printed
    assert "stolen" not in printed
    assert not any(
        "top-secret-value" in text for name, text in contents(project).items() if name not in ("link.env", ".env")
    )


def test_many_includes_are_refused(tmp_path: Path) -> None:
    for number in range(40):
        (tmp_path / f"{number}.yaml").write_text(f"services: {{s{number}: {{image: app}}}}\n")
    names = json.dumps([f"{number}.yaml" for number in range(40)])
    (tmp_path / "compose.yaml").write_text(f"include: {names}\n{COMPOSE}")
    assert "more than 32 files" in migrated(tmp_path, "compose.yaml")


def test_interpolation_does_not_grow_without_end(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("A=${B}${B}\nB=${A}${A}\n")
    (tmp_path / "compose.yaml").write_text(COMPOSE.replace("ai/smollm2", "'ai/${A}'"))
    migrated(tmp_path, "compose.yaml", code=4)


def test_control_characters_do_not_reach_the_terminal(tmp_path: Path) -> None:
    (tmp_path / "serve.sh").write_text("vllm serve Qwen/Qwen3-0.6B --no-such 'x\x1b[2Jy\u202e'\n")
    printed = migrated(tmp_path, "serve.sh", code=4)
    assert "\x1b" not in printed
    assert "\u202e" not in printed


def test_markdown_cannot_be_broken_out_of(tmp_path: Path) -> None:
    (tmp_path / "serve.sh").write_text("vllm serve Qwen/Qwen3-0.6B --no-such '`| <script>alert(1)</script>'\n")
    migrated(tmp_path, "serve.sh", "--report", "report.md", code=4)
    report = (tmp_path / "report.md").read_text()
    assert "<script>" not in report
    rows = [line for line in report.splitlines() if "--no-such" in line]
    assert [line.replace("\\|", "").count("|") for line in rows] == [6]


def test_names_that_would_match_everything_are_no_aliases(tmp_path: Path) -> None:
    (tmp_path / "serve.sh").write_text("vllm serve Qwen/Qwen3-0.6B --served-model-name '*' '[a-z]?'\n")
    printed = migrated(tmp_path, "serve.sh", code=4)
    assert "match any name" in printed
    assert "'*'" not in (tmp_path / "model-runner.yaml").read_text()


def test_a_profile_name_cannot_leave_its_folder(tmp_path: Path) -> None:
    (tmp_path / "compose.yaml").write_text(COMPOSE)
    for name in ("../x", "a/b", "", ".hidden", "x\n"):
        assert "no name for a profile" in migrated(tmp_path, "compose.yaml", "--name", name)
    assert list(contents(tmp_path)) == ["compose.yaml"]


def test_a_name_in_the_input_cannot_become_a_path(tmp_path: Path) -> None:
    (tmp_path / "serve.sh").write_text("vllm serve ../../../../etc --served-model-name ../../../tmp/evil\n")
    migrated(tmp_path, "serve.sh", code=0)
    assert sorted(contents(tmp_path)) == ["model-runner.yaml", "profiles/metal.yaml", "serve.sh"]


def test_nothing_is_written_where_one_of_the_files_cannot_be(tmp_path: Path) -> None:
    (tmp_path / "compose.yaml").write_text(COMPOSE)
    (tmp_path / "profiles").write_text("a file where a directory should be\n")
    migrated(tmp_path, "compose.yaml")
    assert sorted(contents(tmp_path)) == ["compose.yaml", "profiles"]


def test_what_was_there_is_kept_beside_what_replaces_it(tmp_path: Path) -> None:
    (tmp_path / "compose.yaml").write_text(COMPOSE)
    (tmp_path / "compose.yaml").chmod(0o640)
    (tmp_path / "model-runner.yaml").write_text("# mine\n")
    migrated(tmp_path, "compose.yaml", "--in-place", code=0)
    assert (tmp_path / "compose.yaml.bak").read_text() == COMPOSE
    assert (tmp_path / "model-runner.yaml.bak").read_text() == "# mine\n"
    assert stat.S_IMODE((tmp_path / "compose.yaml").stat().st_mode) == 0o640
    assert not list(tmp_path.glob(".*"))  # no temporary file is left


def test_several_files_with_mistakes_are_named_each(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("services: {app: [\n")
    assert "a.yaml:2" in migrated(tmp_path, "a.yaml")


def test_a_killed_migration_leaves_whole_files(tmp_path: Path) -> None:
    """Whatever is there is complete: each file is written beside its place and renamed."""
    (tmp_path / "compose.yaml").write_text(COMPOSE)
    killing = (
        "import os, sys\n"
        "real, left = os.replace, [int(sys.argv[1])]\n"
        "def replace(*arguments):\n"
        "    if not left[0]:\n"
        "        os._exit(9)\n"
        "    left[0] -= 1\n"
        "    real(*arguments)\n"
        "os.replace = replace\n"
        "from appliance.cli.app import run\n"
        "sys.exit(run(['migrate', 'compose.yaml', '--target', 'm2-16gb']))\n"
    )
    for written in range(3):
        command = [sys.executable, "-c", killing, str(min(written, 1))]  # one more file than the time before
        environ = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
        killed = subprocess.run(command, cwd=tmp_path, env=environ, timeout=60, check=False, capture_output=True)
        assert killed.returncode == 9
        whole = [tmp_path / "profiles" / "metal.yaml", tmp_path / "model-runner.yaml"][:written]
        assert [path.read_text()[-1] for path in whole] == ["\n"] * written
    assert migrated(tmp_path, "compose.yaml", code=0)


def test_an_env_file_named_by_its_whole_path_is_rewritten_too(tmp_path: Path) -> None:
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    (folder / ".env").write_text("MODEL_PATH=ai/smollm2\nAPI_KEY=a-key-that-is-long\nPORT=9000\n")
    migrated(tmp_path, str(folder / ".env"), code=0)
    written = (folder / ".env.appliance").read_text()
    assert written.endswith("# PORT: in model-runner.yaml now\nMETAL_DEVICE=default\n")
    assert "a-key-that-is-long" not in written


@pytest.mark.parametrize(
    "name", ["qwen" * 50_000, "hf.co/a/" + "gemma-" * 25_000 + "GGUF:Q4_K_M", "-a1" * 50_000, "1x" * 75_000]
)
def test_a_name_without_end_costs_no_more_than_it_has_letters(name: str, tmp_path: Path) -> None:
    (tmp_path / "compose.yaml").write_text(f"services: {{app: {{models: [m]}}}}\nmodels: {{m: {{model: {name}}}}}\n")
    code, printed = run(["migrate", "compose.yaml", "--target", "m2-16gb"], tmp_path, {})
    assert code in (0, 4), printed[-500:]
