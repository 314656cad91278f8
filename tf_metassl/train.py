"""python -m tf_metassl.train --algo=...: trains, evaluates, exports."""

from absl import flags

from tf_metassl import config
from tf_metassl.run import command_line
from tf_metassl.run.termination import Termination


def main(_):
    """Trains what the flags describe."""
    settings = config.from_flags()
    with Termination() as termination:
        # TensorFlow is imported here, after every flag has been looked at.
        from tf_metassl.run import experiment

        command_line.quieten()
        experiment.train(settings, termination)


if __name__ == "__main__":
    config.define_flags()
    flags.adopt_module_key_flags(config)
    command_line.run(main)
