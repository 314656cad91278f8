"""Jitter: rounded Gaussian noise."""

import numpy as np
import pytest
import tensorflow as tf

from tf_metassl.data import policies

SEED = tf.constant([3, 5], tf.int32)


def test_jitter_adds_rounded_noise_and_clips():
    policy = policies.STRONG_POLICIES["jitter_points"]
    images = np.array([[[[0, 100]]], [[[254, 7]]]], np.uint8)
    noise = np.array([[[[-3.0, 1.6]]], [[[9.0, -0.4]]]], np.float32)
    moved = policy.apply(images, {"noise": noise})
    assert moved.numpy().ravel().tolist() == [0, 102, 255, 7]
    draw = policy.draw(SEED, 4000, (1, 1, 2))["noise"]
    assert draw.shape == (4000, 1, 1, 2)
    assert np.std(draw) == pytest.approx(policy.sigma, rel=0.05)
