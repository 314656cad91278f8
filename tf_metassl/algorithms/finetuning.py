"""A last stage: the averaged student is trained on the labeled images alone."""

from tf_metassl.algorithms.supervised import Supervised
from tf_metassl.hyperparameters import Hyperparameters
from tf_metassl.ops import averaging, remat
from tf_metassl.ops.sgd import Sgd


def finetuner(
    algorithm,
    learning_rate,
    *,
    hyperparameters=None,
    weight_decay=0.0,
    elapsed=None,
):
    """Plain supervised training that starts from the averaged student.

    Args:
        algorithm: the `Algorithm` of the stage before.
        learning_rate: of SGD, a float or a schedule.
        hyperparameters: of the stage; None: it has no average of its own.
        weight_decay: see `Trainer.compile`.
        elapsed: see `Algorithm`.

    Returns:
        A compiled `Supervised`.
    """
    student = averaging.trainable_copy(
        algorithm.deployable_model, like=algorithm.student, name="finetuned"
    )
    stage = Supervised(
        networks={"student": student},
        hyperparameters=hyperparameters or Hyperparameters(ema_decay=0.0),
        num_classes=algorithm.num_classes,
        class_weights=algorithm.class_weights,
        elapsed=elapsed,
    )
    stage.compile(
        optimizers={"student": Sgd(learning_rate, momentum=0.9, nesterov=True)},
        weight_decay=weight_decay,
        jit_compile=algorithm.jit_compile,
        steps_per_execution=algorithm.steps_per_execution,
        recompute=remat.is_on(algorithm.student),
    )
    return stage
