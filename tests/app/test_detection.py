"""Models that take a list of images and return losses in training mode, predictions in evaluation mode: all ways in."""

import inspect
import json

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset

import functrain as ft
from functrain.diagnostics.batch_size import repeated
from functrain.distributed import World, part_of
from functrain.evaluation import predict_with_targets
from functrain.loop.memory import split_batch


class Detector(nn.Module):
    """The interface of torchvision's detection models: images of several sizes, a dict of targets for each."""

    def __init__(self):
        super().__init__()
        self.body, self.head = nn.Conv2d(3, 4, 3, 2, 1), nn.Linear(4, 6)

    def forward(self, images, targets=None):
        features = torch.stack([self.body(image[None]).tanh().mean((0, 2, 3)) for image in images])
        found = self.head(features)
        if not self.training:
            return [
                {"boxes": row[:4].expand(1 + number % 3, 4), "scores": row[4:].softmax(0)}
                for number, row in enumerate(found)
            ]
        boxes = [(row[:4] - target["boxes"].mean(0)).abs().mean() for row, target in zip(found, targets)]
        classes = [nn.functional.cross_entropy(row[None, 4:], t["labels"][:1]) for row, t in zip(found, targets)]
        return {"loss_box": torch.stack(boxes).mean(), "loss_class": torch.stack(classes).mean()}


class Scenes(Dataset):
    def __init__(self, count):
        self.count = count

    def __len__(self):
        return self.count

    def __getitem__(self, i):
        generator = torch.Generator().manual_seed(i)
        boxes = torch.rand(1 + i % 3, 4, generator=generator)
        image = torch.rand(3, 6 + i % 4, 8, generator=generator)
        return image, {"boxes": boxes, "labels": torch.randint(2, (len(boxes),), generator=generator)}


def collate(samples):
    return tuple(zip(*samples))


def scenes(split):
    return Scenes(11 if split == "train" else 7)


def detector():
    return Detector()


CODE = "import torch\nfrom torch import nn\nfrom torch.utils.data import Dataset\n\n" + "\n\n".join(
    map(inspect.getsource, (Detector, Scenes, collate, scenes, detector))
)


def loader(count=11, size=4):
    return DataLoader(Scenes(count), batch_size=size, collate_fn=collate)


def state_of(objective=None, **options):
    torch.manual_seed(0)
    return ft.init_state(Detector(), objective or ft.model_loss(), ft.optim.sgd(0.1), precision="fp64", **options)


def fit(state, data=None, **options):
    return ft.fit(state, data or loader(), **{"epochs": 2, "compile": False, "progress": False, **options})


def by_hand(batches):
    """In plain torch: an update for each batch."""
    torch.manual_seed(0)
    model = Detector().double()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    for images, targets in batches:
        optimizer.zero_grad()
        targets = [{name: x.double() if name == "boxes" else x for name, x in target.items()} for target in targets]
        sum(model([image.double() for image in images], targets).values()).backward()
        optimizer.step()
    return model


def assert_is(state, model):
    for name, value in model.named_parameters():
        torch.testing.assert_close(state.params[name], value.detach(), rtol=1e-12, atol=1e-12)


def test_fit_is_the_loop_by_hand_whole_and_in_parts():
    expected = by_hand([*loader()] * 2)
    for micro_batch in (None, 1, 3, "auto"):
        result = fit(state_of(), micro_batch=micro_batch)
        assert_is(result.state, expected)
        assert result.state.samples_seen == 22
    one_by_one = state_of(accumulate=4)
    for batch in loader(8, 1):
        one_by_one, _ = ft.train_step(one_by_one, batch)
    assert_is(one_by_one, by_hand(loader(8, 4)))


def test_a_bare_step_counts_the_images_as_fit_does():
    batch = next(iter(loader(5, 5)))
    assert ft.train_step(state_of(), batch)[0].samples_seen == 5
    assert ft.compile(ft.train_step, backend="eager")(state_of(), batch)[0].samples_seen == 5
    assert fit(state_of(), [batch], epochs=1).state.samples_seen == 5


def test_parts_of_a_batch_of_lists_hold_each_example_once_with_its_target():
    images, targets = next(iter(loader(7, 7)))
    parts = split_batch((images, targets), 3, pads=False, lists=True)
    assert [len(part[0]) for part in parts] == [3, 3, 1]
    assert all(a is b for a, b in zip(images, [image for part in parts for image in part[0]]))
    assert all(a is b for a, b in zip(targets, [target for part in parts for target in part[1]]))
    mine = part_of((images[:6], targets[:6]), World(1, 2), lists=True)
    assert all(a is b for a, b in zip(mine[0], images[1:6:2], strict=True))
    assert all(a is b for a, b in zip(mine[1], targets[1:6:2], strict=True))
    again = repeated({"images": images[:2], "targets": targets[:2]}, 3, lists=True)
    assert [image is images[i] for image, i in zip(again["images"], (0, 1, 0))] == [True] * 3
    with pytest.raises(ValueError, match="a batch of 7 examples cannot be shared evenly by 2 ranks"):
        part_of((images, targets), World(0, 2), lists=True)


@pytest.mark.parametrize(
    "cut",
    [
        lambda batch: split_batch(batch, 2, pads=False),
        lambda batch: part_of(batch, World(0, 3)),
        lambda batch: repeated(batch, 2),
    ],
    ids=["micro_batch", "ranks", "find_batch_size"],
)
@pytest.mark.parametrize(
    "batch",
    [
        next(iter(loader(5, 5))),
        ([torch.ones(3, 4, 4)] * 4, torch.arange(4)),
        {"images": [torch.ones(3, 4, 4)] * 4, "labels": torch.arange(4)},
        ([torch.ones(7, 2), torch.ones(4, 2)], [torch.ones(7), torch.ones(4)]),
        (torch.ones(5, 3, 4, 4), next(iter(loader(5, 5)))[1]),
    ],
    ids=["detection", "one label each", "mapping", "sequences", "images of one size"],
)
def test_a_list_is_not_cut_along_channels_for_an_objective_that_does_not_say_what_it_holds(cut, batch):
    with pytest.raises(TypeError, match=r"a row for each example; this one holds a list.*takes_lists = True"):
        cut(batch)


def test_a_list_of_arguments_is_cut_by_rows():
    batch = ([torch.arange(4), torch.arange(4) * 2], torch.arange(4))
    assert [[x.tolist() for x in part[0]] for part in split_batch(batch, 2, pads=True)] == [
        [[0, 1], [0, 2]],
        [[2, 3], [4, 6]],
    ]


def test_an_objective_of_ones_own_says_that_it_takes_lists():
    def objective(model, batch):
        images, targets = batch
        count = float(len(images))
        return ft.Loss(sum(model(images, targets).values()) * count, count)

    with pytest.raises(TypeError, match="takes_lists = True"):
        fit(state_of(objective), micro_batch=1)
    objective.takes_lists = True
    result = fit(state_of(objective), micro_batch=1)
    assert_is(result.state, by_hand([*loader()] * 2))
    assert result.state.samples_seen == 22


def test_predictions_are_those_of_the_module_in_a_list():
    state = fit(state_of()).state
    module = ft.to_module(state).eval()
    _, targets = next(iter(loader(7, 7)))
    expected = [found for batch in loader(7) for found in module([image.double() for image in batch[0]])]
    for found in (
        ft.predict(state, loader(7)),
        ft.predict(state, iter([(batch[0],) for batch in loader(7)])),
        predict_with_targets(state, loader(7))[0],
    ):
        assert len(found) == 7
        for mine, other in zip(found, expected, strict=True):
            assert mine["boxes"].shape == other["boxes"].shape
            assert all(torch.equal(mine[name], other[name]) for name in ("boxes", "scores"))
            assert not mine["boxes"].requires_grad
    _, given = predict_with_targets(state, loader(7))
    assert all(torch.equal(a["labels"], b["labels"]) for a, b in zip(given, targets, strict=True))


def test_one_tensor_for_a_list_of_images_is_concatenated():
    class Features(Detector):
        def forward(self, images):
            return torch.stack([self.body(image[None]).mean((0, 2, 3)) for image in images])

    state = ft.init_state(Features(), ft.model_loss(), ft.optim.sgd(0.1))
    assert ft.predict(state, loader(7)).shape == (7, 4)


def test_without_a_loss_in_evaluation_fit_trains_on_and_says_so(capsys, tmp_path):
    result = fit(state_of(), eval_loader=loader(7), progress=True, run_dir=tmp_path)
    expected = fit(state_of()).history
    assert [record["train_loss"] for record in result.history] == [record["train_loss"] for record in expected]
    assert not any(name.startswith("eval_") for record in result.history for name in record)
    said = [line for line in capsys.readouterr().err.splitlines() if "eval_loader" in line]
    assert len(said) == 1
    assert "eval_loader is not used: in evaluation mode the model returned a" in said[0]
    assert "The best checkpoint is chosen by train_loss" in said[0]


@pytest.mark.parametrize("ema", [None, 0.9])
def test_the_best_checkpoint_is_then_chosen_by_the_training_loss(tmp_path, ema):
    result = fit(state_of(ema_decay=ema), eval_loader=loader(7), run_dir=tmp_path)
    infos = ft.Checkpointer(tmp_path / "checkpoints", read_only=True).infos()
    assert [info.metric for info in infos] == [record["train_loss"] for record in result.history]


@pytest.mark.parametrize(
    "options",
    [
        {"watch": "eval_loss"},
        {"watch": "ema_loss_box"},
        {"early_stopping": ft.optim.early_stopping(patience=1)},
        {"plateau": ft.optim.plateau(patience=1)},
    ],
    ids=str,
)
def test_a_metric_that_cannot_be_is_not_watched(tmp_path, options):
    with pytest.raises(ft.errors.NoLossError, match=r"cannot be watched.*no loss at 'loss'.*watch='train_loss'"):
        fit(state_of(ema_decay=0.9), eval_loader=loader(7), run_dir=tmp_path / "run", **options)
    assert not (tmp_path / "run").exists()
    watched = {**options, "watch": "train_loss"}
    assert len(fit(state_of(), eval_loader=loader(7), epochs=1, **watched).history) == 1


def test_data_without_labels_are_told_when_they_are_evaluated_and_the_epoch_is_saved(tmp_path):
    class Labelled(nn.Linear):
        def forward(self, x, labels=None):
            out = super().forward(x)
            return {"out": out} if labels is None else {"loss": (out - labels).square().mean(), "out": out}

    state = ft.init_state(Labelled(2, 1), ft.model_loss(), ft.optim.sgd(0.1))
    data = DataLoader([{"x": torch.ones(2), "labels": torch.zeros(1)}] * 12, batch_size=4)
    with pytest.raises(ft.errors.NoLossError, match=r"'eval_loss' cannot be watched.*'labels', mostly"):
        fit(state, data, eval_loader=[{"x": torch.ones(4, 2)}], watch="eval_loss", run_dir=tmp_path)
    assert ft.Checkpointer(tmp_path / "checkpoints", read_only=True).infos()[-1].step == 3
    result = fit(state, data, eval_loader=data, watch="eval_loss", run_dir=tmp_path)
    assert [record["step"] for record in result.history] == [3, 6]
    assert all("eval_loss" in record for record in result.history)


def test_evaluate_says_why_it_cannot():
    with pytest.raises(ft.errors.NoLossError, match=r"in evaluation mode the model returned a list of 4.*predict"):
        ft.evaluate(state_of(), loader(7))


# The command line.

CONFIG = """
model: {name: "scenes_project:detector"}
data: {name: "scenes_project:scenes", batch_size: 4, collate_fn: "scenes_project:collate"}
objective: {name: model_loss}
optimizer: {name: sgd, lr: 0.1}
training: {epochs: 2, ema_decay: 0.5}
compile: false
"""


@pytest.fixture
def detection(project, write):
    (project / "scenes_project.py").write_text(CODE)
    return write(CONFIG, "scenes.yaml")


def test_a_detector_is_trained_and_evaluated_from_the_command_line(functrain, project, detection):
    code, out, err = functrain("train", detection, "--no-progress")
    assert code == 0, err
    assert "no metrics of split 'test': in evaluation mode the model returned a list of 4" in out
    assert "best checkpoint: step-00000006" in out
    run = project / "runs" / "scenes"
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert [row["epoch"] for row in rows if row["kind"] == "epoch"] == [1, 2]
    assert rows[-1]["train_loss"] == pytest.approx(rows[-1]["train_loss_box"] + rows[-1]["train_loss_class"])
    assert json.loads((run / "test/metrics.json").read_text()).keys() == {"split", "checkpoint", "missing"}
    code, out, err = functrain("evaluate", "runs/scenes")
    assert (code, err) == (0, "")
    assert out.count("no metrics of split 'test'") == 1
    code, out, err = functrain("train", detection, "--no-progress", "training.epochs=3")
    assert code == 0, err
    assert "data.collate_fn" not in out
    for command in ("find-lr", "find-batch-size"):
        code, out, err = functrain(command, detection)
        assert code == 0, (command, err)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("collate", "must be a function of your own, as package.module:function; got 'collate'"),
        ("scenes_project:colate", "no 'colate'; did you mean 'collate'"),
        ("os:system", "not allowed: 'os' belongs to Python"),
        ("torch.utils.data:default_collate", "belongs to torch"),
        ("scenes_project:Scenes", "must be a function of the list of samples, which returns the batch; got a class"),
        ("scenes_project:detector", "got a function of other arguments, 'scenes_project:detector'"),
        ("no_such_module:collate", "there is no module 'no_such_module'"),
    ],
)
def test_a_wrong_collate_fn_is_told_with_its_place(functrain, detection, name, message):
    code, _, err = functrain("train", detection, f"data.collate_fn={name}")
    assert code == 2
    assert "data.collate_fn" in err
    assert message in err


def test_a_collate_fn_is_code_as_other_functions_are(functrain, project, detection):
    """Somebody else's run that names no function but this one runs nothing without --trust."""
    functrain("train", detection, "--no-progress", "training.epochs=1")
    file = project / "runs/scenes/config.yaml"
    unsigned = "\n".join(line for line in file.read_text().splitlines() if not line.startswith("#"))
    for own in ("scenes_project:detector", "scenes_project:scenes"):
        unsigned = unsigned.replace(own, "digits_cnn" if own.endswith("detector") else "digits")
    file.write_text(unsigned)
    code, _, err = functrain("evaluate", "runs/scenes")
    assert code == 2
    assert "names functions that are not functrain's own ('scenes_project:collate')" in err


def test_a_run_of_an_earlier_release_has_no_changed_configuration(functrain, project):
    functrain("train", "tiny.yaml", "--no-progress")
    file = project / "runs/tiny/config.yaml"
    text = file.read_text()
    assert "collate_fn: null" in text
    file.write_text("\n".join(line for line in text.splitlines() if "collate_fn" not in line))
    code, out, _ = functrain("train", "tiny.yaml", "--no-progress", "training.epochs=3", "--strict-resume")
    assert "collate_fn" not in out
    assert code == 0
