"""SimCLR: Chen, Kornblith, Norouzi, Hinton, arXiv 2002.05709."""

from tf_metassl.algorithms.self_supervised import SelfSupervised
from tf_metassl.ops import projections


class SimClr(SelfSupervised):
    """Tells two views of an image from those of all other images of a batch.

    The negatives are those of the global batch, of all replicas.
    """

    def representation_losses(self, first, second, index):
        """See `SelfSupervised.representation_losses`."""
        del index
        return projections.nt_xent(
            *self.project(first, second),
            self.hyperparameters.contrast_temperature,
        )
