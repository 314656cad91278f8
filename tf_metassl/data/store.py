"""Images with random access, in memory or in a file on disk.

Images are decoded once, into a folder of the cache:

    <name>.u8       the pixels of all images, `[N, H, W, C]` uint8
    <name>.npz      their labels, ids, content hashes and order
    manifest.json   what the folder was made from, and the SHA-256 of its files

Such a folder is written under another name, checked and renamed, so that it is
either complete or absent, even if several processes build it at the same time.
"""

import contextlib
import dataclasses
import functools
import hashlib
import json
import pathlib
import shutil
import uuid
import zlib

import numpy as np
import tensorflow as tf

from tf_metassl import files
from tf_metassl.contract import DatasetInfo
from tf_metassl.data import patience
from tf_metassl.data.journal import Journal

# TensorFlow gathers from smaller arrays, NumPy from larger ones: TensorFlow is
# some 0.2 ms per batch faster, but copies the whole array, about 1 s per GiB,
# for every iterator.
_TENSOR_BYTES = 2**28

_MANIFEST = "manifest.json"
_CHECKED = "checked.json"

# After this many seconds a cache is built without the lock, for file systems
# whose locks cannot be trusted.
_LOCK_TIMEOUT = 6 * 3600


@dataclasses.dataclass(frozen=True, eq=False)
class Images:
    """Images with random access.

    Attributes:
        pixels: `[M, H, W, C]` uint8, an array or a `np.memmap`; float32 for
            features of images.
        labels: `[N]` int32; -1 where the label is unknown.
        rows: `[N]` int64, where in `pixels` each image is; None: M = N, in
            this order.
        ids: `[N]` bytes, the name of each image; None if they have none.
        hashes: `[N]` uint64, see `content_hashes`; None if not known yet.
    """

    pixels: np.ndarray
    labels: np.ndarray
    rows: np.ndarray | None = None
    ids: np.ndarray | None = None
    hashes: np.ndarray | None = None

    def __post_init__(self):
        known = self.pixels.dtype in (np.uint8, np.float32)
        if not known or self.pixels.ndim != 4:
            raise ValueError(
                "pixels: expected uint8 [N, H, W, C], got "
                f"{self.pixels.dtype} {self.pixels.shape}."
            )
        size = (len(self.pixels if self.rows is None else self.rows),)
        for name in ("labels", "ids", "hashes"):
            values = getattr(self, name)
            if values is not None and values.shape != size:
                raise ValueError(
                    f"{name}: expected shape {size}, got {values.shape}."
                )

    def __len__(self):
        return len(self.labels)

    @property
    def shape(self):
        """Height, width and channels of every image."""
        return self.pixels.shape[1:]

    @property
    def images(self):
        """All images, `[N, H, W, C]` uint8, read into memory."""
        return self.read(np.arange(len(self)))

    def read(self, index):
        """The images at `index`.

        Args:
            index: `[n]` integers.

        Returns:
            `[n, H, W, C]` uint8 array, a copy.
        """
        if self.rows is not None:
            index = self.rows[index]
        return np.asarray(self.pixels[index])

    def take(self, index):
        """The images at `index` as `Images` of their own.

        Args:
            index: `[n]` integers.
        """
        index = np.asarray(index)
        others = {
            name: None if values is None else values[index]
            for name, values in (
                ("labels", self.labels),
                ("ids", self.ids),
                ("hashes", self.hashes),
            )
        }
        if isinstance(self.pixels, np.memmap):
            rows = index if self.rows is None else self.rows[index]
            return Images(self.pixels, rows=rows, **others)
        return Images(self.read(index), **others)

    def gather(self, index):
        """The images at `index` as a tensor; also inside `tf.data` maps.

        Args:
            index: `[n]` int64 tensor.

        Returns:
            `[n, H, W, C]` uint8 tensor.
        """
        index = tf.convert_to_tensor(index)
        if self._in_tensor:
            if self._row_tensor is not None:
                index = tf.gather(self._row_tensor, index)
            images = tf.gather(self._pixel_tensor, index)
        else:
            images = tf.numpy_function(
                self.read,
                [index],
                tf.as_dtype(self.pixels.dtype),
                stateful=False,
            )
        images.set_shape([index.shape[0], *self.shape])
        return images

    def content_hashes(self, index):
        """Hashes of the pixels of the images at `index`.

        Args:
            index: `[n]` integers.

        Returns:
            `[n]` uint64; equal for equal pixels.
        """
        index = np.asarray(index)
        if self.hashes is not None:
            return self.hashes[index]
        result = np.empty(len(index), np.uint64)
        for start in range(0, len(index), 1024):
            part = slice(start, start + 1024)
            result[part] = hash_pixels(self.read(index[part]))
        return result

    @property
    def _in_tensor(self):
        mapped = isinstance(self.pixels, np.memmap)
        return not mapped and self.pixels.nbytes <= _TENSOR_BYTES

    @functools.cached_property
    def _pixel_tensor(self):
        return _eager_tensor(self.pixels)

    @functools.cached_property
    def _row_tensor(self):
        return None if self.rows is None else _eager_tensor(self.rows)


@dataclasses.dataclass(frozen=True)
class Source:
    """A dataset: what it is, and its images for training and for testing.

    Attributes:
        info: names and shapes.
        train: everything that training, labeled, unlabeled or validation,
            may be taken from. Images with label -1 are always unlabeled.
        test: never touched before the final evaluation.
        weak_policy: name of the weak augmentation that suits the images.
        strong_policy: name of the strong one.
        description: sentences about the images for the user; may be empty.
        labeled_rows: rows of `train` that labeled images are taken from;
            None: all with a label.
        validation_rows: rows of `train` that are the validation images; None:
            some have to be held out.
        groups: `[N]` integers, equal for images of `train` that must not be
            divided between training and validation; None: all may be.
    """

    info: DatasetInfo
    train: Images
    test: Images
    weak_policy: str
    strong_policy: str
    description: str = ""
    labeled_rows: np.ndarray | None = None
    validation_rows: np.ndarray | None = None
    groups: np.ndarray | None = None


def hash_pixels(images):
    """A 64-bit hash of each image's pixels.

    Args:
        images: `[n, H, W, C]` uint8 array.

    Returns:
        `[n]` uint64.
    """
    digests = [
        hashlib.blake2b(np.ascontiguousarray(image), digest_size=8).digest()
        for image in images
    ]
    return np.frombuffer(b"".join(digests), np.uint64)


def write(folder, name, batches, *, total, sort_by_id=False):
    """Writes images that `read` gives back, while they are being decoded.

    A journal beside the pixels says what has been written, so that the same
    call goes on where a process that was killed had come.

    Args:
        folder: an existing folder.
        name: of the files.
        batches: function of a number of batches; returns an iterable of those
            that follow them, `(images [n, H, W, C] uint8, labels [n], ids,
            note)`, with `n` bytes objects as ids and anything JSON-ready as
            note. A batch may have no images; `images` is None then.
        total: how many images there may be, to announce size and progress.
        sort_by_id: whether the order is that of the ids, images without a
            label last, not that of writing.

    Returns:
        The notes of all batches, a list.

    Raises:
        OSError: if the images do not fit on the disk.
    """
    pixels = pathlib.Path(folder) / f"{name}.u8"
    journal = Journal(pixels, hash_pixels)
    if journal.rows:
        patience.say(
            f"{journal.num_images:,} {name} images have been decoded before."
        )
    progress = patience.Counter(
        f"Decoding the {name} images", total - journal.num_images
    )
    with journal:
        for images, labels, ids, note in batches(len(journal.rows)):
            if images is not None and not journal.num_images:
                _check_space(folder, name, images, total)
            progress.advance(len(ids))
            journal.add(images, labels, ids, note)
    labels, ids, hashes, shape = journal.contents()
    rows = np.arange(len(ids))
    if sort_by_id:
        rows = np.lexsort((ids, labels < 0))
    np.savez(
        pixels.with_suffix(".npz"),
        shape=np.array([len(ids), *shape], np.int64),
        rows=rows,
        labels=labels[rows],
        ids=ids[rows],
        hashes=hashes[rows],
    )
    journal.remove()
    return [row["note"] for row in journal.rows]


def _check_space(folder, name, images, total):
    """Announces a large cache; raises OSError if it does not fit."""
    gib = images[0].nbytes * total / 2**30
    free = shutil.disk_usage(folder).free / 2**30
    text = (
        f"the decoded {name} images take about {gib:.1f} GiB; {free:.1f} GiB "
        "are free"
    )
    if gib > free:
        raise OSError(text)
    if gib >= 1:
        patience.say(f"{text[0].upper()}{text[1:]}.")


def read(folder, names, cache_gib):
    """Reads what `write` has written.

    Args:
        folder: as for `write`.
        names: of the files.
        cache_gib: GiB; if the pixels of all of them together are larger, each
            image is read when it is needed.

    Returns:
        A list of `Images`.
    """
    paths = [pathlib.Path(folder) / f"{name}.u8" for name in names]
    in_memory = sum(p.stat().st_size for p in paths) <= cache_gib * 2**30
    return [_read_one(path, in_memory) for path in paths]


def _read_one(path, in_memory):
    with np.load(path.with_suffix(".npz")) as file:
        values = dict(file)
    shape, rows = tuple(values.pop("shape")), values.pop("rows")
    if in_memory or not shape[0]:  # An empty file cannot be mapped.
        pixels = np.fromfile(path, np.uint8).reshape(shape)
    else:
        pixels = np.memmap(path, np.uint8, "r", shape=shape)
    if np.array_equal(rows, np.arange(len(rows))):
        rows = None
    return Images(pixels, rows=rows, **values)


def lock(path):
    """Keeps other processes out of the block; says so if it has to wait.

    Args:
        path: of the lock file, which stays.

    Returns:
        A context manager, see `tf_metassl.files.locked`. After six hours the
        block is entered nevertheless, for file systems whose locks cannot be
        trusted.
    """
    return files.locked(
        path,
        timeout=_LOCK_TIMEOUT,
        on_wait=lambda: patience.say(
            f"Waiting for another process, which holds {path}."
            f"{files.advice(path)}"
        ),
    )


def cached(
    cache_dir,
    name,
    *,
    settings,
    fingerprint,
    build,
    doing="Decoding the images",
    result="decoded images",
):
    """Returns the folder of decoded images; builds it unless it is complete.

    If several processes start together, one builds the folder and the others
    wait for it.

    Args:
        cache_dir: the folder of all decoded images.
        name: of the dataset.
        settings: JSON-ready dict; every value of it has a folder of its own.
        fingerprint: string that changes when the original images change; the
            folder is built anew then.
        build: function of a path, writes files into the folder there.
        doing: what that is, for messages.
        result: what is in the folder then.

    Returns:
        A `pathlib.Path`.

    Raises:
        ValueError: if the cache cannot be written; whatever `build` raises.
    """
    key = hashlib.sha256(json.dumps(settings, sort_keys=True).encode())
    label = name.replace("/", "-")
    folder = pathlib.Path(cache_dir) / f"{label}-{key.hexdigest()[:16]}"
    try:
        # Without the lock first: a finished cache may be read-only.
        if not _problem(folder, fingerprint):
            return folder
        folder.parent.mkdir(parents=True, exist_ok=True)
        with lock(folder.with_name(folder.name + ".lock")) as held:
            problem = _problem(folder, fingerprint)
            if problem:
                if folder.exists():
                    patience.say(f"{folder}: {problem}; building it again.")
                aside = _aside(folder, fingerprint, held)
                if held:
                    _remove_rests(folder, aside)
                patience.say(f"{doing} of {name} once, into {folder}")
                _build(folder, aside, settings, fingerprint, build)
    except OSError as error:
        raise ValueError(
            f"The {result} of {name} cannot be kept in {folder}: "
            f"{error.strerror or error}. Set --cache_dir to a folder with "
            "enough space that can be written."
        ) from error
    return folder


def _eager_tensor(array):
    """A tensor outside of any graph, which graphs capture, not contain."""
    with tf.init_scope(), tf.device("CPU"):
        return tf.constant(array)


def _aside(folder, fingerprint, held):
    """The folder to build in.

    With the lock it is the same for the same images, so that a build that was
    interrupted is continued.
    """
    name = f"{zlib.crc32(fingerprint.encode()):08x}.partial"
    if not held:
        name = f"{uuid.uuid4().hex[:8]}.tmp"
    return folder.with_name(f"{folder.name}.{name}")


def _remove_rests(folder, aside):
    """Removes what other builds have left; needs the lock."""
    for kind in ("tmp", "partial"):
        for rest in folder.parent.glob(f"{folder.name}.*.{kind}"):
            if rest != aside:
                shutil.rmtree(rest, ignore_errors=True)


def _build(folder, aside, settings, fingerprint, build):
    aside.mkdir(exist_ok=True)
    try:
        build(aside)
        sums = _checksums(aside, [p.name for p in sorted(aside.iterdir())])
        manifest = {
            "settings": settings,
            "fingerprint": fingerprint,
            "sha256": sums,
        }
        (aside / _MANIFEST).write_text(json.dumps(manifest, indent=1))
        _remember(aside, sums)
        files.sync_tree(aside)
        _put_in_place(aside, folder, fingerprint)
        files.sync(folder.parent)
    except Exception:
        # An error would come again. Only an interruption, as by Ctrl-C, leaves
        # what it has done.
        shutil.rmtree(aside, ignore_errors=True)
        raise
    shutil.rmtree(aside, ignore_errors=True)


def _checksums(folder, names):
    """Name -> checksum of files; says how far it is."""
    mebi = 2**20
    total = sum((folder / name).stat().st_size for name in names)
    progress = patience.Counter("Checksums, MiB", total // mebi)
    return {
        name: files.sha256(
            folder / name, lambda count: progress.advance(count / mebi)
        )
        for name in names
    }


def _put_in_place(aside, folder, fingerprint):
    """Renames `aside` to `folder`, unless a whole one has appeared there."""
    for _ in range(10):
        try:
            aside.rename(folder)
            return
        except OSError:
            if not folder.exists():
                raise
        if not _problem(folder, fingerprint):
            return
        old = folder.with_name(f"{folder.name}.{uuid.uuid4().hex[:8]}.old")
        with contextlib.suppress(FileNotFoundError):
            folder.rename(old)
            shutil.rmtree(old, ignore_errors=True)
    raise OSError(f"{folder} is replaced by other processes all the time")


def _problem(folder, fingerprint):
    """Why the folder cannot be used as it is; None if it can."""
    try:
        manifest = json.loads((folder / _MANIFEST).read_text())
        if manifest["fingerprint"] != fingerprint:
            return "the original images have changed"
        sums = manifest["sha256"]
        # A checksum is not taken again while size and times are the same:
        # reading all of ImageNet takes minutes.
        if _remembered(folder) == _stamps(folder, sums):
            return None
        for name, found in _checksums(folder, sums).items():
            if found != sums[name]:
                return f"{name} has a wrong checksum"
    except FileNotFoundError as error:
        return f"{pathlib.Path(error.filename).name} is missing"
    except (ValueError, KeyError, TypeError, AttributeError):
        return f"{_MANIFEST} is damaged"
    _remember(folder, sums)
    return None


def _stamps(folder, names):
    stats = {name: (folder / name).stat() for name in names}
    return {
        name: [stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns]
        for name, stat in stats.items()
    }


def _remember(folder, names):
    """Notes that the checksums of the files have been compared and match."""
    # Without the note, as in a read-only cache, they are compared again.
    with contextlib.suppress(OSError):
        text = json.dumps(_stamps(folder, names))
        files.write_text(folder / _CHECKED, text)


def _remembered(folder):
    try:
        return json.loads((folder / _CHECKED).read_text())
    except (OSError, ValueError):
        return None
