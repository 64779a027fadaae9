"""A student's loss against its teacher, alone and beside the labels."""

import pytest
import torch
import torch.nn.functional as F

import functrain as ft
from functrain.objectives import losses


def logits(*shape):
    return torch.randn(2, *shape, dtype=torch.float64)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 4.0])
@pytest.mark.parametrize("shape", [(6, 5), (6, 5, 3, 2)])
def test_it_is_torchs_divergence_of_softened_probabilities_times_the_square_of_the_temperature(shape, temperature):
    student, teacher = logits(*shape)
    softened = [(each / temperature).log_softmax(1) for each in (student, teacher)]
    expected = temperature**2 * F.kl_div(*softened, reduction="none", log_target=True).sum(1)
    found = losses.distillation(student, teacher, temperature=temperature)
    torch.testing.assert_close(found.values, expected, rtol=1e-12, atol=1e-13)
    assert found.weights.eq(1).all()


def test_a_student_that_equals_its_teacher_has_no_loss_and_no_gradient():
    _, teacher = logits(6, 5)
    grad, total = torch.func.grad_and_value(lambda own: losses.distillation(own, teacher).values.sum())(teacher.clone())
    assert total.item() == 0.0
    torch.testing.assert_close(grad, torch.zeros_like(grad), rtol=0, atol=1e-15)


def test_the_gradient_at_a_high_temperature_is_that_of_centred_squared_errors():
    # Hinton et al., section 2.1: in the limit, (z_i - v_i) / C with both centred; the next term is of order 1 / T.
    student, teacher = (each - each.mean(1, keepdim=True) for each in logits(6, 5))
    grad = torch.func.grad(lambda own: losses.distillation(own, teacher, temperature=1e4).values.sum())(student)
    torch.testing.assert_close(grad, (student - teacher) / 5, rtol=0, atol=1e-3)


def test_classes_that_a_teacher_or_both_mask_have_no_part_in_it():
    student, teacher = logits(6, 5)
    masked = torch.tensor([False, True, False, False, False]).expand(6, 5)
    hidden = teacher.masked_fill(masked, float("-inf"))
    for own in (student, student.masked_fill(masked, float("-inf"))):
        grad, total = torch.func.grad_and_value(lambda x: losses.distillation(x, hidden).values.sum())(own)
        assert total.isfinite()
        assert grad.isfinite().all()
    both = losses.distillation(student.masked_fill(masked, float("-inf")), hidden).values
    kept = ~masked[0]
    torch.testing.assert_close(both, losses.distillation(student[:, kept], teacher[:, kept]).values)


@pytest.mark.parametrize("temperature", [0.0, -1.0, float("inf"), float("nan")])
def test_a_temperature_out_of_range_is_refused(temperature):
    message = "temperature must be greater than 0 and finite, got"
    with pytest.raises(ValueError, match=message):
        losses.distillation(torch.zeros(2, 3), torch.zeros(2, 3), temperature=temperature)
    with pytest.raises(ValueError, match=message):
        ft.distillation(temperature=temperature)


def test_shapes_without_classes_are_refused():
    with pytest.raises(ValueError, match=r"in one shape, \[B, C\] or \[B, C, \.\.\.\]; got \[3\] and \[3\]"):
        losses.distillation(torch.zeros(3), torch.zeros(3))


@pytest.mark.parametrize("weight", [0.0, 0.3, 1.0])
def test_the_objective_is_the_weighted_mean_of_both_losses(weight):
    student, teacher = logits(6, 5)
    labels = torch.randint(5, (6,))
    objective = ft.distillation(temperature=2.0, weight=weight)
    means = objective(torch.nn.Identity(), (student, {"labels": labels, "teacher": teacher})).totals().means()
    taught = losses.distillation(student, teacher, temperature=2.0).values.mean()
    expected = weight * taught + (1 - weight) * F.cross_entropy(student, labels)
    torch.testing.assert_close(means["loss"], expected, rtol=1e-12, atol=1e-13)
    torch.testing.assert_close(means["distillation"], taught, rtol=1e-12, atol=1e-13)
    assert means["accuracy"].item() == pytest.approx((student.argmax(1) == labels).double().mean().item(), abs=1e-7)
    assert (objective.task, objective) == ("classification", ft.distillation(temperature=2, weight=weight))


@pytest.mark.parametrize("weight", [-0.1, 1.5, float("nan")])
def test_a_weight_out_of_range_is_refused(weight):
    with pytest.raises(ValueError, match="weight must be 0 to 1, the teacher's share of the loss; got"):
        ft.distillation(weight=weight)
