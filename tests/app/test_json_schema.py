"""The JSON Schema of a configuration is what the declarations generate, and says what the reader says."""

from functrain.app.config.catalogue import FILE, declared, functions, takes_null
from functrain.app.config.json_schema import parameter_docs, text
from functrain.app.config.keys import keys_in
from functrain.app.config.registry import REGISTRY
from functrain.app.config.schema import Config


def test_the_shipped_file_is_the_generated_one():
    assert FILE.read_text(encoding="utf-8") == text(), "run: python -m functrain.app.config.json_schema"


def test_each_declared_key_and_each_registered_function_is_in_it():
    assert [key.path for key in keys_in(Config)] == [
        path for path in declared() if path not in (("extends",), ("stages",))
    ]
    for kind, table in REGISTRY.items():
        assert list(functions(kind)) == list(table)
        assert all(function.summary for function in functions(kind).values())


def test_a_key_takes_null_where_its_type_does():
    for key in keys_in(Config):
        if key.section is None:
            assert takes_null(key.path) == (type(None) in getattr(key.info.annotation, "__args__", ())), key.dotted


def test_the_docs_of_parameters_are_read_from_the_docstring():
    def function():
        """What it does.

        Args:
            one: the first,
                in two lines.
            two, three: others.

        Returns:
            nothing: really.
        """

    assert parameter_docs(function) == {"one": "the first, in two lines.", "two": "others.", "three": "others."}
