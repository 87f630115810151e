"""Ways to damage a file, for tests that no loader ends with an error of its own making."""

import os
from contextlib import contextmanager

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

DRAWS = int(os.environ.get("DRAWS", "60"))  # of each kind of file; `make test-all` draws more


def drawn(tests: int = 1) -> settings:
    """Settings of one of so many tests of a kind of file, which share its draws."""
    # A fixture of one function is shared by its draws on purpose: each writes its own file.
    each = -(-DRAWS // tests)
    return settings(max_examples=each, deadline=None, database=None, suppress_health_check=[*HealthCheck])


ODD_TEXTS = (
    "", " ", "nan", "-1", "1e9", "NaN", "inf", "99999999999999999999", "9" * 5000, "²", "٣", "0x1", "1_0", "a\tb",
    "a\nb", "\x00", "\x1b[31m", "é", "\udce9", "../../x", "/etc/passwd", "x" * 300, '"', "'", ",", ";", "=1+1", "None",
)  # fmt: skip


@st.composite
def damaged(draw, content):
    """Bytes that were cut, changed, doubled or filled with others."""
    content = bytearray(content)
    for _ in range(draw(st.integers(1, 3))):
        at = draw(st.integers(0, max(len(content) - 1, 0)))
        length = draw(st.sampled_from([1, 2, 4, 16, 200]))
        match draw(st.sampled_from(["cut", "flip", "insert", "zero", "ones", "drop", "double"])):
            case "cut":
                del content[at:]
            case "flip":
                content[at : at + 1] = bytes(byte ^ (1 << draw(st.integers(0, 7))) for byte in content[at : at + 1])
            case "insert":
                content[at:at] = draw(st.binary(min_size=1, max_size=length))
            case "zero":
                content[at : at + length] = bytes(len(content[at : at + length]))
            case "ones":
                content[at : at + length] = b"\xff" * len(content[at : at + length])
            case "drop":
                del content[at : at + length]
            case "double":
                content[at:at] = content[at : at + length]
    return bytes(content)


def in_one_line(load, *arguments):
    """Call a loader: it may succeed or raise ValueError with one line, nothing else."""
    value = None
    with refusals() as messages:
        value = load(*arguments)
    for message in messages:
        assert message.strip(), "a refusal without a reason"
        assert len(message) < 2000, message[:2000]
    return value


@contextmanager
def refusals():
    messages = []
    try:
        yield messages
    except ValueError as error:
        messages.append(str(error))
