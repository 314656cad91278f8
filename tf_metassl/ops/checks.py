"""Checks of ranks and shapes, where tensors would otherwise broadcast."""

import tensorflow as tf


def check_rank(name: str, tensor: tf.Tensor, rank: int) -> None:
    """Raises ValueError unless `tensor` has `rank` dimensions."""
    if len(tensor.shape) != rank:
        raise ValueError(
            f"{name}: expected a tensor of rank {rank}, got shape "
            f"{tuple(tensor.shape)}."
        )


def check_same_shape(**tensors: tf.Tensor) -> None:
    """Raises ValueError unless all `tensors` have compatible static shapes."""
    (first_name, first), *others = tensors.items()
    for name, tensor in others:
        if not first.shape.is_compatible_with(tensor.shape):
            raise ValueError(
                f"{first_name} and {name} must have the same shape, got "
                f"{tuple(first.shape)} and {tuple(tensor.shape)}."
            )


def known_size(name: str, tensor: tf.Tensor, axis: int) -> int:
    """The static size of an axis; raises ValueError if it is not known."""
    size = tensor.shape[axis]
    if size is None:
        raise ValueError(
            f"{name}: expected a static size along axis {axis}, got shape "
            f"{tuple(tensor.shape)}."
        )
    return size
