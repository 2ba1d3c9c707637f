"""What `from creditlane import …` gives, each when it is first asked for."""

import ast
import inspect
import subprocess
import sys

import pytest

import creditlane


def test_every_public_name_has_a_home_and_no_other_has() -> None:
    assert set(creditlane._HOMES) == set(creditlane.__all__)
    for name in creditlane.__all__:
        assert getattr(creditlane, name).__name__ == name
    assert set(creditlane.__all__) <= set(dir(creditlane))


def test_type_checkers_see_the_same_homes() -> None:
    found = {
        alias.name: f".{node.module}"
        for node in ast.walk(ast.parse(inspect.getsource(creditlane)))
        if isinstance(node, ast.ImportFrom) and node.level == 1
        for alias in node.names
    }
    assert found == creditlane._HOMES


def test_importing_the_package_alone_imports_nothing_that_takes_time() -> None:
    code = "import sys, creditlane; print({'pydantic', 'redis', 'psycopg', 'asyncio'} & sys.modules.keys())"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert result.stdout == "set()\n"


def test_a_name_that_is_none_is_refused() -> None:
    with pytest.raises(AttributeError, match=r"creditlane.*no attribute 'Klient'"):
        _ = creditlane.Klient  # type: ignore[attr-defined]
