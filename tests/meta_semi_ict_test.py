"""Meta-Semi with ICT's loss: both gradients add up."""

import numpy as np
import tensorflow as tf

from tests.helpers import gradient_of, perturb, tiny_algorithm, tiny_batch
from tf_metassl.meta import functional
from tf_metassl.ops.mixing import mixup


def captured_gradient(algorithm, batch):
    captured = []
    algorithm.apply_gradients = lambda role, gradient: captured.extend(gradient)
    algorithm.update_ema = lambda: None
    algorithm.train_step(batch)
    return captured


def test_the_gradient_is_the_sum_of_both(float64):
    batch = tiny_batch()
    meta_semi = tiny_algorithm("meta_semi")
    algorithm = tiny_algorithm(
        "meta_semi_ict", unlabeled_loss_weight=100.0, unlabeled_ramp_steps=10
    )
    perturb(meta_semi.ema, scale=2.0)
    algorithm.student.set_weights(meta_semi.student.get_weights())
    algorithm.ema.set_weights(meta_semi.ema.get_weights())
    student, unlabeled = algorithm.student, batch["unlabeled"]
    draw = unlabeled["mix_weight"], unlabeled["mix_partner"]
    labeler_logits = algorithm.ema(unlabeled["clean"], training=False)
    target = tf.nn.softmax(mixup(labeler_logits, *draw))
    images = [
        mixup(tf.cast(unlabeled["weak"], tf.float64), *draw),
        tf.cast(batch["labeled"]["weak"], tf.float64),
    ]
    state = functional.state(student)

    def consistency_loss(params):
        logits, _ = functional.call(
            student, params, state, tf.concat(images, 0)
        )
        squared = (tf.nn.softmax(logits[:16]) - target) ** 2
        # The ramp of step 0.
        return 100 * np.exp(-5) * tf.reduce_sum(squared) / (16 * 3)

    further = gradient_of(consistency_loss, student)
    assert max(np.abs(g).max() for g in further) > 1e-3
    plain = captured_gradient(meta_semi, batch)
    both = captured_gradient(algorithm, batch)
    for a, b, c in zip(both, plain, further, strict=True):
        np.testing.assert_allclose(a, b + c, rtol=1e-6, atol=1e-10)


def test_unmixed_images_are_compared_with_unmixed_predictions(float64):
    batch = tiny_batch()
    algorithm = tiny_algorithm("meta_semi_ict", mixup_on="labeled")
    logits = tf.random.normal([16, 3], dtype=tf.float64)
    loss = algorithm.additional_loss(batch["unlabeled"], logits, logits)
    assert float(loss) == 0
