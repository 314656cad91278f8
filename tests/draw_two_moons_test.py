"""The picture of two moons is drawn from runs."""

import numpy as np
import pytest

from tests.helpers import mostly_exhaustive
from tools import draw_two_moons

pytestmark = pytest.mark.slow


@pytest.mark.parametrize(
    "title", mostly_exhaustive(draw_two_moons.METHODS, ["Meta-Semi"])
)
def test_every_panel_comes_from_a_run(tmp_path, title):
    settings = draw_two_moons.METHODS[title]
    probability, accuracy = draw_two_moons.train(
        tmp_path / "run", num_steps=4, **settings
    )
    assert probability.shape == (256, 256)
    assert np.isfinite(probability).all() and 0 <= accuracy <= 1


def test_the_grid_and_the_panels_have_x_to_the_right_and_y_upwards():
    assert draw_two_moons.GRID[256 * 7 + 3].ravel().tolist() == [3, 7]
    places, labels, labeled = draw_two_moons.points(0)
    assert np.bincount(labels[labeled]).tolist() == [3, 3]
    # Right half orange: class 1 where x is large.
    halves = np.broadcast_to(np.arange(256) / 255, (256, 256))
    figure = draw_two_moons.draw(
        {"a": (halves, 0.5), "b": (np.zeros([256, 256]), 0.25)},
        places,
        labels,
        labeled,
    )
    first, second = figure.axes
    assert first.get_title() == "a"
    assert first.get_xlabel() == "50.0 % of the test points"
    assert len(first.collections) == 3 and len(second.collections) == 2
    boundary = first.collections[1].get_paths()[0].vertices
    np.testing.assert_allclose(boundary[:, 0], 127.5)
