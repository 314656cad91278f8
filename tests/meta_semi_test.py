"""Meta-Semi's training step: the update by hand, and every ablation."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests.helpers import (
    assert_same,
    eagerly,
    gradient_of,
    inner_product,
    numpy_cross_entropy,
    perturb,
    tiny_algorithm,
    tiny_batch,
    tiny_network,
    trained_under,
    training_logits,
)
from tf_metassl.meta import example_weights, functional
from tf_metassl.ops.losses import cross_entropy
from tf_metassl.ops.mixing import mixup


def captured_gradient(batch, **hp):
    """The gradient and the selected share of one step that updates nothing."""
    algorithm = tiny_algorithm("meta_semi", weight_decay=0.0, **hp)
    algorithm.update_ema = lambda: None
    captured = []
    algorithm.apply_gradients = lambda role, gradient: captured.extend(gradient)
    algorithm.train_step(batch)
    share = algorithm.metric("selected_share")
    return algorithm, captured, share


@pytest.mark.parametrize("form", ("nested_tape", "forward_mode"))
@pytest.mark.parametrize("normalizer", ("num_selected", "num_unlabeled"))
def test_the_update_is_the_weighted_mean_loss(form, normalizer, float64):
    """Recomputed the slow way: one gradient per example, inner products."""
    batch = tiny_batch()
    algorithm, actual, share = captured_gradient(
        batch,
        meta_gradient=form,
        weight_normalizer=normalizer,
        labeled_loss_weight=0.0,
        pseudo_label_view="clean",
        meta_labeled_batch="raw",
    )
    student = algorithm.student
    labeled, unlabeled = batch["labeled"], batch["unlabeled"]
    draw = unlabeled["mix_weight"], unlabeled["mix_partner"]
    images = mixup(tf.cast(unlabeled["weak"], tf.float64), *draw)
    probabilities = tf.nn.softmax(algorithm.ema(unlabeled["clean"]))
    target = mixup(probabilities, *draw)
    params, state = functional.parameters(student), functional.state(student)
    # The captured step has assigned batch-norm state; batch statistics, which
    # training mode uses, do not depend on it.
    with tf.GradientTape() as tape:
        tape.watch(params)
        logits, _ = functional.call(student, params, state, labeled["weak"])
        label = algorithm.one_hot(labeled["label"])
        loss = tf.reduce_mean(cross_entropy(label, logits))
    labeled_gradient = functional.gradient(tape, loss, params)

    def gradient_of(weights):
        with tf.GradientTape() as tape:
            tape.watch(params)
            logits, _ = functional.call(student, params, state, images)
            loss = tf.reduce_sum(weights * cross_entropy(target, logits))
        return functional.gradient(tape, loss, params)

    each = [gradient_of(row) for row in np.eye(16)]
    agreement = [inner_product(labeled_gradient, g) for g in each]
    selected = np.array(agreement) >= 0
    assert 0 < selected.sum() < 16
    np.testing.assert_allclose(share, selected.mean())
    divisor = selected.sum() if normalizer == "num_selected" else 16
    expected = gradient_of(selected / divisor)
    for a, b in zip(actual, expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-7, atol=1e-12)


@pytest.mark.parametrize("form", ("nested_tape", "forward_mode"))
def test_without_a_labeled_loss_the_judge_is_reported(form, float64):
    batch = tiny_batch()
    algorithm, _, _ = captured_gradient(
        batch,
        meta_gradient=form,
        labeled_loss_weight=0.0,
        meta_labeled_batch="raw",
    )
    # The captured step has moved no parameter.
    label = batch["labeled"]["label"].numpy()
    (logits,) = training_logits(algorithm.student, batch["labeled"]["weak"])
    is_correct = np.mean(logits.argmax(-1) == label)
    assert is_correct > 0
    np.testing.assert_allclose(
        algorithm.metric("labeled_accuracy"), is_correct, rtol=1e-6
    )
    np.testing.assert_allclose(
        algorithm.metric("labeled_loss"),
        numpy_cross_entropy(label, logits),
        rtol=1e-6,
    )
    assert algorithm.metric("loss") == algorithm.metric("unlabeled_loss")


def test_if_nothing_is_selected_the_unlabeled_term_is_zero(monkeypatch):
    monkeypatch.setitem(
        example_weights.RULES, "indicator", lambda g: tf.zeros_like(g)
    )
    _, gradient, share = captured_gradient(
        tiny_batch(), weight_normalizer="num_selected", labeled_loss_weight=0.0
    )
    assert share == 0
    for g in gradient:
        np.testing.assert_array_equal(g, np.zeros(g.shape))


def test_judges_and_learned_images_have_a_mean_weight_of_one(float64):
    labeled = {"judges": tf.constant([True, False, False, False])}
    algorithm = tiny_algorithm("meta_semi", judge_share=0.25)
    judging, learning = algorithm._parts(labeled, tf.float64)
    np.testing.assert_array_equal(judging, [4, 0, 0, 0])
    np.testing.assert_allclose(learning, [0, 4 / 3, 4 / 3, 4 / 3])
    # A batch without a judge selects all.
    labeled["judges"] = tf.zeros([4], tf.bool)
    judging, learning = algorithm._parts(labeled, tf.float64)
    np.testing.assert_array_equal(judging, [0, 0, 0, 0])
    np.testing.assert_array_equal(learning, [1, 1, 1, 1])


ABLATIONS = {
    "without parameter EMA": {"ema_decay": 0.0},
    "one-hot pseudo labels": {"pseudo_label": "one_hot"},
    "MixUp on unlabeled data only": {"mixup_on": "unlabeled"},
    "MixUp on labeled data only": {"mixup_on": "labeled"},
    "without MixUp": {"mixup_on": "none"},
    "constant 1": {"example_weights": "constant"},
    "-1 and 1": {"example_weights": "plus_minus_one"},
    "learning to reweight": {"example_weights": "relu_norm"},
    "two lookahead steps": {"lookahead_steps": 2},
    "literal Algorithm 1": {
        "labeled_loss_weight": 0.0,
        "meta_labeled_batch": "mixed",
        "weight_normalizer": "num_selected",
        "pseudo_label_view": "weak",
    },
}


@pytest.fixture(scope="module")
def ablated():
    """The student's gradient after one step, for every ablation."""
    gradients = {}
    for name, hp in {"default": {}, **ABLATIONS}.items():
        keras.utils.set_random_seed(7)
        with eagerly():
            _, gradient, share = captured_gradient(tiny_batch(8, 64), **hp)
        assert name != "default" or 0 < share < 1
        gradients[name] = np.concatenate([np.ravel(g) for g in gradient])
    return gradients


@pytest.mark.parametrize("name", ABLATIONS)
def test_every_ablation_takes_a_finite_step_of_its_own(ablated, name):
    assert np.isfinite(ablated[name]).all()
    same = np.allclose(ablated[name], ablated["default"], rtol=1e-6)
    # At weight 0 more lookahead steps only scale the meta gradient, and at the
    # first step the average is the network itself.
    assert same == (name in ("two lookahead steps", "without parameter EMA"))


class OwnBatchNorm(keras.layers.BatchNormalization):
    """One that the package knows nothing of."""


def with_own_batch_norm(role):
    pixels = keras.Input((6, 5, 1))
    x = keras.layers.Rescaling(1 / 255)(pixels)
    x = OwnBatchNorm(synchronized=True)(keras.layers.Flatten()(x))
    return keras.Model(pixels, keras.layers.Dense(3)(x), name=role)


def test_forward_mode_is_refused_where_it_is_not_exact(two_replicas):
    with two_replicas.scope():
        with pytest.raises(ValueError, match="use keras.layers.BatchNormal"):
            tiny_algorithm(
                "meta_semi",
                meta_gradient="forward_mode",
                network=with_own_batch_norm,
            )
        # By default the form that is exact there is taken.
        tiny_algorithm("meta_semi", network=with_own_batch_norm)


def test_both_forms_are_the_same_with_synchronized_batch_norm(
    two_replicas, float64
):
    one, *of_two = (
        trained_under(
            strategy,
            "meta_semi",
            # New ones: TensorFlow may add to an array that a generator yields.
            [tiny_batch(16, 32, seed=seed) for seed in range(4)],
            meta_gradient=form,
            recompute=recompute,
            judge_share=0.4,
        )
        for strategy, form, recompute in (
            (tf.distribute.get_strategy(), "forward_mode", False),
            (two_replicas, "forward_mode", False),
            (two_replicas, "forward_mode", True),
            (two_replicas, "nested_tape", False),
        )
    )
    for values, metrics in of_two:
        assert_same(one[0], values, rtol=1e-8, atol=1e-10)
        assert metrics == pytest.approx(one[1], rel=1e-6, abs=1e-9)


def test_views_follow_the_hyperparameters():
    assert tiny_algorithm("meta_semi").views.unlabeled == ("clean", "weak")
    views = tiny_algorithm("meta_semi", pseudo_label_view="weak").views
    assert views.unlabeled == ("weak",)
    assert views.mixup_alpha == 1.0


SETTINGS = {
    "default": {},
    "raw judge": {"meta_labeled_batch": "raw"},
    "labeled images mixed": {"mixup_on": "labeled"},
    "unlabeled images mixed": {"mixup_on": "unlabeled"},
    "-1 and 1": {"example_weights": "plus_minus_one"},
    "mixed labeled loss, raw judge": {
        "labeled_loss_batch": "mixed",
        "meta_labeled_batch": "raw",
    },
    "joint pool": {"labels_in_update": "joint"},
    "joint mixed pool": {
        "labels_in_update": "joint",
        "labeled_loss_batch": "mixed",
        "meta_labeled_batch": "raw",
    },
    "no labels": {"labels_in_update": "none"},
    "strong view": {"learned_view": "strong", "mixup_on": "labeled"},
    "partners from all": {"mix_partners": "all"},
    "labeler in training mode": {"labeler_mode": "training"},
    "the student labels": {"labeler": "student", "labeler_mode": "training"},
    "margin": {"selection_margin": 0.3, "example_weights": "indicator"},
    "labels that judge alone": {"judge_share": 0.4},
    "labels that judge alone, joint": {
        "judge_share": 0.4,
        "labels_in_update": "joint",
    },
}


@pytest.mark.slow
@pytest.mark.parametrize("form", ("nested_tape", "forward_mode"))
@pytest.mark.parametrize("name", SETTINGS)
def test_the_whole_update_by_hand(name, form, float64):
    """Continuous weights, where no case says otherwise, tell judges apart."""
    batch = tiny_batch()
    algorithm = tiny_algorithm(
        "meta_semi",
        weight_decay=0.0,
        labeled_loss_weight=0.7,
        meta_gradient=form,
        **{"example_weights": "relu_norm", **SETTINGS[name]},
    )
    hp = algorithm.hyperparameters
    perturb(algorithm.ema, scale=0.03)
    student, state = algorithm.student, functional.state(algorithm.student)
    keys = np.random.default_rng(3).random((1, 24))
    algorithm._partner_keys = lambda sizes: tf.constant(keys)

    # Lines 3 and 4.
    labeled, unlabeled = batch["labeled"], batch["unlabeled"]
    labeler = student if hp.labeler == "student" else algorithm.ema
    if hp.labeler_mode == "training":
        # A network that is trained, because the average is not, and its batch
        # norm is in inference mode whatever it is called with.
        trained = tiny_network("labeler")
        trained.set_weights(labeler.get_weights())
        (logits,) = training_logits(trained, unlabeled["clean"])
    else:
        logits = labeler(unlabeled["clean"], training=False)
    raw = [
        (
            tf.cast(labeled["weak"], tf.float64),
            algorithm.one_hot(labeled["label"]),
        ),
        (
            tf.cast(unlabeled[hp.learned_view], tf.float64),
            tf.nn.softmax(tf.cast(logits, tf.float64)),
        ),
    ]
    draws = [labeled, unlabeled]
    if hp.mix_partners == "all":
        # Eight labeled images are one block, with all unlabeled ones.
        weight = np.concatenate([g["mix_weight"] for g in draws]).astype(float)
        partner = np.argsort(keys[0])

        def mix_all(values):
            values = np.concatenate(values)
            w = weight.reshape(-1, *[1] * (values.ndim - 1))
            blended = tf.constant(w * values + (1 - w) * values[partner])
            return blended[:8], blended[8:]

        mixed = list(zip(*map(mix_all, zip(*raw, strict=True)), strict=True))
    else:
        mixed = [
            tuple(mixup(v, g["mix_weight"], g["mix_partner"]) for v in pair)
            for pair, g in zip(raw, draws, strict=True)
        ]
    (x, y), (u, q) = (
        after if hp.mixup_on in (group, "both") else before
        for group, before, after in zip(
            ("labeled", "unlabeled"), raw, mixed, strict=True
        )
    )
    of = {"raw": raw[0], "mixed": (x, y)}
    judge = of[hp.meta_labeled_batch]
    x, y = of[hp.labeled_loss_batch]
    with_labels = hp.labels_in_update != "none"
    images = tf.concat([u, x], 0) if with_labels else u
    targets = tf.concat([q, y], 0) if with_labels else q
    num_examples = 24 if hp.labels_in_update == "joint" else 16
    judges = labeled["judges"].numpy()
    judging, learning = np.ones(8), np.ones(images.shape[0])
    if hp.judge_share:
        judging = judges / judges.mean()
        learning[16:] = ~judges / (~judges).mean()

    # Lines 5 to 11.
    def losses(params):
        logits, _ = functional.call(student, params, state, images)
        return learning * cross_entropy(targets, logits)

    def judged(params):
        logits, _ = functional.call(student, params, state, judge[0])
        return tf.reduce_mean(judging * cross_entropy(judge[1], logits))

    ahead = gradient_of(judged, student)
    s = np.array(
        [
            inner_product(
                ahead, gradient_of(lambda p, j=j: losses(p)[j], student)
            )
            for j in range(num_examples)
        ]
    )
    assert 3 < (s > 0).sum() < num_examples - 1, s
    threshold = -hp.selection_margin * np.sqrt(np.mean(s**2))
    w = {
        "relu_norm": np.maximum(s, 0),
        "plus_minus_one": np.where(s >= 0, 1.0, -1.0),
        "indicator": np.where(s >= threshold, 1.0, 0.0),
    }[hp.example_weights]
    if hp.selection_margin:
        assert (s >= 0).sum() < w.sum() < num_examples
    w /= np.abs(w).sum()

    # Lines 12 and 13.
    def total(params):
        each = losses(params)
        loss = tf.reduce_sum(w * each[:num_examples])
        if hp.labels_in_update == "separate":
            loss += 0.7 * tf.reduce_mean(each[num_examples:])
        return loss

    expected = gradient_of(total, student)
    _, new_state = functional.call(
        student, functional.parameters(student), state, images
    )
    captured = []
    algorithm.apply_gradients = lambda role, g: captured.extend(g)
    algorithm.train_step(batch)
    for a, b in zip(captured, expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-10)
    for a, b in zip(functional.state(student), new_state, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-9)
    np.testing.assert_allclose(
        algorithm.metric("selected_share"), np.mean(w[:16] > 0), rtol=1e-6
    )


@pytest.mark.parametrize("rule", ("indicator", "relu_norm"))
def test_weights_of_the_pool_are_counted(rule):
    algorithm = tiny_algorithm("meta_semi", example_weights=rule)
    batch = tiny_batch()
    algorithm.train_step(batch)
    metric = algorithm._trackers["example_weight"]
    counts, middle = metric.counts.numpy(), metric.edges[:-1] + 0.05
    size = len(batch["unlabeled"]["oracle_label"])
    assert counts.sum() == size
    if rule == "indicator":
        share = algorithm.metric("selected_share")
        assert counts[10] == round(size * (1 - share))
        assert counts[20] == round(size * share)
    else:
        # Intervals are 0.1 wide, and the mean weight is 1.
        assert counts @ middle / size == pytest.approx(1, abs=0.06)
