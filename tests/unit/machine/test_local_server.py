"""Whom a server on this machine answers."""

import socket

import pytest

from engrec.machine.local_server import allowed


@pytest.mark.parametrize(
    ("header", "host", "answered"),
    [
        ("127.0.0.1:8765", "127.0.0.1", True),
        ("localhost", "127.0.0.1", True),
        ("LOCALHOST:1", "127.0.0.1", True),
        ("[::1]:8765", "127.0.0.1", True),
        ("evil.example", "127.0.0.1", False),
        ("evil.example:8765", "127.0.0.1", False),
        ("127.0.0.1.evil.example", "127.0.0.1", False),
        ("localhost.evil.example", "127.0.0.1", False),
        ("192.168.0.7", "127.0.0.1", False),
        ("", "127.0.0.1", False),
        ("192.168.0.7:8765", "0.0.0.0", True),
        (socket.gethostname(), "0.0.0.0", True),
        ("evil.example", "0.0.0.0", False),
    ],
)
def test_only_names_of_this_machine_are_answered(header, host, answered):
    assert allowed(header, host) is answered
