"""Audit of a data set as Markdown, HTML and CSV."""

from collections.abc import Iterator, Sequence

import numpy as np

from engrec.datasets.faults import LOW_CONTRAST, NEAR, SIDE
from engrec.datasets.prepared import Faces, blank
from engrec.evidence.audit import MANY_PEOPLE, SIGNIFICANT, UNEVEN, Audit, Confound, Duplicates
from engrec.evidence.suspicious import Suspicious
from engrec.pages import page, tables
from engrec.pages.panels import Panels, look, text
from engrec.words import counted

Section = tuple[str, list[str], list[list[list[str]]]]  # heading, remarks, tables


def markdown(audit: Audit) -> str:
    """Report as text, for a file and for the terminal."""
    lines = [f"# Audit of {tables.escaped(audit.title)}"]
    for heading, remarks, found in _sections(audit):
        lines += [f"## {heading}", *map(tables.escaped, remarks)]
        lines += [*(tables.markdown(rows, align_right=True) for rows in found)]
    return "\n\n".join(lines) + "\n"


def _sections(audit: Audit) -> list[Section]:
    return [
        ("In short", [], [_summary(audit)]),
        _identical_section(audit),
        _near_section(audit),
        _conflict_section(audit),
        *([] if audit.suspicious is None else [_suspicious_section(audit.suspicious, audit)]),
        _blank_section(audit),
        _class_section(audit),
        _people_section(audit),
        _format_section(audit),
        ("What to do", list(_advice(audit)) or ["Nothing: the audit found no fault."], []),
    ]


def _summary(audit: Audit) -> list[list[str]]:
    same = audit.identical
    splits = ", ".join(f"{s} {n:,}" for s, n in zip(audit.splits, audit.class_counts.sum(1), strict=False))
    across = [
        [f"groups of identical images across {name}", f"{mask.sum():,}"]
        for name, mask in (("splits", same.across_splits), ("people", same.across_subjects))
        if mask is not None
    ]
    several = [c for c in audit.confounds if not np.isnan(c.cramers_v)]
    strongest = max(several, key=lambda c: (c.is_telling, c.cramers_v), default=None)
    return [
        ["", "found"],
        ["images", f"{len(audit):,} of {audit.size}"],
        ["classes", ", ".join(audit.class_names)],
        ["people", f"{len(audit.subjects):,}" if audit.subjects else "unknown"],
        ["official split", splits or "none"],
        ["images that repeat another, pixel for pixel", f"{len(same.images) - len(same):,}"],
        *across,
        ["groups of identical images with different labels", f"{same.conflicts.sum():,}"],
        ["pairs of nearly identical images", f"{len(audit.near) + len(audit.mirrored):,}"],
        ["blank images, nearly blank ones", f"{len(audit.blank):,}, {len(audit.nearly_blank):,}"],
        ["file format and label, Cramér's V (0 to 1)", _strength(strongest, audit)],
    ]


def _strength(confound: Confound | None, audit: Audit) -> str:
    if confound is None:
        return "one format" if audit.confounds else "unknown"
    by_chance = "" if confound.p < SIGNIFICANT else f", which may be chance (p {confound.p:.3f})"
    return f"{confound.cramers_v:.2f}{by_chance}"


def _across(columns: Sequence[Duplicates]) -> list[list[str]]:
    """Rows of a table: how many duplicates of one or more kinds cross splits and people."""
    rows = []
    if splits := [d.across_splits for d in columns if d.across_splits is not None]:
        rows.append(["in several splits", *(f"{mask.sum():,}" for mask in splits)])
        for one, other in columns[0].joined:
            rows.append([f"— {one} and {other}", *(f"{d.joined[one, other]:,}" for d in columns)])
    if people := [d.across_subjects for d in columns if d.across_subjects is not None]:
        rows.append(["of one person", *(f"{(~mask).sum():,}" for mask in people)])
        rows.append(["of different people", *(f"{mask.sum():,}" for mask in people)])
    return rows


def _identical_section(audit: Audit) -> Section:
    same, largest = audit.identical, np.bincount(audit.identical.group).max(initial=0)
    if not len(same):
        return "Identical images", ["No two images are identical, pixel for pixel."], []
    remark = (
        f"{len(same.images):,} images in {counted(len(same), 'group')}: {len(same.images) - len(same):,} superfluous; "
        f"the largest group has {largest:,}."
    )
    return "Identical images", [remark], [[["", "groups"], ["identical", f"{len(same):,}"], *_across([same])]]


def _near_section(audit: Audit) -> Section:
    kinds = (audit.near, audit.mirrored)
    remarks = [
        f"Pairs that are not identical but whose grey pixels, at most {SIDE}×{SIDE}, correlate by {audit.near_from} "
        "or more. Brightness, contrast and recompression hardly change that. Under “mirrored” are pairs that are alike "
        "once one of the two is mirrored."
    ]
    if audit.subjects:
        remarks.append("Within a person they are expected, as of frames of a video; across people they are not.")
    rows = [
        ["pairs", "as they are", "mirrored"],
        ["nearly identical", *(f"{len(d):,}" for d in kinds)],
        *_across(kinds),
        ["images in these pairs", *(f"{len(np.unique(d.images)):,}" for d in kinds)],
        ["groups that these pairs link", *(f"{d.linked().max(initial=-1) + 1:,}" for d in kinds)],
    ]
    return "Nearly identical images", remarks, [rows]


def _conflict_section(audit: Audit) -> Section:
    kinds = {"identical (groups)": audit.identical, "nearly (pairs)": audit.near, "mirrored (pairs)": audit.mirrored}
    rows = [[kind, f"{found.conflicts.sum():,}", f"{len(found):,}"] for kind, found in kinds.items()]
    return "Conflicting labels", [], [[["", "labels differ", "of"], *rows]]


def _suspicious_section(found: Suspicious, audit: Audit) -> Section:
    names = audit.class_names
    networks = counted(found.num_networks, "network")
    remark = (
        f"{found.doubted.sum():,} of {len(found):,} labels, judged by {networks} that had not seen the image. They "
        f"predict {found.accuracy:.1%} of these labels. A label is suspicious if another class is predicted, and is at "
        "least as probable as it is on average where it is the label (confident learning, Northcutt et al. 2021). "
        "suspicious.csv lists all judged labels, the most suspicious first."
    )
    rows = [["label", "judged", "suspicious", "predicted instead"]]
    for label, name in enumerate(names):
        given = found.labels == label
        counts = np.bincount(found.others[given & found.doubted], minlength=len(names))
        instead = ", ".join(f"{names[k]} {counts[k]:,}" for k in np.argsort(-counts, kind="stable")[:3] if counts[k])
        share = f" ({counts.sum() / given.sum():.1%})" if given.any() else ""
        rows.append([name, f"{given.sum():,}", f"{counts.sum():,}{share}", instead or "–"])
    return "Suspicious labels", [remark], [rows]


def _blank_section(audit: Audit) -> Section:
    remark = (
        f"Blank: a standard deviation below 1 of 255. Nearly blank: below {LOW_CONTRAST}, or two thirds of the pixels "
        "within five neighbouring grey levels, as in placeholders that show writing."
    )
    counts = [["blank", f"{len(audit.blank):,}"], ["nearly blank", f"{len(audit.nearly_blank):,}"]]
    return "Blank images", [remark], [[["", "images"], *counts]]


def _class_section(audit: Audit) -> Section:
    totals = audit.class_counts.sum(1)
    rows = [
        [name, *(f"{n:,} ({n / total:.1%})" for n, total in zip(counts, totals, strict=True))]
        for name, counts in zip(audit.class_names, audit.class_counts.T, strict=True)
    ]
    header, last = ["class", *(audit.splits or ("all",))], ["all", *(f"{n:,}" for n in totals)]
    return "Classes", [] if audit.splits else ["There is no official split."], [[header, *rows, last]]


def _people_section(audit: Audit) -> Section:
    if audit.subject_counts is None:
        return "People", ["The data set has no subject ids."], []
    images, classes = audit.subject_counts.sum(1), (audit.subject_counts > 0).sum(1)
    lacking, alone = (classes < len(audit.class_names)).sum(), (classes == 1).sum()
    remarks = [
        f"{counted(len(images), 'person', 'people')} with {images.min():,} to {images.max():,} images "
        f"(median {np.median(images):g}).",
        f"People who lack a class: {lacking:,}; who have one only: {alone:,}. For these, recognising the person gives "
        "the label."
        if lacking
        else "Every person has images of every class.",
    ]
    if audit.in_several_splits is not None:
        remarks.append(f"People in several official splits: {audit.in_several_splits or 'none'}.")
    if len(images) > MANY_PEOPLE:
        return "People", remarks, []
    rows = [[s, *map(str, c), str(c.sum())] for s, c in zip(audit.subjects, audit.subject_counts, strict=True)]
    return "People", remarks, [[["person", *audit.class_names, "all"], *rows]]


def _format_section(audit: Audit) -> Section:
    if not audit.confounds:
        return "File formats", ["The formats of the source files are unknown."], []
    remarks, shares = [_plainly(c, audit.class_names) for c in audit.confounds], []
    if audit.subjects and not all(np.isnan(c.p) for c in audit.confounds):
        remarks.append("Images of one person are not independent, so p is over people.")
    for c in audit.confounds:
        cells = zip(c.values, c.counts.sum(1), c.counts / c.counts.sum(0), strict=True)
        rows = [[value, f"{n:,}", *(f"{x:.1%}" for x in share)] for value, n, share in cells]
        shares.append([[f"{c.of}: share of each class", "images", *audit.class_names], *rows])
    return "File formats", remarks, shares


def _plainly(confound: Confound, class_names: Sequence[str]) -> str:
    """One sentence on how a format is associated with the label, with the class where the difference is largest."""
    counts = confound.counts
    if np.isnan(confound.cramers_v):
        return f"All files are of one {confound.of} ({confound.values[0]}), which cannot predict the label."
    inside = counts / counts.sum(0)
    outside = (counts.sum(1, keepdims=True) - counts) / (counts.sum() - counts.sum(0))
    rarer_first = 1e-9 * counts.sum(0) / counts.sum()  # with two classes, both differences are equal
    value, label = np.unravel_index((inside - outside - rarer_first).argmax(), counts.shape)
    chance = "hardly predicts" if confound.p < SIGNIFICANT else "is not shown to predict"
    says = "predicts the label in part" if confound.is_telling else f"{chance} the label"
    p = "< 0.001" if confound.p < 0.001 else f"{confound.p:.3f}"
    return (
        f"The {confound.of} of the file alone {says} (Cramér's V {confound.cramers_v:.2f}, chi-square p {p}): "
        f"{confound.values[value]} are {inside[value, label]:.0%} of the images of class {class_names[label]} and "
        f"{outside[value, label]:.0%} of the others."
    )


def _advice(audit: Audit) -> Iterator[str]:
    """Advice, one or two sentences for each finding."""
    if kinds := [kind for kind, count in audit.excludable.items() if count]:
        counts = ", ".join(f"{kind} {audit.excludable[kind]:,}" for kind in kinds)
        yield (
            f"Exclude training images: 'dataset.exclude=[{','.join(kinds)}]' ({counts}). Validation and test images "
            "stay, so that results stay comparable."
        )
    if audit.near_leaks > (marked := audit.excludable.get("near_duplicates", 0)):
        remedy = (
            "remove the others, listed in faults.csv, from the files, or report this with the score."
            if "near_duplicates" in audit.excludable
            else f"prepare it again to mark them (correlation of {NEAR} or more): python scripts/prepare.py."
        )
        yield (
            f"{audit.near_leaks:,} more training images nearly repeat a validation or test image. The prepared file "
            f"marks {marked:,} of them for dataset.exclude: {remedy}"
        )
    alike = (audit.identical, audit.near, audit.mirrored)
    if strangers := sum(int(d.across_subjects.sum()) for d in alike if d.across_subjects is not None):
        yield (
            f"Groups and pairs of duplicates under the names of different people: {strangers:,}. Look at them: if a "
            "person has two names, or an image has the wrong name, a split by subject puts one person into two splits."
        )
    if audit.in_several_splits:
        yield f"People in several official splits: {audit.in_several_splits:,}. Use split=kfold or split=holdout."
    if not audit.splits and audit.subjects:
        yield "There is no official split: use split=kfold (or holdout, loso), where each person is in one split only."
    if not audit.subjects:
        yield (
            "The data set has no subject ids, so no score is known to hold for new people. If file names tell people "
            "apart, prepare it again with --subject-regex or a subject column."
        )
    if audit.suspicious is not None and (doubted := audit.suspicious.doubted.sum()):
        yield (
            f"Look at the suspicious labels ({doubted:,}) before you change any: networks err too, "
            "and where the annotators of the test images had the same habits, corrected training labels lower the "
            "score. distill=teachers learns from the same predictions and changes no label."
        )
    if count := len(audit.nearly_blank):
        yield f"Look at the nearly blank images ({count:,})" + (
            ": dataset.exclude=[placeholders] leaves out only signs and text." if audit.splits else "."
        )
    share = audit.class_counts.sum(0) / len(audit)
    if share.max() >= UNEVEN * share.min():
        yield (
            f"Classes are imbalanced: always predicting “{audit.class_names[share.argmax()]}” is right for "
            f"{share.max():.1%}. Compare by balanced accuracy and AUC; in fine-tuning, use "
            "module.class_weights=balanced."
        )
    if any(c.is_telling for c in audit.confounds):
        yield (
            "The file format goes with the label, so a network may score without looking at faces: evaluate each "
            "format by itself too (predictions.csv names it), or convert all files to one format before preparing them."
        )


def html(audit: Audit, faces: Faces) -> str:
    """The report as one page with pictures. faces: the data set that was audited."""
    identical, near, mirrored = audit.identical, audit.near, audit.mirrored
    shown = {
        "Identical images": _groups(identical, faces, identical.crossing, "Identical"),
        "Nearly identical images": _groups(near, faces, near.crossing, "As they are")
        + _groups(mirrored, faces, mirrored.crossing, "Mirrored"),
        "Conflicting labels": _groups(identical, faces, identical.conflicts, "Identical", only=True)
        + _groups(near, faces, near.conflicts, "Nearly identical", only=True),
        "Suspicious labels": _suspects(audit, faces),
        "Blank images": _faces(np.concatenate((audit.blank[:16], audit.nearly_blank[:48])), faces),
        "Classes": _bars(audit.class_names, audit.splits or ("images",), audit.class_counts),
        "People": _people_figure(audit),
    }
    sections = []
    for heading, remarks, found in _sections(audit):
        spaced = (f'<div style="margin: .8rem 0">{tables.html(rows)}</div>' for rows in found)
        sections.append((heading, "".join((*map(page.note, remarks), *spaced, shown.get(heading, "")))))
    lead = page.note(
        "The pictures show the people in the data set: share this page only with those who may see the data set."
    )
    return page.page(f"Audit of {audit.title}", sections, lead)


def _groups(found: Duplicates, faces: Faces, mask: np.ndarray, name: str, only: bool = False, most: int = 18) -> str:
    """Some groups side by side, evenly from the most to the least alike: those of the mask, or any others if there are
    none and `only` is not set. Blank images are shown elsewhere; of linked groups one is shown."""
    if not len(found):
        return ""
    first = np.searchsorted(found.group, np.arange(len(found)))
    visible = ~blank(faces.images[found.images[first]])
    marked = only or bool((visible & mask).any())
    numbers = np.flatnonzero(visible & mask if marked else visible)
    numbers = numbers[np.argsort(-found.score[numbers], kind="stable")]
    numbers = numbers[np.sort(np.unique(found.linked()[first[numbers]], return_index=True)[1])]
    if not len(numbers):
        return ""
    spread = numbers[np.unique(np.linspace(0, len(numbers) - 1, most).round().astype(int))]
    members = (_faces(_varied(found.members(number), faces)[:6], faces) for number in spread)
    blocks = "".join(f'<div class="group">{shown}</div>' for shown in members)
    across = ", across splits or people" if marked and not only else ""
    what = page.note(
        f"{name}{across}: {len(spread)} of {counted(len(numbers), 'group')}. A box holds the images of one group."
    )
    return f'{what}<div class="faces">{blocks}</div>'


def _suspects(audit: Audit, faces: Faces, most: int = 18, most_classes: int = 10) -> str:
    """The most suspicious labels of each class; of images that repeat each other, exactly or nearly, one."""
    found = audit.suspicious
    if found is None:
        return ""
    blocks, repeated = [], _repeated(audit)
    for label in sorted(list(dict.fromkeys(found.labels[found.doubted].tolist()))[:most_classes]):
        of_class = np.flatnonzero(found.doubted & (found.labels == label)).tolist()
        seen, shown = set[tuple[int, int]](), []
        for i in of_class:
            groups = repeated.get(int(found.index[i]), set())
            if len(shown) < most and not groups & seen:
                shown.append(_suspect(found, i, faces))
            seen |= groups
        what = page.note(f"Labelled {faces.class_names[label]}: {len(shown)} of {len(of_class):,}; of duplicates, one.")
        blocks.append(what + page.faces(shown))
    return "".join(blocks)


def _repeated(audit: Audit) -> dict[int, set[tuple[int, int]]]:
    """Of each image that repeats others: the kinds and numbers of its groups."""
    groups: dict[int, set[tuple[int, int]]] = {}
    for kind, found in enumerate((audit.identical, audit.near, audit.mirrored)):
        for image, number in zip(found.images.tolist(), found.linked().tolist(), strict=True):
            groups.setdefault(image, set()).add((kind, number))
    return groups


def _suspect(found: Suspicious, i: int, faces: Faces) -> tuple[str, str]:
    """Picture and caption: label and prediction with their probabilities, then where the image comes from."""
    label, other = (faces.class_names[k[i]] for k in (found.labels, found.others))
    image = found.index[i]
    judged = f"{label} {found.p_label[i]:.2f}\n→ {other} {found.p_other[i]:.2f}"
    return page.picture(faces.images[image]), "\n".join((judged, *_whereabouts(faces, image)))


def _varied(members: np.ndarray, faces: Faces) -> np.ndarray:
    """Images of a group; the first ones differ in label, split or person."""
    known = [faces.labels[members].astype(str), *(a[members] for a in (faces.splits, faces.subjects) if a is not None)]
    _, first = np.unique(np.stack(known), axis=1, return_index=True)
    return members[np.argsort(~np.isin(np.arange(len(members)), first), kind="stable")]


def _faces(index: np.ndarray, faces: Faces) -> str:
    return page.faces((page.picture(faces.images[i]), _caption(faces, i)) for i in index)


def _caption(faces: Faces, i: int) -> str:
    """Source, person, split and label: a line for each."""
    return "\n".join((*_whereabouts(faces, i), faces.class_names[faces.labels[i]]))


def _whereabouts(faces: Faces, i: int) -> tuple[str, ...]:
    """Source, person and split."""
    source, known = str(faces.sources[i]), [str(a[i]) for a in (faces.subjects, faces.splits) if a is not None]
    return source if len(source) < 26 else f"…{source[-24:]}", *known


def _bars(names: Sequence[str], series: Sequence[str], counts: np.ndarray) -> str:
    """Stacked bars: counts (series, names)."""
    panels = Panels([(0, 0)], [1])
    for i, (name, row) in enumerate(zip(series, counts.tolist(), strict=True)):
        colour = {"color": look(i).colour}
        panels.add(0, type="bar", name=text(name), x=list(map(text, names)), y=row, marker=colour)
    panels.x(0, type="category")
    panels.y(0, title="images")
    panels.layout |= {"barmode": "stack", "legend": {"traceorder": "normal"}}
    return page.figure(panels.figure(340, legend=len(series) > 1))


def _people_figure(audit: Audit) -> str:
    if audit.subject_counts is None:
        return ""
    if len(audit.subjects) <= MANY_PEOPLE:
        return _bars(audit.subjects, audit.class_names, audit.subject_counts.T)
    panels = Panels([(0, 0)], [1])
    panels.add(0, type="histogram", x=audit.subject_counts.sum(1).tolist(), marker={"color": look(0).colour})
    panels.x(0, title="images of a person")
    panels.y(0, title="people")
    return page.figure(panels.figure(340, legend=False))


def faults(audit: Audit, faces: Faces) -> str:
    """The CSV that lists every image with a fault: source, fault, group, partner, why.

    A near duplicate is listed once per fault, with its nearest partner; a partner in another split or of another person
    comes first. Images with the same group number are linked by pairs.
    """
    lines = [["source", "fault", "group", "partner", "why"]]
    deviation = faces.images.reshape(len(faces), -1).std(1, dtype=np.float32)
    for fault, index in (("blank", audit.blank), ("nearly_blank", audit.nearly_blank)):
        lines += [[str(faces.sources[i]), fault, "", "", f"standard deviation {deviation[i]:.1f}"] for i in index]
    for number, conflict in enumerate(audit.identical.conflicts):
        members = audit.identical.members(number)
        for i in members:
            others = [str(faces.sources[j]) for j in members if j != i]
            partner = "; ".join(others[:5]) + (f"; {len(others) - 5} more" if len(others) > 5 else "")
            fault = "identical_conflict" if conflict else "identical"
            lines.append([str(faces.sources[i]), fault, str(number + 1), partner, _why(faces, members)])
    for kind, found in (("near", audit.near), ("mirrored", audit.mirrored)):
        for i, j, score, group, conflict in _nearest(found):
            why = "; ".join(filter(None, (f"correlation {score:.3f}", _why(faces, np.array([i, j])))))
            fault = f"{kind}_conflict" if conflict else kind
            lines.append([str(faces.sources[i]), fault, str(group + 1), str(faces.sources[j]), why])
    return tables.csv_text(lines)


def suspects(found: Suspicious, faces: Faces) -> str:
    """The CSV of all judged labels, the most suspicious first: margin is p_label - p_predicted, where predicted is the
    most probable other class."""
    lines = [["source", "subject", "split", "label", "predicted", "p_label", "p_predicted", "margin", "suspicious"]]
    names, nothing = faces.class_names, np.full(len(faces), "")
    subjects, splits = (nothing if a is None else a for a in (faces.subjects, faces.splits))
    for k, i in enumerate(found.index.tolist()):
        classes = names[found.labels[k]], names[found.others[k]]
        numbers = (f"{a[k]:.6f}" for a in (found.p_label, found.p_other, found.margin))
        doubted = "yes" if found.doubted[k] else "no"
        lines.append([str(faces.sources[i]), str(subjects[i]), str(splits[i]), *classes, *numbers, doubted])
    return tables.csv_text(lines)


def _nearest(found: Duplicates) -> Iterator[tuple]:
    """For each image in pairs: the image, a partner, their correlation, linked group, whether labels differ."""
    order, linked = np.lexsort((-found.score, ~found.crossing)), found.linked()
    pairs = found.images.reshape(-1, 2)[order]
    both = np.stack([pairs, pairs[:, ::-1]], axis=1).reshape(-1, 2)
    for k in np.sort(np.unique(both[:, 0], return_index=True)[1]):
        pair = order[k // 2]
        yield (*both[k], found.score[pair], linked[2 * pair], found.conflicts[pair])


def _why(faces: Faces, members: np.ndarray) -> str:
    """Labels, splits and people in which duplicates differ."""
    known = {"labels": np.array(faces.class_names)[faces.labels], "splits": faces.splits, "people": faces.subjects}
    values = {name: sorted(set(a[members].tolist())) for name, a in known.items() if a is not None}
    return "; ".join(f"{name} {', '.join(found)}" for name, found in values.items() if len(found) > 1)
