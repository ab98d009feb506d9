"""An installer as a process of its own, to be killed or raced: `python -m tests.environments.installer ROOT LIST_FILE`.

Prints every step as it is reported, then `installed` and when.
"""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

from appliance.config.models import Environment
from appliance.environments.provision import Environments
from appliance.environments.requirements import parse_list
from tests.environments.wheelhouse import LIST_NAME


def main(root: str, file: str) -> None:
    requirements = parse_list(LIST_NAME, Path(file).read_text())
    environments = Environments(Path(root), environ=os.environ, lists={LIST_NAME: requirements})
    spec = environments.choose("vllm", Environment(accelerator="cpu"))
    installed = asyncio.run(environments.ensure(spec, lambda progress: print(progress.step, flush=True)))
    print("installed", installed.installed_at, flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
