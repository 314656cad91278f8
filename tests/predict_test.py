"""From picture files to predictions, labels and measures."""

import csv
import json
import shutil

import numpy as np
import pytest
from PIL import Image

from tests.image_folders import encoded, picture, write, write_classes
from tf_metassl import config, evaluate, predict, pseudo_label
from tf_metassl.data import pictures
from tf_metassl.data.decode import fit
from tf_metassl.data.pictures import Decoding
from tf_metassl.errors import ConfigError, UserError
from tf_metassl.run import (
    classifier,
    experiment,
    measurement,
    predictions,
    run_directory,
)


def rows(path):
    return list(csv.DictReader(path.read_text("utf-8").splitlines()))


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run on folders of two classes; the folder is its parent's `data`."""
    place = tmp_path_factory.mktemp("use")
    for folder, count in (("train", 12), ("test", 5), ("validation", 6)):
        start = {"train": 0, "test": 2000, "validation": 4000}[folder]
        write_classes(
            place / "data" / folder, ("cat", "dog"), count, start, width=11
        )
    data = place / "data"
    given = {
        "algo": "fixmatch",
        "labeled_dir": str(data / "train"),
        "validation_dir": str(data / "validation"),
        "test_dir": str(data / "test"),
        "num_labeled": 8,
        "image_size": 8,
        "resize": "squash",
        "model": "strided_cnn",
        "batch_size": 8,
        "num_steps": 4,
        "verbose": 0,
        "cache_dir": str(place / "cache"),
        "run_dir": str(place / "run"),
    }
    experiment.train(config.resolve(given))
    return place / "run"


@pytest.fixture
def moved(run, tmp_path):
    """A copy of the run alone; its images cannot be reached from it."""
    shutil.copytree(run, tmp_path / "moved")
    file = tmp_path / "moved" / "config.json"
    values = json.loads(file.read_text())
    for name in ("labeled_dir", "validation_dir", "test_dir"):
        values[name] = f"/nonexistent/{name}"
    file.write_text(json.dumps(values))
    return tmp_path / "moved"


@pytest.mark.slow
def test_pictures_become_squares_as_in_the_run(run, moved):
    for decoding in (
        classifier.from_run(run_directory.load_config(run), run).decoding,
        classifier.from_saved_model(moved / "export" / "1").decoding,
    ):
        assert decoding.resize == "squash"
    path = run.parent / "data" / "test" / "cat" / "0.png"
    ((found,),) = pictures.read([path], decoding)
    expected = Image.open(path).resize((8, 8), Image.Resampling.BILINEAR)
    np.testing.assert_allclose(
        found.pixels.astype(int), np.asarray(expected).astype(int), atol=1
    )


@pytest.mark.slow
def test_a_run_alone_and_its_export_predict_the_same(run, moved, tmp_path):
    images = str(run.parent / "data" / "test")
    found = {}
    for name, model in (("run", moved), ("export", moved / "export" / "1")):
        out = tmp_path / f"{name}.csv"
        counts = predict.predict(str(model), [images], str(out), top=5)
        found[name] = rows(out)
        assert sum(counts.values()) == len(found[name]) == 10
    for one, other in zip(*found.values(), strict=True):
        assert one["path"] == other["path"]
        assert one["class"] == other["class"]
        for column in ("probability", "confidence", "probability_2"):
            assert float(one[column]) == pytest.approx(
                float(other[column]), abs=1e-4
            )
        total = float(one["probability"]) + float(one["probability_2"])
        assert total == pytest.approx(1.0, abs=1e-5)
    # Two classes are all there are.
    assert "class_3" not in found["run"][0]
    assert [row["path"] for row in found["run"]] == sorted(
        row["path"] for row in found["run"]
    )


@pytest.mark.slow
def test_predictions_are_those_of_the_evaluation(run, moved, tmp_path):
    """On the very files of the run's test images."""
    results = json.loads((run / "results.json").read_text())[-1]
    test = str(run.parent / "data" / "test")
    found = evaluate.evaluate(str(moved), labeled_dir=test)
    assert found.accuracy == pytest.approx(results["test_accuracy"])
    values = found.to_json()
    assert values["macro_f1"] == pytest.approx(results["test_macro_f1"])
    assert values["num_images"] == 10
    manifest = tmp_path / "m.csv"
    lines = [
        f"{path},{path.parent.name},test"
        for path in sorted((run.parent / "data" / "test").rglob("*.png"))
    ]
    manifest.write_text("\n".join(["path,label,split", *lines]))
    again = evaluate.evaluate(str(moved), manifest=str(manifest))
    np.testing.assert_array_equal(again.confusion, found.confusion)


@pytest.mark.slow
def test_files_that_cannot_be_read_are_listed_in_their_place(
    run, tmp_path, capsys
):
    write(tmp_path / "in" / "a.png", encoded(picture(1)))
    write(tmp_path / "in" / "b.png", encoded(picture(2, 40, 40))[:200])
    write(tmp_path / "in" / "c.txt", b"no image")
    write(tmp_path / "in" / "d.png", encoded(picture(3, 5, 9)))
    out = tmp_path / "out" / "p.csv"
    counts = predict.predict(str(run), [str(tmp_path / "in")], str(out))
    found = {row["path"].rsplit("/")[-1]: row for row in rows(out)}
    assert list(found) == ["a.png", "b.png", "c.txt", "d.png"]
    assert sum(counts.values()) == 1
    assert "3 of 4 files cannot be used" in capsys.readouterr().err
    assert found["a.png"]["problem"] == "" and found["a.png"]["class"]
    assert found["c.txt"]["problem"] == "not an image"
    assert found["d.png"]["problem"].startswith("smaller than 8 pixels")
    assert "runcated" in found["b.png"]["problem"]
    assert found["b.png"]["class"] == found["b.png"]["confidence"] == ""


def test_places_are_files_folders_and_patterns(tmp_path):
    for name in ("b.png", "a.png", "sub/c.png", "sub/.DS_Store"):
        write(tmp_path / name, b"x")
    folder = str(tmp_path)

    def names(*places):
        return [path.name for path in pictures.find(places)]

    assert names(folder) == ["a.png", "b.png", "c.png"]
    assert names(f"{folder}/b.png", f"{folder}/sub") == ["b.png", "c.png"]
    assert names(f"{folder}/*.png") == ["a.png", "b.png"]
    for place, words in (
        (f"{folder}/x.png", "no such file"),
        (f"{folder}/*.jpg", "there is no file"),
    ):
        with pytest.raises(UserError, match=words):
            pictures.find([place])


@pytest.mark.parametrize(
    "size, stored, problem",
    (
        ((8, 8), 0, ""),
        ((9, 8), 0, "9x8 pixels, and the network takes 8x8"),
        ((30, 20), 8, ""),
        ((30, 20), 10, ""),
    ),
)
def test_pictures_get_the_size_of_the_input(size, stored, problem, tmp_path):
    image = picture(5, *size)
    path = tmp_path / "a.png"
    write(path, encoded(image))
    ((found,),) = pictures.read([path], Decoding((8, 8, 3), stored))
    assert found.problem == problem
    if problem:
        return
    assert found.pixels.shape == (8, 8, 3)
    if stored == 10:
        expected = np.asarray(fit(Image.fromarray(image), 10))[1:9, 1:9]
        np.testing.assert_array_equal(found.pixels, expected)


@pytest.mark.slow
def test_labels_are_a_manifest_to_train_on(run, tmp_path):
    data = run.parent / "data"
    out = tmp_path / "labels.csv"
    counts = pseudo_label.pseudo_label(
        str(run),
        [str(data / "train")],
        str(out),
        min_confidence=0.0,
        per_class=3,
        with_labeled=True,
        copy_to=str(tmp_path / "copied"),
    )
    table = rows(out)
    given = [row for row in table if not row["predicted"]]
    # Eight labels, ten test and twelve validation images.
    splits = [row["split"] for row in given]
    assert [splits.count(s) for s in ("train", "test", "validation")] == [
        *(8, 10, 12)
    ]
    made = [row for row in table if row["predicted"]]
    assert len(made) == 24 - 8
    assert sum(of["labeled"] for of in counts.values()) == sum(
        bool(row["label"]) for row in made
    )
    for name, of in counts.items():
        mine = [row for row in made if row["predicted"] == name]
        assert of["labeled"] == min(3, len(mine))
        confidences = [float(row["confidence"]) for row in mine]
        labeled = [float(r["confidence"]) for r in mine if r["label"]]
        assert sorted(labeled) == sorted(confidences)[-3:]
        assert {row["student_agrees"] for row in mine} <= {"yes", "no"}
        copied = tmp_path / "copied" / name
        assert len(list(copied.glob("*"))) == of["labeled"] or not mine
    # Two rows are corrected, and it is trained on.
    text = out.read_text()
    for row in [row for row in made if row["label"]][:2]:
        other = {"cat": "dog", "dog": "cat"}[row["label"]]
        before = f"{row['path']},{row['label']},"
        assert before in text
        text = text.replace(before, f"{row['path']},{other},")
    out.write_text(text)
    given = {
        "algo": "supervised",
        "manifest": str(out),
        "image_size": 8,
        "model": "strided_cnn",
        "batch_size": 8,
        "num_steps": 2,
        "verbose": 0,
        "run_dir": str(tmp_path / "again"),
        "cache_dir": str(tmp_path / "cache"),
    }
    experiment.train(config.resolve(given))
    results = json.loads((tmp_path / "again" / "results.json").read_text())
    assert "validation_accuracy" in results[-1]


@pytest.mark.slow
def test_only_the_confident_get_a_label(run, tmp_path):
    out = tmp_path / "labels.csv"
    counts = pseudo_label.pseudo_label(
        str(run / "export" / "1"),
        [str(run.parent / "data" / "test")],
        str(out),
        min_confidence=1.0,
    )
    assert sum(of["labeled"] for of in counts.values()) == 0
    table = rows(out)
    assert len(table) == 10 and {row["label"] for row in table} == {""}
    # An export has one network.
    assert {row["student_agrees"] for row in table} == {""}


def test_a_copy_never_replaces_another_file(tmp_path):
    for folder, seed in (("a", 1), ("b", 2)):
        write(tmp_path / folder / "x.png", encoded(picture(seed)))
    for _ in range(2):
        for folder in ("a", "b"):
            predictions._copy(
                tmp_path / folder / "x.png", tmp_path / "to" / "cat"
            )
    contents = {
        path.name: path.read_bytes()
        for path in (tmp_path / "to" / "cat").iterdir()
    }
    assert contents == {
        "x.png": encoded(picture(1)),
        "x-2.png": encoded(picture(2)),
    }


@pytest.mark.slow
def test_what_is_no_model_is_refused(run, tmp_path):
    with pytest.raises(ConfigError, match="neither the folder of a run"):
        predictions.load(tmp_path)
    shutil.copytree(run / "export" / "1", tmp_path / "old")
    shutil.rmtree(tmp_path / "old" / "assets.extra")
    with pytest.raises(ConfigError, match="not an export of this version"):
        predictions.load(tmp_path / "old")


@pytest.mark.slow
def test_classes_that_the_classifier_does_not_know(run, tmp_path):
    write_classes(tmp_path / "other", ("cat", "cow"), 2)
    with pytest.raises(ConfigError, match="does not know cow: its classes are"):
        evaluate.evaluate(str(run), labeled_dir=str(tmp_path / "other"))
    write_classes(tmp_path / "one", ("cat",), 2)
    found = evaluate.evaluate(str(run), labeled_dir=str(tmp_path / "one"))
    assert list(found.by_class()) == ["cat"]
    assert "1 of 2 classes have no image here" in found.table()


def test_measures_by_hand():
    confusion = np.array([[3, 1, 0], [2, 4, 0], [0, 0, 0]])
    found = measurement.Measurement(("a", "b", "c"), confusion, 0.0)
    assert found.accuracy == 0.7
    assert found.by_class() == {
        "a": {
            "precision": 3 / 5,
            "recall": 3 / 4,
            "f1": pytest.approx(6 / 9),
            "support": 4,
        },
        "b": {
            "precision": 4 / 5,
            "recall": 4 / 6,
            "f1": pytest.approx(8 / 11),
            "support": 6,
        },
    }


@pytest.mark.slow
def test_images_of_a_run_that_has_none_to_name(tmp_path, moved):
    with pytest.raises(ConfigError, match="--with_labeled: .*no such folder"):
        pseudo_label.pseudo_label(
            str(moved),
            [str(moved / "report.md")],
            str(tmp_path / "x.csv"),
            with_labeled=True,
        )
