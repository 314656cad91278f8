"""RandAugment: Cubuk, Zoph, Shlens, Le, arXiv 1909.13719."""

from tf_metassl.algorithms.supervised import Supervised
from tf_metassl.contract import Views


class RandAugment(Supervised):
    """Supervised training on strongly augmented labeled images."""

    @property
    def views(self):
        """See `Algorithm.views`."""
        return Views(labeled=("strong",))
