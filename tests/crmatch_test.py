"""CRMatch's terms against NumPy."""

import numpy as np
import tensorflow as tf

from tests.helpers import (
    labeled_losses,
    run,
    sharp_algorithm,
    softmax,
    spied,
    tiny_algorithm,
    tiny_batch,
    values,
)
from tf_metassl.ops import projections


def test_crmatch_by_hand(float64):
    batch = tiny_batch()
    algorithm = sharp_algorithm(
        "crmatch",
        confidence_threshold=0.6,
        unlabeled_loss_weight=3.0,
        feature_loss_weight=0.7,
        rotation_loss_weight=0.3,
    )
    seen = spied(algorithm, "rotated")
    loss = float(algorithm.compute_losses(batch))
    rotated, rotation = seen["rotated"]
    groups = [batch["labeled"]["weak"]]
    groups += [batch["unlabeled"][view] for view in ("weak", "strong")]
    groups = [tf.cast(group, tf.float64) for group in groups]
    features, logits = algorithm.student_and_features(
        tf.concat([*groups, rotated], 0), training=True
    )
    labeled, weak, strong, _ = np.split(softmax(logits.numpy()), [8, 24, 40])
    mask = weak.max(1) >= 0.6
    assert 0 < mask.sum() < 16

    projected = algorithm.projector(features).numpy()
    w, s = projected[8:24], projected[24:40]
    lengths = np.linalg.norm(w, axis=1) * np.linalg.norm(s, axis=1)
    cosine = (w * s).sum(1) / lengths
    turns = softmax(algorithm.rotation_head(features).numpy())[40:]
    expected = (
        labeled_losses(batch, labeled).mean()
        - 3.0 * (mask * np.log(strong[np.arange(16), weak.argmax(1)])).mean()
        # Like features are the loss, of selected images alone.
        + 0.7 * (mask * np.maximum(cosine, 0)).mean()
        - 0.3 * np.log(turns[np.arange(16), rotation.numpy()]).mean()
    )
    np.testing.assert_allclose(loss, expected, rtol=1e-7)


def test_the_cosine_by_hand():
    first = tf.Variable([[3.0, 4.0], [1.0, 0.0], [2.0, 0.0]])
    second = tf.Variable([[4.0, 3.0], [0.0, 5.0], [-1.0, 0.0]])
    with tf.GradientTape() as tape:
        cosine = projections.cosine(first, second)
    np.testing.assert_allclose(cosine, [0.96, 0, -1], atol=1e-6)
    # Both views are moved, the strong one and the weak one.
    for gradient in tape.gradient(cosine, [first, second]):
        assert np.abs(gradient[0]).max() > 0.01


def test_a_step_on_the_feature_loss_moves_views_apart():
    algorithm = tiny_algorithm(
        "crmatch",
        confidence_threshold=0.0,
        unlabeled_loss_weight=0.0,
        rotation_loss_weight=0.0,
        feature_loss_weight=30.0,
    )
    # Else the cosines start at any sign.
    kernel = algorithm.projector.layers[0].kernel
    kernel.assign(np.eye(kernel.shape[0]))
    losses = [run(algorithm, tiny_batch())["feature_loss"] for _ in range(8)]
    assert losses[-1] < 0.5 * losses[0]


def test_the_weak_view_is_turned():
    batch = tiny_batch()
    algorithm = tiny_algorithm("crmatch")
    seen = spied(algorithm, "rotated")
    algorithm.compute_losses(batch)
    turned, rotation = (value.numpy() for value in seen["rotated"])
    # Quarter turns of an image that is not square lose some of it.
    whole = np.flatnonzero(rotation % 2 == 0)
    assert whole.size > 4 and set(rotation) == {0, 1, 2, 3}
    for row in whole:
        image = batch["unlabeled"]["weak"][row].numpy()
        np.testing.assert_allclose(
            turned[row], np.rot90(image, rotation[row]), atol=1e-3
        )


def test_the_heads_are_trained():
    algorithm = tiny_algorithm("crmatch", confidence_threshold=0.0)
    heads = algorithm.projector, algorithm.rotation_head
    before = [values(head) for head in heads]
    run(algorithm, tiny_batch(), tiny_batch(seed=1))
    for head, old in zip(heads, before, strict=True):
        for a, b in zip(old, values(head), strict=True):
            assert not np.array_equal(a, b)
