"""Predictions one after another, and their files."""

import csv

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torch import nn

import functrain as ft
from functrain.evaluation.predicting import Prediction, postprocessing, predict_each, write_predictions
from functrain.evaluation.predicting.sources import Sample


def made(model, objective=None):
    torch.manual_seed(0)
    return ft.init_state(model, objective or ft.classification(), ft.optim.sgd(0.1))


@pytest.fixture(scope="module")
def state():
    return made(nn.Sequential(nn.Linear(37, 64), nn.Tanh(), nn.Linear(64, 5)))


def samples(count, seed=0):
    rows = torch.randn(count, 37, generator=torch.Generator().manual_seed(seed))
    return [Sample(str(number), row) for number, row in enumerate(rows)]


@given(st.permutations(range(12)), st.integers(1, 12))
@settings(max_examples=20, deadline=None)
def test_a_prediction_does_not_depend_on_its_companions(order, count):
    torch.manual_seed(0)
    state = made(nn.Sequential(nn.Linear(37, 64), nn.Tanh(), nn.Linear(64, 5)))
    everything = samples(12)
    alone = {one.name: one.scores for one in predict_each(state, everything, rows=8)}
    some = list(predict_each(state, [everything[i] for i in order[:count]], rows=8))
    assert [one.name for one in some] == [str(i) for i in order[:count]]
    for one in some:
        assert torch.equal(one.scores, alone[one.name])


def test_predictions_are_those_of_predict(state):
    given_ = samples(70)
    expected = ft.predict(state, iter([torch.stack([sample.value for sample in given_])]))
    found = torch.stack([one.scores for one in predict_each(state, given_)])
    torch.testing.assert_close(found, expected)


def test_inputs_are_read_as_they_are_needed(state):
    read = []

    def reading():
        for sample in samples(40):
            read.append(sample.name)
            yield sample

    iterator = predict_each(state, reading(), rows=4)
    next(iterator)
    assert len(read) < 40


def test_inputs_of_other_shapes_begin_another_batch():
    state = made(nn.Sequential(nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(4, 2)))
    images = [Sample(str(i), torch.full((1, 4 + i % 3 // 2, 4), float(i))) for i in range(7)]
    found = list(predict_each(state, images, rows=3))
    assert [one.name for one in found] == [image.name for image in images]
    for image, one in zip(images, found):
        [alone] = predict_each(state, [image], rows=3)
        assert torch.equal(alone.scores, one.scores)


class Positions(nn.Module):
    """A pixel's score is its value times its column: not the same for a mirrored image."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))

    def forward(self, images):
        return self.scale * images * torch.arange(images.shape[-1])


def test_flips_are_averaged_where_they_belong():
    state = made(Positions(), ft.regression())
    image = torch.arange(12.0).view(1, 3, 4)
    [plain] = predict_each(state, [Sample("a", image)])
    [both] = predict_each(state, [Sample("a", image)], flips=("none", "horizontal"))
    columns = torch.arange(4.0)
    assert torch.equal(plain.scores, image * columns)
    assert torch.equal(both.scores, image * (columns + columns.flip(0)) / 2)
    [vertical] = predict_each(state, [Sample("a", image)], flips=("vertical",))
    assert torch.equal(vertical.scores, plain.scores)


def test_flips_that_cannot_be(state):
    with pytest.raises(ValueError, match=r"flips are for images, .* shape \[37\]"):
        list(predict_each(state, samples(2), flips=("horizontal",)))
    for flips in ((), ("up",)):
        with pytest.raises(ValueError, match="flips are of none, horizontal, vertical, both"):
            list(predict_each(state, samples(2), flips=flips))


def written(folder, task, scores, **options):
    predictions = [Prediction(f"n{i}", one) for i, one in enumerate(scores)]
    return list(write_predictions(predictions, task, folder, **options))


def rows_of(path):
    return list(csv.reader(path.read_text().splitlines()))


def test_classes_go_to_a_table(tmp_path):
    logits = torch.tensor([[0.0, 2.0], [1.0, -1.0]])
    [path] = written(tmp_path, "classification", logits)
    header, *rows = rows_of(path)
    assert header == ["name", "predicted", "p(0)", "p(1)"]
    assert [row[:2] for row in rows] == [["n0", "1"], ["n1", "0"]]
    assert [[float(cell) for cell in row[2:]] for row in rows] == logits.double().softmax(1).tolist()


@pytest.mark.parametrize("threshold", [0.0, 0.5, 0.9, 1.0])
def test_labels_go_to_a_table_by_their_threshold(tmp_path, threshold):
    logits = torch.tensor([[2.0], [-1.0]])
    [path] = written(tmp_path, "binary_classification", logits, threshold=threshold)
    header, *rows = rows_of(path)
    assert header == ["name", "predicted", "p"]
    chances = logits.double().sigmoid().flatten().tolist()
    assert [row[1] for row in rows] == [str(int(chance >= threshold)) for chance in chances]
    [path] = written(tmp_path, "binary_classification", logits.view(1, 2))
    assert rows_of(path)[0] == ["name", "predicted 0", "p 0", "predicted 1", "p 1"]


def test_values_go_to_a_table_or_to_arrays_if_there_are_many(tmp_path):
    [path] = written(tmp_path, "regression", torch.tensor([[1.5], [2.0]]))
    assert rows_of(path) == [["name", "predicted"], ["n0", "1.5"], ["n1", "2.0"]]
    many = torch.randn(2, 300)
    for task in ("regression", None):
        files = written(tmp_path / "many", task, many)
        assert [path.name for path in files] == ["n0.npy", "n1.npy"]
        assert all(np.array_equal(np.load(path), one) for path, one in zip(files, many))


def test_masks_go_to_images(tmp_path):
    classes = torch.tensor([[[0, 2], [1, 1]]])
    logits = torch.nn.functional.one_hot(classes, 3).permute(0, 3, 1, 2).float()
    [path] = written(tmp_path, "segmentation", logits)
    assert path == tmp_path / "masks" / "n0.png"
    assert np.asarray(Image.open(path)).tolist() == classes[0].tolist()
    [path] = written(tmp_path / "yes", "binary_classification", torch.tensor([[[[9.0, -9.0], [-9.0, 9.0]]]]))
    assert np.asarray(Image.open(path)).tolist() == [[255, 0], [0, 255]]


def test_masks_are_post_processed_class_by_class(tmp_path):
    truth = torch.zeros(1, 8, 8, dtype=torch.long)
    truth[0, 1:4, 1:4] = 1
    truth[0, 6, 6] = 1  # alone
    truth[0, 5:8, 0:3] = 2
    logits = torch.nn.functional.one_hot(truth, 3).permute(0, 3, 1, 2).float()
    [path] = written(tmp_path, "segmentation", logits, after=postprocessing(["largest"]))
    expected = truth[0].clone()
    expected[6, 6] = 0
    assert np.asarray(Image.open(path)).tolist() == expected.tolist()


def test_nothing_to_predict_writes_nothing(tmp_path):
    assert written(tmp_path / "none", "classification", []) == []
    assert not (tmp_path / "none").exists()


def test_a_threshold_that_cannot_be(tmp_path):
    for threshold in (-0.1, 1.1, float("nan")):
        with pytest.raises(ValueError, match="must be between 0 and 1"):
            written(tmp_path, "binary_classification", torch.zeros(1, 1), threshold=threshold)
