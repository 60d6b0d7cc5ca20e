"""The losses: what each promises, point by point and face by face."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from foldmark.train.losses import LOSSES

errors = st.floats(0.001, 50)


def one(error: float) -> torch.Tensor:
    """A face of one point that is off by `error` along x."""
    return torch.tensor([[[error, 0.0]]], dtype=torch.float64)


@pytest.mark.parametrize("name", LOSSES)
def test_one_number_a_face_and_none_for_a_face_that_is_met(name):
    difference = torch.randn(5, 68, 2, dtype=torch.float64)
    difference[3] = 0
    losses = LOSSES[name](difference)
    assert losses.shape == (5,)
    assert losses[3] < 0.01 < losses[[0, 1, 2, 4]].min()


@pytest.mark.parametrize("name", LOSSES)
@given(error=errors, more=errors)
def test_a_larger_error_costs_more_whatever_its_sign(name, error, more):
    loss = LOSSES[name]
    assert loss(one(error)) < loss(one(error + more))
    assert torch.allclose(loss(one(error)), loss(one(-error)))


@pytest.mark.parametrize("name", ["smooth_l1", "wing", "soft_wing"])
@given(error=errors)
def test_pieces_meet(name, error):
    """No step where one part of a loss ends and the next begins: ten times the steepest slope bounds every change."""
    loss = LOSSES[name]
    assert (loss(one(error + 1e-4)) - loss(one(error))).abs() < 10 * 1e-4


@pytest.mark.parametrize("name", LOSSES)
def test_gradients_are_finite_where_a_point_is_met_exactly(name):
    difference = torch.zeros(2, 68, 2, requires_grad=True)
    LOSSES[name](difference).sum().backward()
    assert difference.grad.isfinite().all()


def test_euclidean_is_the_mean_distance():
    difference = torch.tensor([[[3.0, 4.0], [6.0, 8.0]]])
    assert LOSSES["euclidean"](difference) == pytest.approx(7.5)
