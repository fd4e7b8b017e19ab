"""The parameters of a head are declared in one place, from which everything else follows."""

import ast
from collections.abc import Iterator
from dataclasses import fields

import pytest

from custom_aesthetic.heads.training import HeadParameters
from custom_aesthetic.search.space import FIRST_TRIAL
from custom_aesthetic.settings.declaration import Range
from custom_aesthetic.settings.head_parameters import INTEGER_PARAMETERS, PerHeadParameter, SearchSpace
from tests.conftest import ROOT

NAMES = [field.name for field in fields(SearchSpace)]


def lists_of_names(tree: ast.AST) -> Iterator[tuple[str, set[str]]]:
    """Yield the name of every class, call and literal, with the parameter names written in it."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef):
            body = [part.target for part in node.body if isinstance(part, ast.AnnAssign)]
            yield node.name, {target.id for target in body if isinstance(target, ast.Name)}
        elif isinstance(node, ast.Call):
            yield ast.unparse(node.func), {keyword.arg for keyword in node.keywords if keyword.arg}
        elif isinstance(node, ast.Dict | ast.Tuple | ast.List):
            parts = [key for key in (node.keys if isinstance(node, ast.Dict) else node.elts) if key is not None]
            yield type(node).__name__, {part.value for part in parts if isinstance(part, ast.Constant)}


def test_the_parameters_of_a_head_are_listed_in_one_place() -> None:
    found = [
        (file.name, where)
        for file in sorted((ROOT / "src").rglob("*.py"))
        for where, names in lists_of_names(ast.parse(file.read_text(encoding="utf-8")))
        if len(names & set(NAMES)) > len(NAMES) / 2
    ]
    assert found == [("head_parameters.py", "PerHeadParameter")]


def test_ranges_and_values_have_the_same_names_in_the_same_order() -> None:
    assert [field.name for field in fields(HeadParameters)] == NAMES == list(vars(FIRST_TRIAL))
    assert len(NAMES) == 10


@pytest.mark.parametrize("field", fields(SearchSpace), ids=lambda field: field.name)
def test_first_values_lie_within_the_bounds_and_integer_parameters_have_integer_bounds(field) -> None:
    first, allowed = field.metadata["first"], field.default
    assert allowed.clip(first) == first
    assert {type(number) for number in (first, allowed.low, allowed.high)} == {
        int if field.name in INTEGER_PARAMETERS else float
    }
    assert (PerHeadParameter.__annotations__[field.name].__name__ == "Whole") == (field.name in INTEGER_PARAMETERS)


def test_head_parameters_must_be_complete() -> None:
    given = {name: value for name, value in vars(FIRST_TRIAL).items() if name != "dropout"}
    with pytest.raises(TypeError, match=r"a head needs dropout$"):
        HeadParameters(**given)
    assert SearchSpace().dropout == Range(0.0, 0.8)
