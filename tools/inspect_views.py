"""Draws the views that a method is trained on: weak, strong and mixed.

    python tools/inspect_views.py --dataset=digits --out=views.png

One row per image: the image itself, independent weak and strong views, and the
MixUp of its first weak view with that of another row. The data flags of the
training command are accepted, such as --strong_augmentation.
"""

import pathlib
import sys

import numpy as np
from absl import app, flags
from PIL import Image, ImageDraw, ImageFont

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

from tf_metassl.run import command_line

COLUMNS = (
    "clean",
    "weak",
    "weak_1",
    "strong",
    "strong_1",
    "strong_2",
    "ctaugment",
    "mixed",
)
_MARGIN = 6
_HEADER = 22


def view_rows(config, num_images):
    """Returns the views of the first images of the first batch.

    Args:
        config: a `Config`.
        num_images: rows.

    Returns:
        Column -> `[num_images, H, W, C]` uint8, and the weight of an image in
        its own mixture, `[num_images]`.
    """
    import tensorflow as tf

    from tf_metassl.contract import MIX_BLOCK, Views
    from tf_metassl.data import pipeline, sources
    from tf_metassl.ops import mixing

    source = sources.load(config.dataset, config)
    kinds = COLUMNS[:-1]
    views = Views(labeled=(), unlabeled=kinds, mixup_alpha=1.0)
    # MixUp needs whole blocks.
    size = -(-num_images // MIX_BLOCK) * MIX_BLOCK
    rows = np.arange(len(source.train))
    batches = pipeline.training_dataset(
        source,
        [pipeline.Pool("unlabeled", rows, size, kinds)],
        views=views,
        augmentation=pipeline.augmentation(source, config),
        seed=config.seed,
    )
    group = next(iter(batches))["unlabeled"]
    mixed = mixing.mixup(
        tf.cast(group["weak"], tf.float32),
        group["mix_weight"],
        group["mix_partner"],
    )
    sheet = {name: group[name].numpy() for name in kinds}
    sheet["mixed"] = np.round(mixed.numpy()).astype(np.uint8)
    return (
        {name: images[:num_images] for name, images in sheet.items()},
        group["mix_weight"].numpy()[:num_images],
    )


def draw_sheet(columns, mix_weight):
    """Lays the views out on one picture.

    Args:
        columns: name -> `[n, H, W, C]` uint8, C = 1 or 3.
        mix_weight: `[n]`, written beside the last column.

    Returns:
        A Pillow image.
    """
    height, width = next(iter(columns.values())).shape[1:3]
    scale = max(1, round(80 / width))
    cell = width * scale + _MARGIN, height * scale + _MARGIN
    label_width = 46
    sheet = Image.new(
        "RGB",
        (
            cell[0] * len(columns) + _MARGIN + label_width,
            cell[1] * len(mix_weight) + _HEADER + _MARGIN,
        ),
        "white",
    )
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(13)
    for x, (name, images) in enumerate(columns.items()):
        left = _MARGIN + x * cell[0]
        pen.text((left, 4), name, "black", font)
        for y, pixels in enumerate(images):
            view = Image.fromarray(pixels.squeeze()).convert("RGB")
            view = view.resize(
                (width * scale, height * scale), Image.Resampling.NEAREST
            )
            sheet.paste(view, (left, _HEADER + y * cell[1]))
    left = _MARGIN + len(columns) * cell[0]
    pen.text((left, 4), "weight", "black", font)
    for y, weight in enumerate(mix_weight):
        middle = _HEADER + y * cell[1] + cell[1] // 2 - 10
        pen.text((left, middle), f"{weight:.2f}", "black", font)
    return sheet


def main(_):
    """Writes the sheet."""
    config = command_line.from_flags()
    columns, mix_weight = view_rows(config, flags.FLAGS.num_images)
    draw_sheet(columns, mix_weight).save(flags.FLAGS.out)
    print(f"{flags.FLAGS.out}: {', '.join(columns)}")


if __name__ == "__main__":
    command_line.define_flags()
    flags.DEFINE_string("out", "views.png", "The picture to write.")
    flags.DEFINE_integer("num_images", 8, "Rows.", lower_bound=1)
    app.run(main)
