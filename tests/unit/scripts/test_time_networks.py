"""The table of scripts/time_networks.py."""

import pytest
import torch
from time_networks import main, networks, prepared


@pytest.fixture(autouse=True)
def threads():
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def test_a_row_for_each_network_and_size(capsys):
    main(["--batch-size", "2", "--repeats", "1", "--sides", "16", "24"])
    lines = capsys.readouterr().out.splitlines()[2:]
    assert len(lines) == 10
    assert [line.split("|")[2].strip() for line in lines] == ["16", "24"] * 5
    assert all(float(cell) > 0 for line in lines for cell in line.split("|")[3:5])


def test_operations_are_counted_as_by_hand():
    """Forward and twice that backward, but for the gradient of the images, which nobody asks for."""
    timed = prepared("name", networks()["resnet_small 64-128-256"], 48, 2)
    stem = 24**2 * 9 * 4 * 64
    products = stem + 24**2 * 3 * 9 * 64 * 64 + 12**2 * 9 * 128 * (64 + 2 * 128) + 6**2 * 9 * 256 * (128 + 2 * 256)
    assert timed.gflop == pytest.approx(2 * 2 * (3 * products - stem) / 1e9, rel=1e-6)
