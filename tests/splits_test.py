"""Which images are labeled, unlabeled and held out; duplicates; id lists."""

import dataclasses

import numpy as np
import pytest

from tf_metassl.contract import DatasetInfo
from tf_metassl.data import sources, splits
from tf_metassl.data.store import Images, Source

COUNTS = (40, 20, 8, 2)
LABELS = np.random.default_rng(6).permutation(
    np.repeat(np.arange(len(COUNTS)), COUNTS)
)


def split(labels=LABELS, **options):
    defaults = {
        "num_labeled": 12,
        "num_validation": 8,
        "split_seed": 0,
        "labeled_inside": True,
    }
    return splits.split(labels, **{**defaults, **options})


def counts(rows, labels=LABELS):
    return np.bincount(labels[rows], minlength=len(COUNTS)).tolist()


@pytest.mark.parametrize(
    "options, fingerprint",
    [
        ((30, 200, 0, True), "446969763c32cc4e"),
        ((30, 200, 1, False), "6d6288774acb29db"),
        ((100, 100, 7, True), "e42647dbb375d9a1"),
        ((10, 1, 3, False), "268c78a5c5328638"),
    ],
)
def test_splits_of_digits_never_change(options, fingerprint):
    names = ("num_labeled", "num_validation", "split_seed", "labeled_inside")
    rows = split(
        sources.load("digits").train.labels,
        **dict(zip(names, options, strict=True)),
    )
    assert rows.fingerprint == fingerprint


@pytest.mark.parametrize("label_split", ["balanced", "proportional", "first"])
@pytest.mark.parametrize("labeled_inside", [True, False])
def test_parts_do_not_overlap(label_split, labeled_inside):
    rows = split(label_split=label_split, labeled_inside=labeled_inside)
    assert not set(rows.validation) & set(rows.labeled)
    assert not set(rows.validation) & set(rows.unlabeled)
    inside = set(rows.labeled) & set(rows.unlabeled)
    assert inside == (set(rows.labeled) if labeled_inside else set())
    everything = {*rows.labeled, *rows.unlabeled, *rows.validation}
    assert everything == set(range(len(LABELS)))
    for part in (rows.labeled, rows.unlabeled, rows.validation):
        assert np.all(np.diff(part) > 0)


def test_seed_changes_only_the_labeled_images():
    first, second = split(split_seed=1), split(split_seed=2)
    assert split(split_seed=1).fingerprint == first.fingerprint
    assert first.fingerprint != second.fingerprint
    np.testing.assert_array_equal(first.validation, second.validation)


def test_balanced():
    assert counts(split(num_validation=4).labeled) == [4, 4, 3, 1]
    assert counts(split(num_validation=4).validation) == [1, 1, 1, 1]


def test_validation_leaves_each_class_half_of_its_images():
    assert counts(split(num_validation=20).validation) == [8, 7, 4, 1]
    # If that is too few, at least one.
    assert counts(split(num_validation=50).validation) == [23, 19, 7, 1]


@pytest.mark.parametrize(
    "size, expected",
    [(35, [20, 10, 4, 1]), (7, [3, 2, 1, 1]), (4, [1, 1, 1, 1])],
)
def test_proportional(size, expected):
    order = np.random.default_rng(1).permutation(len(LABELS))
    rows = splits.proportional_subset(LABELS, order, size)
    assert counts(rows) == expected
    assert len(set(rows)) == size


@pytest.mark.parametrize("seed", range(20))
def test_proportional_shares_are_rounded_up_or_down(seed):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 5, 300) ** 2 // 4
    size = int(rng.integers(60, 300))
    rows = splits.proportional_subset(labels, rng.permutation(300), size)
    share = np.bincount(labels) * size / 300
    assert np.all(abs(np.bincount(labels[rows], minlength=5) - share) < 1)
    assert len(rows) == size


def test_proportional_with_fewer_images_than_classes():
    order = np.arange(len(LABELS))
    assert len(splits.proportional_subset(LABELS, order, 2)) == 2


def test_first():
    rows = split(label_split="first")
    np.testing.assert_array_equal(rows.labeled, np.arange(12))
    assert split(label_split="first", split_seed=5).fingerprint == (
        rows.fingerprint
    )
    assert len(rows.validation) == 8


@pytest.mark.parametrize("label_split", ["balanced", "proportional", "first"])
def test_zero_labels_all_that_are_left(label_split):
    rows = split(num_labeled=0, num_validation=8, label_split=label_split)
    assert len(rows.labeled) == len(LABELS) - 8 and len(rows.validation) == 8


def test_images_without_a_label_are_only_unlabeled():
    labels = np.concatenate([LABELS, np.full(30, -1)])
    rows = split(labels)
    assert rows.labeled.max() < 70 and rows.validation.max() < 70
    assert set(range(70, 100)) <= set(rows.unlabeled)


@pytest.mark.parametrize("label_split", ["balanced", "proportional", "first"])
def test_prescribed_labeled_part(label_split):
    part = np.arange(20, 50)
    rows = split(labeled_rows=part, label_split=label_split)
    assert set(rows.labeled) <= set(part)
    # Others can serve for validation, so the part stays whole.
    assert not set(rows.validation) & set(part)
    whole = split(labeled_rows=part, num_labeled=0, label_split=label_split)
    np.testing.assert_array_equal(whole.labeled, part)


@pytest.mark.parametrize("label_split", ["balanced", "proportional", "first"])
def test_validation_from_the_labeled_part_if_need_be(label_split):
    part = np.arange(2, 70)
    rows = split(labeled_rows=part, label_split=label_split)
    assert len(rows.validation) == 8 and len(rows.labeled) == 12


def test_prescribed_validation_images():
    fixed = np.arange(10, 30)
    rows = split(validation_rows=fixed, num_validation=5)
    np.testing.assert_array_equal(rows.validation, fixed)
    assert not set(fixed) & {*rows.labeled, *rows.unlabeled}


def test_errors():
    with pytest.raises(ValueError, match="4 classes no label: raise --num_lab"):
        split(num_labeled=3)
    with pytest.raises(ValueError, match="exceed the 70 labeled .*lower one"):
        split(num_labeled=60, num_validation=11)
    with pytest.raises(ValueError, match="No unlabeled .*--num_labeled"):
        split(num_labeled=62, num_validation=8, labeled_inside=False)
    with pytest.raises(ValueError, match="only 20 images can be labeled"):
        split(num_labeled=21, labeled_rows=np.arange(20))
    with pytest.raises(ValueError, match="--num_validation=67 leaves some cl"):
        split(num_validation=67, num_labeled=0)
    names = tuple("abcd")
    with pytest.raises(ValueError, match="class b, c, d is labeled.* first"):
        split(np.sort(LABELS), label_split="first", class_names=names)


@pytest.mark.parametrize(
    "counts, num_labeled, expected",
    [
        ([1, 1], 0, 0),
        ([4, 5], 0, 0),
        ([20, 20], 0, 0),
        ([25, 25], 0, 10),
        ([60, 60], 0, 24),
        ([500, 500], 0, 100),
        # As many are left as are asked for.
        ([60, 60], 105, 15),
        ([60, 60], 120, 0),
        # Classes with one image keep it.
        ([1] * 50 + [10], 0, 0),
    ],
)
def test_default_number_of_validation_images(counts, num_labeled, expected):
    labels = np.repeat(np.arange(len(counts)), counts)
    labels = np.append(labels, [-1] * 30)
    size = splits.default_num_validation(labels, num_labeled)
    assert size == expected
    rows = split(labels, num_labeled=num_labeled, num_validation=size)
    assert len(rows.validation) == size
    assert set(labels[rows.labeled]) == set(range(len(counts)))


def test_no_validation_images_beside_given_ones():
    rows = np.arange(3)
    assert splits.default_num_validation(LABELS, validation_rows=rows) == 0


@pytest.mark.parametrize("label_split", ["balanced", "proportional", "first"])
def test_nothing_is_held_out(label_split):
    rows = split(num_validation=0, label_split=label_split)
    assert not len(rows.validation) and len(rows.unlabeled) == 70


def test_nothing_held_out_is_told():
    source = source_with_duplicates()
    rows = splits.Splits(np.arange(3), np.arange(9), np.arange(0))
    text = splits.describe_absent(source, rows)
    assert text.startswith("No image is held out for validation: nothing ")
    # All test images are of the first class.
    assert "No test image of 1 of 2 classes: b. Macro-F1" in text


def test_check_unlabeled():
    splits.check_unlabeled(split())
    with pytest.raises(ValueError, match="--num_labeled.*--unlabeled_dir"):
        splits.check_unlabeled(split(num_labeled=0))


# Duplicates and lists.


def source_with_duplicates():
    images = np.random.default_rng(0).integers(0, 256, (12, 2, 2, 1), np.uint8)
    images[4] = images[0]
    images[8] = images[1]
    test = np.concatenate([images[1:2], images[5:6], images[5:6] ^ 1])
    names = np.array([f"{i}.png".encode() for i in range(12)])
    return Source(
        info=DatasetInfo("twins", ("ä", "b"), (2, 2, 1)),
        train=Images(images, np.arange(12, dtype=np.int32) % 2, ids=names),
        test=Images(test, np.zeros(3, np.int32)),
        weak_policy="none",
        strong_policy="fixmatch",
    )


ROWS = splits.Splits(
    labeled=np.array([0, 1, 2]),
    unlabeled=np.arange(9),
    validation=np.array([9, 10]),
)


def test_duplicates():
    source = source_with_duplicates()
    found = splits.duplicates(source, ROWS)
    assert {pair: sorted(rows.tolist()) for pair, rows in found.items()} == {
        ("labeled", "unlabeled"): [[0, 4], [1, 8]],
        ("labeled", "test"): [[1, 0]],
        ("unlabeled", "test"): [[5, 1], [8, 0]],
    }
    text = splits.describe_duplicates(source, found)
    assert text.splitlines()[1] == (
        "1 test image(s) are also labeled images, 1 with another label, such "
        "as row 0 = 1.png"
    )
    # Examples are named, not only one.
    first = text.splitlines()[0]
    assert "4.png = 0.png" in first and "8.png = 1.png" in first
    assert len(text.splitlines()) == 3


def test_equal_pixels_of_two_classes():
    source = source_with_duplicates()
    source.train.labels[4] = 1
    rows = splits.Splits(np.array([0, 4, 1, 8]), np.arange(9), np.array([9]))
    found = splits.duplicates(source, rows)
    assert found["labeled", "labeled"].tolist() == [[0, 4], [1, 8]]
    text = splits.describe_duplicates(source, found)
    assert text.splitlines()[0] == (
        "2 labeled image(s) have the pixels of another class's image, such as "
        "4.png = 0.png, 8.png = 1.png"
    )


def test_duplicates_in_validation():
    source = source_with_duplicates()
    rows = splits.Splits(np.array([0, 1]), np.array([2, 8]), np.array([4, 5]))
    found = splits.duplicates(source, rows)
    assert found["labeled", "validation"].tolist() == [[0, 4]]
    assert found["validation", "test"].tolist() == [[5, 1]]
    assert found["unlabeled", "test"].tolist() == [[8, 0]]


def test_no_duplicates():
    source = source_with_duplicates()
    rows = splits.Splits(np.array([2]), np.array([2, 3]), np.array([9]))
    assert splits.duplicates(source, rows) == {}
    assert splits.describe_duplicates(source, {}) == ""


def test_save_ids(tmp_path):
    path = tmp_path / "labeled_ids.txt"
    splits.save_ids(source_with_duplicates(), ROWS, path)
    assert path.read_text(encoding="utf-8").splitlines() == [
        f"# twins, splits {ROWS.fingerprint}",
        "0\tä\t0.png",
        "1\tb\t1.png",
        "2\tä\t2.png",
    ]
    rows = split(sources.load("digits").train.labels)
    splits.save_ids(sources.load("digits"), rows, path)
    read = np.loadtxt(path, np.int64, usecols=0, delimiter="\t")
    np.testing.assert_array_equal(read, rows.labeled)


def test_save_ids_of_odd_names(tmp_path):
    """One line and three columns each, whatever the names are."""
    source = source_with_duplicates()
    names = [b"a\tb.png", b"a\nb.png", b"\xff.png", *source.train.ids[3:]]
    images = dataclasses.replace(source.train, ids=np.array(names))
    info = dataclasses.replace(source.info, class_names=("a\tb", "c\rd"))
    source = dataclasses.replace(source, train=images, info=info)
    path = tmp_path / "labeled_ids.txt"
    splits.save_ids(source, ROWS, path)
    assert path.read_text("utf-8").splitlines()[1:] == [
        r"0	a\tb	a\tb.png",
        r"1	c\rd	a\nb.png",
        r"2	a\tb	\xff.png",
    ]


def test_a_long_tail_by_hand():
    labels = np.repeat(np.arange(3), 50)
    order = np.random.default_rng(0).permutation(150)
    rows = splits.long_tailed_subset(labels, order, 45)
    # One each, and 42 in proportion to 1 : 0.316 : 0.1.
    assert np.bincount(labels[rows]).tolist() == [31, 10, 4]
    fewest = splits.long_tailed_subset(labels, order, 3)
    assert np.bincount(labels[fewest]).tolist() == [1, 1, 1]
    with pytest.raises(ValueError, match="needs at least one image for each"):
        splits.long_tailed_subset(labels, order, 2)
    with pytest.raises(ValueError, match="class 0 has 50 images and should"):
        splits.long_tailed_subset(labels, order, 140)


def test_a_long_tail_of_digits():
    labels = sources.load("digits").train.labels
    rows = split(labels, num_labeled=100, label_split="long_tailed")
    found = np.bincount(labels[rows.labeled])
    assert found.sum() == 100 and found[0] > 4 * found[-1] >= 4
    assert sorted(found, reverse=True) == found.tolist()


def test_class_weights_by_hand():
    labels = np.array([0, 0, 0, 0, 1, 1])
    weights = splits.class_weights(labels, 2)
    np.testing.assert_allclose(weights, [0.75, 1.5])
    assert np.mean(weights[labels]) == 1.0


def test_judges_are_a_share_of_each_class():
    labels = np.array([0, 0, 0, 0, 1, 1, 2, 1, -1])
    rows = np.array([0, 1, 2, 3, 4, 5, 6])
    for share, expected in (
        (0.5, [0, 1, 4]),
        # At least one of two, and never all.
        (0.01, [0, 4]),
        (0.9, [0, 1, 2, 4]),
    ):
        found = splits.judges(labels, rows, share)
        np.testing.assert_array_equal(np.flatnonzero(found), expected)
    with pytest.raises(ValueError, match="--judge_share=0.5 needs two"):
        splits.judges(labels, np.array([0, 4, 6]), 0.5)
