"""Lists of image files in folders, and what is wrong with them."""

import shutil

import numpy as np
import pytest

from tests.image_folders import (
    encoded,
    fails,
    load,
    picture,
    write,
    write_classes,
    write_place,
)
from tf_metassl.data import splits


@pytest.fixture
def place(tmp_path):
    write_place(tmp_path)
    return tmp_path


def test_hidden_files_and_links(place):
    for name in (".DS_Store", "._1.png", "Thumbs.db"):
        write(place / "labeled/cat" / name, b"junk")
        write(place / "labeled" / name, b"junk")
    (place / "labeled/.git").mkdir()
    (place / "elsewhere").mkdir()
    write(place / "elsewhere/a.png", encoded(picture(50)))
    (place / "labeled/dog/more").symlink_to(place / "elsewhere")
    (place / "unlabeled/deep/round").symlink_to(place / "unlabeled")
    source = load(place)
    assert source.train.labels.tolist() == [0] * 5 + [1] * 6 + [-1] * 6
    assert b"dog/more/a.png" in source.train.ids


def test_litter_of_file_managers(place):
    write(place / "labeled/__MACOSX/cat/._0.png", b"junk")
    write(place / "unlabeled/__MACOSX/0.png", encoded(picture(51)))
    write(place / "labeled/cat/@eaDir/0.png", encoded(picture(52)))
    write(place / "labeled/Icon\r", b"")
    source = load(place)
    assert source.info.class_names == ("cat", "dog")
    assert len(source.train) == 10 + 6


SPELLINGS = [
    ("train", "validation", "test"),
    ("training", "val", "test"),
    ("train", "dev", "test"),
    ("Train", "Valid", "Test"),
]


@pytest.mark.parametrize("names", SPELLINGS)
def test_a_folder_of_splits_is_recognized(tmp_path, names):
    for name in names:
        write_classes(tmp_path / name, count=1)
    write(tmp_path / "unlabeled/0.png", encoded(picture()))
    source = load(tmp_path, labeled_dir=str(tmp_path), **NO_FLAGS)
    assert source.info.class_names == ("cat", "dog")
    assert source.train.labels.tolist() == [0, 1, 0, 1, -1]
    assert source.validation_rows.tolist() == [2, 3]
    assert source.test.labels.tolist() == [0, 1]
    train, validation, test = names
    for part in (
        f"{train} (labeled images)",
        f"{validation} (validation images)",
        f"{test} (test images)",
        "unlabeled (unlabeled images)",
    ):
        assert part in source.description


NO_FLAGS = dict.fromkeys(("validation_dir", "test_dir", "unlabeled_dir"), "")


def test_a_folder_with_train_alone(tmp_path):
    write_classes(tmp_path / "all/train", count=5)
    source = load(tmp_path, labeled_dir=str(tmp_path / "all"))
    assert source.info.class_names == ("cat", "dog")


def test_splits_that_are_not_clear_are_refused(place):
    everything = place / "all"
    for name in ("train", "val", "test"):
        write_classes(everything / name, count=2)
    given = {"labeled_dir": str(everything), **NO_FLAGS}
    flags = (
        f"Say what is meant: --labeled_dir={everything}/train "
        f"--validation_dir={everything}/val --test_dir={everything}/test$"
    )
    fails(
        place,
        f"--test_dir is given, too. {flags}",
        **{**given, "test_dir": str(place / "test")},
    )
    (everything / "cat").mkdir()
    fails(place, f"but cat are none. {flags}", **given)
    (everything / "cat").rmdir()
    write_classes(everything / "validation", count=2)
    fails(place, f"val and validation mean the same split. {flags}", **given)
    shutil.rmtree(everything / "validation")
    shutil.rmtree(everything / "train")
    fails(place, "none of them is for training", **given)


def test_several_folders_without_labels(place):
    for name in ("more", "a,b"):
        write(place / name / "deep/cat/0.png", encoded(picture(77)))
    (place / "more/link.png").symlink_to(place / "unlabeled/deep/cat/0.png")
    both = f"{place / 'unlabeled'}, {place / 'more'}"
    source = load(place, unlabeled_dir=both)
    assert np.count_nonzero(source.train.labels < 0) == 7
    assert "1 picture(s) are listed twice and counted once" in (
        source.description
    )
    names = source.train.ids[source.train.labels < 0].tolist()
    assert b"more/deep/cat/0.png" in names
    assert b"unlabeled/deep/cat/0.png" in names
    nested = f"{place / 'unlabeled'},{place / 'unlabeled/deep'}"
    source = load(place, unlabeled_dir=nested)
    assert np.count_nonzero(source.train.labels < 0) == 6
    source = load(place, unlabeled_dir=str(place / "a,b"))
    assert np.count_nonzero(source.train.labels < 0) == 1
    fails(
        place,
        "--unlabeled_dir=/nowhere: no such folder.* separated by commas",
        unlabeled_dir=f"{place / 'more'},/nowhere",
    )
    (place / "nothing").mkdir()
    fails(
        place,
        "--unlabeled_dir=.*nothing holds no images",
        unlabeled_dir=f"{place / 'more'},{place / 'nothing'}",
    )


def test_classes_with_the_names_of_splits(place):
    for name in ("train", "test"):
        write_classes(place / "vehicles", (name, "bus"), count=3)
    source = load(place, labeled_dir=str(place / "vehicles"), test_dir="")
    assert source.info.class_names == ("bus", "test", "train")


def test_a_sub_folder_without_labels(place):
    write(place / "labeled/Unlabeled/0.png", encoded(picture(60)))
    fails(
        place,
        "has the sub-folder Unlabeled, .*--unlabeled_dir, or set --missing_lab",
    )
    source = load(place, missing_labels="unlabeled")
    assert source.info.class_names == ("cat", "dog")
    assert np.count_nonzero(source.train.labels < 0) == 7
    fails(
        place,
        "--test_dir|no usable test",
        missing_labels="class",
        test_dir=str(place / "unlabeled"),
    )
    source = load(place, missing_labels="class")
    assert "Unlabeled" in source.info.class_names


def test_unlabeled_folder_around_the_others(place):
    source = load(place, unlabeled_dir=str(place))
    assert np.count_nonzero(source.train.labels < 0) == 6


def test_test_images_are_held_out(place):
    shutil.rmtree(place / "test")
    write_classes(place / "labeled", count=20)
    source = load(place)
    assert "20% of each class's labeled images, held out" in source.description
    assert source.test.labels.tolist() == [0] * 4 + [1] * 4
    assert len(source.train) == 32 + 6
    assert not splits.duplicates(
        source,
        splits.Splits(np.arange(32), np.arange(38), np.arange(0)),
    )
    # The same ones, whatever comes in addition.
    for i in range(20, 25):
        write(place / f"labeled/cat/{i}.png", encoded(picture(i)))
    more = load(place)
    assert len(more.test) == 9
    assert set(source.test.ids) < set(more.test.ids)
    assert len(load(place, test_fraction=0.5).test) == 22


def test_each_class_keeps_a_labeled_image(tmp_path):
    write_classes(tmp_path / "labeled", count=2)
    shutil.copy(tmp_path / "labeled/cat/0.png", tmp_path / "labeled/cat/9.png")
    (tmp_path / "labeled/dog/1.png").unlink()
    source = load(tmp_path, test_fraction=0.9)
    assert source.train.labels.tolist() == [0, 1]
    assert source.test.labels.tolist() == [0, 0]


def test_folder_errors(place):
    fails(place, "needs --labeled_dir", labeled_dir="")
    fails(
        place, "--labeled_dir=/nowhere: no such folder", labeled_dir="/nowhere"
    )
    fails(place, "--unlabeled_dir=x: no such folder", unlabeled_dir="x")
    fails(place, "--test_dir=x: no such folder", test_dir="x")
    empty = place / "empty"
    empty.mkdir()
    fails(
        place,
        "--labeled_dir=.*empty has no sub-folders",
        labeled_dir=str(empty),
    )
    fails(
        place,
        "--unlabeled_dir=.*empty holds no images",
        unlabeled_dir=str(empty),
    )
    (empty / "cat").mkdir()
    (empty / "dog").mkdir()
    fails(place, "--test_dir=.*empty holds no images", test_dir=str(empty))
    fails(place, "--labeled_dir=.*empty holds no", labeled_dir=str(empty))
