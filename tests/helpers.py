"""Small networks and batches, and finite differences."""

import contextlib
import warnings

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from tf_metassl.algorithms import algorithm_class, hyperparameters_class
from tf_metassl.contract import MIX_BLOCK
from tf_metassl.meta import functional
from tf_metassl.models.in_painter import in_painter
from tf_metassl.models.layers import BatchNormalization
from tf_metassl.ops.augmentation_rates import BINS, NUM_PARAMETERS

IMAGE_SHAPE = (6, 5, 1)
NUM_CLASSES = 3
# Every view that an algorithm may ask for.
VIEWS = (
    *("clean", "weak", "strong", "weak_1", "weak_2"),
    *("ctaugment", "ctaugment_1", "ctaugment_2", "probe"),
    *("contrastive_1", "contrastive_2"),
)
# Rows of the training set that the batches' `index` counts.
NUM_IMAGES = 64

# A method for each shape of a step: one loss, an averaged network, weights from
# a meta gradient, two networks, a queue, a bank of labels, later stages.
EXAMPLES = (
    "supervised",
    "mean_teacher",
    "fixmatch",
    "meta_semi",
    "meta_pseudo_labels",
    "moco_v2",
    "simmatch",
    "noisy_student",
)


def mostly_exhaustive(cases, kept):
    """Parameters of a test of which tools/check.sh runs those in `kept`.

    The others are left to `tools/check.sh --all`. A case is a value or a tuple
    of them.
    """
    cases = list(cases)
    assert all(case in cases for case in kept)
    return [
        case
        if case in kept
        else pytest.param(
            *(case if isinstance(case, tuple) else (case,)),
            marks=pytest.mark.exhaustive,
        )
        for case in cases
    ]


def tiny_network(
    name="student", *, filters=4, dropout=0.0, batch_norm=True, sync=False
):
    """Convolution, batch norm, leaky ReLU, pooling, dense: all that matters."""
    pixels = x = keras.Input(IMAGE_SHAPE, dtype=keras.config.floatx())
    x = layers.Rescaling(1 / 127.5, offset=-1.0)(x)
    x = layers.Conv2D(filters, 3, use_bias=False)(x)
    if batch_norm:
        x = BatchNormalization(momentum=0.9, synchronized=sync)(x)
    x = layers.LeakyReLU(0.1)(x)
    x = layers.GlobalAveragePooling2D()(x)
    if dropout:
        x = layers.Dropout(dropout)(x)
    logits = layers.Dense(
        NUM_CLASSES, dtype=keras.config.floatx(), name="logits"
    )(x)
    return keras.Model(pixels, logits, name=name)


def pooling_network(name="student", sync=False):
    """6x5 pixels, 4x3 maps with margins, pooled to 2x1, then a convolution."""
    pixels = x = keras.Input(IMAGE_SHAPE, dtype=keras.config.floatx())
    x = layers.Rescaling(1 / 127.5, offset=-1.0)(x)
    x = layers.Conv2D(4, 3)(x)
    x = BatchNormalization(momentum=0.9, synchronized=sync)(x)
    x = layers.LeakyReLU(0.1)(x)
    x = layers.MaxPooling2D(2)(x)
    x = layers.Conv2D(5, 3, padding="same", activation="relu")(x)
    x = layers.GlobalAveragePooling2D()(x)
    logits = layers.Dense(NUM_CLASSES, name="logits")(x)
    return keras.Model(pixels, logits, name=name)


def tiny_batch(num_labeled=8, num_unlabeled=16, seed=0):
    """A batch with every view that an algorithm may ask for."""
    rng = np.random.default_rng(seed)

    def group(size):
        draw = {
            view: rng.integers(0, 256, (size, *IMAGE_SHAPE), np.uint8)
            for view in VIEWS
        }
        partner = [rng.permutation(MIX_BLOCK) for _ in range(size // MIX_BLOCK)]
        draw |= {
            "index": np.arange(size, dtype=np.int64),
            "label_draw": rng.random(size).astype(np.float32),
            "mix_weight": rng.random(size).astype(np.float32),
            "mix_partner": np.concatenate(partner).astype(np.int32),
        }
        return draw

    def labels(size):
        return rng.integers(0, NUM_CLASSES, size).astype(np.int32)

    batch = {"labeled": group(num_labeled), "unlabeled": group(num_unlabeled)}
    batch["labeled"]["label"] = labels(num_labeled)
    batch["unlabeled"]["oracle_label"] = labels(num_unlabeled)
    probes = (num_labeled, 2)
    batch["labeled"] |= {
        "judges": np.arange(num_labeled) % 5 < 2,
        "probe_op": rng.integers(0, len(BINS), probes).astype(np.int32),
        "probe_bin": rng.integers(0, 6, (*probes, NUM_PARAMETERS)).astype(
            np.int32
        ),
    }
    return tf.nest.map_structure(tf.constant, batch)


def tiny_algorithm(
    name,
    *,
    learning_rate=0.1,
    weight_decay=1e-4,
    jit_compile=False,
    gradient_clip_norm=0.0,
    steps_per_execution=1,
    gradient_accumulation_steps=1,
    recompute=False,
    sam_rho=0.0,
    ctaugment=False,
    network=None,
    cls=None,
    class_weights=None,
    **hp,
):
    """A compiled algorithm on tiny networks; `cls` is that of another stage."""
    cls = cls or algorithm_class(name)
    network = network or tiny_network
    networks = cls.build_networks(network, NUM_CLASSES)
    if "generator" in networks:
        networks["generator"] = in_painter(IMAGE_SHAPE, filters=4)
    algorithm = cls(
        networks=networks,
        hyperparameters=hyperparameters_class(name)(**hp),
        num_classes=NUM_CLASSES,
        num_images=NUM_IMAGES,
        class_weights=class_weights,
        ctaugment=ctaugment,
    )
    algorithm.compile(
        optimizers={
            role: keras.optimizers.SGD(
                learning_rate, momentum=0.9, nesterov=True
            )
            for role in cls.roles
        },
        weight_decay=weight_decay,
        gradient_clip_norm=gradient_clip_norm,
        jit_compile=jit_compile,
        steps_per_execution=steps_per_execution,
        gradient_accumulation_steps=gradient_accumulation_steps,
        recompute=recompute,
        sam_rho=sam_rho,
    )
    return algorithm


def values(trackable):
    """Copies of the values of all variables of a network or optimizer."""
    variables = getattr(trackable, "weights", None) or trackable.variables
    return [v.value.numpy() for v in variables]


def run(algorithm, *batches):
    """Runs one training step per batch, as `fit` does; returns the metrics."""
    algorithm.reset_metrics()
    step = algorithm.make_train_function()
    for batch in batches:
        dataset = tf.data.Dataset.from_tensors(batch)
        metrics = step(iter(dataset))
    return {name: float(value) for name, value in metrics.items()}


@contextlib.contextmanager
def eagerly():
    """Steps run operation by operation.

    One step takes a fifth of the time of tracing it. The functions of tf.data
    are traced all the same.
    """
    tf.config.run_functions_eagerly(True)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", ".* apply to tf.data functions")
            yield
    finally:
        tf.config.run_functions_eagerly(False)


def all_values(algorithm):
    """Values of all networks and optimizers, by owner."""
    owners = {role: getattr(algorithm, role) for role in algorithm.roles}
    owners |= algorithm.evaluated_networks
    owners |= {
        f"{role} optimizer": getattr(algorithm, f"{role}_optimizer")
        for role in algorithm.roles
    }
    return {name: values(owner) for name, owner in owners.items()}


def dataset_of(batches):
    """A dataset that yields the batches once, one per element."""
    return tf.data.Dataset.from_generator(
        lambda: iter(batches),
        output_signature=tf.nest.map_structure(
            tf.TensorSpec.from_tensor, batches[0]
        ),
    )


def trained_under(strategy, name, batches, **options):
    """All values after a step per batch under a strategy, and the metrics.

    The step is traced once. This and XLA's demand for static shapes are all
    that is known of TPUs here.

    Args:
        strategy: a `tf.distribute` strategy.
        name: `--algo`.
        batches: global batches.
        **options: of `tiny_algorithm`.
    """
    keras.utils.set_random_seed(1)
    options.setdefault("network", lambda role: tiny_network(role, sync=True))
    with strategy.scope():
        algorithm = tiny_algorithm(name, **options)
    train_step, traces = algorithm.train_step, []

    def counted(batch):
        traces.append(1)
        return train_step(batch)

    algorithm.train_step = counted
    step = algorithm.make_train_function()
    dataset = dataset_of(batches)
    iterator = iter(strategy.experimental_distribute_dataset(dataset))
    for _ in range(len(batches) // algorithm.steps_per_execution):
        metrics = step(iterator)
    # Whatever the options; once in each replica.
    assert len(traces) == strategy.num_replicas_in_sync
    return all_values(algorithm), {k: float(v) for k, v in metrics.items()}


def assert_same(first, second, **tolerance):
    """Compares two results of `all_values`; bit for bit without tolerance."""
    for owner in first:
        for a, b in zip(first[owner], second[owner], strict=True):
            if tolerance:
                np.testing.assert_allclose(a, b, err_msg=owner, **tolerance)
            else:
                np.testing.assert_array_equal(a, b, err_msg=owner)


def softmax(logits):
    """Probabilities of an array `[N, C]`."""
    powers = np.exp(logits - logits.max(-1, keepdims=True))
    return powers / powers.sum(-1, keepdims=True)


def spied(algorithm, *names):
    """Name -> what that method of the algorithm returned last."""
    seen = {}

    def spy(name):
        method = getattr(algorithm, name)

        def wrapped(*arguments):
            seen[name] = method(*arguments)
            return seen[name]

        setattr(algorithm, name, wrapped)

    for name in names:
        spy(name)
    return seen


def training_logits(network, *groups, params=None):
    """Logits of image groups, run as one training batch; changes nothing.

    Args:
        network: a Keras network.
        *groups: images, integers or floats.
        params: in place of the network's own parameters.

    Returns:
        A float64 array per group.
    """
    logits, _ = functional.call(
        network,
        params or functional.parameters(network),
        functional.state(network),
        tf.concat([tf.cast(g, keras.config.floatx()) for g in groups], 0),
    )
    ends = np.cumsum([group.shape[0] for group in groups])[:-1]
    return np.split(logits.numpy().astype(np.float64), ends)


def numpy_cross_entropy(labels, logits):
    """Mean over the rows of -log p[label], or of a soft label."""
    if np.ndim(labels) == 1:
        labels = np.eye(logits.shape[-1])[labels]
    return -(labels * np.log(softmax(logits))).sum(-1).mean()


def numpy_mixup(values, group):
    """MixUp with the batch's draw, row by row."""
    values = np.asarray(values, np.float64)
    result = np.empty_like(values)
    for row, (weight, partner) in enumerate(
        zip(
            group["mix_weight"].numpy(),
            group["mix_partner"].numpy(),
            strict=True,
        )
    ):
        other = values[row - row % 8 + partner]
        result[row] = weight * values[row] + (1 - weight) * other
    return result


def perturb(network, scale=0.3, seed=0):
    """Moves every parameter by noise, so that an average is not the student."""
    rng = np.random.default_rng(seed)
    for variable in network.weights:
        if "seed" not in variable.path and "moving" not in variable.path:
            noise = scale * rng.normal(size=variable.shape)
            variable.assign(variable.numpy() + noise)


def loss_and_gradient(algorithm, batch):
    """`compute_losses` and its gradient to the student's parameters."""
    variables = [v.value for v in algorithm.student.trainable_variables]
    with tf.GradientTape() as tape:
        loss = algorithm.compute_losses(batch)
    return float(loss), [g.numpy() for g in tape.gradient(loss, variables)]


def inner_product(first, second):
    """The sum of the products of two lists of tensors."""
    return sum(np.sum(a * b) for a, b in zip(first, second, strict=True))


def gradient_of(function, network):
    """The gradient of `function(params)` at the network's parameters."""
    params = functional.parameters(network)
    with tf.GradientTape() as tape:
        tape.watch(params)
        loss = function(params)
    return functional.gradient(tape, loss, params)


def central_difference(function, point, epsilon=1e-5):
    """The gradient of a scalar function of a NumPy vector."""
    gradient = np.zeros_like(point)
    for index in np.ndindex(point.shape):
        step = np.zeros_like(point)
        step[index] = epsilon
        gradient[index] = (
            float(function(point + step)) - float(function(point - step))
        ) / (2 * epsilon)
    return gradient


def on_replicas(strategy, function):
    """What `function(replica_id)` gives on each replica, as arrays.

    Args:
        strategy: a `tf.distribute` strategy.
        function: from the replica's number to a tensor.
    """

    def step():
        context = tf.distribute.get_replica_context()
        return function(context.replica_id_in_sync_group)

    result = tf.function(lambda: strategy.run(step))()
    return [r.numpy() for r in strategy.experimental_local_results(result)]


def sharp_algorithm(name, **hp):
    """An algorithm whose predictions are neither all alike nor all sure."""
    algorithm = tiny_algorithm(name, **hp)
    kernel, bias = algorithm.student.layers[-1].variables
    kernel.assign(kernel.value * 8.0)
    bias.assign([0.5, 0.0, -0.5])
    return algorithm


def fixmatch_predictions(algorithm, batch):
    """Probabilities of FixMatch's three groups, as one batch-norm batch."""
    groups = [
        batch["labeled"]["weak"],
        batch["unlabeled"]["weak"],
        batch["unlabeled"]["strong"],
    ]
    logits = algorithm.student(tf.concat(groups, 0), training=True).numpy()
    return np.split(softmax(logits), [8, 24])


def labeled_losses(batch, probs):
    """-log p[label] of the eight labeled images."""
    label = batch["labeled"]["label"].numpy()
    return -np.log(probs[np.arange(8), label])


def one_hot_probs(label, confidence):
    """Rows with `confidence` at `label`, the rest spread evenly."""
    rest = (1 - np.array(confidence)) / (NUM_CLASSES - 1)
    probs = np.repeat(rest[:, None], NUM_CLASSES, 1)
    probs[np.arange(len(label)), label] = confidence
    return tf.constant(probs, tf.float32)


def assert_supervised_loss(name, images_and_targets, **hp):
    """Compares a method that sees labeled images alone with NumPy.

    Args:
        name: `--algo`.
        images_and_targets: function of the labeled group and its one-hot labels
            that returns the images and targets of the loss.
        **hp: hyperparameters.
    """
    labeled = tiny_batch()["labeled"]
    algorithm = tiny_algorithm(name, **hp)
    label = np.eye(NUM_CLASSES)[labeled["label"].numpy()]
    images, targets = images_and_targets(labeled, label)
    (logits,) = training_logits(algorithm.student, images)
    expected = numpy_cross_entropy(targets, logits)
    loss = algorithm.compute_losses({"labeled": labeled})
    np.testing.assert_allclose(float(loss), expected, rtol=1e-6)
    correct = logits.argmax(-1) == labeled["label"].numpy()
    np.testing.assert_allclose(
        algorithm.metric("labeled_accuracy"), correct.mean()
    )
