"""Whose the other end of a connection on loopback is, by the kernel's own table."""

from __future__ import annotations

import os
import socket

import pytest

from appliance.gateway.peer import NOBODY, TABLES, owner

pytestmark = pytest.mark.skipif(not TABLES[0].exists(), reason="this system does not tell whose a connection is")


@pytest.mark.parametrize(
    ("listens", "connects"), [("127.0.0.1", "127.0.0.1"), ("::1", "::1"), ("::ffff:127.0.0.1", "127.0.0.1")]
)
def test_a_connection_of_our_own_is_ours_in_either_family(listens: str, connects: str) -> None:
    family = socket.AF_INET6 if ":" in listens else socket.AF_INET
    with socket.socket(family) as listener:
        listener.bind((listens, 0))
        listener.listen()
        with socket.create_connection((connects, listener.getsockname()[1])) as ours:
            accepted, client = listener.accept()
            with accepted:
                server = accepted.getsockname()
                assert owner(client[:2], server[:2]) == os.geteuid()
                # The same two ends the other way round are the server's, and somebody else's port is nobody's.
                assert ours.getsockname()[1] == client[1]
                assert owner((client[0], 1), server[:2]) == NOBODY


def test_a_connection_that_nobody_has_is_nobodys() -> None:
    assert owner(("127.0.0.1", 9), ("127.0.0.1", 10)) == NOBODY
