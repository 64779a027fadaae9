"""Floating-point types: only real floating tensors are cast."""

import pytest
import torch

from functrain.foundation.dtypes import PRECISIONS, cast_floating, is_floating


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_every_real_floating_type_is_cast(dtype):
    assert cast_floating([torch.ones(2, dtype=dtype)], torch.float64)[0].dtype == torch.float64


@pytest.mark.parametrize("leaf", [torch.tensor(1), torch.tensor(True), torch.tensor(1j), 1.5, "text"])
def test_every_other_leaf_stays_the_same_object(leaf):
    assert not is_floating(leaf)
    assert cast_floating({"leaf": leaf}, torch.float64)["leaf"] is leaf


def test_a_tensor_of_the_right_type_is_not_copied():
    tensor = torch.ones(2)
    assert cast_floating((tensor,), torch.float32)[0] is tensor


def test_parameters_are_never_kept_in_half_precision():
    assert {parameters for parameters, _ in PRECISIONS.values()} == {torch.float32, torch.float64}
