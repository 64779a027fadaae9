"""Nothing is imported and nothing draws behind the training: in fresh interpreters, where nothing is imported yet."""

import json
import subprocess
import sys

SCRIPT = """
import json, random, sys, tempfile, threading
import numpy as np
import torch

import functrain as ft

elsewhere = []  # modules that another thread than the first looks for


class Watching:
    def find_spec(self, name, path=None, target=None):
        if threading.current_thread() is not threading.main_thread():
            elsewhere.append(name)


sys.meta_path.insert(0, Watching())


def draw():
    return torch.tensor([float(torch.rand(())), np.random.rand(), random.random()])


class Drawing(torch.utils.data.Dataset):
    def __len__(self):
        return 6

    def __getitem__(self, index):
        before = draw()
        for thread in threading.enumerate():  # all that is done behind the training is done here
            if thread.name.startswith("functrain"):
                thread.join()
        return torch.cat([before, draw()]), torch.tensor([float(index)])


@ft.on("after_step")
def callback(event):
    drawn.append([draw().tolist(), float(event.metrics["loss"])])


torch.set_num_threads(1)
drawn = []
torch.manual_seed(0)
state = ft.init_state(torch.nn.Linear(6, 1), ft.regression(), ft.optim.sgd(0.1), precision="bf16")
torch.manual_seed(0), np.random.seed(0), random.seed(0)
loader = torch.utils.data.DataLoader(Drawing(), batch_size=2, shuffle=True)
with tempfile.TemporaryDirectory() as folder:
    saving = {"run_dir": folder, "save_every": 1, "tensorboard": True} if sys.argv[1] == "saves" else {}
    how = {"backend": "aot_eager", "callbacks": [callback]}
    ft.fit(state, loader, eval_loader=loader, epochs=2, **how, **saving)
print(json.dumps({"drawn": drawn, "elsewhere": [name for name in elsewhere if name in sys.modules]}))
"""


def test_what_is_drawn_from_the_global_generators_is_the_same_with_saves_and_without() -> None:
    runs = [
        subprocess.Popen(
            [sys.executable, "-W", "ignore", "-c", SCRIPT, how],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for how in ("without", "saves")
    ]
    outputs = [run.communicate() for run in runs]
    assert [run.returncode for run in runs] == [0, 0], outputs
    without, saving = (json.loads(output) for output, _ in outputs)
    assert saving["drawn"] == without["drawn"]
    assert len(saving["drawn"]) == 6
    assert saving["elsewhere"] == []


SAVE = """
import json, random, sys, tempfile
import numpy as np
import torch

import functrain as ft


def generators():
    return repr((random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()))


with tempfile.TemporaryDirectory() as folder, ft.Checkpointer(folder) as checkpointer:
    before = generators()
    checkpointer.save({"params": {"w": torch.ones(3, dtype=torch.bfloat16)}}, step=1)
    after = generators()
    checkpointer.wait()
    written = generators()
    checkpointer.restore({"params": {"w": torch.ones(3, dtype=torch.bfloat16)}})
    print(json.dumps([before == after, after == written, written == generators()]))
"""


def test_the_first_save_of_a_process_leaves_the_global_generators_where_they_are() -> None:
    done = subprocess.run([sys.executable, "-c", SAVE], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == [True, True, True]
