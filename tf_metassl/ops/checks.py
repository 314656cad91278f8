"""Rank and shape checks where wrong shapes would broadcast silently."""


def check_rank(name, tensor, rank):
    """Raises ValueError unless `tensor` has `rank` dimensions."""
    if len(tensor.shape) != rank:
        raise ValueError(
            f"{name}: expected a tensor of rank {rank}, got shape "
            f"{tuple(tensor.shape)}."
        )


def check_same_shape(**tensors):
    """Raises ValueError unless all `tensors` have compatible static shapes."""
    (first_name, first), *others = tensors.items()
    for name, tensor in others:
        if not first.shape.is_compatible_with(tensor.shape):
            raise ValueError(
                f"{first_name} and {name} must have the same shape, got "
                f"{tuple(first.shape)} and {tuple(tensor.shape)}."
            )
