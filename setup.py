"""Puts the flagfiles into the wheel; all else is in pyproject.toml."""

import pathlib
import shutil

from setuptools import setup
from setuptools.command.build_py import build_py

FLAGS = pathlib.Path(__file__).resolve().parent / "flags"


class BuildWithFlags(build_py):
    """Copies `flags/` into the package, see `tf_metassl.run.presets`."""

    def run(self):
        """Builds the package; an editable one reads `flags/` where it is."""
        if self.editable_mode:
            return super().run()
        # What an earlier build left would be packed as well.
        package = pathlib.Path(self.build_lib, "tf_metassl")
        shutil.rmtree(package, ignore_errors=True)
        super().run()
        for source in FLAGS.rglob("*.flags"):
            target = package / "flags" / source.relative_to(FLAGS)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, target)


setup(cmdclass={"build_py": BuildWithFlags})
