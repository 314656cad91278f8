"""Self-training on the averaged pseudo-labels of several networks.

After Zhang, Cong and others, "Revisiting Semi-Supervised Learning in the Era of
Foundation Models", arXiv 2503.09707: networks that are trained on the labeled
images alone label the pool together. The details are our own.
"""

import keras
import numpy as np

from tf_metassl.algorithms.algorithm import Stage
from tf_metassl.algorithms.noisy_student import NoisyStudent

# Added before the logarithm of a probability that was rounded to 0.
_TINY = 1e-30


class EnsembleSelfTraining(NoisyStudent):
    """A student that learns what an ensemble says of the unlabeled images.

    The main stage and the ones after it train the members on the labeled images
    alone, from different last layers (all weights, without `--init_weights`)
    and with different batches. The last stage averages their probabilities,
    each calibrated on the validation images, and trains a new student on them.
    Losses are those of `NoisyStudent`, without its selection.
    """

    @property
    def view(self):
        """See `NoisyStudent.view`."""
        return self.hyperparameters.learned_view

    def later_stages(self):
        """The further members, then the student."""
        hp = self.hyperparameters
        members = [self]

        def new(num_steps):
            # As in `NoisyStudent`: a resumed run has the same weights.
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

    def prepare(self, predict):
        """See `Algorithm.prepare`."""
        if self._teacher:
            probs = [predict.probabilities(m) for m in self._teacher()]
            mean = np.mean(probs, axis=0)
            # Logits, whose softmax is the mean.
            self.predictions.assign(np.log(np.maximum(mean, _TINY)))

    def select_unlabeled(self, rows):
        """All of them; see `Algorithm.select_unlabeled`."""
        return rows
