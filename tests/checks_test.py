"""Checks of ranks and shapes say what came."""

import numpy as np
import pytest
import tensorflow as tf

from tf_metassl.ops import checks

MATRIX = tf.zeros([4, 3])


def test_the_rank_must_be_the_one_asked_for():
    checks.check_rank("logits", MATRIX, 2)
    checks.check_rank("logits", np.zeros([4]), 1)
    with pytest.raises(ValueError, match=r"logits: .* rank 1, got .*\(4, 3\)"):
        checks.check_rank("logits", MATRIX, 1)


def test_shapes_must_be_compatible():
    checks.check_same_shape(a=MATRIX, b=tf.TensorSpec([None, 3]))
    with pytest.raises(ValueError, match=r"a and b .*\(4, 3\) and \(4, 1\)"):
        checks.check_same_shape(a=MATRIX, b=tf.zeros([4, 1]))


def test_a_size_must_be_known():
    spec = tf.TensorSpec([None, 3])
    assert checks.known_size("labels", spec, -1) == 3
    with pytest.raises(ValueError, match=r"labels: .* axis 0, got .*\(None, 3"):
        checks.known_size("labels", spec, 0)
