"""The weights that come with engrec: each is small, loads by its name, and its card says what must be said."""

import pytest

from engrec import checkpoint, weights_file
from engrec.modules.build import loaded_module

# Each folder of engrec/weights and what its card must say besides.
SHIPPED = {
    "expressions": ("FER-2013", "model=resnet_small"),
    "ferplus": ("FER+", "model=resnet_small"),
    "engagement": ("Research demonstration", "17 people", "WACV-2016"),
}
MOST_BYTES = 6 * 2**20
# What docs/intended_use.md says of every network, and what a reader needs to judge and to load it.
ON_EVERY_CARD = (
    "license: ", "model-index:", "## Must not be used for", "Article 5(1)(f)", "Judging, grading, ranking",
    "95 % intervals", "commit ", "python train.py", "without a margin", "Temperature ",
)  # fmt: skip


def test_every_folder_of_weights_is_tested_here():
    assert weights_file.names() == sorted(SHIPPED)


@pytest.mark.parametrize("name", SHIPPED)
def test_weights_and_card(name):
    path = f"engrec:{name}"
    assert weights_file.located(path).stat().st_size <= MOST_BYTES
    saved = checkpoint.read(path)
    assert saved["provenance"]["command"]
    assert saved["provenance"]["commit"]
    assert "-dirty" not in saved["provenance"]["commit"]
    loaded_module(path, saved)
    card = (weights_file.SHIPPED / name / "README.md").read_text(encoding="utf-8")
    missing = [words for words in (*ON_EVERY_CARD, *SHIPPED[name], f"init_from={path}") if words not in card]
    assert not missing
    assert "To be filled in" not in card


@pytest.mark.parametrize("name", SHIPPED)
def test_changed_weights_are_noticed(name):
    content = bytearray(weights_file.located(f"engrec:{name}").read_bytes())
    content[-1] ^= 64
    with pytest.raises(ValueError, match="is damaged: its weights or their description have changed"):
        weights_file.unpack(bytes(content))
