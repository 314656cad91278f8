"""What an audit finds: by hand, and planted into real images."""

import csv
import gzip
import json
import re
import subprocess
import sys

import numpy as np
import pytest
from scipy import stats
from sklearn.datasets import load_digits

from tests.image_folders import encoded, picture, write, write_classes
from tests.real_data import real_data
from tf_metassl import config
from tf_metassl.data import arrays, copies, features, out_of_fold
from tf_metassl.data.datasets import DATASETS
from tf_metassl.errors import ConfigError, UserError
from tf_metassl.run import auditing

TABLES = ("duplicates", "suspicious_labels", "far_from_classes", "classes")


def rows(out, name):
    with open(out / f"{name}.csv", newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def digits():
    """The real digits, `[1797, 8, 8, 1]`, in an order of our own."""
    raw = load_digits()
    images = np.round(raw.images * (255 / 16)).astype(np.uint8)[..., None]
    order = np.random.default_rng(5).permutation(len(images))
    return images[order], raw.target[order]


def audit_arrays(out, **parts):
    source = arrays.source(DATASETS["arrays"], **parts)
    settings = config.resolve({"dataset": "arrays", "num_validation": 0})
    return auditing.audit(settings, out, source=source)


def audit_folders(place, **given):
    dirs = {
        f"{name}_dir": str(place / name)
        for name in ("labeled", "unlabeled", "validation", "test")
        if (place / name).exists()
    }
    settings = {**dirs, "cache_dir": str(place / "cache"), **given}
    out = place / "out"
    return auditing.audit(config.resolve(settings), out), out


# By hand.


def test_areas_are_averaged():
    image = np.array([[0, 6, 12], [0, 6, 12], [3, 3, 3]], np.uint8)
    found = features.resized(image[None, ..., None], 2)[0, ..., 0]
    # In each row (0 + 6 / 2) / 1.5 = 2 and (6 / 2 + 12) / 1.5 = 10.
    np.testing.assert_allclose(found, [[2, 10], [8 / 3, 16 / 3]], rtol=1e-6)
    same = features.resized(image[None, ..., None], 8)
    np.testing.assert_array_equal(same[0, ..., 0], image)


def test_thumbnails_know_neither_brightness_nor_contrast():
    image = picture(3, 40, 30).astype(int)
    images = np.stack([image, image // 2 + 60, 255 - image, 0 * image])
    found = features.thumbnails(images.astype(np.uint8))
    assert found.shape == (4, 256) and found.dtype == np.float32
    cosine = found @ found.T
    np.testing.assert_allclose(
        cosine[0], [1, 1, -1, 0], atol=2e-3
    )  # Halves are rounded.
    assert cosine[3, 3] == 0


def test_edges_have_directions():
    steps = np.zeros((2, 8, 8, 1), np.uint8)
    steps[0, :, 4:] = 200
    steps[1, 4:] = 200
    found = features.features(steps)
    assert found.shape == (2, 8 * 8 + 8 * 8 * 8)
    edges = found[:, 64:].reshape(2, 8, 8, 8)
    # The gradient is in the two columns, or rows, at the step: 16 cells with
    # the same share; its direction is 0, or half of all.
    assert edges[0, :, 3:5, 0] == pytest.approx(np.full((8, 2), 0.25))
    assert edges[1, 3:5, :, 4] == pytest.approx(np.full((2, 8), 0.25))
    assert np.square(edges).sum((1, 2, 3)) == pytest.approx([1, 1])
    assert features.features(steps[:, :1, :1]).shape == (2, 1)


def test_pairs_by_hand(monkeypatch):
    # 14 directions at right angles, the last image beside the third.
    vectors = np.eye(15, dtype=np.float32)
    vectors[14] = 0.95 * vectors[2] + np.sqrt(1 - 0.95**2) * vectors[14]
    hashes = np.arange(15, dtype=np.uint64)
    hashes[9] = hashes[4] = hashes[1]
    parts = [(0, 3), (3, 10), (10, 15)]
    # At 0.95 the distance is 0.316, and 1.414 to the tenth neighbor.
    near = copies.Pair(2, 14, pytest.approx(0.95), False)
    expected = [(1, 4, 1.0, True), (1, 9, 1.0, True), (4, 9, 1.0, True), near]
    assert copies.find(hashes, vectors, parts) == expected
    monkeypatch.setattr(copies, "_BLOCK", 30)
    assert copies.find(hashes, vectors, parts) == expected
    # With 0.89 it is not; nor where ten others are as near.
    vectors[14] = 0.89 * vectors[2] + np.sqrt(1 - 0.89**2) * np.eye(15)[14]
    assert copies.find(hashes, vectors, parts) == expected[:3]
    crowd = np.eye(15)[[2]] * 0.95 + np.sqrt(1 - 0.95**2) * np.eye(15)
    crowd = (crowd / np.linalg.norm(crowd, axis=1, keepdims=True))[3:]
    assert copies.find(hashes[:12] * 0 + np.arange(12), crowd, [(0, 12)]) == []
    # Images that are only searched by their hashes, and none at all.
    assert copies.find(hashes, vectors[:3], parts) == expected[:3]
    nothing = np.zeros(0, np.uint64), np.zeros((0, 4), np.float32)
    assert copies.find(*nothing, [(0, 0)]) == []


def test_the_limit_of_far_images_by_hand():
    usual = np.arange(39) / 39
    none = np.zeros(0)
    found = out_of_fold.OutOfFold(
        none, none, none, usual, np.array([0.1, 36.5 / 39, 37.5 / 39, 1.0])
    )
    # 5 % of 40: the second largest one, 37 / 39, is the limit.
    far = out_of_fold.far(found)
    assert far.far.tolist() == [False, False, True, True]
    assert (far.share, far.expected, far.compared) == (0.5, 2 / 40, 39)
    # At most two of four by chance in 97.5 % of all cases.
    assert far.chance == 1 / 4
    assert stats.betabinom(4, 2, 38).cdf(1) > 0.975
    assert stats.betabinom(4, 2, 38).cdf(0) < 0.975
    assert out_of_fold.far(found._replace(others=none)) is None
    assert out_of_fold.far(found._replace(strange=none)) is None
    # With five images it cannot be 5 %.
    few = out_of_fold.far(found._replace(strange=usual[:5]))
    assert few.expected == 1 / 6


def test_a_classifier_does_not_see_the_image_that_it_judges():
    rng = np.random.default_rng(0)
    labels = np.repeat([0, 1, 2], [20, 20, 1])
    rows = rng.normal(size=(41, 4)) + 8 * np.eye(4)[labels]
    wrong = labels.copy()
    wrong[3] = 1
    found = out_of_fold.predict(rows, wrong, rows[:2] * 0 - 100)
    assert np.nanargmin(found.own) == 3
    assert found.predicted[3] == 0 and found.own[3] < 0.5 < found.best[3]
    # The only image of its class.
    assert np.isnan(found.own[40]) and found.predicted[40] == -1
    assert np.isfinite(found.own[:40]).all()
    assert found.others.tolist() == [1, 1]
    again = out_of_fold.predict(rows, wrong, rows[:2] * 0 - 100)
    np.testing.assert_array_equal(found.own, again.own)
    # Two images of a class are each judged by the other one.
    pairs = out_of_fold.predict(
        rows[[0, 1, 20, 21]], labels[[0, 1, 20, 21]], rows[:3]
    )
    assert np.isfinite(pairs.own).all() and np.isfinite(pairs.others).all()
    single = out_of_fold.predict(rows[[0, 20]], labels[[0, 20]], rows[:3])
    assert np.isnan(single.own).all() and np.isnan(single.others).all()


# Planted into real images.


@pytest.mark.slow
def test_copies_that_were_planted_into_digits(tmp_path):
    images, labels = digits()
    train, test, pool = slice(0, 800), slice(800, 1200), slice(1200, 1600)
    planted = np.concatenate([images[800:810], images[0:5], images[1600:1605]])
    brighter = np.clip(images[810:815] * 1.2 + 6, 0, 255).astype(np.uint8)
    trained = np.concatenate([images[train], planted[:10], brighter])
    wrong = (labels[1600:1605] + 1) % 10
    # Ten test images are trained on, five brightened; five of the pool have
    # labels; five labeled images have another label, too.
    summary = audit_arrays(
        tmp_path,
        labeled=(
            np.concatenate([trained, images[1600:1605], images[1600:1605]]),
            np.concatenate(
                [labels[train], labels[800:815], labels[1600:1605], wrong]
            ),
        ),
        unlabeled=np.concatenate([images[pool], planted[10:15]]),
        test=(images[test], labels[test]),
    )
    found = rows(tmp_path, "duplicates")
    leaks = [row for row in found if row["kind"] == "leak"]
    of_test = {
        int(row["row"]): row["equal_pixels"]
        for row in reversed(leaks)  # Equal pixels are first.
        if row["split"] == "test"
    }
    assert [of_test.get(k) for k in range(10)] == ["yes"] * 10
    assert [of_test.get(k) for k in range(10, 15)] == ["no"] * 5
    kinds = [row["kind"] for row in found]
    assert kinds == sorted(
        kinds, key=["leak", "different labels", "held out", "copy"].index
    )
    assert summary["copies"]["leak"] == len(leaks)
    exact = [row for row in found if row["equal_pixels"] == "yes"]
    others = [row for row in exact if row["split"] != "test"]
    assert len(others) == 10 and summary["equal_pixels"] == len(exact)
    assert "Leak: " in summary["sentences"][0]


@pytest.mark.slow
def test_wrong_labels_that_were_planted_into_digits(tmp_path):
    images, labels = digits()
    rng = np.random.default_rng(0)
    wrong = rng.choice(1200, 20, replace=False)
    given = labels.copy()
    given[wrong] = (labels[wrong] + rng.integers(1, 10, 20)) % 10
    summary = audit_arrays(
        tmp_path,
        labeled=(images[:1200], given[:1200]),
        test=(images[1200:], labels[1200:]),
    )
    found = rows(tmp_path, "suspicious_labels")
    # Rows of the training images are those that were given.
    first = {int(row["row"]) for row in found[:60] if row["split"] != "test"}
    assert first >= set(wrong.tolist())
    own = [float(row["probability"]) for row in found]
    assert own == sorted(own) and summary["labels_doubted"] == len(own)
    for row in found[:60]:
        assert float(row["probability_2"]) > float(row["probability"])
        assert row["predicted"] != row["label"]
    assert rows(tmp_path, "far_from_classes") == []
    assert "There are no unlabeled images" in " ".join(summary["sentences"])


@pytest.mark.slow
@pytest.mark.parametrize("share, least, most", [(0.5, 0.3, 0.6), (0, 0, 0.08)])
def test_a_pool_of_digits_with_a_foreign_half(share, least, most, tmp_path):
    settings = {
        "known_classes": 6,
        "foreign_share": share,
        "num_labeled": 200,
    }
    summary = auditing.audit(config.resolve(settings), tmp_path)
    assert least <= summary["far_share"] <= most
    found = rows(tmp_path, "far_from_classes")
    assert len(found) == round(summary["far_share"] * 445)
    text = " ".join(summary["sentences"])
    assert f"{summary['far_share']:.1%} of the unlabeled images" in text
    assert ("more than chance explains" in text) == (share > 0)
    html = (tmp_path / "audit.html").read_text("utf-8")
    assert f"{summary['far_share']:.1%} of the unlabeled images" in html


@pytest.mark.slow
def test_clothes_in_a_pool_of_digits(tmp_path):
    path = real_data("fashion_mnist") / "t10k-images-idx3-ubyte.gz"
    with gzip.open(path) as file:
        clothes = np.frombuffer(file.read(), np.uint8, offset=16)
    clothes = clothes.reshape(-1, 28, 28, 1)[:400]
    clothes = features.resized(clothes, 8).astype(np.uint8)
    images, labels = digits()
    summary = audit_arrays(
        tmp_path,
        labeled=(images[:1000], labels[:1000]),
        unlabeled=np.concatenate([images[1000:1400], clothes]),
        test=(images[1400:], labels[1400:]),
    )
    assert 0.25 < summary["far_share"] < 0.55
    found = rows(tmp_path, "far_from_classes")
    foreign = [int(row["row"]) >= 1000 + 400 for row in found]
    assert np.mean(foreign) > 0.85


# Folders, names and pages.


def test_folders_with_bad_files_groups_and_an_absent_class(tmp_path):
    write_classes(tmp_path / "labeled", ("cat", "dog"), 6)
    write_classes(tmp_path / "labeled", ("dog/garden",), 3, start=500, width=9)
    write_classes(tmp_path / "validation", ("cat",), 2, start=1000)
    write_classes(tmp_path / "unlabeled", ("any",), 4, start=2000)
    write(tmp_path / "unlabeled/any/gray.png", encoded(picture(7, channels=1)))
    write(tmp_path / "unlabeled/any/cat.png", encoded(picture(0)))
    for k in range(9):
        write(tmp_path / f"labeled/cat/bad{k}.png", b"no image")
    summary, out = audit_folders(tmp_path, image_size=8)
    assert summary["num_bad_files"] == 9
    assert len(rows(out, "bad_images")) == 9
    text = " ".join(summary["sentences"])
    assert "1 class has no validation image: dog." in text
    assert "9 files cannot be used" in text
    assert "labeled images of 1 class are in several folders: dog." in text
    assert "2 sizes; the most frequent one is 8x8" in text
    assert "RGB" in text and ", L 1." in text
    found = rows(out, "duplicates")
    (pair,) = [row for row in found if row["equal_pixels"] == "yes"]
    assert pair["path"] == str(tmp_path / "labeled/cat/0.png")
    assert pair["path_2"] == str(tmp_path / "unlabeled/any/cat.png")
    html = (out / "audit.html").read_text("utf-8")
    assert f'<figure title="cat, {pair["path"]}">' in html
    assert pair["path"] not in html.replace(f'title="cat, {pair["path"]}"', "")
    assert "not an image" in html and "bad0.png" in html


def test_one_label_a_class_and_no_pool(tmp_path):
    names = [f"{'x' * 57}{k:03d}" for k in range(81)]
    noise = np.random.default_rng(0).integers(0, 256, (83, 8, 8, 1), np.uint8)
    for k, image in enumerate(noise):
        place = ("labeled", "test")[k // 81]
        write(tmp_path / place / names[k % 81] / "0.png", encoded(image))
    summary, out = audit_folders(tmp_path, channels=1, num_validation=0)
    assert summary["num_classes"] == 81
    text = " ".join(summary["sentences"])
    # Two classes have a test image besides the labeled one.
    assert summary["labels_checked"] == 4
    assert len(summary["classes_not_checked"]) == 79
    assert "79 classes with fewer than two different images" in text
    assert "79 classes have no test image" in text and " and 69 more." in text
    assert "There are no unlabeled images" in text
    assert "There are no validation images." in text
    assert len(rows(out, "classes")) == 81
    assert names[80] in (out / "audit.html").read_text("utf-8")


def test_a_manifest_and_names_that_are_markup(tmp_path):
    lines = ["path,label,split"]
    for k in range(12):
        write(tmp_path / "in" / f"{k}.png", encoded(picture(k)))
        name = ("<script>alert(1)</script>", "b & c")[k % 2]
        lines.append(f"in/{k}.png,{name},{'test' if k > 7 else 'train'}")
    write(tmp_path / "in" / "12.png", encoded(picture(8)))
    lines.append("in/12.png,b & c,train")
    (tmp_path / "m.csv").write_text("\n".join(lines))
    pages = []
    for _ in range(2):
        summary, out = audit_folders(tmp_path, manifest=str(tmp_path / "m.csv"))
        pages.append((out / "audit.html").read_bytes())
    assert pages[0] == pages[1]
    html = pages[0].decode("utf-8")
    assert "<script" not in html and "&lt;script&gt;" in html
    assert not re.search(r'https?://|src="(?!data:)|<link|@import', html)
    found = rows(out, "duplicates")
    assert found[0]["kind"] == "leak"
    assert found[0]["path_2"] == str(tmp_path / "in/12.png")
    assert summary == json.loads((out / "audit.json").read_text("utf-8"))
    assert set(TABLES) <= {path.stem for path in out.iterdir()}


@pytest.mark.slow
def test_other_features_take_the_place_of_ours(tmp_path):
    seen = []

    def describe(images):
        seen.append(images.shape)
        return images.reshape(len(images), -1).astype(np.float32)

    settings = config.resolve({"num_labeled": 30})
    summary = auditing.audit(settings, tmp_path, describe=describe)
    assert sum(shape[0] for shape in seen) <= summary["num_compared"]
    assert {shape[1:] for shape in seen} == {(8, 8, 1)}


def test_what_cannot_be_audited(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="expected a folder that can be writt"):
        auditing.audit(config.resolve({}), tmp_path / "file")
    given = config.resolve({"labeled_dir": str(tmp_path / "nowhere")})
    with pytest.raises(ConfigError, match="no such folder"):
        auditing.audit(given, tmp_path / "out")


@pytest.mark.slow
def test_the_command_prints_what_it_found(tmp_path):
    command = [sys.executable, "-m", "tf_metassl.audit", "--num_labeled=30"]
    done = subprocess.run(
        [*command, f"--out={tmp_path}"], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    summary = json.loads((tmp_path / "audit.json").read_text("utf-8"))
    lines = [*summary["sentences"], f"{tmp_path}/audit.html"]
    assert done.stdout.splitlines() == lines
    done = subprocess.run(
        [*command, "--num_steps=3"], capture_output=True, text=True
    )
    assert done.returncode == 1
    assert "There is no flag --num_steps" in done.stderr
