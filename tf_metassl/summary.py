"""python -m tf_metassl.summary --model=...: prints what a network costs."""

from absl import flags

from tf_metassl import models
from tf_metassl.errors import ConfigError
from tf_metassl.run import command_line


def text(name, image_shape, num_classes, costs):
    """The summary that is printed.

    Args:
        name: of the network.
        image_shape: height, width, channels.
        num_classes: C.
        costs: a `tf_metassl.models.costs.Costs`.
    """
    mebibyte = 2**20
    return (
        f"{name}, {'x'.join(map(str, image_shape))} -> {num_classes}\n"
        f"parameters        {costs.trainable:,} "
        f"({4 * costs.trainable / mebibyte:,.1f} MiB as float32), and "
        f"{costs.averages:,} averages\n"
        f"FLOPs per image   {costs.flops:,} forward (a multiply-add is 2; "
        "convolutions and dense layers)\n"
        f"activation memory {costs.activation_bytes / mebibyte:,.1f} MiB per "
        "image (the outputs of all layers)"
    )


def main(_):
    """Prints the costs of a network, for which no weights are created."""
    name, num_classes = flags.FLAGS.model, flags.FLAGS.num_classes
    try:
        size = flags.FLAGS.image_size or models.find(name).image_size
        # TensorFlow is imported here, after the name has been checked.
        import keras

        from tf_metassl.models import costs

        command_line.quieten()
        keras.config.set_dtype_policy(flags.FLAGS.precision)
        image_shape = (size, size, flags.FLAGS.channels)
        with costs.shapes_only():
            network = models.build(name, image_shape, num_classes)
    except ValueError as error:
        raise ConfigError(str(error)) from error
    print(text(name, image_shape, num_classes, costs.of(network)))


def run_command(argv=None):
    """Runs the command.

    Args:
        argv: program and flags; `sys.argv` if None.
    """
    flags.DEFINE_string("model", None, "The network, as in training.")
    flags.DEFINE_integer(
        "image_size",
        0,
        "Height and width of the images. 0 = what the network was published "
        "with.",
        lower_bound=0,
    )
    flags.DEFINE_integer("channels", 3, "3 = color, 1 = gray.", lower_bound=1)
    flags.DEFINE_integer("num_classes", 10, "Classes.", lower_bound=1)
    flags.DEFINE_enum(
        "precision",
        "float32",
        ["float32", "mixed_bfloat16"],
        "Precision of the layers.",
    )
    flags.mark_flag_as_required("model")
    names = "model", "image_size", "channels", "num_classes", "precision"
    command_line.run(main, command_line.help_on(__doc__, *names), argv)


if __name__ == "__main__":
    command_line.as_program(run_command)
