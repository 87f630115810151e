"""Small stand-ins for the data sets of videos, in their layouts and with their oddities. The face is a public-domain
photograph of an astronaut, which is lighter the higher the level is."""

import zipfile
from functools import cache
from xml.sax.saxutils import escape

import numpy as np
from PIL import Image
from skimage import data

from engrec.faces.video import write_video

SPELLED = ("Not-Engaged", "Barely-engaged", "Engaged", "Highly-Engaged")
ABSENT = "SNP(Subject Not Present)"
SPLITS = {"Train": (1, 2, 3, 4), "Validation": (5, 6), "Test": (7, 8)}  # and the people in each
RATE = 4  # and as many frames: a second


@cache
def astronaut():
    """The head and its surroundings, 160×120 pixels."""
    return np.asarray(Image.fromarray(data.astronaut()[10:240, 90:390]).resize((160, 120), Image.Resampling.BILINEAR))


def face(level, person):
    """A frame of 160×120 pixels: each person looks out of another place, and every second one is mirrored."""
    pixels = np.roll(astronaut().astype(float), 3 * person - 12, axis=1) * (0.45 + 0.15 * level)
    pixels = pixels.clip(0, 255).astype(np.uint8)
    return pixels[:, ::-1] if person % 2 else pixels


def empty_chair(shade=90):
    return np.full((120, 160, 3), shade, np.uint8)


def write(path, picture, empty=0):
    """A second of a picture with some noise, of which the last `empty` frames show an empty chair."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    noisy = [np.clip(picture + rng.normal(0, 3, picture.shape), 0, 255).astype(np.uint8) for _ in range(RATE - empty)]
    write_video(path, [*noisy, *[empty_chair()] * empty], RATE)


def clips():
    """Split, person and level of each clip: two clips a person, all levels in each split."""
    for split, people in SPLITS.items():
        for place, person in enumerate(people):
            yield split, person, 2 * place % 4
            yield split, person, (2 * place + 1) % 4


def make_daisee(folder):
    """A header that ends with a blank, a clip whose suffix disagrees with its label, one that only AllLabels.csv lists,
    a label without a clip, one without a face, one that cannot be read, and files of other systems."""
    rows = {split: [] for split in SPLITS}
    for number, (split, person, level) in enumerate(clips()):
        subject = f"{110000 + person}"
        clip = f"{subject}10{number:02d}"
        suffix = "mp4" if number == 3 else "avi"
        empty = 1 if number == 0 else 0
        write(folder / "DataSet" / split / subject / clip / f"{clip}.{suffix}", face(level, person), empty)
        rows[split].append(f"{clip}.avi,0,{level},1,0")
    chair, broken, extra = "1100011091", "1100011092", "1100011093"
    train = folder / "DataSet" / "Train" / "110001"
    write(train / chair / f"{chair}.avi", empty_chair())
    write(train / extra / f"{extra}.avi", face(1, 1))
    (train / broken).mkdir()
    (train / broken / f"{broken}.avi").write_bytes(b"no video")
    (train / broken / f"._{broken}.avi").write_bytes(b"of a Mac")
    rows["Train"] += [f"{chair}.avi,3,0,0,0", f"{broken}.avi,0,2,0,0", "1100011094.avi,0,2,0,0"]
    header = "ClipID,Boredom,Engagement,Confusion,Frustration \n"
    (folder / "Labels").mkdir()
    for split, lines in rows.items():
        (folder / "Labels" / f"{split}Labels.csv").write_text(header + "".join(f"{line}\n" for line in lines))
    every = "".join(f"{line}\n" for lines in (*rows.values(), [f"{extra}.avi,0,2,0,0"]) for line in lines)
    (folder / "Labels" / "AllLabels.csv").write_text(header + every)
    return folder


def make_engagenet(folder):
    """Spelled labels, two files of Excel with an index column and one CSV, clips without a subject."""
    rows = {split: [] for split in SPLITS}
    for number, (split, person, level) in enumerate(clips()):
        name = f"subject_{person}_as2uk9lhe{number}_vid_0_{number}.mp4"
        write(folder / split / name, face(level, person), empty=1 if level == 0 else 0)
        rows[split].append((name, SPELLED[level]))
    absent = "subject_2_as2uk9lhe9_vid_1_0.mp4"
    write(folder / "Train" / absent, empty_chair())
    rows["Train"].append((absent, ABSENT))
    for split in ("Train", "Validation"):
        table = [("", "chunk", "label"), *((str(i), *row) for i, row in enumerate(rows[split]))]
        write_xlsx(folder / f"{split.lower()}_engagement_labels.xlsx", table)
    lines = ["chunk,label", *(",".join(row) for row in rows["Test"])]
    (folder / "test_engagement_labels.csv").write_text("\n".join(lines) + "\n")
    return folder


def make_engagewild(folder):
    """Levels as numbers, thirds written in two ways, without a test split."""
    numbers = ("0", "0.33", "0.66", "1")
    for split, labels in (("Train", "train_labels.csv"), ("Validation", "validation_labels.xlsx")):
        rows = []
        for number, (_, person, level) in enumerate(clip for clip in clips() if clip[0] == split):
            name = f"subject_{person}_Vid_{number}.mp4"
            write(folder / split / name, face(level, person))
            rows.append((name, numbers[level].replace("33", "333") if number else numbers[level]))
        if labels.endswith(".xlsx"):
            write_xlsx(folder / labels, [("video", "label"), *rows])
        else:
            (folder / labels).write_text("\n".join(["video,label", *(",".join(row) for row in rows)]))
    return folder


def write_xlsx(path, rows):
    """As Excel writes it: texts in a table of their own, numbers in the cells, empty cells left out."""
    texts = list(dict.fromkeys(cell for row in rows for cell in row if cell and not is_number(cell)))

    def cell(place, text):
        inside = text if is_number(text) else texts.index(text)
        return f'<c r="{place}"{"" if is_number(text) else " t=" + chr(34) + "s" + chr(34)}><v>{inside}</v></c>'

    def row(number, cells):
        inside = "".join(cell(f"{chr(65 + i)}{number}", text) for i, text in enumerate(cells) if text)
        return f'<row r="{number}">{inside}</row>'

    name = "http://schemas.openxmlformats.org/spreadsheetml/2006/main"
    sheet = "".join(row(number, cells) for number, cells in enumerate(rows, 1))
    shared = "".join(f"<si><t>{escape(text)}</t></si>" for text in texts)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(
            "xl/worksheets/sheet1.xml", f'<worksheet xmlns="{name}"><sheetData>{sheet}</sheetData></worksheet>'
        )
        archive.writestr("xl/sharedStrings.xml", f'<sst xmlns="{name}">{shared}</sst>')


def is_number(text):
    return text.replace(".", "", 1).isdigit()
