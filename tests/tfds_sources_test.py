"""Datasets from folders that tensorflow-datasets has prepared."""

import contextlib
import gzip
import itertools
import socket
import threading
import time

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_datasets as tfds
from PIL import Image

from tests.real_data import real_data
from tf_metassl.data import decode, sources, tfds_sources
from tf_metassl.data.datasets import DATASETS, TFDS
from tf_metassl.data.options import DataOptions

SIZES = {"train": 30, "test": 12, "unlabelled": 9, "extra": 7, "validation": 6}


def pixels(count, height=32, width=32, channels=3, seed=0):
    rng = np.random.default_rng([count, seed])
    return rng.integers(0, 256, (count, height, width, channels), np.uint8)


def prepare(data_dir, name, version, images, **features):
    """A folder under a stock builder's name, as that would have written it.

    Args:
        data_dir: where.
        name: of the dataset, with its configuration.
        version: of the stock builder.
        images: split -> `[n, H, W, C]` uint8, in the published order.
        **features: further features, `(split, n) -> values`, their type.
    """
    name, _, config = name.partition("/")
    shape = images["train"].shape[1:]
    if name.startswith("imagenet"):
        shape = (None, None, 3)
    tfds.dataset_builders.store_as_tfds_dataset(
        name=name,
        version=version,
        config=config or None,
        features=tfds.features.FeaturesDict(
            {
                "image": tfds.features.Image(shape=shape),
                "label": tfds.features.ClassLabel(num_classes=10),
                **{n: kind for n, (_, kind) in features.items()},
            }
        ),
        split_datasets={
            split: tf.data.Dataset.from_tensor_slices(
                {
                    "image": values,
                    "label": labels_of(split, len(values)),
                    **{
                        n: f(split, len(values))
                        for n, (f, _) in features.items()
                    },
                }
            )
            for split, values in images.items()
        },
        data_dir=data_dir,
    )


def labels_of(split, count):
    labels = np.arange(count) * 7 % 10
    return np.full(count, -1) if split == "unlabelled" else labels


def names_of(split, count):
    return np.array([f"{split}_{i:05d}" for i in range(count)])


IDS = {"id": (names_of, tfds.features.Text())}
COARSE = {"coarse_label": (labels_of, tfds.features.ClassLabel(num_classes=20))}
FILE_NAMES = {"file_name": (names_of, tfds.features.Text())}


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    """All datasets, tiny."""
    place = tmp_path_factory.mktemp("tfds")

    def images(*splits, **shape):
        return {s: pixels(SIZES[s], seed=len(s), **shape) for s in splits}

    small = images("train", "test")
    gray = images("train", "test", height=28, width=28, channels=1)
    big = images("train", "validation", height=40, width=60)
    prepare(place, "cifar10", "3.0.2", small, **IDS)
    prepare(place, "cifar100", "3.0.2", small, **IDS, **COARSE)
    prepare(
        place,
        "svhn_cropped",
        "3.1.0",
        images("train", "test", "extra"),
        **IDS,
    )
    prepare(
        place,
        "stl10",
        "1.0.0",
        images("train", "test", "unlabelled", height=96, width=96),
    )
    prepare(place, "mnist", "3.0.1", gray)
    prepare(place, "fashion_mnist", "3.0.1", gray)
    prepare(place, "imagenet2012", "5.1.0", big, **FILE_NAMES)
    part = {"train": big["train"][:4], "validation": big["validation"]}
    prepare(place, "imagenet2012_subset/10pct", "5.0.0", part, **FILE_NAMES)
    return place


@pytest.fixture
def load(data_dir, tmp_path):
    """Loads with a cache of its own."""

    def run(name, **options):
        options = {"data_dir": data_dir, "cache_dir": tmp_path, **options}
        options = {
            k: str(v) if k.endswith("_dir") else v for k, v in options.items()
        }
        return sources.load(name, DataOptions(**options))

    return run


PUBLIC = [n for n, d in DATASETS.items() if d.loader == TFDS]


@pytest.mark.slow
@pytest.mark.parametrize("name", PUBLIC)
def test_every_dataset(load, name):
    source = load(name)
    test = "validation" if name.startswith("imagenet") else "test"
    expected = {
        "train": 4 if "10pct" in name else 30,
        "test": SIZES[test],
    }
    if name == "stl10":
        expected["train"] += SIZES["unlabelled"]
    assert len(source.train) == expected["train"]
    assert len(source.test) == expected["test"]
    assert source.info.name == name
    classes = {"cifar100": 100, "imagenet2012": 1000}
    assert source.info.num_classes == classes.get(name.split("_subset")[0], 10)
    assert source.train.shape == source.test.shape
    if name.startswith("imagenet"):
        assert source.train.shape == (256, 256, 3)
        assert source.info.image_shape == (224, 224, 3)
    else:
        assert source.info.image_shape == source.train.shape
    assert name.split("/")[0] in source.description
    assert source.test.labels.tolist() == labels_of("", SIZES[test]).tolist()
    count = min(expected["train"], 30)
    assert source.train.labels[:count].tolist() == labels_of("", count).tolist()


@pytest.mark.parametrize("name", ["cifar10", "mnist", "stl10", "svhn_cropped"])
@pytest.mark.parametrize("cache_gib", [0.0, 1.0])
def test_published_order(load, name, cache_gib):
    source = load(name, cache_gib=cache_gib)
    height, width, channels = source.info.image_shape
    for split, images in (("train", source.train), ("test", source.test)):
        expected = pixels(SIZES[split], height, width, channels, len(split))
        count = SIZES[split]
        np.testing.assert_array_equal(images.images[:count], expected)
        got = images.gather(np.arange(count)).numpy()
        np.testing.assert_array_equal(got, expected)
        assert images.ids[3].endswith(b"00003")
        assert isinstance(images.pixels, np.memmap) == (cache_gib == 0)


def test_unlabeled_images_come_last(load):
    stl10 = load("stl10")
    assert (stl10.train.labels[30:] == -1).all()
    expected = pixels(SIZES["unlabelled"], 96, 96, 3, len("unlabelled"))
    np.testing.assert_array_equal(stl10.train.images[30:], expected)
    svhn = load("svhn_cropped")
    assert len(svhn.train) == 30
    svhn = load("svhn_cropped", svhn_extra=True)
    assert (svhn.train.labels[30:] == -1).all() and len(svhn.train) == 37
    np.testing.assert_array_equal(
        svhn.train.images[30:], pixels(SIZES["extra"], seed=len("extra"))
    )


def test_stl10_folds(load, data_dir, tmp_path):
    assert load("stl10").labeled_rows is None
    with pytest.raises(ValueError, match="fold_indices.txt.*--manual_dir"):
        load("stl10", stl10_fold=1)
    (tmp_path / "fold_indices.txt").write_text("0 1 2 \n29 3 11 \n")
    source = load("stl10", stl10_fold=1, manual_dir=tmp_path)
    assert source.labeled_rows.tolist() == [29, 3, 11]
    with pytest.raises(ValueError, match="--stl10_fold=2.*only 2 lines"):
        load("stl10", stl10_fold=2, manual_dir=tmp_path)
    inside = data_dir / "downloads/extracted/TAR_GZ.x/stl10_binary"
    inside.mkdir(parents=True)
    (inside / "fold_indices.txt").write_text("5 6\n")
    assert load("stl10", stl10_fold=0).labeled_rows.tolist() == [5, 6]


def test_imagenet_labels_ten_percent(load, tmp_path):
    source = load("imagenet2012")
    assert source.labeled_rows.tolist() == [0, 1, 2, 3]
    assert (source.train.labels >= 0).all()
    (tmp_path / "10percent.txt").write_text("train_00007\r\ntrain_00002\r\n")
    source = load("imagenet2012", manual_dir=tmp_path)
    assert source.labeled_rows.tolist() == [2, 7]
    assert load("imagenet2012_subset/10pct").labeled_rows is None


def test_imagenet_without_the_list(load, data_dir, tmp_path):
    place = tmp_path / "data"
    place.mkdir()
    (place / "imagenet2012").symlink_to(data_dir / "imagenet2012")
    with pytest.raises(ValueError, match="put 10percent.txt .*--manual_dir"):
        load("imagenet2012", data_dir=place)


def test_large_images_are_resized(load):
    assert load("imagenet2012").info.image_shape == (224, 224, 3)
    source = load("imagenet2012")
    assert source.weak_policy == "resized_crop"
    source = load("imagenet2012", image_size=20, stored_size=40)
    assert source.info.image_shape == (20, 20, 3)
    original = pixels(30, 40, 60, seed=len("train"))
    np.testing.assert_array_equal(source.train.images, original[:, :, 10:50])
    halved = load("imagenet2012", image_size=20, stored_size=20).train.images
    expected = original.reshape(30, 20, 2, 30, 2, 3).mean((2, 4))
    # The filter is wider than the mean of four pixels.
    assert abs(halved - expected[:, :, 5:25]).mean() < 30
    assert load("cifar10", image_size=16).train.shape == (16, 16, 3)
    with pytest.raises(ValueError, match="--image_size=33 is larger than the "):
        load("cifar10", image_size=33)
    with pytest.raises(ValueError, match="--stored_size=33 is larger than "):
        load("cifar10", image_size=28, stored_size=33)
    with pytest.raises(ValueError, match="--stored_size=27 is smaller than "):
        load("cifar10", image_size=28, stored_size=27)
    with pytest.raises(ValueError, match="--stored_size=27 needs --image_size"):
        load("cifar10", stored_size=27)


def test_channels(load):
    gray = load("mnist").train.images
    color = load("mnist", channels=3).train.images
    np.testing.assert_array_equal(color, np.repeat(gray, 3, -1))
    assert load("cifar10", channels=1).info.image_shape == (32, 32, 1)


def test_decoded_once(load, monkeypatch):
    first = load("cifar10")
    monkeypatch.setattr(tfds_sources, "_batches", None)
    second = load("cifar10")
    np.testing.assert_array_equal(first.train.images, second.train.images)


def test_missing_split(load, data_dir, tmp_path):
    prepare(
        tmp_path / "x", "svhn_cropped", "3.1.0", {"train": pixels(3)}, **IDS
    )
    with pytest.raises(ValueError, match="has no split 'test'"):
        load("svhn_cropped", data_dir=tmp_path / "x")


def test_damaged_records(load, tmp_path):
    images = {"train": pixels(3), "test": pixels(3)}
    prepare(tmp_path / "x", "cifar10", "3.0.2", images, **IDS)
    (path,) = (tmp_path / "x/cifar10/3.0.2").glob("*train.tfrecord*")
    path.write_bytes(path.read_bytes()[:3000])
    with pytest.raises(ValueError, match=r"3\.0\.2 is damaged \(split train"):
        load("cifar10", data_dir=tmp_path / "x")


def test_older_version(load, tmp_path):
    images = {"train": pixels(3), "test": pixels(3)}
    prepare(tmp_path / "x", "cifar10", "3.0.0", images)
    source = load("cifar10", data_dir=tmp_path / "x")
    np.testing.assert_array_equal(source.train.images, images["train"])


# Data that is not there.


@pytest.fixture
def no_network(monkeypatch):
    asked = []

    def unreachable(url):
        asked.append(url)
        return "example.org cannot be reached: no network"

    monkeypatch.setattr(tfds_sources, "_unreachable", unreachable)
    return asked


@pytest.mark.parametrize("name", PUBLIC)
def test_not_prepared_and_no_network(load, no_network, tmp_path, name):
    with pytest.raises(ValueError) as error:
        load(name, data_dir=tmp_path / "none")
    text = str(error.value)
    manual = tmp_path / "none/downloads/manual"
    for part in (
        f"--dataset={name}",
        str(manual),
        "--manual_dir",
        "--data_dir",
    ):
        assert part in text
    archive = {
        "cifar10": "cifar-10-binary.tar.gz",
        "cifar100": "cifar-100-binary.tar.gz",
        "svhn_cropped": "extra_32x32.mat",
        "stl10": "stl10_binary.tar.gz",
        "imagenet2012": "ILSVRC2012_img_train.tar",
        "imagenet2012_subset/10pct": "10percent.txt",
    }
    assert archive.get(name, "train-images-idx3-ubyte.gz") in text
    assert "1percent" not in text
    # One attempt; none where registration is needed.
    assert len(no_network) == ("imagenet" not in name)


def test_damaged_archive(load, no_network, tmp_path):
    (tmp_path / "cifar-10-binary.tar.gz").write_bytes(b"half of it")
    with pytest.raises(ValueError, match="could not be prepared.*checksum"):
        load("cifar10", data_dir=tmp_path / "none", manual_dir=tmp_path)
    assert not no_network


@contextlib.contextmanager
def server(answer):
    """Accepts one connection and sends `answer`, or nothing if None."""
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def serve():
            connection, _ = listening.accept()
            with connection:
                connection.recv(1000)
                if answer is not None:
                    connection.sendall(answer)
                else:
                    done.wait()

        done = threading.Event()
        thread = threading.Thread(target=serve)
        thread.start()
        yield f"http://127.0.0.1:{listening.getsockname()[1]}/x.tar"
        done.set()
        thread.join()


def test_reachable():
    for status in (b"200 OK", b"404 Not Found"):
        reply = b"HTTP/1.0 " + status + b"\r\nContent-Length: 0\r\n\r\n"
        with server(reply) as url:
            assert tfds_sources._unreachable(url) is None


def test_unreachable():
    with socket.create_server(("127.0.0.1", 0)) as unused:
        port = unused.getsockname()[1]
    reason = tfds_sources._unreachable(f"http://127.0.0.1:{port}/x.tar")
    assert "127.0.0.1" in reason and "refused" in reason
    start = time.monotonic()
    with server(None) as url:
        reason = tfds_sources._unreachable(url, seconds=0.3)
        assert time.monotonic() - start < 3
    assert "127.0.0.1" in reason


# Real data.


@pytest.mark.slow
def test_archives_in_manual_dir(load, no_network, tmp_path, monkeypatch):
    """Fashion-MNIST from its four official archives, in the official order."""
    archives = real_data("fashion_mnist")
    cls = tfds.builder_cls("fashion_mnist")
    generate = cls._generate_examples

    def first_examples(self, **options):
        # All 70,000 take half a minute.
        return itertools.islice(generate(self, **options), 3000)

    monkeypatch.setattr(cls, "_generate_examples", first_examples)
    source = load(
        "fashion_mnist", data_dir=tmp_path / "tfds", manual_dir=archives
    )
    assert not no_network
    for images, kind in ((source.train, "train"), (source.test, "t10k")):
        with gzip.open(archives / f"{kind}-images-idx3-ubyte.gz") as file:
            expected = np.frombuffer(file.read(), np.uint8, offset=16)
        expected = expected.reshape(-1, 28, 28, 1)[:3000]
        np.testing.assert_array_equal(images.images, expected)
        with gzip.open(archives / f"{kind}-labels-idx1-ubyte.gz") as file:
            expected = np.frombuffer(file.read(), np.uint8, offset=8)
        np.testing.assert_array_equal(images.labels, expected[:3000])
    assert source.info.class_names[-1] == "Ankle boot"


@pytest.mark.parametrize("size", ((40, 20), (20, 40), (16, 16)))
def test_other_squares(size):
    """Up to rounding those of files."""
    image = np.tile(
        np.linspace(0, 250, size[1]).astype(np.uint8)[None, :, None],
        (size[0], 1, 3),
    )
    for resize in ("letterbox", "squash", "shorter_side"):
        found = tfds_sources._fit(tf.constant(image), (16, 16, 3), resize)
        expected = decode.fit(Image.fromarray(image), 16, resize)
        np.testing.assert_allclose(
            found.numpy().astype(int), np.asarray(expected).astype(int), atol=1
        )


# Any dataset by its name.


def store_other(data_dir, name, splits, version="1.0.0", **features):
    """Pictures of several sizes, as another builder would have written them.

    Args:
        data_dir: where.
        name: of the dataset, with its configuration.
        splits: split -> labels.
        version: of the builder.
        **features: name -> type, in place of the usual ones.
    """
    usual = {
        "picture": tfds.features.Image(shape=(None, None, 3)),
        "kind": tfds.features.ClassLabel(names=["cat", "dog"]),
        "url": tfds.features.Text(),
    }
    features = features or usual

    def examples(split, labels):
        for i, label in enumerate(labels):
            image = np.full((10 + i, 20, 3), 8 * i, np.uint8)
            row = {"picture": image, "kind": label, "url": f"{split}/{i}"}
            yield {n: row.get(n, image) for n in features}

    name, _, config = name.partition("/")
    info = tfds.features.FeaturesDict(features)
    tfds.dataset_builders.store_as_tfds_dataset(
        name=name,
        version=version,
        config=config or None,
        features=info,
        split_datasets={
            split: tf.data.Dataset.from_generator(
                lambda split=split, labels=labels: examples(split, labels),
                output_signature=info.get_tensor_spec(),
            )
            for split, labels in splits.items()
        },
        data_dir=data_dir,
    )


def test_a_dataset_by_its_name(load, tmp_path):
    place = tmp_path / "other"
    for version in ("1.0.0", "1.10.0", "1.9.0"):
        labels = [0, 1] * (6 if version == "1.10.0" else 5)
        store_other(
            place,
            "beasts",
            {"train": labels, "validation": [1, 0, 1], "test": [0, 1]},
            version,
        )
    given = {"tfds_name": "beasts", "data_dir": place, "image_size": 8}
    source = load("tfds", **given)
    assert source.info.class_names == ("cat", "dog")
    assert source.train.shape == (8, 8, 3)
    assert len(source.train) == 12 + 3
    assert "beasts/1.10.0" in source.description
    assert source.train.labels[source.validation_rows].tolist() == [1, 0, 1]
    assert source.test.labels.tolist() == [0, 1]
    older = load("tfds", **{**given, "tfds_name": "beasts:1.9.0"})
    assert len(older.train) == 10 + 3
    # The pixels are those that were written, each of one gray level.
    levels = source.train.images.mean((1, 2, 3)) / 8
    np.testing.assert_allclose(np.sort(levels[:12]), np.arange(12))
    assert np.all(source.train.labels[:12] == np.rint(levels[:12]) % 2)


@pytest.mark.parametrize("test", [None, [-1, -1]])
def test_a_dataset_without_labeled_test_images(load, tmp_path, test):
    place = tmp_path / "other"
    splits = {"train": [0, 1] * 10, "valid": [1, 0], "unlabelled": [0, 0]}
    store_other(
        place, "zoo/small", splits if test is None else {**splits, "test": test}
    )
    source = load(
        "tfds",
        tfds_name="zoo/small",
        data_dir=place,
        image_size=8,
        test_fraction=0.3,
    )
    assert sorted(source.test.labels) == [0] * 3 + [1] * 3
    assert len(source.train) == 14 + 2 + 2
    assert np.count_nonzero(source.train.labels < 0) == 2
    assert len(source.validation_rows) == 2
    assert all(
        name.startswith(b"valid_")
        for name in source.train.ids[source.validation_rows]
    )
    assert ("have no labels and are not used" in source.description) == (
        test is not None
    )


def test_a_dataset_that_cannot_be_used(load, tmp_path):
    place = tmp_path / "other"
    store_other(place, "zoo/small", {"train": [0, 1] * 3, "test": [0, 1]})
    store_other(place, "ends", {"test": [0, 1]})
    store_other(
        place,
        "texts",
        {"train": [0, 1]},
        picture=tfds.features.Image(shape=(None, None, 3)),
        url=tfds.features.Text(),
    )
    for name, message in (
        ("", "needs --tfds_name"),
        ("none", "nothing is prepared in .*none. Prepare it"),
        ("zoo", "has the configurations small: give zoo/small"),
        ("zoo/small:2.0.0", "nothing is prepared"),
        ("zoo/small", "differ in size.*--image_size"),
        ("ends", "expected a split train; it has test"),
        ("texts", r"one feature ClassLabel, as label; it has .*url \(Text\)"),
    ):
        with pytest.raises(ValueError, match=message):
            load("tfds", tfds_name=name, data_dir=place)
