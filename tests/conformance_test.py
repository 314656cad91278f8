"""What every registered algorithm must do. A new one gets these for free."""

import concurrent.futures
import dataclasses
import multiprocessing
import os

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests.helpers import (
    EXAMPLES,
    IMAGE_SHAPE,
    NUM_CLASSES,
    VIEWS,
    all_values,
    assert_same,
    mostly_exhaustive,
    pooling_network,
    run,
    tiny_algorithm,
    tiny_batch,
    tiny_network,
    trained_under,
    values,
)
from tf_metassl.algorithms import ALGORITHMS, hyperparameters_class
from tf_metassl.config import resolve
from tf_metassl.contract import view_kind
from tf_metassl.errors import ExportError
from tf_metassl.run import checkpoints, serving

pytestmark = pytest.mark.slow

every_algorithm = pytest.mark.parametrize("name", ALGORITHMS)
# Where what is tested is the trainer's code more than the method's.
mostly_exhaustively = pytest.mark.parametrize(
    "name", mostly_exhaustive(ALGORITHMS, EXAMPLES)
)
# Two networks that are trained against each other amplify rounding tenfold in
# each step at the learning rate of the other tests.
OPTIONS = {"cc_gan": {"learning_rate": 0.01}}


@every_algorithm
def test_mixup_is_drawn_as_the_hyperparameters_say(name):
    hp = {
        field.name for field in dataclasses.fields(hyperparameters_class(name))
    }
    if "mix_weight_rule" not in hp:
        assert tiny_algorithm(name).views.mixup_alpha == 0
        return
    for rule in ("plain", "dominant"):
        views = tiny_algorithm(
            name, mix_weight_rule=rule, mixup_alpha=0.3
        ).views
        assert (views.mix_weight_rule, views.mixup_alpha) == (rule, 0.3)


@pytest.mark.parametrize(
    "name, rule",
    [
        ("supervised_mixup", "dominant"),
        ("meta_semi", "dominant"),
        ("meta_semi_ict", "dominant"),
        ("mixmatch", "dominant"),
        ("remixmatch", "dominant"),
        ("enaet", "dominant"),
        # Published without the maximum.
        ("ict", "plain"),
    ],
)
def test_an_image_is_the_larger_part_of_its_mixture_by_default(name, rule):
    assert hyperparameters_class(name)().mix_weight_rule == rule


@every_algorithm
def test_a_step_changes_its_networks_and_gives_finite_metrics(name, eager):
    algorithm = tiny_algorithm(name)
    before = all_values(algorithm)
    metrics = run(algorithm, tiny_batch())
    assert set(metrics) == set(algorithm.metric_names)
    assert np.isfinite(list(metrics.values())).all(), metrics
    after = all_values(algorithm)
    for role in algorithm.evaluated_networks:
        changed = [
            not np.array_equal(a, b)
            for a, b in zip(before[role], after[role], strict=True)
        ]
        assert all(changed), f"{role}: {changed}"
    assert int(algorithm.step) == 1


@mostly_exhaustively
def test_class_weights_are_those_of_the_labeled_loss(name, eager):
    students = []
    for weights in (None, [1.0] * NUM_CLASSES, [0.0, 1.0, 3.0]):
        keras.utils.set_random_seed(1)
        algorithm = tiny_algorithm(name, class_weights=weights)
        start = all_values(algorithm)
        run(algorithm, tiny_batch())
        students.append(all_values(algorithm))
    none, ones, others = students
    # A guessed label sums to 1 up to rounding.
    tf.nest.map_structure(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6),
        none,
        ones,
    )
    moved = [
        not np.array_equal(a, b)
        for role in algorithm.roles
        for a, b, first in zip(
            none[role], others[role], start[role], strict=True
        )
    ]
    assert any(moved)


@mostly_exhaustively
def test_the_averaged_network_is_the_average(name, eager):
    algorithm = tiny_algorithm(name, ema_decay=0.5)
    old = values(algorithm.ema)
    run(algorithm, tiny_batch())
    # Some have batch-norm statistics of their own, which their tests look at.
    own = (
        ()
        if algorithm.averages_statistics
        else algorithm.student.non_trainable_variables
    )
    # The first decay is min(0.5, 1 / 10).
    for average, start, variable, now in zip(
        values(algorithm.ema),
        old,
        algorithm.student.weights,
        values(algorithm.student),
        strict=True,
    ):
        if not any(variable is one for one in own):
            np.testing.assert_allclose(
                average, 0.1 * start + 0.9 * now, rtol=1e-5, atol=1e-6
            )


@mostly_exhaustively
def test_without_average_the_student_is_deployed(name, eager):
    hp = {"ema_decay": 0.0, "swa_every": 0}
    has = {
        field.name for field in dataclasses.fields(hyperparameters_class(name))
    }
    algorithm = tiny_algorithm(
        name,
        **{setting: value for setting, value in hp.items() if setting in has},
    )
    assert algorithm.ema is None
    assert algorithm.deployable_model is algorithm.student
    run(algorithm, tiny_batch())


def ten_steps(strategy, name, **options):
    """`trained_under` a strategy, in double precision."""
    batches = [tiny_batch(16, 32, seed=seed) for seed in range(10)]
    options |= OPTIONS.get(name, {})
    return trained_under(
        strategy, name, batches, gradient_clip_norm=1.0, **options
    )


def ten_compiled_steps(name):
    """`ten_steps` with XLA, five of them in a call."""
    keras.config.set_floatx("float64")
    keras.config.set_dtype_policy("float64")
    return ten_steps(
        tf.distribute.get_strategy(),
        name,
        jit_compile=True,
        steps_per_execution=5,
    )


def compile_quickly():
    """Half of the time of XLA goes into making programs fast."""
    os.environ["XLA_FLAGS"] = "--xla_backend_optimization_level=0"


@pytest.fixture(scope="module")
def short_lived_process():
    """Runs functions in a process that is replaced after some of them.

    XLA keeps every program that it has compiled, which takes 30 MB each here.
    """
    with concurrent.futures.ProcessPoolExecutor(
        1,
        multiprocessing.get_context("spawn"),
        initializer=compile_quickly,
        max_tasks_per_child=9,
    ) as pool:
        yield lambda *call: pool.submit(*call).result()


@mostly_exhaustively
def test_replicas_xla_and_steps_per_execution_change_no_number(
    name, two_replicas, float64, short_lived_process
):
    one, metrics_of_one = ten_steps(tf.distribute.get_strategy(), name)
    two, metrics_of_two = ten_steps(two_replicas, name)
    assert_same(one, two, rtol=1e-5, atol=1e-7)
    assert metrics_of_two == pytest.approx(metrics_of_one, rel=1e-4, abs=1e-6)
    compiled, metrics = short_lived_process(ten_compiled_steps, name)
    assert_same(one, compiled, rtol=1e-7, atol=1e-9)
    assert metrics == pytest.approx(metrics_of_one, rel=1e-6, abs=1e-6)


@mostly_exhaustively
def test_bfloat16_gives_nearly_the_same_losses(name, eager):
    losses = []
    for policy in ("float32", "mixed_bfloat16"):
        keras.utils.set_random_seed(1)
        keras.config.set_dtype_policy(policy)
        try:
            algorithm = tiny_algorithm(name, **OPTIONS.get(name, {}))
            metrics = run(
                algorithm, *(tiny_batch(seed=seed) for seed in range(3))
            )
        finally:
            keras.config.set_dtype_policy("float32")
        losses.append(metrics["loss"])
    assert losses[1] == pytest.approx(losses[0], rel=0.05)


@mostly_exhaustively
def test_micro_batches_change_no_number_or_are_refused(name, float64, eager):
    def network(role):
        return tiny_network(role, batch_norm=False)

    if not tiny_algorithm(name).can_accumulate:
        with pytest.raises(ValueError, match="Use --remat"):
            tiny_algorithm(name, gradient_accumulation_steps=4)
        return
    results = []
    for parts in (1, 4):
        keras.utils.set_random_seed(1)
        algorithm = tiny_algorithm(
            name,
            network=network,
            gradient_accumulation_steps=parts,
            gradient_clip_norm=1.0,
        )
        metrics = run(
            algorithm, *(tiny_batch(32, 64, seed=seed) for seed in range(3))
        )
        results.append((all_values(algorithm), metrics))
    (whole, metrics_of_whole), (split, metrics_of_split) = results
    assert_same(whole, split, rtol=1e-6, atol=1e-8)
    assert metrics_of_split == pytest.approx(metrics_of_whole, rel=1e-5)


@mostly_exhaustively
def test_strong_views_can_have_learned_magnitudes(name, eager):
    plain = tiny_algorithm(name)
    algorithm = tiny_algorithm(name, ctaugment=True)
    views = plain.views.labeled + plain.views.unlabeled
    if any(view_kind(view) == "strong" for view in views):
        run(algorithm, tiny_batch())
        learned = algorithm.learned_rates.numpy()
        assert (learned < algorithm.augmentation_rates.numpy()).any()
    else:
        has_rates = plain.augmentation_rates is not None
        assert (algorithm.augmentation_rates is not None) == has_rates


@mostly_exhaustively
def test_a_short_sharpness_aware_step_is_a_plain_one_or_refused(
    name, float64, eager
):
    if not tiny_algorithm(name).has_one_loss:
        with pytest.raises(ValueError, match="--sam_rho=0.1.* change --algo"):
            tiny_algorithm(name, sam_rho=0.1)
        return
    results = []
    for rho in (0.0, 1e-9):
        keras.utils.set_random_seed(1)
        algorithm = tiny_algorithm(name, sam_rho=rho)
        metrics = run(algorithm, *(tiny_batch(seed=seed) for seed in range(3)))
        results.append((all_values(algorithm), metrics))
    (plain, metrics_of_plain), (aware, metrics_of_aware) = results
    assert_same(plain, aware, rtol=1e-5, atol=1e-7)
    assert metrics_of_aware == pytest.approx(metrics_of_plain, rel=1e-4)


@every_algorithm
def test_save_restore_next_step_is_bit_equal(name, tmp_path, eager):
    def build(role):
        return tiny_network(role, dropout=0.3)

    first = tiny_algorithm(name, network=build)
    batches = [tiny_batch(seed=seed) for seed in range(4)]
    run(first, *batches[:2])
    path = checkpoints.save(tmp_path, first, 2, {})
    run(first, *batches[2:])

    keras.utils.set_random_seed(99)
    second = tiny_algorithm(name, network=build)
    assert checkpoints.restore(path, second)["step"] == 2
    run(second, *batches[2:])
    assert_same(all_values(first), all_values(second))


@every_algorithm
def test_call_is_the_deployable_network(name):
    algorithm = tiny_algorithm(name)
    images = tiny_batch()["labeled"]["weak"]
    np.testing.assert_array_equal(
        algorithm(images), algorithm.deployable_model(images, training=False)
    )
    assert algorithm(images).shape == (8, NUM_CLASSES)


# A student, an average of one, and the student of a teacher.
@pytest.mark.parametrize(
    "name", ("supervised", "meta_semi", "meta_pseudo_labels")
)
def test_export_equals_call(name, tmp_path):
    algorithm = tiny_algorithm(name)
    images = tiny_batch()["labeled"]["weak"]
    serving.export_saved_model(
        algorithm.deployable_model, "abc", tmp_path / "1", examples=images
    )
    served = tf.saved_model.load(tmp_path / "1").signatures["serving_default"]
    np.testing.assert_allclose(
        served(image=images)["probabilities"],
        tf.nn.softmax(algorithm(images)),
        atol=1e-5,
    )
    # The check that every export goes through can fail.
    other = tiny_network(filters=5)
    with pytest.raises(ExportError, match="differs from the network"):
        serving.check_saved_model(tmp_path / "1", other, images)


@every_algorithm
def test_hyperparameters_and_configuration_make_the_round_trip(name):
    config = resolve({"algo": name})
    assert type(config).from_json(config.to_json()) == config
    assert isinstance(config.hyperparameters, hyperparameters_class(name))
    assert type(tiny_algorithm(name).hyperparameters) is hyperparameters_class(
        name
    )


@mostly_exhaustively
def test_it_memorises_32_images(name):
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (32, *IMAGE_SHAPE), np.uint8)
    label = rng.integers(0, NUM_CLASSES, 32).astype(np.int32)
    batch = tiny_batch(32, 32)
    for group, key in (("labeled", "label"), ("unlabeled", "oracle_label")):
        for view in VIEWS:
            batch[group][view] = tf.constant(images)
        batch[group][key] = tf.constant(label)
        # Mixed images are no longer the 32 to be learned.
        batch[group]["mix_weight"] = tf.ones([32])
    algorithm = tiny_algorithm(
        name,
        network=lambda role: tiny_network(role, filters=64),
        ema_decay=0.9,
        steps_per_execution=20,
    )
    algorithm.select_unlabeled(np.arange(32))
    learns_labels = not algorithm.hyperparameters.uses_contrastive_policy

    def with_draw(draw):
        # As in the pipeline: with the same draw in every step, a label from
        # the tail of the distribution would be learned for good.
        return {
            **batch,
            "unlabeled": {**batch["unlabeled"], "label_draw": draw},
        }

    def is_right():
        return np.argmax(algorithm(images), axis=-1) == label

    draws = rng.random((300, 32)).astype(np.float32)
    batches = iter(tf.data.Dataset.from_tensor_slices(draws).map(with_draw))
    step = algorithm.make_train_function()
    for _ in range(15 if learns_labels else 7):
        step(batches)
        if learns_labels and is_right().all():
            break
    if not learns_labels:
        # Labels reach no layer but the last one before the finetuning.
        (stage,) = algorithm.later_stages()
        algorithm = stage.build()
        step = algorithm.make_train_function()
        for _ in range(5):
            step(batches)
    assert is_right().all()


@every_algorithm
def test_wrong_networks_and_optimizers_are_refused(name):
    cls = type(tiny_algorithm(name))
    with pytest.raises(ValueError, match="trains the networks student"):
        cls(
            networks={"pupil": tiny_network()},
            hyperparameters=hyperparameters_class(name)(),
            num_classes=NUM_CLASSES,
        )
    with pytest.raises(ValueError, match="needs an optimizer for each"):
        tiny_algorithm(name).compile(optimizers={})


# What every step is compared with, so that what is chosen can matter.
IN_USE = {
    "confidence_threshold": 0.3,
    "unlabeled_ramp_steps": 0,
    "example_weights": "relu_norm",
}
# Settings and choices, of all methods or of one, that change no first steps.
EQUAL = {
    "meta_gradient": "two of the forms are exact",
    "meta_pseudo_labels pseudo_label=sampled": "what auto is",
    "softmatch uniform_alignment=False": "all images have the full weight",
    "noisy_student pseudo_label": "no student learns yet",
    "reduced_meta_pseudo_labels feedback": "no student learns yet",
    "reduced_meta_pseudo_labels feedback_sign": "no student learns yet",
    "reduced_meta_pseudo_labels pseudo_label": "no student learns yet",
}


def other_choices(name):
    """The settings of a method that are no numbers, with each other value."""
    for field in dataclasses.fields(hyperparameters_class(name)):
        choices = field.metadata["choices"] or ()
        if isinstance(field.default, bool):
            choices = (False, True)
        base = IN_USE.get(field.name, field.default)
        yield from ((field.name, c) for c in choices if c != base)


@mostly_exhaustively
def test_a_choice_changes_the_steps_or_is_said_to_have_no_effect(name, eager):
    cls = hyperparameters_class(name)
    has = {field.name for field in dataclasses.fields(cls)}
    base = {k: v for k, v in IN_USE.items() if k in has}
    network = pooling_network if name == "swwae" else tiny_network

    def trained(hp):
        keras.utils.set_random_seed(1)
        algorithm = tiny_algorithm(name, network=network, **hp)
        run(algorithm, *(tiny_batch(seed=seed) for seed in range(2)))
        return {"views": repr(algorithm.views), **all_values(algorithm)}

    reference = trained(base)
    silent = []
    for setting, value in other_choices(name):
        hp = base | {setting: value}
        words = f"{name} {setting}={value}"
        known = setting, f"{name} {setting}", words
        if setting in cls(**hp).without_effect or EQUAL.keys() & set(known):
            continue
        if is_same(trained(hp), reference):
            silent.append(words)
    assert not silent


def is_same(one, other):
    """Whether two nests of arrays and texts are equal."""
    flat = tf.nest.flatten(one), tf.nest.flatten(other)
    return all(map(np.array_equal, *flat))
