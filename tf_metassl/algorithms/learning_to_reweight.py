"""Learning to Reweight Examples: Ren et al., arXiv 1803.09050."""

from tf_metassl.algorithms.meta_semi import MetaSemi


class LearningToReweight(MetaSemi):
    """Meta-Semi's step with real-valued example weights and without MixUp.

    Pseudo-labeled images are the noisy set of the paper, labeled images the
    clean one. The weight of an example is max(-meta gradient, 0), divided by
    the sum over the global batch. As in Meta-Semi, examples whose gradient
    disagrees with the labeled one have weight 0; the others are weighted by
    their agreement.
    """
