"""Secrets planted everywhere are in no byte of the archive."""

from __future__ import annotations

import base64
import json
import tarfile
import tempfile
from dataclasses import replace
from pathlib import Path
from urllib.parse import quote

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from appliance.cli.loading import read_with
from appliance.doctor import access, bundle
from appliance.doctor.finding import Finding
from appliance.doctor.redaction import Redaction, secrets_of
from appliance.doctor.scene import Scene
from appliance.state import StateDirectory

_VISIBLE = st.characters(min_codepoint=33, max_codepoint=0x2FFF, exclude_categories=["Cs", "Cc", "Zs", "Zl", "Zp"])
REFUSED = json.dumps({"event": "request", "status": 401, "path": "/v1/models", "reason": "no_key"})
SECRET = st.text(_VISIBLE, min_size=8, max_size=40)
LIKELY = st.sampled_from(["sk-", "hf_", "ghp_", "Bearer "]).flatmap(
    lambda start: st.from_regex(r"[A-Za-z0-9]{20,40}", fullmatch=True).map(lambda rest: start + rest)
)


def packed(scene: Scene, findings: list[Finding]) -> str:
    """All that the archive holds, names included."""
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / "report.tar.gz"
        bundle.write(path, scene, findings)
        with tarfile.open(path) as archive:
            members = [(member.name, archive.extractfile(member)) for member in archive.getmembers()]
            return "\n".join(name + "\n" + (file.read().decode() if file else "") for name, file in members)


def scene_with(secret: str, root: Path) -> Scene:
    """One in which it is in the file, the environment, the logs in several spellings, the history and the status."""
    state = StateDirectory(root / "home")
    state.prepare()
    environ = {
        "HF_TOKEN": secret,
        "MY_SECRET": secret,
        "API_KEY": secret,
        "HTTPS_PROXY": f"http://user:{quote(secret, safe='')}@proxy:8080",
        "APPLIANCE_HUGGINGFACE__TOKEN": "${env:HF_TOKEN}",
        "HOME": str(root),
    }
    (root / "secret.txt").write_text(secret)
    file = root / "model-runner.yaml"
    written = json.dumps(secret.replace("${", "$${"))
    file.write_text(
        "version: 1\nbackend: own\n"
        f"backends: {{own: {{command: [x], env: {{A: {written}, B: '${{file:{root}/secret.txt}}'}}}}}}\n"
        f"models: {{tiny: {{source: ./w, env: {{C: '${{env:MY_SECRET}}', D: {written}}}}}}}\n"
    )
    spellings = [
        secret, json.dumps(secret), repr(secret), f"token={secret}", f"Authorization: Bearer {secret}",
        f"https://user:{quote(secret, safe='')}@host/x", base64.b64encode(secret.encode()).decode(),
        json.dumps({"event": "request", "error": secret}), f"'{secret}'",
    ]  # fmt: skip
    (state.logs / "tiny.log").write_text("\n".join(spellings) + "\n")
    entry = {"generation": 1, "time": "t", "sha256": "0", "text": file.read_text(), "path": str(file), "changes": {},
             "revisions": {}, "result": "degraded", "message": f"the engine said {secret}"}  # fmt: skip
    (state.history / "000001.json").write_text(json.dumps(entry))
    known = {name: value for name, value in environ.items() if name in {"MY_SECRET", "HOME"}}
    status = {"models": [{"name": "tiny", "conditions": [{"message": f"failed: {secret}"}]}], secret: secret}
    return Scene(state, environ, file, read_with(file, known), None, status, spellings, quick=True)


def spellings_of(secret: str) -> set[str]:
    return {secret, json.dumps(secret)[1:-1], repr(secret)[1:-1], quote(secret, safe="")}


@settings(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.too_slow])
@given(SECRET)
def test_no_planted_secret_is_in_the_archive(secret: str) -> None:
    with tempfile.TemporaryDirectory() as scratch:
        scene = scene_with(secret, Path(scratch))
        text = packed(scene, [Finding("x", "problem", f"found {secret}", secret, f"send {secret}")])
    assert not [form for form in spellings_of(secret) if form in text]


@settings(deadline=None, max_examples=20)
@given(LIKELY)
def test_what_looks_like_a_secret_is_taken_out_though_nobody_knows_it(secret: str) -> None:
    with tempfile.TemporaryDirectory() as scratch:
        state = StateDirectory(Path(scratch) / "home")
        state.prepare()
        (state.logs / "tiny.log").write_text(f"downloading with {secret}\n")
        text = packed(Scene(state, {}, Path("x"), log=[f'{{"sent": "{secret}"}}']), [])
    assert secret not in text
    assert secret.removeprefix("Bearer ") not in text
    assert "downloading with" in text, "the rest stays readable"


def test_words_that_are_no_secret_stay() -> None:
    redaction = Redaction(["hunter2hunter2"])
    line = "model tiny: the engine exited (exit code 1), needs 3.0 GiB, revision 1a2b3c4d at http://127.0.0.1:8000/v1"
    assert redaction.text(line) == line


def test_what_every_shell_and_desktop_sets_is_no_secret(tmp_path: Path) -> None:
    environ = {"PWD": "/srv/models", "OLDPWD": "/srv", "XDG_SESSION_CLASS": "user", "DB_PWD": "correct horse"}
    known = set(secrets_of(Scene(StateDirectory(tmp_path), environ, tmp_path / "none.yaml")))
    assert known == {"correct horse"}


def test_a_remedy_that_shows_where_a_key_goes_stays_as_it_is(tmp_path: Path) -> None:
    scene = Scene(StateDirectory(tmp_path), {}, tmp_path / "none.yaml", log=[REFUSED])
    (finding,) = access.check(scene)
    assert "`x-api-key: KEY`" in finding.remedy
    assert Redaction(()).finding(finding) == finding


def test_one_secret_inside_another_leaves_no_rest() -> None:
    assert "def" not in Redaction(["abcdef", "abc"]).text("say abcdef")


def test_an_archive_without_a_valid_file_is_written_all_the_same(tmp_path: Path) -> None:
    state = StateDirectory(tmp_path / "home")
    scene = Scene(state, {}, tmp_path / "none.yaml", problem="there is no such file")
    assert "findings.json" in packed(replace(scene), [])
