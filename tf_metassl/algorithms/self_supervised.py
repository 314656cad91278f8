"""What self-supervised methods share: heads, a linear probe, finetuning."""

import keras
import tensorflow as tf

from tf_metassl.algorithms import finetuning
from tf_metassl.algorithms.algorithm import Algorithm, Stage
from tf_metassl.contract import Views
from tf_metassl.models.layers import BatchNormalization
from tf_metassl.ops import averaging, projections, replicas
from tf_metassl.ops.losses import cross_entropy
from tf_metassl.ops.schedules import TimedSchedule, WarmupSchedule

_VIEWS = ("contrastive_1", "contrastive_2")


class SelfSupervised(Algorithm):
    """Learns features without labels, then finetunes the network on labels.

    In the main stage the layers before the last one and a projection head are
    trained on two views of unlabeled images. Labels train the last layer only,
    as a linear probe: it sees the features of labeled images in inference mode,
    and no gradient flows from it to the other layers. So the network is a
    classifier at any time, and its accuracy is that of its features. A second
    stage trains all layers on the labeled images.

    The metric `feature_std` is 0 if the projections of all images are the same
    and about 1 if they point in all directions, see
    `tf_metassl.ops.projections.spread`.

    A method defines `representation_losses`.
    """

    metric_names = (
        "loss",
        "representation_loss",
        "probe_loss",
        "labeled_accuracy",
        "feature_std",
    )
    reads_features = True

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        features = self.student_and_features.outputs[0]
        self.projector = self.head("projector", features.shape[-1])

    def head(self, name, input_size):
        """A perceptron with one hidden layer, `[N, input_size]` -> `[N, D]`.

        Its batch norm always takes the statistics of the global batch. With
        `projection_hidden_size` 0 it is a linear layer.
        """
        hp = self.hyperparameters
        hidden = []
        if hp.projection_hidden_size:
            hidden = [
                keras.layers.Dense(hp.projection_hidden_size, use_bias=False),
                BatchNormalization(momentum=0.9, synchronized=True),
                keras.layers.ReLU(),
            ]
        return keras.Sequential(
            [
                keras.Input((input_size,)),
                *hidden,
                keras.layers.Dense(
                    hp.projection_size, dtype=keras.config.floatx()
                ),
            ],
            name=name,
        )

    @property
    def views(self):
        """See `Algorithm.views`."""
        return Views(labeled=("weak",), unlabeled=_VIEWS)

    @property
    def can_accumulate(self):
        """False: images are compared with the others of the batch."""
        return False

    @property
    def heads(self):
        """The networks besides the student that its optimizer trains."""
        return [self.projector]

    def trained_variables(self, role):
        """The student's variables and those of its heads."""
        variables = super().trained_variables(role)
        for head in self.heads:
            variables += head.trainable_variables
        return variables

    def representation_losses(self, first, second, index):
        """The loss of each unlabeled image, without labels.

        Args:
            first: `[U, H, W, C]`, one view.
            second: `[U, H, W, C]`, another one of the same images.
            index: `[U]` int64, their rows in the training set.

        Returns:
            `[U]`.
        """
        raise NotImplementedError

    def project(self, *groups):
        """The student's projections of groups of images, as one batch.

        Args:
            *groups: `[U, H, W, C]` each.

        Returns:
            A list of `[U, D]`. The first is what `feature_std` is of.
        """
        features, _ = self.forward(
            self.student_and_features, tf.concat(groups, axis=0)
        )
        parts = tf.split(self.projector(features, training=True), len(groups))
        self.track("feature_std", projections.spread(parts[0]))
        return parts

    def compute_losses(self, batch):
        """See `Algorithm.compute_losses`."""
        unlabeled = batch["unlabeled"]
        loss = replicas.share_of_mean(
            self.representation_losses(
                *(unlabeled[v] for v in _VIEWS), unlabeled["index"]
            )
        )
        probe_loss = self._probe_loss(batch["labeled"])
        self.track_share("representation_loss", loss)
        self.track_share("probe_loss", probe_loss)
        return loss + probe_loss

    def _probe_loss(self, labeled):
        """The loss of the last layer, this replica's share."""
        features, _ = self.student_and_features(labeled["weak"], training=False)
        last = self.student.get_layer("logits")
        logits = last(tf.stop_gradient(features))
        self.track_labeled(labeled["label"], logits)
        label = self.one_hot(labeled["label"])
        return replicas.share_of_mean(
            self.class_weighted(cross_entropy(label, logits), label)
        )

    def later_stages(self):
        """Finetuning on the labeled images, if its steps are not 0."""
        hp = self.hyperparameters
        if not hp.finetune_steps:
            return []
        return [
            Stage(
                "finetune",
                hp.finetune_steps,
                self._finetuner,
                hp.finetune_batch_size,
            )
        ]

    def _finetuner(self):
        """Supervised training that starts from the features and the probe."""
        hp = self.hyperparameters
        schedule = WarmupSchedule(hp.finetune_learning_rate, hp.finetune_steps)
        if self.elapsed is not None:
            schedule = TimedSchedule(schedule, hp.finetune_steps, self.elapsed)
        return finetuning.finetuner(
            self,
            schedule,
            hyperparameters=hp,
            weight_decay=self._weight_decay,
            elapsed=self.elapsed,
        )


class WithTarget(SelfSupervised):
    """A method that learns from the projections of an averaged network.

    The target is a copy of the student and its projection head that no
    optimizer trains. It moves toward them after every step by `target_decay`.
    """

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.target = averaging.copy_of(self.student_and_features, "target")
        self.target_projector = averaging.copy_of(
            self.projector, "target_projector"
        )

    @property
    def averaged(self):
        """Pairs of a network and its average, the student's first."""
        return [
            (self.student_and_features, self.target),
            (self.projector, self.target_projector),
        ]

    def decay_at(self, step):
        """The decay after `step` earlier steps, a scalar."""
        del step
        return self.hyperparameters.target_decay

    def train_step(self, batch):
        """Takes a step, then moves the target."""
        results = super().train_step(batch)
        # The optimizer has counted this step already.
        decay = self.decay_at(self.step - 1)
        for network, average in self.averaged:
            averaging.update(average, network, decay)
        return results
