"""What has been decoded so far, so that decoding can be interrupted."""

import json
import os

import numpy as np

from tf_metassl import files


class Journal:
    """What has been written of a file of pixels, a line per batch.

    Attributes:
        rows: what is known of every batch, a list of dicts.

    Args:
        pixels: path of the file of pixels; what is in it beyond the last whole
            batch is cut off.
        hash_pixels: function of images that returns an integer for each.
    """

    def __init__(self, pixels, hash_pixels):
        self._pixels = pixels
        self._hash_pixels = hash_pixels
        self._path = pixels.with_suffix(".journal")
        self.rows = []
        size = pixels.stat().st_size if pixels.exists() else 0
        self._bytes = 0
        for row in self._read():
            if self._bytes + row["bytes"] > size:
                break
            self._bytes += row["bytes"]
            self.rows.append(row)

    def _read(self):
        if not self._path.exists():
            return
        for line in self._path.read_text("utf-8").splitlines():
            try:
                yield json.loads(line)
            except json.JSONDecodeError:
                return  # Cut off.

    @property
    def num_images(self):
        """The number of images in all batches."""
        return sum(len(row["ids"]) for row in self.rows)

    def __enter__(self):
        files.write_text(
            self._path, "".join(json.dumps(row) + "\n" for row in self.rows)
        )
        self._lines = self._path.open("a", encoding="utf-8")
        self._file = self._pixels.open("ab")
        self._file.truncate(self._bytes)
        return self

    def __exit__(self, *_):
        self._file.close()
        self._lines.close()

    def add(self, images, labels, ids, note):
        """Writes a batch; see `tf_metassl.data.store.write`.

        Raises:
            ValueError: if its images have another shape than those before.
        """
        shapes = [row["shape"] for row in self.rows if row["ids"]]
        if images is not None and shapes and [*images.shape[1:]] != shapes[0]:
            raise ValueError(
                "The images differ in size, so --image_size must be set."
            )
        pixels = np.zeros((0, 0, 0, 0), np.uint8) if images is None else images
        self._file.write(np.ascontiguousarray(pixels, np.uint8).data)
        row = {
            "bytes": pixels.nbytes,
            "shape": list(pixels.shape[1:]),
            "labels": [int(label) for label in labels],
            # Names are bytes; each becomes one character.
            "ids": [bytes(i).decode("latin-1") for i in ids],
            "hashes": self._hash_pixels(pixels).tolist(),
            "note": note,
        }
        self._lines.write(json.dumps(row) + "\n")
        self.rows.append(row)
        for file in (self._file, self._lines):
            file.flush()
            os.fsync(file.fileno())

    def contents(self):
        """Labels, ids and hashes of all images, arrays, and their shape."""
        filled = [row for row in self.rows if row["ids"]]
        ids = [i.encode("latin-1") for row in filled for i in row["ids"]]
        return (
            np.array([i for row in filled for i in row["labels"]], np.int32),
            np.array(ids, np.bytes_),
            np.array([i for row in filled for i in row["hashes"]], np.uint64),
            tuple(filled[0]["shape"]) if filled else (0, 0, 0),
        )

    def remove(self):
        """Removes the file of the journal."""
        self._path.unlink(missing_ok=True)
