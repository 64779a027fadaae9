"""Traced programs: they predict what the model predicts, and what cannot be one is said."""

import io
import zipfile
from collections import OrderedDict

import pytest
import torch
from torch import nn

import functrain as ft
from functrain.evaluation.archived import ArchivedModel
from functrain.evaluation.archiving import traced_program
from functrain.evaluation.program import Program, Untraceable, refuse_code
from functrain.step.to_module import to_evaluate


class Outputs(OrderedDict):
    """A class of the model's own."""


class Many(nn.Module):
    """Several inputs, of which one is integers; a buffer that is not saved; tied weights; named outputs."""

    def __init__(self):
        super().__init__()
        self.embedding, self.head = nn.Embedding(11, 4), nn.Linear(4, 11, bias=False)
        self.head.weight = self.embedding.weight
        self.norm = nn.BatchNorm1d(4)
        self.register_buffer("scale", torch.arange(1.0, 5.0), persistent=False)

    def forward(self, ids, mask=None, *, gain=None):
        x = (self.embedding(ids) * self.scale).mean(1)
        x = self.norm(x if mask is None else x * mask)
        return Outputs(logits=self.head(x if gain is None else x * gain), extra=(None, [x.argmax(1)]))


class Fixed(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(2, 3)

    def forward(self, x):
        return self.linear(x).reshape(int(x.shape[0]), -1)


class Branching(Fixed):
    def forward(self, x):
        return self.linear(x) if x.sum() > 0 else self.linear(-x)


class Recurrent(nn.LSTM):
    def forward(self, x):
        return super().forward(x)[0]


class Drawing(Fixed):
    def forward(self, x):
        return self.linear(x + torch.rand_like(x))


def evaluated(model, precision="fp32", objective=None):
    state = ft.init_state(model, objective or ft.classification(), ft.optim.sgd(0.1), seed=3, precision=precision)
    return to_evaluate(state, ema=False)


def stored(traced):
    """The model, after the program went through its stored form."""
    program = Program.from_json(traced.program.content, traced.program.to_json())
    return ArchivedModel(program, traced.tensors, traced.key, {})


def batch(inputs, rows):
    return iter([{"inputs": {name: leaf[:rows] for name, leaf in inputs.items()}}])


MODELS = {
    "BatchNorm": lambda: nn.Sequential(nn.Linear(2, 4), nn.BatchNorm1d(4), nn.Dropout(0.5), nn.Linear(4, 3)),
    "attention": lambda: nn.TransformerEncoderLayer(2, 1, 4, batch_first=True),
    "draws": Drawing,
}


@pytest.mark.parametrize(("name", "precision"), [*((name, "fp32") for name in MODELS), ("BatchNorm", "bf16")])
def test_a_program_has_the_models_bits_for_any_number_of_examples(name, precision, bits):
    state = evaluated(MODELS[name](), precision)
    shape = (5, 6, 2) if name == "attention" else (5, 2)
    traced = traced_program(state, torch.randn(shape))
    assert (traced.program.rows, traced.difference) == (None, 0.0)
    for rows in (1, 2, 13):
        inputs = torch.randn(rows, *shape[1:])
        assert bits(ft.predict(stored(traced), iter([inputs]))) == bits(ft.predict(state, iter([inputs])))


def test_a_program_of_other_kernels_differs_by_rounding():
    traced = traced_program(evaluated(Recurrent(2, 4, batch_first=True)), torch.randn(5, 6, 2))
    assert traced.difference < 1e-6  # the model's kernel sums in another order; outputs are below 1


def test_inputs_and_outputs_keep_their_names_and_classes_become_plain(bits):
    state = evaluated(Many())
    inputs = {"ids": torch.randint(11, (6, 5)), "mask": torch.ones(6, 1), "gain": torch.rand(6, 1)}
    traced = traced_program(state, inputs)
    assert traced.program.rows is None
    model, expected = stored(traced), ft.predict(state, batch(inputs, 4))
    found = ft.predict(model, batch(dict(reversed(inputs.items())), 4))
    assert type(found) is dict
    assert bits(found) == bits({"logits": expected["logits"], "extra": (None, expected["extra"][1])})
    assert bits(model(**inputs)["logits"]) == bits(ft.predict(state, batch(inputs, 6))["logits"])


def test_a_program_of_a_fixed_size_takes_any_number_by_parts():
    state = evaluated(Fixed())
    traced = traced_program(state, torch.randn(4, 2))
    assert traced.program.rows == 4
    inputs = torch.randn(11, 2)
    # One product of a row of 2 and a column of 2: two roundings and that of the sum.
    torch.testing.assert_close(stored(traced)(inputs), ft.predict(state, iter([inputs])), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        (torch.ones(3, 5), r"the program takes 0: float32 \[rows, 2\]; got 0: float32 \[3, 5\]"),
        (torch.ones(3, 2, dtype=torch.int64), r"got 0: int64 \[3, 2\]"),
        ((torch.ones(3, 2), torch.ones(3)), r"got 0: float32 \[3, 2\], 1: float32 \[3\]"),
        ({"x": torch.ones(3, 2)}, r"got x: float32 \[3, 2\]"),
        ((torch.ones(3, 2), "text"), "a str is neither a tensor nor a container of tensors"),
    ],
)
def test_other_inputs_are_told_what_is_taken(inputs, message):
    model = stored(traced_program(evaluated(nn.Linear(2, 3)), torch.randn(4, 2)))
    assert torch.equal(model(torch.ones(3, 2).double()), model(torch.ones(3, 2)))
    with pytest.raises(TypeError, match=message):
        model.outputs(inputs)


def test_averages_and_compilation_are_refused_in_words():
    model = stored(traced_program(evaluated(nn.Linear(2, 3)), torch.randn(4, 2)))
    with pytest.raises(ValueError, match="'functrain export --ema' writes the averages"):
        ft.predict(model, iter([torch.ones(1, 2)]), ema=True)
    with pytest.raises(ValueError, match="the program in an archive is run as it is"):
        ft.predict(model, iter([torch.ones(1, 2)]), compile=True)


def test_a_model_that_depends_on_values_is_said_to_be_untraceable():
    with pytest.raises(Untraceable, match=r"(?i)data-dependent"):
        traced_program(evaluated(Branching()), torch.randn(4, 2))


def test_a_model_of_lists_is_said_to_be_untraceable():
    def objective(model, batch):
        return ft.Loss(model(batch[0])[0].sum(), 1.0)

    objective.takes_lists = True
    with pytest.raises(Untraceable, match="lists"):
        traced_program(evaluated(nn.Linear(2, 3), objective=objective), [torch.ones(2), torch.ones(2)])


def repacked(content, more):
    target = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as old, zipfile.ZipFile(target, "w") as new:
        for info in old.infolist():
            if info.filename not in more:
                new.writestr(info.filename, old.read(info))
        for name, text in more.items():
            new.writestr(name, text)
    return target.getvalue()


PICKLED = b'{"config": {"w": {"path_name": "weight_0", "is_param": true, "use_pickle": true, "tensor_meta": null}}}'


@pytest.mark.parametrize(
    "more",
    [
        {"archive/data/aotinductor/model/model.so": b"\x7fELF"},
        {"archive/data/constants/custom_obj_0": b"\x80\x02."},
        {"archive/data/weights/model.pt": b"\x80\x02."},
        {"archive/data/sample_inputs/model.pt": b"\x80\x02."},
        {"archive/data/weights/model_weights_config.json": PICKLED},
    ],
)
def test_a_program_with_pickled_objects_or_compiled_code_is_refused(more):
    content = traced_program(evaluated(nn.Linear(2, 3)), torch.randn(4, 2)).program.content
    refuse_code(content)
    with pytest.raises(ValueError, match="the program holds"):
        refuse_code(repacked(content, more))
