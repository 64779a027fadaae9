"""InfoNCE against cross-entropy of the similarities, and the law of groups."""

import pytest
import torch
import torch.nn.functional as F

from functrain.objectives import losses


def embeddings(examples=6):
    return torch.randn(2, examples, 4, dtype=torch.float64)


def similarities(queries, keys, temperature):
    return F.cosine_similarity(queries[:, None], keys[None], dim=2) / temperature


@pytest.mark.parametrize("temperature", [0.07, 1.0])
def test_it_is_the_cross_entropy_of_the_similarities_both_ways(temperature):
    queries, keys = embeddings()
    logits, own = similarities(queries, keys, temperature), torch.arange(6)
    rows = F.cross_entropy(logits, own, reduction="none")
    columns = F.cross_entropy(logits.T, own, reduction="none")
    one_way = losses.info_nce(queries, keys, temperature=temperature, symmetric=False)
    torch.testing.assert_close(one_way.values, rows, rtol=1e-12, atol=1e-13)
    both = losses.info_nce(queries, keys, temperature=temperature)
    torch.testing.assert_close(both.values, (rows + columns) / 2, rtol=1e-12, atol=1e-13)
    torch.testing.assert_close(both.values, losses.info_nce(keys, queries, temperature=temperature).values)


def test_groups_of_any_order_have_the_values_of_each_group_alone():
    queries, keys = embeddings()
    groups = torch.tensor([5, 2, 5, 5, 2, 9])
    values = losses.info_nce(queries, keys, groups=groups).values
    for group in (2, 5, 9):
        chosen = groups == group
        alone = losses.info_nce(queries[chosen], keys[chosen]).values
        torch.testing.assert_close(values[chosen], alone, rtol=1e-12, atol=1e-13)
    assert values[5].item() == 0  # alone in its group: nothing to tell it from


def test_an_example_of_weight_zero_is_nobodys_negative():
    queries, keys = embeddings()
    weight = torch.tensor([1.0, 0.0, 2.0, 1.0, 0.0, 1.0])
    values = losses.info_nce(queries, keys, weight=weight).values
    counted = weight != 0
    torch.testing.assert_close(values[counted], losses.info_nce(queries[counted], keys[counted]).values)


def test_a_temperature_can_be_learned():
    queries, keys = embeddings()

    def loss(temperature):
        return losses.info_nce(queries, keys, temperature=temperature).values.sum()

    at = torch.tensor(0.5, dtype=torch.float64)
    numeric = (loss(at + 1e-6) - loss(at - 1e-6)) / 2e-6
    torch.testing.assert_close(torch.func.grad(loss)(at), numeric, rtol=1e-7, atol=0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"temperature": 0.0}, "temperature must be greater than 0 and finite, got 0.0"),
        ({"groups": torch.zeros(5)}, r"groups has one number for each example, \[6\] here; got \[5\]"),
        ({"weight": torch.ones(6, 1)}, r"weight has one number for each example, \[6\] here; got \[6, 1\]"),
    ],
)
def test_options_that_do_not_fit_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        losses.info_nce(*embeddings(), **options)
