"""A network as a function of its parameters."""

import numpy as np

from tests.helpers import NUM_CLASSES, tiny_batch, tiny_network, values
from tf_metassl.meta import functional


def test_functional_call_is_the_network_and_leaves_it_alone():
    network = tiny_network(dropout=0.5)
    images = tiny_batch()["unlabeled"]["weak"]
    before = values(network)
    params, state = functional.parameters(network), functional.state(network)
    first, new_state = functional.call(network, params, state, images)
    again, _ = functional.call(network, params, state, images)
    # The same state is the same dropout mask.
    np.testing.assert_array_equal(first, again)
    assert first.shape == (16, NUM_CLASSES)
    for old, new in zip(before, values(network), strict=True):
        np.testing.assert_array_equal(old, new)
    # Making the new state the network's is what a real call would have done.
    np.testing.assert_array_equal(first, network(images, training=True))
    real = [v.value.numpy() for v in network.non_trainable_variables]
    for a, b in zip(new_state, real, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-6)
