"""Each image of a batch gets its own operation, in the right row."""

import numpy as np
import tensorflow as tf

from tf_metassl.data import image_ops, operations

NAMES = ("shift", "invert", "shuffle", "nothing")


def test_rows_are_sorted_by_operation():
    op = tf.constant([2, 0, 1, 0, 2])
    applied = tf.constant([True, True, False, True, True])
    rows = operations.rows_of_operations(op, applied, NAMES)
    found = {name: values.numpy().tolist() for name, values in rows.items()}
    assert found == {
        "shift": [1, 3],
        "invert": [],
        "shuffle": [0, 4],
        "nothing": [],
    }


def test_every_kind_of_operation_goes_to_its_rows():
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (6, 4, 4, 3), np.uint8)
    op = tf.constant([0, 1, 2, 3, 1, 0])
    rows = operations.rows_of_operations(op, tf.ones([6], tf.bool), NAMES)

    def right(name):
        one = tf.ones_like(rows[name], tf.float32)
        return image_ops.translation_matrix(one, 0 * one)

    result = operations.apply_operations(
        images,
        rows,
        matrices={"shift": right},
        tables={"invert": lambda _, part: image_ops.invert_table(len(part))},
        kernels={"shuffle": lambda _, part: part[..., ::-1]},
        fill_value=9,
    ).numpy()
    for row in (0, 5):
        np.testing.assert_array_equal(result[row, :, 1:], images[row, :, :-1])
        assert (result[row, :, 0] == 9).all()
    for row in (1, 4):
        np.testing.assert_array_equal(result[row], 255 - images[row])
    np.testing.assert_array_equal(result[2], images[2, ..., ::-1])
    np.testing.assert_array_equal(result[3], images[3])


def test_no_operation_changes_nothing():
    images = np.ones([2, 4, 4, 3], np.uint8)
    unchanged = operations.apply_operations(
        images, {}, matrices={}, tables={}, kernels={}, fill_value=0
    )
    assert unchanged is images


def test_cutouts_are_a_fraction_of_the_shorter_side():
    images = np.ones([2, 8, 12, 1], np.uint8)
    center = tf.constant([4, 0])
    covered = operations.cutout_fraction(images, center, center, 0.5, 0).numpy()
    assert (covered[0] == 0).sum() == 16
    assert (covered[0, 2:6, 2:6] == 0).all()
    assert (covered[1] == 0).sum() == 4
    assert operations.cutout_fraction(images, center, center, 0, 0) is images
