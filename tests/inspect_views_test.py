"""The picture sheet shows the views that it names."""

import numpy as np
import pytest
from PIL import Image

from tf_metassl.config import resolve
from tools import inspect_views

pytestmark = pytest.mark.slow


def test_the_sheet_shows_every_view_of_every_image(tmp_path):
    columns, weight = inspect_views.view_rows(resolve({}), 3)
    assert tuple(columns) == inspect_views.COLUMNS
    for images in columns.values():
        assert images.shape == (3, 8, 8, 1) and images.dtype == np.uint8
    assert weight.shape == (3,)
    for name in ("weak", "strong", "mixed", "ctaugment"):
        assert not np.array_equal(columns[name], columns["clean"])
    path = tmp_path / "views.png"
    inspect_views.draw_sheet(columns, weight).save(path)
    sheet = np.asarray(Image.open(path))
    # The first cell is the first clean image, ten times as large.
    top, left = inspect_views._HEADER, inspect_views._MARGIN
    cell = sheet[top : top + 80, left : left + 80]
    expected = columns["clean"][0].repeat(10, 0).repeat(10, 1)
    np.testing.assert_array_equal(cell, np.broadcast_to(expected, cell.shape))


def test_an_image_is_mixed_with_another_by_the_shown_weight():
    columns, weight = inspect_views.view_rows(resolve({}), 8)
    weak = columns["weak"].astype(float)
    others = (columns["mixed"] - weight[:, None, None, None] * weak) / (
        1 - weight[:, None, None, None]
    )
    for row, other in enumerate(others):
        slack = 0.5 / (1 - weight[row]) + 1e-3
        distance = np.abs(weak - other).max((1, 2, 3))
        assert distance.min() <= slack and np.argmin(distance) != row
