"""The same picture in several places of the user's folders."""

import os

import numpy as np
import pytest

from tests.image_folders import (
    encoded,
    fails,
    load,
    picture,
    write,
    write_place,
)


@pytest.fixture
def place(tmp_path):
    write_place(tmp_path)
    return tmp_path


def test_a_link_to_the_parent_of_a_class(place):
    (place / "labeled/dog/up").symlink_to("..")
    with pytest.raises(ValueError) as error:
        load(place)
    lines = str(error.value).splitlines()
    assert lines[0].startswith("5 picture(s) have two labels: ")
    assert lines[1] == (
        f"  {place}/labeled/cat/0.png (class cat, train) and "
        f"{place}/labeled/dog/up/cat/0.png (class dog, train)"
    )
    assert lines[4] == "  ..."


@pytest.mark.parametrize("link", [os.link, os.symlink])
def test_two_labels_by_a_link(place, link):
    link(place / "labeled/cat/1.png", place / "labeled/dog/other.png")
    fails(
        place,
        "1 picture.* two labels: .*\n.*cat/1.png .class cat, train. and "
        ".*dog/other.png .class dog",
    )


@pytest.mark.parametrize("link", [os.link, os.symlink])
@pytest.mark.parametrize("part", ["validation", "test"])
def test_two_splits_by_a_link(place, link, part):
    (place / part / "cat").mkdir(parents=True, exist_ok=True)
    link(place / "labeled/cat/1.png", place / part / "cat/other.png")
    fails(
        place,
        f"1 picture.* two splits: .*\n.*labeled/cat/1.png .class cat, train. "
        f"and .*{part}/cat/other.png .class cat, {part}",
    )


def test_one_folder_for_two_flags(place):
    fails(
        place,
        "10 picture.* have two splits",
        test_dir=str(place / "labeled"),
    )


@pytest.mark.parametrize("link", [os.link, os.symlink])
def test_a_picture_twice_in_its_class_counts_once(place, link):
    link(place / "labeled/cat/1.png", place / "labeled/cat/other.png")
    source = load(place)
    assert source.train.labels.tolist() == [0] * 5 + [1] * 5 + [-1] * 6
    assert (
        "1 picture(s) are listed twice and counted once, such as "
        f"{place}/labeled/cat/other.png = {place}/labeled/cat/1.png."
    ) in source.description


@pytest.mark.parametrize("link", [os.link, os.symlink])
@pytest.mark.parametrize("part", ["labeled", "test"])
def test_an_unlabeled_picture_is_not_labeled_too(place, link, part):
    """It counts as what it is with its label."""
    link(place / part / "cat/1.png", place / "unlabeled/other.png")
    source = load(place)
    assert np.count_nonzero(source.train.labels < 0) == 6
    assert b"other.png" not in source.train.ids
    assert "1 picture(s) are listed without a label" in source.description


def test_an_unlabeled_picture_twice(place):
    os.link(place / "unlabeled/deep/cat/0.png", place / "unlabeled/again.png")
    source = load(place)
    assert np.count_nonzero(source.train.labels < 0) == 6


def test_equal_content_is_not_the_same_picture(place):
    """It is told with the splits, but two files stay two."""
    write(place / "labeled/cat/copy.png", encoded(picture(1)))
    source = load(place)
    assert source.train.labels.tolist() == [0] * 6 + [1] * 5 + [-1] * 6
