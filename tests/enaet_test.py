"""EnAET's further terms against NumPy."""

import numpy as np
import tensorflow as tf

from tests.helpers import (
    softmax,
    spied,
    tiny_algorithm,
    tiny_batch,
    values,
)
from tf_metassl.ops import transformations

SHARES = {
    "projective": 1.0,
    "affine": 0.75,
    "similarity": 0.5,
    "euclidean": 0.2,
    "color": 0.05,
}


def test_the_further_terms_by_hand(float64):
    batch = tiny_batch()
    algorithm = tiny_algorithm(
        "enaet",
        unlabeled_loss_weight=0.0,
        transformation_weight=3.0,
        transformation_ramp_steps=10,
        agreement_weight=2.0,
    )
    algorithm.optimizer.iterations.assign(5)
    seen = spied(algorithm, "mixed", "transformed")
    guess = algorithm.guess(batch["unlabeled"]).numpy()
    loss = float(algorithm.compute_losses(batch))

    images, targets = seen["mixed"]
    copies, parameters = seen["transformed"]
    plain = tf.cast(batch["unlabeled"]["weak_1"], tf.float64)
    groups = [*images, plain, *copies.values()]
    features, logits = algorithm.student_and_features(
        tf.concat(groups, 0), training=True
    )
    parts = np.cumsum([8, 16, 16, 16, 16, 16, 16, 16])
    features = np.split(features.numpy(), parts)
    probs = np.split(softmax(logits.numpy()), parts)

    expected = -(targets[0].numpy() * np.log(probs[0])).sum(1).mean()
    agreement = 0.0
    for place, (kind, share) in enumerate(SHARES.items(), start=4):
        pair = np.concatenate([features[3], features[place]], axis=1)
        guessed = algorithm.decoders[kind](pair).numpy()
        wanted = parameters[kind].numpy()
        assert guessed.shape == wanted.shape
        expected += 0.5 * 3.0 * share * ((guessed - wanted) ** 2).mean()
        agreement -= (guess * np.log(probs[place])).sum(1).mean()
    np.testing.assert_allclose(loss, expected + 2.0 * agreement / 5, rtol=1e-7)


def test_what_a_decoder_must_guess_makes_its_copy_again(float64):
    batch = tiny_batch()
    algorithm = tiny_algorithm("enaet")
    seen = spied(algorithm, "transformed")
    algorithm.compute_losses(batch)
    copies, parameters = seen["transformed"]
    images = tf.cast(batch["unlabeled"]["weak_1"], tf.float64)
    for kind, copy in copies.items():
        if kind == "color":
            again = transformations.recolored(images, parameters[kind])
        else:
            # A matrix but for its last entry, or for its last row.
            rows = np.tile(np.eye(3).ravel(), (16, 1))
            rows[:, : parameters[kind].shape[1]] = parameters[kind]
            matrices = tf.constant(rows.reshape(16, 3, 3))
            again = transformations.warp(images, matrices)
        np.testing.assert_allclose(copy, again, atol=1e-9, err_msg=kind)


def test_the_copies_are_of_the_images_and_change_with_the_step():
    batch = tiny_batch()
    algorithm = tiny_algorithm("enaet")
    images = tf.cast(batch["unlabeled"]["weak_1"], tf.float32)
    copies, parameters = algorithm.transformed(images)
    assert list(copies) == list(SHARES)
    sizes = [int(parameters[kind].shape[1]) for kind in SHARES]
    # Images with one channel have no saturation.
    assert sizes == [8, 6, 6, 6, 3]
    for copy in copies.values():
        assert copy.shape == images.shape
        assert np.abs(copy - images).max() > 1
    algorithm.optimizer.iterations.assign(1)
    later, _ = algorithm.transformed(images)
    for kind, copy in copies.items():
        assert np.abs(copy - later[kind]).max() > 1


def test_decoders_are_trained_and_not_averaged():
    algorithm = tiny_algorithm("enaet")
    before = {k: values(d) for k, d in algorithm.decoders.items()}
    algorithm.optimizer.iterations.assign(10)
    algorithm.train_step(tiny_batch())
    for kind, decoder in algorithm.decoders.items():
        for a, b in zip(before[kind], values(decoder), strict=True):
            assert not np.array_equal(a, b)
    names = {v.path for v in algorithm.state_variables}
    for decoder in algorithm.decoders.values():
        assert {v.path for v in decoder.weights} <= names
    assert len(algorithm.ema.weights) == len(algorithm.student.weights)
