"""`import functrain` is cheap: heavy libraries wait for their first use."""

import json
import subprocess
import sys

SCRIPT = """
import json, sys, time
start = time.perf_counter()
import torch
torch_seconds = time.perf_counter() - start
torch_modules = set(sys.modules)
start = time.perf_counter()
import functrain
seconds = time.perf_counter() - start
new = sorted({name.partition(".")[0] for name in set(sys.modules) - torch_modules})
functrain.models.REGISTRY["mlp"]
models = sorted(name for name in sys.modules if name.startswith("functrain.models."))
print(json.dumps({"torch_seconds": torch_seconds, "seconds": seconds, "new": new, "models": models}))
"""
LATER = {
    "jax",
    "jaxlib",
    "orbax",
    "matplotlib",
    "sklearn",
    "yaml",
    "rich",
    "tensorboard",
    "pydantic",
    "wandb",
    "mlflow",
}


def test_import_functrain_loads_no_library_but_torch_and_optree(record_property):
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, timeout=120, check=True)
    outcome = json.loads(done.stdout)
    record_property("import_functrain_seconds", outcome["seconds"])
    print(f"import functrain: {outcome['seconds']:.2f} s on top of {outcome['torch_seconds']:.2f} s for torch")
    assert LATER.isdisjoint(outcome["new"]), f"loaded too early: {sorted(LATER & set(outcome['new']))}"
    assert outcome["models"] == ["functrain.models.mlp", "functrain.models.registry"], "a network loads with its name"
