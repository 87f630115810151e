import csv
import io
import itertools
import re
from dataclasses import replace

import audit as script
import numpy as np
import pytest
from different_people import different_people, noisy_copies, standard
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from scipy.stats import chi2_contingency
from scipy.stats.contingency import association

from engrec.datasets.faults import mark_faults
from engrec.datasets.prepared import Faces, without
from engrec.evidence import audit as module
from engrec.evidence.audit import audit
from engrec.evidence.out_of_fold import OutOfFold
from engrec.pages.audit import faults, html, markdown, suspects


@pytest.fixture(scope="module")
def rendered():
    return different_people(20)


def pairs(found):
    return {tuple(sorted(pair)) for pair in found.images.reshape(-1, 2).tolist()}


def compressed(image):
    file = io.BytesIO()
    Image.fromarray(image[0]).save(file, "JPEG", quality=70)
    return np.asarray(Image.open(file))[None]


def rescaled(image):
    return np.asarray(Image.fromarray(image[0]).resize((36, 36), Image.Resampling.BICUBIC).resize((48, 48)))[None]


def darkened(image):
    return (image * 0.6 + 10).astype(np.uint8)


def rows(text):
    return list(csv.DictReader(io.StringIO(text)))


@st.composite
def repeated(draw):
    """Faces of a few pictures, over and over, with labels, splits and subjects at random."""
    num_pictures = draw(st.integers(2, 6))
    picture = np.array([0, 1, *draw(st.lists(st.integers(0, num_pictures - 1), max_size=14))])
    stock = np.random.default_rng(0).integers(0, 256, (num_pictures, 1, 8, 8), np.uint8)
    number, rng = np.arange(len(picture)), np.random.default_rng(draw(st.integers(0, 99)))
    labels = np.where(number < 2, number, rng.integers(0, 2, len(number)))
    return Faces(
        images=stock[picture],
        labels=labels,
        class_names=("no", "yes"),
        sources=np.array([f"{i}.png" for i in number]),
        recipe={"name": "repeated"},
        subjects=rng.choice(["anna", "ben", "chris"], len(number)),
        splits=np.where(number < 2, "test", rng.choice(["train", "val", "test"], len(number))),
    )


@settings(max_examples=60, deadline=None)
@given(repeated())
def test_identical_images_are_those_that_a_dictionary_of_their_bytes_finds(faces):
    by_pixels = {}
    for i, image in enumerate(faces.images):
        by_pixels.setdefault(image.tobytes(), []).append(i)
    groups = [group for group in by_pixels.values() if len(group) > 1]
    found = audit(faces).identical
    assert sorted(found.members(k).tolist() for k in range(len(found))) == sorted(groups)
    for k in range(len(found)):
        members = found.members(k)
        assert found.conflicts[k] == (len(set(faces.labels[members])) > 1)
        assert found.across_splits[k] == (len(set(faces.splits[members])) > 1)
        assert found.across_subjects[k] == (len(set(faces.subjects[members])) > 1)
    for (one, other), count in found.joined.items():
        assert count == sum({one, other} <= set(faces.splits[group].tolist()) for group in groups)
    present = [side for side in ("train", "val", "test") if side in faces.splits]
    assert list(found.joined) == list(itertools.combinations(present, 2))


@settings(max_examples=30, deadline=None)
@given(repeated())
def test_what_can_be_excluded_is_what_excluding_leaves_out(faces):
    found = audit(faces)
    for kind, count in found.excludable.items():
        assert without(faces, [kind]).recipe["excluded_from_training"]["images"] == count


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 999), st.sampled_from([(9, 9), (16, 16), (20, 14)]), st.floats(0.8, 0.99))
def test_no_near_pair_is_missed_and_none_is_made_up(seed, size, near):
    """Against every correlation, of pictures of all frequencies with all amounts of noise, some of them mirrored."""
    rng = np.random.default_rng(seed)
    base = rng.normal(size=(4, 1, *size)).cumsum(-1).cumsum(-2) if seed % 2 else rng.normal(size=(4, 1, *size))
    images = noisy_copies(rng, base)
    faces = Faces(images, np.arange(30) % 2, ("no", "yes"), np.arange(30).astype(str), {"name": "noisy"})
    flat, turned = standard(images), standard(images[..., ::-1])
    as_is, mirrored = flat @ flat.T, flat @ turned.T
    found = audit(faces, near)
    clear = np.triu(np.minimum(abs(as_is - near), abs(mirrored - near)) > 1e-5, 1)  # not decided by rounding
    every = set(zip(*map(np.ndarray.tolist, np.nonzero(clear)), strict=True))
    assert pairs(found.near) & every == {(i, j) for i, j in every if as_is[i, j] >= near}
    assert pairs(found.mirrored) & every == {(i, j) for i, j in every if as_is[i, j] < near <= mirrored[i, j]}
    for (i, j), score in zip(found.near.images.reshape(-1, 2), found.near.score, strict=True):
        assert score == pytest.approx(as_is[i, j], abs=1e-4)


@pytest.mark.parametrize("change", [compressed, rescaled, darkened, lambda image: image.clip(0, 250) + 5])
def test_a_changed_copy_is_nearly_identical_and_nothing_else_is(rendered, make_faces, change):
    faces = make_faces(21, images=np.concatenate((rendered, change(rendered[3])[None])))
    found = audit(faces)
    assert (pairs(found.near), pairs(found.mirrored), len(found.identical)) == ({(3, 20)}, set(), 0)


def test_a_mirrored_copy_is_mirrored_and_nothing_else(rendered, make_faces):
    faces = make_faces(21, images=np.concatenate((rendered, compressed(rendered[3, :, :, ::-1])[None])))
    found = audit(faces)
    assert (pairs(found.near), pairs(found.mirrored)) == (set(), {(3, 20)})


def test_a_symmetric_face_is_no_mirror_image_of_its_copy(rendered, make_faces):
    symmetric = np.concatenate((rendered[..., :24], rendered[..., :24][..., ::-1]), axis=-1)[:2]
    faces = make_faces(3, images=np.concatenate((symmetric, darkened(symmetric[:1]))))
    found = audit(faces)
    assert (pairs(found.near), len(found.mirrored)) == ({(0, 2)}, 0)


def test_large_and_coloured_images_are_compared_too(rendered, make_faces):
    large = rendered[:5].repeat(3, 2).repeat(3, 3).repeat(3, 1)
    tinted = np.clip(large[:1].astype(int) + np.array([9, 0, -9])[:, None, None], 0, 255).astype(np.uint8)
    faces = make_faces(7, images=np.concatenate((large, tinted, large[1:2, :, :, ::-1])))
    found = audit(faces)
    assert (pairs(found.near), pairs(found.mirrored)) == ({(0, 5)}, {(1, 6)})


def test_the_order_of_images_does_not_matter(rendered, make_faces):
    images = np.concatenate((rendered, darkened(rendered[:4]), rendered[4:6], rendered[6:8, :, :, ::-1]))
    faces = make_faces(28, images=images, splits=np.array(["train", "val", "test", "train"] * 7))
    order = np.random.default_rng(1).permutation(28)
    one, other = audit(faces), audit(faces.select(order))
    for kind in ("identical", "near", "mirrored"):
        assert pairs(getattr(one, kind)) == {
            tuple(sorted(order[list(pair)].tolist())) for pair in pairs(getattr(other, kind))
        }
        assert getattr(one, kind).joined == getattr(other, kind).joined
    assert one.near_leaks == other.near_leaks
    assert one.excludable == other.excludable


def test_pairs_are_told_apart_by_split_person_and_label(rendered, make_faces):
    faces = make_faces(
        24,
        images=np.concatenate((rendered, darkened(rendered[:4]))),
        labels=np.array([0, 1] * 10 + [0, 1, 1, 1]),
        splits=np.array(["train"] * 10 + ["test"] * 10 + ["train", "test", "val", "test"]),
        subjects=np.array([f"s{i}" for i in range(20)] + ["s0", "s1", "s2", "other"]),
    )
    near = audit(faces).near
    of = {near.members(k)[0]: k for k in range(len(near))}
    assert sorted(of) == [0, 1, 2, 3]
    assert [near.across_splits[of[i]] for i in range(4)] == [False, True, True, True]
    assert [near.across_subjects[of[i]] for i in range(4)] == [False, False, False, True]
    assert [near.conflicts[of[i]] for i in range(4)] == [False, False, True, False]
    assert near.joined == {("train", "val"): 1, ("train", "test"): 2, ("val", "test"): 0}
    assert audit(faces).near_leaks == 3


def test_a_copy_that_exclude_knows_is_no_near_leak(rendered, make_faces):
    images = np.concatenate((rendered, rendered[:1], darkened(rendered[:2])))
    faces = make_faces(23, images=images, splits=np.array(["train"] * 20 + ["test"] * 3))
    found = audit(faces)
    assert pairs(found.near) == {(0, 21), (20, 21), (1, 22)}
    assert found.near_leaks == 1  # image 1: image 0 is left out as a copy of image 20
    assert found.excludable["test_duplicates"] == 1


def test_pairs_with_an_image_in_common_are_linked(rendered, make_faces):
    images = np.concatenate((rendered[:5], darkened(rendered[:2]), compressed(rendered[0])[None]))
    near = audit(make_faces(8, images=images)).near
    linked = dict(zip(near.images.tolist(), near.linked().tolist(), strict=True))
    assert set(linked) == {0, 1, 5, 6, 7}
    assert linked[0] == linked[5] == linked[7] != linked[1] == linked[6]


def test_blank_nearly_blank_and_neither(rendered, make_faces):
    noise = np.random.default_rng(0).integers(0, 2, (48, 48))
    sign = np.full((48, 48), 255)
    sign[20:30, 10:40] = noise[20:30, 10:40] * 200  # 87 % white
    box = np.full((48, 48), 255)
    box[:20] = np.random.default_rng(1).integers(0, 256, (20, 48))  # 58 % white
    fog, haze = (np.random.default_rng(2).normal(100, deviation, (48, 48)).round() for deviation in (7, 9))
    strange = np.stack([np.full((48, 48), 7), noise * 4 + 100, sign, box, fog, haze])[:, None].astype(np.uint8)
    found = audit(make_faces(26, images=np.concatenate((rendered, strange))))
    assert found.blank.tolist() == [20]
    assert found.nearly_blank.tolist() == [21, 22, 24]


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 2)), min_size=10, max_size=60))
def test_confounds_are_scipys(pairs):
    kind, label = np.array([*pairs, (0, 0), (1, 1), (2, 2)]).T
    names = np.array(["JPEG L", "JPEG RGB", "PNG L"])[kind]
    found, size = module._confounds(np.char.add(names, " 48x48"), label, None)
    table = np.zeros((3, 3), dtype=int)
    np.add.at(table, (kind, label), 1)
    assert found.values == ("JPEG L", "JPEG RGB", "PNG L")
    np.testing.assert_array_equal(found.counts, table)
    assert found.cramers_v == pytest.approx(association(table, method="cramer"))
    assert found.p == pytest.approx(chi2_contingency(table, correction=False).pvalue)
    assert np.isnan([size.cramers_v, size.p]).all()


def test_a_format_of_people_goes_with_the_label_as_often_by_chance_as_p_says():
    """Each person's files have one format, and some people are more often of a class than others; for chi-square, the
    images of a person are so many proofs."""
    rng, person, found = np.random.default_rng(0), np.repeat(np.arange(17), 40), []
    for _ in range(200):
        label = (rng.random(len(person)) < rng.beta(3, 3, 17)[person]).astype(int)
        kinds = np.array(["JPEG L 48x48", "PNG L 48x48"])[rng.integers(0, 2, 17)][person]
        found.append([module._confounds(kinds, label, who)[0].p < 0.05 for who in (person, None)])
    of_people, of_images = np.mean(found, axis=0)
    assert of_people < 0.1
    assert of_images > 0.3
    inside = np.where((label + rng.random(len(person))) > 0.8, "JPEG L 48x48", "PNG L 48x48")  # with everyone
    assert module._confounds(inside, label, person)[0].p < 0.001


def test_a_telling_format_is_said_in_a_sentence(make_faces):
    labels = (np.arange(40) % 4 == 1).astype(int)
    formats = np.where((labels == 1) & (np.arange(40) % 5 > 0), "JPEG RGB 90x80", "JPEG L 100x100")
    text = markdown(audit(make_faces(40, labels=labels, formats=formats)))
    assert "JPEG RGB are 80% of the images of class class1 and 0% of the others" in text
    assert "The file format goes with the label" in text
    text = markdown(audit(make_faces(40, formats=np.full(40, "PNG L 48x48"))))
    assert "All files are of one kind (PNG L), which cannot predict the label" in text
    assert "goes with the label" not in text


@pytest.mark.parametrize(
    ("same", "other", "cell", "says", "is_finding"),
    [
        (12, 8, "0.20, which may be chance (p 0.206)", "is not shown to predict the label", False),
        (630, 570, "0.05", "hardly predicts the label", False),
        (120, 80, "0.20", "predicts the label in part", True),
    ],
    ids=["large, by chance", "small, not by chance", "both"],
)
def test_a_finding_is_large_and_significant_in_table_sentence_and_advice(
    make_faces, same, other, cell, says, is_finding
):
    """Two kinds, two classes; same, other: images of each kind with the class of its number, and with the other."""
    kind = np.repeat([0, 1], same + other)
    labels = np.tile(np.repeat([0, 1], [same, other]), 2) ^ kind
    formats = np.where(kind, "PNG L 48x48", "JPEG L 48x48")
    text = markdown(audit(make_faces(len(kind), size=8, labels=labels, formats=formats, subjects=None)))
    [row] = [line for line in text.splitlines() if "Cramér's V (0 to 1)" in line]
    assert row.split("|")[2].strip() == cell
    assert f"The kind of the file alone {says} (Cramér's V" in text
    assert ("The file format goes with the label" in text) == is_finding


def test_the_page_has_a_box_around_each_group(make_faces, rendered):
    images = np.concatenate([rendered, rendered[:3]])
    faces = make_faces(len(images), images=images)
    boxes = html(audit(faces), faces).split('<div class="group">')[1:]
    assert [box.count("<figure>") for box in boxes] == [2, 2, 2]


def test_rare_sizes_are_taken_together():
    formats = np.array(["JPEG L 48x48"] * 150 + [f"JPEG L {n}x50" for n in range(50)])
    size = module._confounds(formats, np.arange(200) % 2, None)[1]
    assert size.values == ("48x48", "other sizes")
    assert size.counts.sum(1).tolist() == [150, 50]


def test_people_and_classes_are_counted(make_faces):
    faces = make_faces(
        8,
        labels=np.array([0, 1, 0, 0, 1, 1, 0, 1]),
        subjects=np.array(["anna"] * 2 + ["ben"] * 2 + ["chris"] * 4),
        splits=np.array(["train"] * 5 + ["test"] * 3),
    )
    found = audit(faces)
    assert found.subjects == ("anna", "ben", "chris")
    assert found.subject_counts.tolist() == [[1, 1], [2, 0], [1, 3]]
    assert found.class_counts.tolist() == [[3, 2], [1, 2]]
    assert found.in_several_splits == 1
    text = markdown(found)
    assert "People who lack a class: 1; who have one only: 1." in text
    assert "People in several official splits: 1." in text


def test_what_the_data_does_not_say_is_said(make_faces):
    faces = make_faces(subjects=None)
    found = audit(faces)
    text = markdown(found)
    assert (found.near.across_splits, found.identical.across_subjects, found.in_several_splits) == (None, None, None)
    for line in (
        "There is no official split.",
        "The data set has no subject ids",
        "source files are unknown",
    ):
        assert line in text
        assert line in html(found, faces)
    assert "dataset.exclude" not in text  # there is no official split to leave anything out of
    assert "across" not in text


def test_advice_names_the_kinds_that_were_found_and_no_others(rendered, make_faces):
    splits = np.array(["train"] * 11 + ["test"] * 10)
    copied = make_faces(21, images=np.concatenate((rendered, rendered[:1])), labels=np.arange(21) % 2, splits=splits)
    assert "'dataset.exclude=[test_duplicates]'" in markdown(audit(copied))
    clean = make_faces(20, images=rendered, splits=splits[:20], subjects=np.array([f"s{i}" for i in range(20)]))
    text = markdown(audit(clean))
    assert "dataset.exclude" not in text
    assert text.endswith("## What to do\n\nNothing: the audit found no fault.\n")


def test_advice_on_near_duplicates_depends_on_what_the_file_marks(rendered, make_faces):
    splits, weak = (
        np.array(["train"] * 20 + ["test"] * 2),
        rendered[1] // 2 + rendered[2] // 6,
    )  # correlates by 0.8 to 0.94
    faces = make_faces(22, images=np.concatenate((rendered, darkened(rendered[:1]), weak[None])), splits=splits)
    old, new, wider = (
        markdown(audit(faces)),
        markdown(audit(mark_faults(faces))),
        markdown(audit(mark_faults(faces), 0.8)),
    )
    assert "1 more training images nearly repeat" in old
    assert "marks 0 of them for dataset.exclude: prepare it again" in old
    assert "'dataset.exclude=[near_duplicates]' (near_duplicates 1)" in new
    assert "prepare it again to mark" not in new
    assert "nearly repeat" not in new
    assert "2 more training images nearly repeat" in wider
    assert "marks 1 of them for dataset.exclude: remove the others, listed in faults.csv" in wider


def test_a_person_of_two_names_is_pointed_out(rendered, make_faces):
    faces = make_faces(21, images=np.concatenate((rendered, darkened(rendered[:1]))))
    assert "duplicates under the names of different people: 1." in markdown(audit(faces))


def test_tables_of_the_report_have_as_many_cells_in_every_row(rendered, make_faces):
    names = ("yes | no", "no")
    formats = np.array(["PNG L 48x48", "JPEG L 40x40"] * 10)
    text = markdown(audit(make_faces(20, images=rendered, class_names=names, formats=formats)))
    for table in re.findall(r"(?:^\|.*\n)+", text, flags=re.MULTILINE):
        assert len({len(re.findall(r"(?<!\\)\|", line)) for line in table.splitlines()}) == 1


def test_the_page_shows_what_it_is_about_and_fetches_nothing(rendered, make_faces):
    images = np.concatenate(
        (rendered, rendered[:1], darkened(rendered[1:2]), rendered[2:3, :, :, ::-1], np.zeros_like(rendered[:1]))
    )
    sources = np.array([f"<{i}>.png" for i in range(24)])
    faces = make_faces(24, images=images, sources=sources, splits=np.array(["train", "val", "test"] * 8))
    text = html(audit(faces), faces)
    shown = set(re.findall(r"<figcaption>&lt;(\d+)&gt;.png", text))
    assert shown == {"0", "1", "2", "20", "21", "22", "23"}
    assert "<0>.png" not in text
    body = text.rpartition("</script></head>")[2]
    assert not re.search(r'(?:src|href)="(?!data:|#)', body)
    assert text.count("plotly-graph-div") >= 2
    assert len(text) < 8e6


def test_the_page_shows_the_pairs_that_cross_where_there_are_some(rendered, make_faces):
    faces = make_faces(40, images=np.concatenate((rendered, darkened(rendered))), labels=np.tile([0, 1], 20))
    for subjects, shown in ((np.array([f"s{i % 20}" for i in range(39)] + ["s0"]), 2), (np.arange(40) % 20, 36)):
        given = replace(faces, subjects=subjects.astype(str))
        assert html(audit(given), given).count("<img") == shown


def test_the_page_shows_few_of_many(make_faces):
    images = np.random.default_rng(0).integers(0, 256, (60, 1, 16, 16), np.uint8).repeat(10, axis=0)
    faces = make_faces(600, images=images)
    text = html(audit(faces), faces)
    assert text.count("<img") <= 2 * 18 * 6


def test_faults_list_every_image_at_fault(rendered, make_faces):
    images = np.concatenate(
        (rendered, rendered[:1], darkened(rendered[1:3]), compressed(rendered[1])[None], 0 * rendered[:1])
    )
    splits = np.array(["train"] * 21 + ["train", "test", "test", "train"])
    labels = np.array([*np.arange(22) % 2, 1, 1, 0])  # image 22 is a copy of image 2, whose label is 0
    faces = make_faces(25, images=images, labels=labels, splits=splits, subjects=None)
    found = rows(faults(audit(faces), faces))
    at_fault = {row["source"]: row for row in found}
    named = {f"image{i:03d}.png" for i in (0, 20, 1, 21, 2, 22, 23, 24)}
    assert set(at_fault) == named
    assert {row["fault"] for row in found} == {"blank", "identical", "near", "near_conflict"}
    assert at_fault["image000.png"]["partner"] == "image020.png"
    assert at_fault["image001.png"]["partner"] == "image023.png"  # image 21 is nearer, but on the same side
    assert "splits test, train" in at_fault["image001.png"]["why"]
    assert at_fault["image021.png"]["group"] == at_fault["image023.png"]["group"] != at_fault["image002.png"]["group"]
    assert len([row for row in found if row["fault"].startswith("near")]) == 5


def judged(faces, p_label):
    """What networks say of the images: this probability for the given of two classes."""
    p = np.where(np.arange(2) == faces.labels[:, None], p_label[:, None], 1 - p_label[:, None])
    return OutOfFold(np.arange(len(faces)), p, [None, None, None])


def test_suspicious_labels_are_counted_shown_and_listed(rendered, make_faces):
    """Images 0 and 2 of class0, and 1 of class1, are judged otherwise; 20 is a copy of 0, shown as one with it."""
    images = np.concatenate((rendered, rendered[:1]))
    splits = np.array(["train"] * 21)
    faces = make_faces(21, images=images, splits=splits)
    wrong = np.isin(np.arange(21), (0, 1, 2, 20))
    found = audit(faces, predicted=judged(faces, np.where(wrong, 0.05 + np.arange(21) / 1000, 0.9)))
    text = markdown(found)
    assert "4 of 21 labels, judged by 3 networks that had not seen the image. They predict 81.0% of" in text
    assert "| class0 |     11 |  3 (27.3%) |          class1 3 |" in text
    assert "| class1 |     10 |  1 (10.0%) |          class0 1 |" in text
    assert "Look at the suspicious labels (4)" in text
    shown = html(found, faces).partition("Suspicious labels</h2>")[2].partition("<section>")[0]
    assert "Labelled class0: 2 of 3; of duplicates, one." in shown
    assert "class0 0.05\n→ class1 0.95\nimage000.png" in shown
    assert shown.count("<img") == 3
    listed = rows(suspects(found.suspicious, faces))
    assert [row["source"] for row in listed[:4]] == [f"image{i:03d}.png" for i in (0, 1, 2, 20)]
    assert [row["suspicious"] for row in listed] == ["yes"] * 4 + ["no"] * 17
    first = {"subject": "s00", "split": "train", "label": "class0", "predicted": "class1", "margin": "-0.900000"}
    assert first.items() <= listed[0].items()


def test_without_predictions_the_audit_says_nothing_of_suspicious_labels(rendered, make_faces):
    faces = make_faces(20, images=rendered)
    assert "uspicious" not in markdown(audit(faces)) + html(audit(faces), faces)


def test_only_blank_images_leave_nothing_to_compare(make_faces):
    faces = make_faces(4, images=np.arange(4, dtype=np.uint8).reshape(4, 1, 1, 1).repeat(16, 2).repeat(16, 3))
    found = audit(faces)
    assert (len(found.blank), len(found.near), len(found.mirrored)) == (4, 0, 0)
    html(found, faces)


@pytest.mark.parametrize("near", [0.5, 1.1, float("nan")])
def test_a_threshold_that_is_none_is_refused(make_faces, near):
    with pytest.raises(ValueError, match=rf"--near {near} .* allowed: 0\.8 to 1"):
        audit(make_faces(), near)


def test_too_many_pairs_are_refused_before_memory_runs_out(rendered, make_faces, monkeypatch):
    monkeypatch.setattr(module, "MOST_PAIRS", 2)
    images = np.stack([np.clip(rendered[0].astype(int) + i, 0, 255).astype(np.uint8) for i in range(3)])
    with pytest.raises(ValueError, match=r"more than 2 pairs of images correlate by 0\.94: set a higher --near"):
        audit(make_faces(3, images=images))


def test_the_script_audits_the_set_as_it_is(rendered, make_faces, tmp_path, capsys):
    """Although the copy would be left out of training; and it says the same as the report."""
    splits = np.array(["train"] * 10 + ["test"] * 11)
    faces = make_faces(21, images=np.concatenate((rendered, rendered[:1])), splits=splits)
    faces.save(tmp_path / "mine.npz")
    path = f"dataset.path={tmp_path / 'mine.npz'}"
    script.main(["dataset=fer2013", path, "--out", str(tmp_path / "out"), "dataset.exclude=[test_duplicates]"])
    text = markdown(audit(faces))
    assert "| images that repeat another, pixel for pixel" in text
    assert (tmp_path / "out" / "audit.md").read_text() == text
    assert text in capsys.readouterr().out
    assert rows((tmp_path / "out" / "faults.csv").read_text()) == rows(faults(audit(faces), faces))
    assert (tmp_path / "out" / "audit.html").read_text().startswith("<!doctype html>")
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["audit.html", "audit.md", "faults.csv"]


def test_the_script_knows_which_sets_have_something_to_exclude():
    assert script._nothing_excluded(["dataset=ferplus"]) == ["dataset.exclude=[]"]
    assert script._nothing_excluded(["dataset=synthetic"]) == []
    assert script._nothing_excluded(["dataset=wacv2016"]) == []
