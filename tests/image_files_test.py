"""Lists of image files: folders and manifests, and what is wrong with them."""

import os
import shutil
import unicodedata

import numpy as np
import pytest

from tests.image_folders import (
    bad_images,
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


@pytest.mark.parametrize("how", ("link", "hard link", "folder"))
def test_one_file_with_two_labels_is_refused(place, how):
    cat = place / "labeled/cat/0.png"
    if how == "link":
        (place / "labeled/dog/x.png").symlink_to(cat)
    elif how == "hard link":
        os.link(cat, place / "labeled/dog/x.png")
    else:
        # A link to the folder above shows all cats as dogs, too.
        (place / "labeled/dog/up").symlink_to(place / "labeled")
    with pytest.raises(ValueError, match="has two labels") as error:
        load(place)
    assert "labeled/cat/" in str(error.value)
    assert "labeled/dog/" in str(error.value)


def test_one_file_in_two_splits_is_refused(place):
    (place / "test/cat/x.png").symlink_to(place / "labeled/cat/0.png")
    fails(place, "is a train and a test image: .*labeled.*test")


def test_a_file_that_is_listed_twice_is_one_image(place):
    (place / "labeled/cat/again.png").symlink_to(place / "labeled/cat/0.png")
    (place / "unlabeled/x.png").symlink_to(place / "labeled/cat/1.png")
    (place / "unlabeled/y.png").symlink_to(place / "test/cat/1.png")
    source = load(place)
    assert np.bincount(source.train.labels + 1).tolist() == [6, 5, 5]


@pytest.mark.parametrize("form", ("NFC", "NFD"))
def test_names_are_compared_in_one_form(place, form):
    other = {"NFC": "NFD", "NFD": "NFC"}[form]
    for part, used in (("labeled", form), ("test", other)):
        (place / part / "cat").rename(
            place / part / unicodedata.normalize(used, "é")
        )
    source = load(place)
    assert source.info.class_names == ("dog", "\u00e9")
    lines = "path,label,split\n" + "".join(
        f"labeled/{unicodedata.normalize(other, 'é')}/{i}.png,"
        f"{unicodedata.normalize(f, 'é')},\nlabeled/dog/{i}.png,dog,\n"
        for i, f in enumerate(("NFC", "NFD", "NFC"))
    )
    source = load(place, "csv", manifest=manifest(place, lines))
    assert source.info.class_names == ("dog", "\u00e9")


def test_a_class_whose_name_is_no_text(place):
    strange = os.fsdecode(b"caf\xe9")
    (place / "labeled/cat").rename(place / "labeled" / strange)
    (place / "test/cat").rename(place / "test" / strange)
    source = load(place)
    assert source.info.class_names == ("caf\\xe9", "dog")
    assert [n.encode() for n in source.info.class_names]
    assert np.bincount(source.train.labels + 1).tolist() == [6, 5, 5]


def test_what_archivers_leave_behind_is_no_class(place):
    for name in ("__MACOSX", "@eaDir", "lost+found"):
        write_classes(place / "labeled", (name,))
    assert load(place).info.class_names == ("cat", "dog")


def test_a_folder_of_splits_is_no_folder_of_classes(tmp_path):
    for part in ("train", "val", "test"):
        write_classes(tmp_path / "all" / part)
    fails(
        tmp_path,
        "splits rather than classes. Give --test_dir=.*test "
        "--labeled_dir=.*train --validation_dir=.*val",
        labeled_dir=str(tmp_path / "all"),
    )
    # A class may be called so.
    write_classes(tmp_path / "all", ("cat",))
    load(tmp_path, labeled_dir=str(tmp_path / "all"))


# CSV.


def manifest(place, text, name="images.csv"):
    (place / name).write_text(text, encoding="utf-8")
    return str(place / name)


LINES = """path,label,split
labeled/cat/0.png,kitten,train
labeled/cat/1.png,kitten,
labeled/dog/0.png,puppy,train
unlabeled/deep/cat/0.png,,
unlabeled/deep/cat/1.png,,train
labeled/dog/1.png,puppy,unlabeled
labeled/dog/2.png,puppy,validation
test/cat/0.png,kitten,test
test/dog/0.png,puppy,test
"""


@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_csv(place, mark):
    source = load(place, "csv", manifest=manifest(place, mark + LINES))
    assert source.info.name == "csv"
    assert source.info.class_names == ("kitten", "puppy")
    assert source.train.labels.tolist() == [0, 0, 1, 1, -1, -1, -1]
    assert source.train.ids[4] == b"unlabeled/deep/cat/0.png"
    np.testing.assert_array_equal(source.train.read([4])[0], picture(2000))
    assert source.validation_rows.tolist() == [3]
    assert source.test.labels.tolist() == [0, 1]


def test_csv_without_splits_and_with_other_columns(place, tmp_path):
    text = "who,label,path\n"
    for name in ("cat", "dog"):
        for i in range(5):
            text += f"me,{name},{place}/labeled/{name}/{i}.png\n"
    elsewhere = tmp_path / "other"
    elsewhere.mkdir()
    source = load(place, "csv", manifest=manifest(elsewhere, text))
    assert source.test.labels.tolist() == [0, 1]
    assert len(source.train) == 8


def test_csv_with_files_that_are_not_there(place, tmp_path):
    text = LINES + "nowhere.png,kitten,\nlabeled,,\n"
    path = manifest(place, text)
    load(place, "csv", tmp_path, manifest=path, max_bad_fraction=0.2)
    assert bad_images(tmp_path) == {
        str(place / "nowhere.png"): "no such file",
        str(place / "labeled"): "not a file",
    }


@pytest.mark.parametrize(
    "text, message",
    [
        ("", "no column label or path"),
        ("file,label\na.png,b\n", "no column path: its first line must be"),
        ("path,label\na.png,\n", "has no image with a label"),
        (LINES + "x.png,kitten,dev\n", "line 11: the split 'dev' is none of"),
        (LINES + "x.png,,test\n", "line 11: a test image needs a label"),
        (LINES + ",kitten,test\n", "line 11: the path is empty"),
        (LINES + "x.png,kitten,test,1\n", "line 11: more columns than"),
        (LINES + "x.png,owl,test\n", "no usable labeled image of owl"),
        (LINES.replace("puppy", "kitten"), "only the class 'kitten'"),
        (LINES.replace(",", ";"), "by commas, not by ';'"),
        (LINES.replace(",", "\t"), "by commas, not by '.t'"),
        (LINES + "x.png\n", "line 11: nothing in the column label"),
        (LINES + "x.png,NaN,\ny.png,nan,\n", "'NaN' .1 rows., 'nan' .1 rows"),
        (LINES + "x.png,-1,\n", "labels that usually mean that there is none"),
        (
            LINES + "labeled/cat/0.png,puppy,\n",
            "has two labels: .*labeled/cat/0.png and",
        ),
        (
            LINES + "labeled/cat/0.png,kitten,test\n",
            "is a train and a test image",
        ),
    ],
)
def test_csv_errors(place, text, message):
    path = manifest(place, text)
    with pytest.raises(ValueError, match=message) as error:
        load(place, "csv", manifest=path, max_bad_fraction=1.0)
    assert f"--manifest={path}" in str(error.value)


def test_manifest_that_is_no_text(place):
    fails(place, "needs --manifest", dataset="csv")
    fails(place, "no such file", dataset="csv", manifest="/nowhere.csv")
    (place / "images.csv").write_bytes(b"path,label\n\xff\xfe,\n")
    path = str(place / "images.csv")
    fails(place, "not a CSV file in UTF-8", dataset="csv", manifest=path)
