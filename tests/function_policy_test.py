"""Augmentation by a function: one image and one seed at a time."""

import numpy as np
import pytest
import tensorflow as tf

from tf_metassl.data import policies
from tf_metassl.data.function_policy import FunctionPolicy
from tf_metassl.errors import ConfigError

IMAGES = np.random.default_rng(0).integers(0, 256, (6, 4, 5, 3), np.uint8)
SEED = tf.constant([3, 4])


def flipped(policy, rows=slice(None)):
    draw = policy.draw(SEED, len(IMAGES), IMAGES.shape[1:])
    draw = {key: values[rows] for key, values in draw.items()}
    return policy.apply(IMAGES[rows], draw).numpy()


def test_each_image_has_a_seed_of_its_own():
    policy = FunctionPolicy(tf.image.stateless_random_flip_left_right)
    result = flipped(policy)
    was_flipped = [
        np.array_equal(image, before[:, ::-1])
        for image, before in zip(result, IMAGES, strict=True)
    ]
    same = [
        np.array_equal(image, before)
        for image, before in zip(result, IMAGES, strict=True)
    ]
    assert any(was_flipped) and any(same)
    assert all(a or b for a, b in zip(was_flipped, same, strict=True))
    # A replica's rows of the draw belong to its rows of the images.
    np.testing.assert_array_equal(flipped(policy, slice(2, 4)), result[2:4])
    np.testing.assert_array_equal(flipped(policy), result)


def test_floats_are_rounded_and_clipped():
    def change(image, seed):
        del seed
        return tf.cast(image, tf.float32) * 2.0 - 100.6

    expected = np.clip(np.round(IMAGES * 2.0 - 100.6), 0, 255)
    np.testing.assert_array_equal(flipped(FunctionPolicy(change)), expected)


def test_what_is_no_augmentation_is_refused():
    with pytest.raises(ValueError, match="has to keep the shape"):
        flipped(FunctionPolicy(lambda image, seed: image[1:]))
    assert policies.of_user("weak", "crop") == "crop"
    assert policies.weak(FunctionPolicy(len)).function is len
    # A strong policy is no weak one.
    for argument, value in (("weak", "uda"), ("strong", "crop"), ("weak", 3)):
        with pytest.raises(ConfigError, match=f"{argument}=.*expected one of"):
            policies.of_user(argument, value)
