"""Networks of cells that were found by a search: PNASNet-5 and AmoebaNet.

Sources: Liu et al., arXiv 1712.00559; Real et al., arXiv 1802.01548, with the
cells of the authors' code. Auxiliary classifiers and dropped paths, which are
for training alone, are left out.
"""

import typing

from keras import layers

from tf_metassl.models.layers import BatchNormalization, classifier


class Cell(typing.NamedTuple):
    """Five sums of two operations each.

    Attributes:
        steps: `operation state operation state` for each sum. State 0 is the
            output of the cell before, 1 that of the cell before it, both after
            a 1x1 convolution; 2 to 6 are the sums. Operations: `sepK` for two
            separable convolutions of K x K, `maxK` and `avgK` for poolings,
            `conv1`, `conv3` and `conv7` (1x7 and 7x1), and `id`.
        output: the states that are concatenated.
    """

    steps: tuple[str, ...]
    output: tuple[int, ...]


_PNASNET_5 = Cell(
    (
        "sep5 1 max3 1",
        "sep7 0 max3 0",
        "sep5 0 sep3 0",
        "sep3 4 max3 0",
        "sep3 1 id 0",
    ),
    (2, 3, 4, 5, 6),
)

# Normal and reduction cell.
CELLS = {
    "pnasnet_5": (_PNASNET_5, _PNASNET_5),
    "amoebanet_a": (
        Cell(
            (
                "avg3 0 max3 0",
                "sep3 1 id 1",
                "id 0 avg3 1",
                "sep3 0 sep5 2",
                "avg3 5 sep3 0",
            ),
            (1, 3, 4, 6),
        ),
        Cell(
            (
                "sep3 1 avg3 0",
                "max3 0 sep7 2",
                "max3 1 max3 0",
                "sep3 4 conv7 0",
                "avg3 1 sep7 0",
            ),
            (2, 3, 4, 5, 6),
        ),
    ),
    "amoebanet_b": (
        Cell(
            (
                "conv1 1 max3 1",
                "id 1 sep3 0",
                "conv1 1 sep3 0",
                "conv1 2 id 2",
                "avg3 1 conv1 5",
            ),
            (0, 3, 4, 6),
        ),
        Cell(
            (
                "max2 0 max3 0",
                "id 2 conv3 1",
                "sep5 2 max3 2",
                "id 3 sep3 1",
                "avg3 4 conv1 3",
            ),
            (5, 6),
        ),
    ),
    "amoebanet_c": (
        Cell(
            (
                "avg3 0 sep3 0",
                "id 0 sep3 0",
                "avg3 2 sep3 1",
                "id 0 sep3 1",
                "avg3 3 sep3 0",
            ),
            (1, 2, 4, 5, 6),
        ),
        Cell(
            (
                "max3 0 max3 0",
                "sep7 2 sep3 0",
                "sep7 0 max3 1",
                "sep5 4 sep5 4",
                "max3 1 sep3 1",
            ),
            (0, 2, 3, 4, 5, 6),
        ),
    ),
}


def searched(
    images,
    num_classes,
    *,
    cells,
    stacks,
    filters,
    stem,
    dropout,
    synchronized,
):
    """A stem, three stacks of normal cells, and a reduction between them.

    Args:
        images: scaled images, a Keras tensor `[N, H, W, C]`.
        num_classes: C.
        cells: a key of `CELLS`.
        stacks: number of normal cells of each stack.
        filters: F, of the cells of the first stack; doubled by reductions.
        stem: filters of the first convolution. Two reduction cells of F / 4 and
            F / 2 filters follow it.
        dropout: rate before the last layer; 0 adds no layer.
        synchronized: batch statistics over all replicas.

    Returns:
        Logits, a Keras tensor `[N, C]`.
    """
    normal, reduction = CELLS[cells]

    def normalized(x):
        return BatchNormalization(
            momentum=0.9997, epsilon=1e-3, synchronized=synchronized
        )(x)

    def convolution(x, filters, size=1, strides=1):
        """Without a normalization before; `size` and `strides` as in Keras."""
        return layers.Conv2D(
            filters, size, strides=strides, padding="same", use_bias=False
        )(x)

    def unit(x, filters, size=1, strides=1):
        x = convolution(layers.ReLU()(x), filters, size, strides)
        return normalized(x)

    def halved(x, filters):
        """Every other pixel, and those between; half of the filters each."""
        shifted = layers.ZeroPadding2D(((0, 1), (0, 1)))(x)
        shifted = layers.Cropping2D(((1, 0), (1, 0)))(shifted)
        parts = (x, filters // 2), (shifted, filters - filters // 2)
        return normalized(
            layers.Concatenate()(
                [convolution(part, count, 1, 2) for part, count in parts]
            )
        )

    def separable(x, filters, size, stride):
        for step in (stride, 1):
            x = layers.SeparableConv2D(
                filters, size, strides=step, padding="same", use_bias=False
            )(layers.ReLU()(x))
            x = normalized(x)
        return x

    def operation(x, name, filters, stride):
        kind = name.rstrip("12357")
        size = int(name.removeprefix(kind) or 1)
        if kind == "sep":
            return separable(x, filters, size, stride)
        if kind in ("max", "avg"):
            pooling = {
                "max": layers.MaxPooling2D,
                "avg": layers.AveragePooling2D,
            }[kind]
            x = pooling(size, stride, padding="same")(x)
            if x.shape[-1] == filters:
                return x
            return normalized(convolution(x, filters))
        if kind == "id" and stride == 1 and x.shape[-1] == filters:
            return x
        if size < 3:
            return unit(x, filters, 1, stride)
        x = unit(x, filters // 4)
        if size == 3:
            x = unit(x, filters // 4, 3, stride)
        else:
            x = unit(x, filters // 4, (1, 7), (1, stride))
            x = unit(x, filters // 4, (7, 1), (stride, 1))
        return unit(x, filters)

    def fitted(x, like, filters):
        """The earlier input of a cell, of the later one's size."""
        if x.shape[1:3] != like.shape[1:3]:
            return halved(layers.ReLU()(x), filters)
        return x if x.shape[-1] == filters else unit(x, filters)

    def cell(plan, before, x, filters, stride):
        # The first cell has one input, which its operations take as it is.
        earlier = x if before is None else fitted(before, x, filters)
        states = [unit(x, filters), earlier]
        for step in plan.steps:
            name_a, a, name_b, b = step.split()
            parts = [
                operation(
                    states[int(state)],
                    name,
                    filters,
                    stride if int(state) < 2 else 1,
                )
                for name, state in ((name_a, a), (name_b, b))
            ]
            states.append(layers.Add()(parts))
        size = states[-1].shape[1:3]
        ends = []
        for place in plan.output:
            state = states[place]
            if state.shape[1:3] != size:
                state = halved(state, filters)
            elif state.shape[-1] != filters:
                state = normalized(convolution(state, filters))
            ends.append(state)
        return layers.Concatenate()(ends)

    x = layers.Conv2D(stem, 3, strides=2, use_bias=False)(images)
    outputs = [None, normalized(x)]

    def append(plan, filters, stride):
        outputs.append(cell(plan, *outputs[-2:], int(filters), stride))

    append(reduction, filters / 4, 2)
    append(reduction, filters / 2, 2)
    for number, count in enumerate(stacks):
        if number:
            append(reduction, filters * 2**number, 2)
        for _ in range(count):
            append(normal, filters * 2**number, 1)
    return classifier(layers.ReLU()(outputs[-1]), num_classes, dropout)
