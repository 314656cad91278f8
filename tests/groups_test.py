"""Groups of images stay on one side of every split."""

import numpy as np
import pytest

from tests.image_folders import encoded, fails, load, picture, write
from tf_metassl.data import groups, splits


def test_choose_by_hand():
    """Of four of class 0 and two of class 1, the groups 5 and 8 are closest."""
    numbers = np.array([5, 5, 5, 6, 6, 6, 6, 8, 8, 9, 9, 9, 9, 9])
    labels = np.array([0, 0, -1, 0, 0, 0, 0, 1, 1, 1, 1, 1, 0, 0])
    found = groups.choose(
        numbers, labels, np.array([2, 2]), np.array([6, 5, 9, 8])
    )
    # Group 6 changes 2 to -2, which is no closer; 9 leaves -2 and -1.
    assert set(numbers[found]) == {5, 8}
    assert found.sum() == 5


def test_every_class_keeps_an_image():
    numbers, labels = np.array([0, 0, 1, 1]), np.array([0, 0, 1, 1])
    found = groups.choose(numbers, labels, np.array([2, 2]), np.array([0, 1]))
    assert not found.any()


def many(num_groups=60, seed=0):
    """Labels of groups of one to nine images, of one class or of several."""
    rng = np.random.default_rng(seed)
    sizes = rng.integers(1, 10, num_groups)
    numbers = np.repeat(rng.permutation(num_groups), sizes)
    own = rng.integers(0, 4, num_groups)[numbers]
    any_class = rng.integers(0, 4, len(numbers))
    labels = np.where(numbers % 3 == 0, any_class, own)
    return numbers, np.where(rng.random(len(labels)) < 0.1, -1, labels)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("label_split", ["balanced", "proportional"])
def test_validation_takes_whole_groups(seed, label_split):
    numbers, labels = many(seed=seed)
    found = splits.split(
        labels,
        num_labeled=40,
        num_validation=60,
        split_seed=seed,
        labeled_inside=True,
        label_split=label_split,
        groups=numbers,
    )
    training = np.union1d(found.labeled, found.unlabeled)
    assert not set(numbers[training]) & set(numbers[found.validation])
    assert np.all(labels[found.validation] >= 0)
    assert 51 <= len(found.validation) <= 69
    assert np.bincount(labels[found.validation]).min() >= 8


def test_the_first_labels_keep_their_groups():
    numbers, labels = many()
    found = splits.split(
        labels,
        num_labeled=40,
        num_validation=60,
        split_seed=0,
        labeled_inside=True,
        label_split="first",
        groups=numbers,
    )
    np.testing.assert_array_equal(
        found.labeled, np.flatnonzero(labels >= 0)[:40]
    )
    assert not set(numbers[found.unlabeled]) & set(numbers[found.validation])


def test_groups_that_are_too_large_are_refused():
    labels = np.arange(200) % 2
    with pytest.raises(ValueError, match="20 validation .* come to 0"):
        splits.split(
            labels,
            num_labeled=10,
            num_validation=20,
            split_seed=0,
            labeled_inside=True,
            groups=np.arange(200) // 100,
        )


# Files.


@pytest.fixture
def place(tmp_path):
    """Two classes, 15 patients with one to six images of one of them."""
    rng = np.random.default_rng(1)
    for patient in range(30):
        name = ("cat", "dog")[patient % 2]
        for i in range(rng.integers(1, 7)):
            image = picture(100 * patient + i)
            write(
                tmp_path / f"labeled/{name}/p{patient}/{i}.png", encoded(image)
            )
        write(
            tmp_path / f"unlabeled/p{patient}/x.png",
            encoded(picture(9000 + patient)),
        )
    return tmp_path


def patients(images, rows=slice(None)):
    return {name.decode().split("/")[-2] for name in images.ids[rows]}


def test_groups_of_folders(place):
    source = load(place, group_by="parent", test_fraction=0.25)
    total = np.count_nonzero(source.train.labels >= 0) + len(source.test)
    assert 0.2 <= len(source.test) / total <= 0.3
    assert not patients(source.train) & patients(source.test)
    dropped = len(patients(source.test))
    assert f"{dropped} unlabeled image(s) are left out" in source.description
    found = splits.split(
        source.train.labels,
        num_labeled=0,
        num_validation=20,
        split_seed=0,
        labeled_inside=True,
        groups=source.groups,
    )
    assert 14 <= len(found.validation) <= 26
    assert not patients(source.train, found.unlabeled) & patients(
        source.train, found.validation
    )
    # Other groups need other files, not the cached ones.
    plain = load(place, test_fraction=0.25)
    assert plain.groups is None
    assert patients(plain.train) & patients(plain.test)


def lines(place, column="patient"):
    text = f"path,label,{column}\n"
    for path in sorted((place / "labeled").rglob("*.png")):
        name = path.relative_to(place).as_posix()
        _, label, patient, _ = name.split("/")
        text += f"{name},{label},{patient}\n"
    return text


@pytest.mark.parametrize("group_by", ["patient", "Patient", "parent"])
def test_groups_of_a_manifest(place, group_by):
    (place / "images.csv").write_text(lines(place))
    source = load(
        place, "csv", manifest=str(place / "images.csv"), group_by=group_by
    )
    assert not patients(source.train) & patients(source.test)
    assert len(np.unique(source.groups)) == len(patients(source.train))


def test_a_column_that_is_not_there(place):
    (place / "images.csv").write_text(lines(place))
    fails(
        place,
        "--group_by=person: .* no such column; it has path, label, patient",
        dataset="csv",
        manifest=str(place / "images.csv"),
        group_by="person",
    )


def test_a_group_in_two_splits_is_refused(place):
    text = "path,label,split,who\n"
    for i, line in enumerate(lines(place).splitlines()[1:]):
        path, label, patient = line.split(",")
        split = "train" if i else "test"
        text += f"{path},{label},{split},{patient}\n"
    (place / "images.csv").write_text(text)
    fails(
        place,
        r"the group p0 is in two splits: line 2: .*\(test\) and line 3: ",
        dataset="csv",
        manifest=str(place / "images.csv"),
        group_by="who",
    )


def test_images_outside_of_groups(place):
    write(place / "labeled/cat/a.png", encoded(picture(1)))
    fails(place, "cat/a.png and 0 other .* directly in", group_by="parent")
    fails(place, "--group_by=patient: folders have", group_by="patient")
