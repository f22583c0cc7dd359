"""What every figure of a sweep keeps to; a new file of experiments/figures is covered without a word here."""

from __future__ import annotations

import dataclasses
import inspect

import pytest

from thornbed.flower_apps.settings import plugins

NAMES = sorted(plugins.available("figure"))


def test_the_folder_is_not_empty() -> None:
    assert {
        "option_curves",
        "relation_matrices",
        "inversion_gallery",
        "loss_landscape",
        "update_histogram",
        "sensitivity",
        "theorem10",
    } <= set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_it_is_frozen_and_its_options_are_keywords_with_defaults(name: str) -> None:
    figure = plugins.load("figure", name)
    assert type(figure).__dataclass_params__.frozen
    parameters = inspect.signature(type(figure)).parameters.values()
    assert all(p.kind is p.KEYWORD_ONLY and p.default is not p.empty for p in parameters)
    assert hash(figure) == hash(plugins.load("figure", name))
    assert [field.name for field in dataclasses.fields(figure)] == [p.name for p in parameters]


@pytest.mark.parametrize("name", NAMES)
def test_it_says_whether_it_needs_cells_and_refuses_to_be_drawn_from_none(name: str) -> None:
    figure = plugins.load("figure", name)
    assert type(figure.needs_cells) is bool
    if not figure.needs_cells:
        figure.check([])
        drawing = figure.draw([])
        assert "" in drawing.tables
        assert all(len(table) for table in drawing.tables.values())


@pytest.mark.parametrize("name", NAMES)
def test_the_table_is_explained(name: str) -> None:
    assert "table" in (inspect.getdoc(plugins.find("figure", name)) or "").lower()
