"""A live edit is in force without an engine being touched."""

from __future__ import annotations

import openai
import pytest

from appliance.gateway.keys import new_key
from tests.cli.conftest import Machine
from tests.cli.test_reload import QUESTION
from tests.support import wait_until


def test_a_new_key_is_accepted_a_revoked_one_refused_and_no_engine_is_touched(machine: Machine) -> None:
    first, first_hash = new_key()
    second, second_hash = new_key()
    machine.write(more=f"auth: {{keys: [{{name: first, sha256: {first_hash}}}]}}")
    base = machine.up()
    pids = machine.engine_pids()
    machine.write(more=f"auth: {{keys: [{{name: second, sha256: {second_hash}}}]}}")
    wait_until(lambda: machine.status()["generation"] == 2, what="the save is in force")
    with openai.OpenAI(base_url=f"{base}/v1", api_key=second, max_retries=0) as sdk:
        assert sdk.chat.completions.create(model="tiny", messages=QUESTION).choices
    with openai.OpenAI(base_url=f"{base}/v1", api_key=first, max_retries=0) as sdk:  # noqa: SIM117
        with pytest.raises(openai.AuthenticationError):
            sdk.models.list()
    assert machine.engine_pids() == pids
