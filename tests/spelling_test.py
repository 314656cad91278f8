"""Unicode forms, splits, missing labels, litter, spreadsheets."""

import pytest

from tf_metassl.data import spelling


def test_text_has_one_form_and_can_be_written():
    assert spelling.text("cafe\u0301") == spelling.text("caf\u00e9")
    assert spelling.text("a\udcffb") == "a\\xffb"
    assert spelling.text("\ud800").encode() == b"\\ud800"
    assert spelling.text("\u732b") == "\u732b"


def test_one_line():
    assert spelling.one_line("a\tb\nc\u2028\x85") == "a\\tb\\nc\\u2028\\x85"
    assert spelling.one_line("C:\\new") == "C:\\new"


def test_long_names_are_shortened_in_the_middle():
    assert spelling.shortened("abcdefgh", 7) == "abc…fgh"
    assert spelling.shortened("abcdefgh", 6) == "abc…gh"
    assert spelling.shortened("a\tcdef", 7) == "a\\tcdef"
    assert len(spelling.shortened("x" * 99)) == 24


def test_forms_begin_with_the_name_itself():
    assert spelling.forms("a") == ("a",)
    assert spelling.forms("e\u0301") == ("e\u0301", "\u00e9")


def test_splits():
    expected = {"val": "validation", " DEV ": "validation", "Test": "test"}
    assert {name: spelling.split(name) for name in expected} == expected
    assert spelling.split("cat") is None


@pytest.mark.parametrize(
    "label", ["nan", "None", "NULL", "n/a", "unlabelled", "?", "-1", "<NA>"]
)
def test_labels_that_say_that_there_is_none(label):
    assert spelling.is_no_label(label)
    assert spelling.is_no_label(f" {label} ")


@pytest.mark.parametrize("label", ["nanny", "0", "1", "cat", "unlucky", "x"])
def test_other_labels(label):
    assert not spelling.is_no_label(label)


@pytest.mark.parametrize(
    "name", [".DS_Store", "._1.png", "Thumbs.db", "__MACOSX", "@eaDir"]
)
def test_litter(name):
    assert spelling.is_litter(name)
    assert not spelling.is_litter(f"my{name}x")


@pytest.mark.parametrize("start", ["=", "+", "-", "@", " =", "\t", "\r"])
def test_formulas(start):
    assert spelling.for_spreadsheet(f"{start}1+2") == f"'{start}1+2"


@pytest.mark.parametrize("cell", ["", "a=1", "/a/-b", "zero bytes", "1"])
def test_cells_that_stay(cell):
    assert spelling.for_spreadsheet(cell) == cell
