"""audit.html: the findings of an audit in words and pictures, as one page.

All numbers and sentences follow from what is found. The same images write the
same bytes.
"""

import collections
import pathlib
from typing import NamedTuple

import jinja2
import numpy as np

from tf_metassl.data import spelling
from tf_metassl.run import findings
from tf_metassl.run.findings import Findings
from tf_metassl.run.inventory import SPLITS, Inventory
from tf_metassl.run.page_parts import data_uri, number

# Pictures of each kind, and names in a sentence.
_SHOWN, _NAMES = 24, 10
# Characters of a name below a picture.
_CAPTION = 40
# A class is small if it has less than this share of the largest one.
_SMALL = 0.1


class Picture(NamedTuple):
    """An image on the page.

    Attributes:
        uri: the pixels as a `data:` URI.
        caption: lines below it, in which long names are shortened.
        names: the label and the file, in full.
    """

    uri: str
    caption: list[str]
    names: str


def _listed(names: list[str]) -> str:
    shown = ", ".join(map(spelling.one_line, names[:_NAMES]))
    more = len(names) - _NAMES
    return shown + (f" and {more:,} more" if more > 0 else "")


def sentences(found: Findings) -> dict[str, list[str]]:
    """What was found in words: title of a section -> sentences.

    Args:
        found: a `Findings`.
    """
    return {
        "Copies": _about_copies(found),
        "Labels": _about_labels(found),
        "Unlabeled images": _about_strangers(found),
        "Classes": _about_classes(found),
        "Files": _about_files(found),
    }


def _about_copies(found: Findings) -> list[str]:
    kinds = collections.Counter(copy.kind for copy in found.copies)
    text = []
    leaks = [c for c in found.copies if c.kind == findings.LEAK]
    if leaks:
        held_out = len({copy.first for copy in leaks})
        equal = len({copy.first for copy in leaks if copy.exact})
        text.append(
            f"Leak: {number(held_out, 'test or validation image')} "
            f"{'has a copy' if held_out == 1 else 'have copies'} among the "
            f"training images, {equal:,} with equal pixels. Accuracies "
            "measured on copies are too high: remove those that you confirm."
        )
    if count := kinds[findings.LABELS]:
        text.append(
            f"{number(count, 'pair')} of copies "
            f"{'has' if count == 1 else 'have'} different labels: at least one "
            "of the two is wrong."
        )
    if count := kinds[findings.HELD_OUT]:
        text.append(
            f"{number(count, 'pair')} of copies "
            f"{'is' if count == 1 else 'are'} among the test and validation "
            "images."
        )
    if count := kinds[findings.COPY]:
        text.append(
            f"{number(count, 'pair')} of copies "
            f"{'is' if count == 1 else 'are'} among the training images, with "
            "equal labels or without one."
        )
    if found.copies:
        exact = sum(copy.exact for copy in found.copies)
        text.append(
            f"Of {number(len(found.copies), 'pair')}, {exact:,} "
            f"{'has' if exact == 1 else 'have'} equal pixels; the others are "
            "nearly equal."
        )
    else:
        text.append("No image is a copy of another one.")
    total = sum(found.num_images.values())
    if found.num_compared < total:
        text.append(
            f"{found.num_compared:,} of {total:,} images were compared; the "
            "others were searched for equal pixels alone."
        )
    return text


def _about_labels(found: Findings) -> list[str]:
    text = []
    if found.num_checked:
        confident = sum(doubt.confident for doubt in found.doubts)
        right = 1 - len(found.doubts) / found.num_checked
        text.append(
            f"{number(found.num_checked, 'label')} of labeled, validation and "
            "test images were checked by a simple classifier that had not seen "
            f"the image. It agrees with {right:.0%} of them."
        )
        text.append(
            f"{number(len(found.doubts), 'image')} "
            f"{'has' if len(found.doubts) == 1 else 'have'} a label other than "
            f"the most probable one; for {confident:,} of them the other label "
            "is as probable as it usually is for its own images. The less the "
            "classifier agrees as a whole, the more of these labels are right."
        )
    else:
        text.append(
            "No label could be checked: at least two classes with two labeled "
            "images each are needed."
        )
    if found.alone:
        text.append(
            f"{number(len(found.alone), 'class', 'classes')} with fewer than "
            "two different images could not be checked: "
            f"{_listed(found.alone)}."
        )
    return text


def _about_strangers(found: Findings) -> list[str]:
    count = found.num_images["unlabeled"]
    if not count:
        return ["There are no unlabeled images besides the labeled ones."]
    far = found.far
    if far is None:
        return [
            f"Whether the {number(count, 'unlabeled image')} belong to the "
            "classes could not be judged: at least two classes with two "
            "labeled images each are needed."
        ]
    text = [
        f"{far.share:.1%} of the unlabeled images ({far.far.sum():,} of "
        f"{len(far.far):,}) are far from every class. {far.expected:.1%} would "
        "be expected if all of them were of the classes, and up to "
        f"{far.chance:.1%} by chance, judged by {far.compared:,} images with a "
        "label that were left out."
    ]
    if far.share > far.chance:
        least = (far.share - far.expected) / (1 - far.expected)
        text.append(
            f"That is more than chance explains: probably at least {least:.0%} "
            "of the pool is of other classes or from another source. Images of "
            "other classes that resemble those of the labeled ones are not "
            "counted."
        )
    else:
        text.append(
            "Chance explains that. It does not exclude images of other classes "
            "that resemble those of the labeled ones."
        )
    return text


def _about_classes(found: Findings) -> list[str]:
    counts = dict(zip(SPLITS, found.counts, strict=True))
    labeled = counts["labeled"]
    names = np.array(found.class_names, dtype=object)
    sizes = ", ".join(f"{found.num_images[s]:,} {s}" for s in SPLITS[::-1])
    text = [
        f"{number(len(names), 'class', 'classes')}; images: {sizes}.",
        f"A class has {labeled.min():,} to {labeled.max():,} labeled images, "
        f"{np.median(labeled):g} in the median.",
    ]
    small = [str(n) for n in names[labeled < _SMALL * labeled.max()]]
    if small:
        text.append(
            f"{number(len(small), 'class', 'classes')} "
            f"{'has' if len(small) == 1 else 'have'} less than a tenth of the "
            f"labeled images of the largest one: {_listed(small)}."
        )
    for split in ("validation", "test"):
        absent = [str(n) for n in names[counts[split] == 0]]
        if not found.num_images[split]:
            text.append(f"There are no {split} images.")
        elif absent:
            text.append(
                f"{number(len(absent), 'class', 'classes')} "
                f"{'has' if len(absent) == 1 else 'have'} no {split} image: "
                f"{_listed(absent)}."
            )
    return text


def _about_files(found: Findings) -> list[str]:
    text = []
    if found.bad:
        text.append(
            f"{number(len(found.bad), 'file')} cannot be used, see "
            "bad_images.csv."
        )
    facts = found.facts
    if facts is None:
        return text
    (width, height), most = next(iter(facts.sizes.items()))
    total = sum(facts.sizes.values())
    text.append(
        f"The {number(total, 'file')} "
        f"{'has' if total == 1 else 'have'} "
        f"{number(len(facts.sizes), 'size')}; the most frequent one is "
        f"{width}x{height} ({most:,}). Modes: "
        + ", ".join(f"{mode} {n:,}" for mode, n in facts.modes.items())
        + "."
    )
    if facts.grouped:
        text.append(
            f"The labeled images of "
            f"{number(len(facts.grouped), 'class', 'classes')} are in several "
            f"folders: {_listed(facts.grouped)}. Images of one folder may "
            "belong together, such as photos of one object."
        )
    if facts.shared:
        text.append(
            f"{number(len(facts.shared), 'folder')} "
            f"{'has' if len(facts.shared) == 1 else 'have'} training images "
            "and test or validation images. If they belong together, give "
            "validation and test images from other folders."
        )
    return text


def summary(found: Findings) -> dict:
    """The contents of audit.json.

    Args:
        found: a `Findings`.
    """
    kinds = collections.Counter(copy.kind for copy in found.copies)
    far = found.far
    return {
        "dataset": found.dataset,
        "num_classes": len(found.class_names),
        "num_images": found.num_images,
        "num_compared": found.num_compared,
        "copies": {kind: kinds[kind] for kind in findings.KINDS},
        "equal_pixels": sum(copy.exact for copy in found.copies),
        "labels_checked": found.num_checked,
        "labels_doubted": len(found.doubts),
        "labels_doubted_confidently": sum(d.confident for d in found.doubts),
        "classes_not_checked": found.alone,
        "far_share": far and round(far.share, 6),
        "far_share_expected": far and round(far.expected, 6),
        "far_share_by_chance": far and round(far.chance, 6),
        "num_bad_files": len(found.bad),
        "sentences": [
            sentence
            for of_section in sentences(found).values()
            for sentence in of_section
        ],
    }


def render(found: Findings, items: Inventory) -> str:
    """The page as text.

    Args:
        found: a `Findings`.
        items: the `Inventory` that it is about.
    """

    def picture(k: int, *lines: str) -> Picture:
        caption = [SPLITS[items.split[k]], *lines]
        label, name = items.class_name(items.label[k]), items.name(k)
        if label:
            caption[0] += f": {spelling.shortened(label, _CAPTION)}"
        caption.append(spelling.shortened(name, _CAPTION))
        uri = data_uri(items.read(np.array([k]))[0])
        full = ", ".join(map(spelling.one_line, filter(None, (label, name))))
        return Picture(uri, caption, full)

    pairs = [
        (
            copy.kind,
            "equal pixels" if copy.exact else f"{copy.similarity:.3f} similar",
            [picture(copy.first), picture(copy.second)],
        )
        for copy in found.copies[:_SHOWN]
    ]
    doubts = [
        picture(
            doubt.number,
            f"{doubt.probability:.1%} probable; {doubt.best:.1%} "
            + spelling.shortened(items.class_name(doubt.predicted), _CAPTION),
        )
        for doubt in found.doubts[:_SHOWN]
    ]
    strangers = [picture(s.number) for s in found.strangers[:_SHOWN]]
    counts = dict(zip(SPLITS, found.counts.tolist(), strict=True))
    return _TEMPLATE.render(
        dataset=found.dataset,
        sentences=sentences(found),
        pairs=pairs,
        doubts=doubts,
        strangers=strangers,
        num_pairs=len(found.copies),
        num_doubts=len(found.doubts),
        num_strangers=len(found.strangers),
        names=[spelling.one_line(name) for name in found.class_names],
        counts=counts,
        bad=[tuple(map(spelling.one_line, row)) for row in found.bad[:_SHOWN]],
        num_bad=len(found.bad),
    )


_TEMPLATE = jinja2.Environment(
    autoescape=True, trim_blocks=True, lstrip_blocks=True
).from_string(
    pathlib.Path(__file__).with_name("audit.html.jinja").read_text("utf-8")
)
