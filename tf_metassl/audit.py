"""python -m tf_metassl.audit --labeled_dir=DIR: looks at data before a run.

Takes the data flags of the training command. Writes into --out: audit.html,
with the findings in words and pictures, audit.json, duplicates.csv,
suspicious_labels.csv, far_from_classes.csv and classes.csv. Files that cannot
be used are listed in bad_images.csv and do not stop it.
"""

import dataclasses

from absl import flags

from tf_metassl import options
from tf_metassl.run import command_line

# Data flags that do not say which images there are.
_OF_TRAINING = {
    *("weak_augmentation", "strong_augmentation", "strong_magnitude"),
    "contrastive_augmentation",
    *("labeled_inside_unlabeled", "max_bad_fraction"),
}
# The settings that are its flags.
SETTINGS = tuple(
    field.name
    for section in options.SECTIONS["Data"]
    for field in dataclasses.fields(section)
    if field.name not in _OF_TRAINING
)


def main(_):
    """Writes the folder and prints what was found."""
    config = command_line.from_flags()
    # TensorFlow is imported here, after every flag has been checked.
    from tf_metassl.run import auditing

    command_line.quieten()
    for sentence in auditing.audit(config, flags.FLAGS.out)["sentences"]:
        print(sentence)
    print(f"{flags.FLAGS.out}/{auditing.PAGE}")


def run_command(argv=None):
    """Runs the command.

    Args:
        argv: program and flags; `sys.argv` if None.
    """
    command_line.define_flags(names=SETTINGS)
    flags.DEFINE_string("out", "audit", "The folder to write.")
    names = ("out", *SETTINGS)
    command_line.run(main, command_line.help_on(__doc__, *names), argv)


if __name__ == "__main__":
    command_line.as_program(run_command)
