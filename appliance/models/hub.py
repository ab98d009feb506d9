"""The download process for `hf:` sources, `python -m appliance.models.hub`: it alone imports huggingface_hub.

Says at last `{"files": …, "commit": …}`. The token comes in HF_TOKEN, never in an argument.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from appliance.models.hub_files import RemoteFile, choose
from appliance.models.hub_transfer import Transfer, connection_errors
from appliance.models.say import Failed, run

_DIGEST = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="hub")
    parser.add_argument("--repository", required=True)
    parser.add_argument("--revision")
    parser.add_argument(
        "--files", help="a directory of the repository, globs with commas between, or a GGUF's quantization"
    )
    parser.add_argument("--blobs", type=Path, help="files that are here already, by SHA-256")
    parser.add_argument("--heads", action="store_true", help="weights as sparse files that hold their headers alone")
    parser.add_argument("--resolve", action="store_true", help="say the commit and fetch nothing")
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args(arguments)
    os.environ |= {"HF_HUB_DISABLE_XET": "1", "HF_HUB_DISABLE_TELEMETRY": "1", "HF_HUB_DISABLE_UPDATE_CHECK": "1"}

    def work() -> dict[str, Any]:
        commit, files = listing(options.repository, options.revision, options.files)
        if options.resolve:
            return {"commit": commit}
        transfer = Transfer(options.repository, commit, options.out, options.blobs)
        return {"commit": commit, "files": transfer.heads(files) if options.heads else transfer.run(files)}

    return run(work, options.out)


def listing(repository: str, revision: str | None, wanted: str | None) -> tuple[str, list[RemoteFile]]:
    """The commit that `revision` stands for now, and the files of it that serving needs."""
    from huggingface_hub import HfApi, constants
    from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, RepositoryNotFoundError, RevisionNotFoundError

    where = f"`hf:{repository}`"
    try:
        info = HfApi().model_info(repository, revision=revision, files_metadata=True, timeout=30)
    except GatedRepoError as error:
        hint = f"accept its terms at {constants.ENDPOINT}/{repository} and set HF_TOKEN to a token of that account"
        raise Failed("missing", f"{where} is gated", hint) from error
    except RevisionNotFoundError as error:
        raise Failed(
            "missing", f"{where} has no revision `{revision}`", "a branch, a tag or a commit is needed"
        ) from error
    except RepositoryNotFoundError as error:
        hint = (
            "the token in HF_TOKEN may not see it" if os.environ.get("HF_TOKEN") else "if it is private, set HF_TOKEN"
        )
        raise Failed("missing", f"{where} does not exist on {constants.ENDPOINT}, or is private", hint) from error
    except HfHubHTTPError as error:
        raise _refused(where, error.response.status_code) from error
    except connection_errors() as error:
        raise Failed(
            "transfer",
            f"{where}: {constants.ENDPOINT} cannot be reached: {error}",
            "check the network, HF_ENDPOINT and HF_HUB_OFFLINE, then try again",
        ) from error
    files = choose(where, info.siblings or [], wanted)
    # They become parts of paths here, so the hub's word that they are digests is not enough.
    if not all(
        _DIGEST.fullmatch(each) for each in [str(info.sha), *(file.sha256 or file.blob or "" for file in files)]
    ):
        raise Failed("transfer", f"{where}: the hub gave no usable digests of its files", "check HF_ENDPOINT")
    return str(info.sha), files


def _refused(where: str, status: int) -> Failed:
    if status in (401, 403):
        return Failed("missing", f"{where}: access was refused ({status})", "check the token in HF_TOKEN")
    return Failed("transfer", f"{where}: the hub answered {status}", "try again later")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
