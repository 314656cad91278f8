"""A last stage: the averaged student is trained on the labeled images alone."""

from tf_metassl.algorithms.supervised import Supervised
from tf_metassl.hyperparameters import Hyperparameters
from tf_metassl.ops import averaging, remat
from tf_metassl.ops.sgd import Sgd


def finetuner(algorithm, learning_rate):
    """Plain supervised training that starts from the averaged student.

    Args:
        algorithm: the `Algorithm` of the stage before.
        learning_rate: constant rate of SGD.

    Returns:
        A compiled `Supervised` without an average of its own.
    """
    student = averaging.trainable_copy(
        algorithm.deployable_model, like=algorithm.student, name="finetuned"
    )
    stage = Supervised(
        networks={"student": student},
        hyperparameters=Hyperparameters(ema_decay=0.0),
        num_classes=algorithm.num_classes,
        class_weights=algorithm.class_weights,
    )
    stage.compile(
        optimizers={"student": Sgd(learning_rate, momentum=0.9, nesterov=True)},
        jit_compile=algorithm.jit_compile,
        steps_per_execution=algorithm.steps_per_execution,
        recompute=remat.is_on(algorithm.student),
    )
    return stage
