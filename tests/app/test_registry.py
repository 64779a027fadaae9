import sys

import pytest

from functrain.app.config.registry import REGISTRY, lookup
from functrain.foundation.errors import ConfigError


@pytest.mark.parametrize(("kind", "name"), [(kind, name) for kind, table in REGISTRY.items() for name in table])
def test_every_registered_name_is_found_and_documented(kind, name):
    assert lookup(kind, name) is REGISTRY[kind][name]
    assert REGISTRY[kind][name].__doc__


def message_for(kind, name, *folders):
    with pytest.raises(ConfigError) as caught:
        lookup(kind, name, folders)
    return str(caught.value)


def test_own_functions_are_imported_from_the_folders_given(project):
    net = lookup("model", "tiny_project:net", [project])
    assert net.__module__ == "tiny_project"
    assert lookup("model", "functrain.models:DigitsCNN", []).__name__ == "DigitsCNN"
    assert lookup("model", "functrain:models.DigitsCNN", []).__name__ == "DigitsCNN"


def test_a_folder_cannot_take_the_place_of_an_installed_module(project):
    (project / "yaml.py").write_text("def safe_load(): ...")
    sys.modules.pop("yaml_probe", None)
    assert lookup("model", "yaml:safe_load", [project]).__module__ == "yaml"


def test_messages(project):
    (project / "broken_module.py").write_text("x = 1\nimport no_such_thing\n")
    (project / "raising_module.py").write_text("raise RuntimeError('no licence')\n")
    assert message_for("data", "digit").startswith(
        "unknown data set 'digit'; did you mean 'digits'? known: breast_cancer, "
    )
    assert message_for("model", "tiny_project:nett", project).endswith("has no 'nett'; did you mean 'net'?")
    assert message_for("model", "absent.module:net", project) == (
        f"'absent.module:net': there is no module 'absent' in {project}, nor among the installed ones"
    )
    assert "importing broken_module failed: ModuleNotFoundError: No module named 'no_such_thing'" in message_for(
        "model", "broken_module:net", project
    )
    assert "RuntimeError: no licence" in message_for("model", "raising_module:net", project)
    assert message_for("model", "a b:net") == "'a b:net' is not of the form package.module:function"
    assert message_for("model", "os:environ.x y").endswith("is not of the form package.module:function")
    assert message_for("model", "tiny_project:__name__") == "'tiny_project:__name__' is a str, not a function or class"
