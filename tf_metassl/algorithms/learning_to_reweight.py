"""Learning to Reweight Examples: Ren et al., arXiv 1803.09050."""

from tf_metassl.algorithms.meta_semi import MetaSemi


class LearningToReweight(MetaSemi):
    """Meta-Semi's step with its forerunner's weights, and no MixUp.

    Pseudo-labeled images are the noisy set, labeled images the clean one. The
    weight of an example is max(-meta gradient, 0), divided by the sum over the
    global batch: disagreeing examples are dropped as in Meta-Semi, others count
    by how much they agree.
    """
