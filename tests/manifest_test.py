"""Lists of image files in a manifest, and what is wrong with it."""

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
    write_place,
)


@pytest.fixture
def place(tmp_path):
    write_place(tmp_path)
    return tmp_path


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
        ("", "no column label or path: .* it is empty"),
        ("file,label\na.png,b\n", "no column path: its .* is 'file,label'"),
        ("path;label\na.png;b\n", "separated by semicolons: its first line"),
        ("path\tlabel\na.png\tb\n", "separated by tabs: its first line"),
        ("path,label,label\na,b,c\n", "several columns label: keep one"),
        ("path,label\na\0.png,b\n", "line 2: the path has a NUL"),
        ("path,label\na.png,\n", "has no image with a label"),
        (LINES + "x.png,kitten,extra\n", "line 11: the split 'extra' is none"),
        (LINES + "x.png,,test\n", "line 11: a test image needs a label"),
        (LINES + ",kitten,test\n", "line 11: the path is empty"),
        (LINES + "x.png,kitten,test,1\n", "line 11: more columns than"),
        (LINES + "x.png,owl,test\n", "no usable labeled image of owl"),
        (LINES.replace("puppy", "kitten"), "only the class 'kitten'"),
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


# Conventions.


def lines(*rows):
    return "path,label,split\n" + "".join(f"{row}\n" for row in rows)


CATS_AND_DOGS = [
    f"labeled/{name}/{i}.png,{name}," for name in ("cat", "dog") for i in (0, 1)
]


@pytest.mark.parametrize(
    "label", ["nan", "NaN", "none", "null", "n/a", "unlabeled", "?", "-1"]
)
def test_a_label_that_says_that_there_is_none(place, label):
    missing = [f"unlabeled/deep/cat/{i}.png,{label}," for i in range(3)]
    path = manifest(place, lines(*CATS_AND_DOGS, *missing))
    with pytest.raises(ValueError) as error:
        load(place, "csv", manifest=path)
    assert "has 3 row(s) whose label usually means" in str(error.value)
    assert f"3 {label!r}" in str(error.value)
    assert "--missing_labels=unlabeled" in str(error.value)
    source = load(place, "csv", manifest=path, missing_labels="unlabeled")
    assert source.info.class_names == ("cat", "dog")
    assert np.count_nonzero(source.train.labels < 0) == 3
    source = load(place, "csv", manifest=path, missing_labels="class")
    assert label in source.info.class_names


def test_a_test_image_with_such_a_label(place):
    path = manifest(place, lines(*CATS_AND_DOGS, "test/cat/0.png,nan,test"))
    fails(
        place,
        "line 6: a test image needs a label, not 'nan'",
        dataset="csv",
        manifest=path,
        missing_labels="unlabeled",
    )


def test_labels_are_compared_in_one_unicode_form(place):
    composed, apart = (unicodedata.normalize(f, "caf\u00e9") for f in FORMS)
    text = lines(
        f"labeled/cat/0.png,{composed},",
        f"labeled/cat/1.png,{apart},",
        f"test/cat/0.png,{apart},test",
        "labeled/dog/0.png,dog,",
    )
    source = load(place, "csv", manifest=manifest(place, text))
    assert source.info.class_names == (composed, "dog")
    assert source.train.labels.tolist() == [0, 0, 1]


FORMS = ("NFC", "NFD")


@pytest.mark.parametrize("on_disk", FORMS)
@pytest.mark.parametrize("written", FORMS)
def test_paths_are_found_in_either_unicode_form(place, on_disk, written):
    names = {f: unicodedata.normalize(f, "\u00e9t\u00e9") for f in FORMS}
    # The folder in one form and the file in the other.
    other = "NFD" if on_disk == "NFC" else "NFC"
    file = f"{names[on_disk]}/{names[other]}.png"
    write(place / file, encoded(picture(7)))
    name = names[written]
    path = manifest(place, lines(*CATS_AND_DOGS, f"{name}/{name}.png,cat,test"))
    assert len(load(place, "csv", manifest=path).test) == 1


def test_splits_in_other_spellings(place):
    text = lines(
        *CATS_AND_DOGS,
        "labeled/cat/2.png,cat,val",
        "labeled/dog/2.png,dog,Dev",
        "test/cat/0.png,cat,TEST",
        "unlabeled/deep/cat/0.png,,unlabelled",
    )
    source = load(place, "csv", manifest=manifest(place, text))
    assert source.validation_rows.tolist() == [4, 5]
    assert len(source.test) == 1 and len(source.train) == 7


def test_the_header_may_have_blanks_and_capitals(place):
    text = lines(*CATS_AND_DOGS).replace("path,label", "Path, Label")
    assert len(load(place, "csv", manifest=manifest(place, text)).train) == 2


def test_litter_of_file_managers_is_skipped(place):
    litter = ["__MACOSX/labeled/cat/._0.png,cat,", "labeled/cat/._1.png,cat,"]
    litter += ["labeled/dog/Thumbs.db,dog,", "labeled/dog/.DS_Store,dog,"]
    path = manifest(place, lines(*CATS_AND_DOGS, *litter))
    source = load(place, "csv", manifest=path)
    assert len(source.train) + len(source.test) == 4


def test_classes_of_equal_numbers_have_one_order(place):
    names = ["01", "1", "001", "2"]
    text = lines(*(f"labeled/cat/{i}.png,{n}," for i, n in enumerate(names)))
    text += "test/cat/0.png,2,test\n"
    source = load(place, "csv", manifest=manifest(place, text))
    assert source.info.class_names == ("001", "01", "1", "2")


def test_a_path_twice(place):
    text = lines(*CATS_AND_DOGS, "labeled/../labeled/cat/0.png,cat,train")
    source = load(place, "csv", manifest=manifest(place, text))
    assert len(source.train) + len(source.test) == 4
    assert (
        "1 picture(s) are listed twice and counted once, such as line 6: "
        "labeled/../labeled/cat/0.png = line 2: labeled/cat/0.png."
    ) in source.description


def test_a_path_twice_with_another_label_or_split(place):
    text = lines(
        *CATS_AND_DOGS,
        "labeled/cat/0.png,dog,",
        "labeled/dog/0.png,dog,test",
    )
    path = manifest(place, text)
    with pytest.raises(ValueError) as error:
        load(place, "csv", manifest=path)
    assert str(error.value).splitlines() == [
        "1 picture(s) have two labels: the same file, or a link to it, is "
        "listed as",
        "  line 2: labeled/cat/0.png (class cat, train) and line 6: "
        "labeled/cat/0.png (class dog, train)",
        "1 picture(s) have two splits: the same file, or a link to it, is "
        "listed as",
        "  line 4: labeled/dog/0.png (class dog, train) and line 7: "
        "labeled/dog/0.png (class dog, test)",
        "Keep one of the places of each picture.",
    ]


def test_a_path_with_and_without_a_label(place):
    text = lines(
        "labeled/cat/0.png,,unlabeled",
        "test/cat/0.png,,",
        *CATS_AND_DOGS,
        "test/cat/0.png,cat,test",
    )
    source = load(place, "csv", manifest=manifest(place, text))
    assert source.train.labels.tolist() == [0, 0, 1, 1]
    assert "2 picture(s) are listed without a label and" in source.description
