"""CTAugment's learned magnitudes: which bins of which operation to use.

Source: Berthelot et al., arXiv 1911.09785 (ReMixMatch). The range of every
parameter of an operation is divided into bins; a bin's rate is a moving average
of how well the network recognizes labeled images that were augmented with it.
Images are augmented with the bins whose rates are close to the best.

All functions are pure: the pipeline draws with `probabilities`, and a method
updates the rates with `update`.
"""

import tensorflow as tf

from tf_metassl.ops.checks import check_rank

# Operation -> the number of bins of each of its parameters, in the order of the
# batch's `probe_op`.
BINS = {
    "autocontrast": (17,),
    "blur": (17,),
    "brightness": (17,),
    "color": (17,),
    "contrast": (17,),
    "cutout": (17,),
    "equalize": (17,),
    "identity": (),
    "invert": (17,),
    "posterize": (8,),
    "rescale": (17, 6),
    "rotate": (17,),
    "sharpness": (17,),
    "shear_x": (17,),
    "shear_y": (17,),
    "smooth": (17,),
    "solarize": (17,),
    "translate_x": (17,),
    "translate_y": (17,),
}
NUM_PARAMETERS = 2
MAX_BINS = 17


def bin_counts():
    """Number of bins, `[operations, NUM_PARAMETERS]` int32; 0: no parameter."""
    return tf.constant(
        [
            list(counts) + [0] * (NUM_PARAMETERS - len(counts))
            for counts in BINS.values()
        ]
    )


def initial():
    """Rates of 1 for every bin, `[operations, NUM_PARAMETERS, MAX_BINS]`.

    float32; 0 where an operation has no such parameter or bin.
    """
    return tf.sequence_mask(bin_counts(), MAX_BINS, dtype=tf.float32)


def probabilities(rates, *, decay=0.99, threshold=0.8):
    """Probability of each bin.

    A bin's weight is its rate + 1 - decay, divided by that of the best bin of
    the same parameter; weights below `threshold` become 0.

    Args:
        rates: `[operations, NUM_PARAMETERS, MAX_BINS]`, see `initial`.
        decay: of the moving average behind the rates.
        threshold: in 0 ... 1.

    Returns:
        The same shape; sums to 1 over the bins of a parameter.
    """
    check_rank("rates", rates, 3)
    exists = initial()
    share = (rates + (1.0 - decay)) * exists
    share /= tf.maximum(tf.reduce_max(share, axis=-1, keepdims=True), 1e-12)
    share = tf.where(share < threshold, 0.0, share) * exists
    total = tf.reduce_sum(share, axis=-1, keepdims=True)
    return tf.math.divide_no_nan(share, total)


def update(rates, op, bins, proximity, *, decay=0.99):
    """Updates the rates of the bins that probed images were augmented with.

    The images are processed one after the other: two images with the same bin
    update it twice.

    Args:
        rates: as for `probabilities`.
        op: `[N, depth]` int32, operations in the order of `BINS`.
        bins: `[N, depth, NUM_PARAMETERS]` int32, bins of their parameters;
            entries of parameters that do not exist are ignored.
        proximity: `[N]` float32, 1 - |prediction - label|_1 / 2 of each image.
        decay: of the moving average.

    Returns:
        The new rates.
    """
    check_rank("op", op, 2)
    check_rank("bins", bins, 3)
    check_rank("proximity", proximity, 1)
    size, depth = op.shape
    exists = initial()
    hit = (
        tf.one_hot(op, len(BINS))[..., None, None]
        * tf.one_hot(bins, MAX_BINS)[:, :, None]
        * exists
    )  # [N, depth, operations, NUM_PARAMETERS, MAX_BINS]
    hit = tf.reshape(hit, [size * depth, *exists.shape])
    target = tf.repeat(proximity, depth)

    def move(current, element):
        chosen, value = element
        return current + (1.0 - decay) * chosen * (value - current)

    return tf.foldl(move, (hit, target), initializer=rates)
