"""FER+'s rules on votes made by hand, and its join with FER-2013."""

import numpy as np
import pytest

from engrec.datasets.prepared import Faces
from engrec.importers import ferplus

HEADER = "Usage,Image name,neutral,happiness,surprise,sadness,anger,disgust,fear,contempt,unknown,NF"
ONE_OF_EACH = [[10 if column == label else 0 for column in range(10)] for label in range(8)]


@pytest.fixture
def fer(tmp_path):
    """fer2013.csv with as many rows as asked for; row i has pixels i, the emotions take turns."""

    def fer(num_rows):
        rows = [f"{row % 7},{' '.join([str(row)] * 2304)},Training" for row in range(num_rows)]
        (tmp_path / "fer2013.csv").write_text("\n".join(["emotion,pixels,Usage", *rows, ""]))
        return tmp_path / "fer2013.csv"

    return fer


@pytest.fixture
def write(tmp_path):
    def write(votes, header=HEADER, usage="Training", names=None):
        names = names or [f"fer{row:07}.png" for row in range(len(votes))]
        rows = [f"{usage},{name},{','.join(map(str, row))}" for name, row in zip(names, votes, strict=True)]
        (tmp_path / "fer2013new.csv").write_text("\n".join([header, *rows, ""]))
        return tmp_path / "fer2013new.csv"

    return write


@pytest.fixture
def soft_label(fer, write):
    """The soft label of one row of votes, or None where the image is dropped."""

    def soft_label(votes, rule):
        rows = [*ONE_OF_EACH, votes]
        faces = ferplus.read(fer(len(rows)), write(rows), rule)
        Faces(**faces)
        return faces["soft_labels"][8].tolist() if len(faces["labels"]) == 9 else None

    return soft_label


@pytest.mark.parametrize(
    ("votes", "majority", "probability"),
    [
        ([10, 0, 0, 0, 0, 0, 0, 0, 0, 0], {0: 1}, {0: 1}),
        ([6, 4, 0, 0, 0, 0, 0, 0, 0, 0], {0: 0.6, 1: 0.4}, {0: 0.6, 1: 0.4}),
        ([7, 1, 1, 1, 0, 0, 0, 0, 0, 0], {0: 1}, {0: 1}),  # single votes are noise
        ([5, 5, 0, 0, 0, 0, 0, 0, 0, 0], None, {0: 0.5, 1: 0.5}),  # half is no majority
        ([0, 0, 0, 8, 0, 0, 0, 0, 2, 0], {3: 1}, {3: 1}),
        ([4, 0, 0, 0, 0, 0, 0, 0, 6, 0], None, None),  # unknown on top
        ([0, 0, 0, 0, 0, 0, 0, 0, 0, 10], None, None),
        ([4, 0, 0, 0, 0, 0, 0, 0, 4, 2], None, None),  # four of ten are not more than half
        ([0, 0, 0, 0, 0, 3, 4, 0, 3, 0], None, {5: 3 / 7, 6: 4 / 7}),  # unknown ends the taking
        ([4, 2, 2, 2, 0, 0, 0, 0, 0, 0], None, None),  # more than three emotions
        ([5, 3, 2, 0, 0, 0, 0, 0, 0, 0], None, {0: 5 / 8, 1: 3 / 8}),  # three quarters are reached
        ([1, 1, 1, 1, 1, 1, 1, 1, 1, 1], None, None),
    ],
)
def test_the_rules(soft_label, votes, majority, probability):
    for rule, expected in (("majority", majority), ("probability", probability)):
        wanted = None if expected is None else [expected.get(label, 0) for label in range(8)]
        assert soft_label(votes, rule) == (wanted if wanted is None else pytest.approx(wanted)), rule


def test_rows_are_joined_in_order_and_images_without_a_name_are_out(fer, write):
    votes = [*ONE_OF_EACH, ONE_OF_EACH[3], ONE_OF_EACH[4]]
    names = [f"fer{row}.png" for row in range(8)] + ["", "fer9.png"]
    faces = ferplus.read(fer(10), write(votes, names=names))
    assert faces["images"][:, 0, 0, 0].tolist() == [0, 1, 2, 3, 4, 5, 6, 7, 9]
    assert faces["labels"].tolist() == [0, 1, 2, 3, 4, 5, 6, 7, 4]
    assert faces["sources"][-1] == "fer2013.csv:11"
    assert faces["soft_labels"].dtype == np.float32


@pytest.mark.parametrize(
    ("num_rows", "options", "parts"),
    [
        (9, {}, ["8 rows", "9", "complete"]),
        (8, {"usage": "PublicTest"}, ["line 2", "'PublicTest'", "same order"]),
        (8, {"header": HEADER.replace("fear", "dread")}, ["line 1", "column fear", "fer2013new.csv"]),
        (8, {"votes": [*ONE_OF_EACH[:3], ["x"] + [0] * 9, *ONE_OF_EACH[4:]]}, ["line 5", "not whole numbers"]),
        (8, {"votes": [*ONE_OF_EACH[:3], [1] * 9, *ONE_OF_EACH[4:]]}, ["line 5", "11 cells, expected 12"]),
        (8, {"votes": [ONE_OF_EACH[0]] * 8}, ["no image of class happiness", "contempt"]),
    ],
)
def test_votes_that_do_not_fit_are_named(fer, write, refused, num_rows, options, parts):
    message = refused("ferplus", fer(num_rows), write(options.pop("votes", ONE_OF_EACH), **options))
    for part in ["fer2013new.csv", *parts]:
        assert part in message


def test_image_folders_have_no_row_order(pack, encode, write, refused):
    content = {f"train/{c}/Training_1.png": encode() for c in ("angry", "disgust", "fear", "happy", "sad", "surprise")}
    source = pack({**content, "train/neutral/Training_1.png": encode()})
    assert "give fer2013.csv" in refused("ferplus", source, write(ONE_OF_EACH))


def test_votes_that_are_not_there(fer, tmp_path, refused):
    assert "nowhere.csv" in refused("ferplus", fer(8), tmp_path / "nowhere.csv")


def test_votes_in_another_order_are_joined_by_image_name(fer, write):
    """A hundred and more clear votes tell which join is right: here every name is a row further down."""
    right = np.array([4, 5, 6, 1, 3, 2, 0])[np.arange(150) % 7]
    shifted = np.roll(right, -1)
    votes = [[10 if column == label else 0 for column in range(10)] for label in [*shifted[:-2], 7, shifted[-1]]]
    names = [f"fer{(row + 1) % 150:07}.png" for row in range(150)]
    names[3] = names[2]  # no one can say whose votes these are
    faces = ferplus.read(fer(150), write(votes, names=names))
    assert "joined by image name" in faces["recipe"]["notes"][0]
    assert len(faces["labels"]) == 148
    rows = faces["images"][:, 0, 0, 0]
    assert not {3, 4} & set(rows.tolist())
    told = rows != 149  # the one vote for contempt
    np.testing.assert_array_equal(faces["labels"][told], right[rows[told]])


def test_votes_of_other_faces_are_refused(fer, write):
    votes = [[10 if column == (row * row) % 8 else 0 for column in range(10)] for row in range(150)]
    for label in range(8):
        votes[label] = ONE_OF_EACH[label]
    with pytest.raises(ValueError, match=r"agrees with FER-2013's labels in \d+% of the clear cases"):
        ferplus.read(fer(150), write(votes))
