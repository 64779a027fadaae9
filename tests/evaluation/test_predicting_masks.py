"""Post-processing of masks."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from functrain.evaluation.predicting import postprocessing

masks = arrays(bool, st.tuples(st.integers(1, 9), st.integers(1, 9)))
radii = st.integers(1, 3)


def done(mask, *names):
    return postprocessing(names)(mask)


def by_hand(mask, radius, grow):
    """Grow or shrink by looking at all pixels within `radius` steps; beyond the border is as the border."""
    height, width = mask.shape
    result = np.empty_like(mask)
    for i in range(height):
        for j in range(width):
            near = [
                mask[min(max(i + di, 0), height - 1), min(max(j + dj, 0), width - 1)]
                for di in range(-radius, radius + 1)
                for dj in range(-radius, radius + 1)
                if abs(di) + abs(dj) <= radius
            ]
            result[i, j] = any(near) if grow else all(near)
    return result


@given(masks, radii)
@settings(deadline=None)
def test_dilation_and_erosion_are_what_they_say(mask, radius):
    np.testing.assert_array_equal(done(mask, f"dilate:{radius}"), by_hand(mask, radius, True))
    np.testing.assert_array_equal(done(mask, f"erode:{radius}"), by_hand(mask, radius, False))


@given(masks, radii)
@settings(deadline=None)
def test_opening_removes_and_closing_adds_and_again_changes_nothing(mask, radius):
    opened, closed = done(mask, f"open:{radius}"), done(mask, f"close:{radius}")
    assert not (opened & ~mask).any()
    assert not (mask & ~closed).any()
    np.testing.assert_array_equal(done(~mask, f"open:{radius}"), ~closed)


@given(masks, st.integers(1, 12))
@settings(deadline=None)
def test_small_components_go(mask, size):
    kept = done(mask, f"min-size:{size}")
    assert not (kept & ~mask).any()
    np.testing.assert_array_equal(done(kept, f"min-size:{size}"), kept)
    if mask.sum() < size:
        assert not kept.any()


@given(masks)
@settings(deadline=None)
def test_the_largest_component_stays_alone(mask):
    largest = done(mask, "largest")
    assert largest.any() == mask.any()
    assert not (largest & ~mask).any()
    if mask.any():
        assert not done(mask, f"min-size:{largest.sum() + 1}").any()


def test_holes_are_filled():
    ring = np.ones((5, 5), bool)
    ring[2, 2] = False
    assert done(ring, "fill-holes").all()


def test_operations_are_done_in_turn():
    mask = np.zeros((9, 9), bool)
    mask[1:8, 1:8] = True
    mask[4, 4] = False
    assert done(mask, "fill-holes", "erode:3").sum() == 1
    assert done(mask, "erode:3", "fill-holes").sum() == 0


@pytest.mark.parametrize("name", ["open", "open:0", "open:x", "open:-1", "largest:2", "blur:1", ""])
def test_an_operation_that_does_not_exist(name):
    with pytest.raises(ValueError, match=r"is one of open:N, .*, largest, N being 1 or more; got"):
        postprocessing([name])
