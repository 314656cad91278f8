"""Self-training on the averaged pseudo-labels of several networks.

After Zhang, Cong and others, "Revisiting Semi-Supervised Learning in the Era of
Foundation Models", arXiv 2503.09707: networks that are trained on the labeled
images alone label the pool together. The details are our own.
"""

import keras
import numpy as np
import tensorflow as tf

from tf_metassl.algorithms.algorithm import TWO_LOSSES, Algorithm, Stage
from tf_metassl.contract import Views
from tf_metassl.ops import replicas
from tf_metassl.ops.losses import cross_entropy


class EnsembleSelfTraining(Algorithm):
    """A student that learns what an ensemble says of the unlabeled images.

    The main stage and the ones after it train the members on the labeled images
    alone, from different last layers (all weights, without `--init_weights`)
    and with different batches. The last stage averages their probabilities,
    each calibrated on the validation images, and trains a new student on them.
    """

    metric_names = TWO_LOSSES

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        # A function, because Keras would add the variables of networks to this
        # one's, and so to its checkpoints.
        self._members = None
        self.pseudo_labels = self.state_variable(
            "pseudo_labels", (self.num_images, self.num_classes)
        )

    @property
    def views(self):
        """See `Algorithm.views`."""
        unlabeled = ("weak",) if self._members else ()
        return Views(labeled=("weak",), unlabeled=unlabeled)

    def compute_losses(self, batch):
        """See `Algorithm.compute_losses`."""
        labeled = batch["labeled"]
        label = self.one_hot(labeled["label"])
        if self._members is None:
            logits = self.forward(self.student, labeled["weak"])
            self.track_labeled(labeled["label"], logits)
            return replicas.share_of_mean(cross_entropy(label, logits))

        unlabeled = batch["unlabeled"]
        logits_l, logits_u = self.forward(
            self.student, labeled["weak"], unlabeled["weak"]
        )
        pseudo_label = tf.gather(
            self.pseudo_labels.value, unlabeled["index"]
        )  # [U, C]
        labeled_loss = replicas.share_of_mean(cross_entropy(label, logits_l))
        unlabeled_loss = replicas.share_of_mean(
            cross_entropy(pseudo_label, logits_u)
        )

        self.track_share("labeled_loss", labeled_loss)
        self.track_share("unlabeled_loss", unlabeled_loss)
        self.track_labeled(labeled["label"], logits_l)
        self.track_pseudo_labels(unlabeled["oracle_label"], pseudo_label)
        weight = self.hyperparameters.unlabeled_loss_weight
        return labeled_loss + weight * unlabeled_loss

    def later_stages(self):
        """The further members, then the student."""
        hp = self.hyperparameters
        members = [self]

        def new(num_steps):
            # The initial weights depend on the stage only, not on what this
            # process did before, so that a resumed run has the same ones.
            keras.utils.set_random_seed(self._seed + len(members))
            return self.rebuild(num_steps)

        def member():
            members.append(new(hp.member_steps))
            return members[-1]

        def student():
            last = new(hp.student_steps)
            last.learn_from([m.deployable_model for m in members])
            return last

        stages = [
            Stage(f"member_{number}", hp.member_steps, member)
            for number in range(2, hp.num_members + 1)
        ]
        return [*stages, Stage("student", hp.student_steps, student)]

    def learn_from(self, members):
        """Makes networks the members. Call it before the first step."""
        self._members = lambda: members

    def prepare(self, predict):
        """See `Algorithm.prepare`."""
        if self._members:
            probs = [predict.probabilities(m) for m in self._members()]
            self.pseudo_labels.assign(np.mean(probs, axis=0))
