from __future__ import annotations

from collections.abc import Iterator
from typing import Any, get_args, get_origin

import pytest
from pydantic import BaseModel

from appliance.config.models import Appliance
from appliance.plan.changes import COSTS, Cost, changes

KEY = {"name": "a", "sha256": "0" * 64}


def appliance(**more: Any) -> Appliance:
    return Appliance.model_validate({"models": {"m": {"source": "pypi:x==1"}}, **more})


def fields(model: type[BaseModel], path: str = "") -> Iterator[str]:
    """Every field of the file as a pattern, down to the first that the table names."""
    for name, field in model.model_fields.items():
        here = f"{path}.{name}".lstrip(".")
        if here in COSTS:
            yield here
        elif isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from fields(field.annotation, here)
        elif get_origin(field.annotation) is dict and issubclass(get_args(field.annotation)[1], BaseModel):
            yield from fields(get_args(field.annotation)[1], f"{here}.*")
        else:
            yield here


def test_every_field_of_the_file_is_classed_and_no_class_is_left_over() -> None:
    assert set(fields(Appliance)) == set(COSTS)


def test_equal_files_have_no_changes() -> None:
    assert changes(appliance(), appliance()) == ()


@pytest.mark.parametrize(
    ("more", "path", "cost"),
    [
        ({"server": {"port": 9000}}, "server.port", Cost.PROCESS),
        ({"auth": {"keys": [KEY]}}, "auth.keys", Cost.LIVE),
        ({"environment": {"accelerator": "cpu"}}, "environment.accelerator", Cost.ENVIRONMENT),
        ({"models": {"m": {"source": "pypi:x==2"}}}, "models.m.source", Cost.RESTART),
        ({"models": {"m": {"source": "pypi:x==1", "aliases": ["b"]}}}, "models.m.aliases", Cost.LIVE),
        ({"models": {"m": {"source": "pypi:x==1", "engine": {"a": 1}}}}, "models.m.engine", Cost.RESTART),
    ],
)
def test_a_changed_field_is_reported_with_what_it_costs(more: dict[str, Any], path: str, cost: Cost) -> None:
    (change,) = changes(appliance(), appliance(**more))
    assert (change.path, change.cost) == (path, cost)


def test_a_removed_model_shows_what_it_had() -> None:
    both = appliance(models={"m": {"source": "pypi:x==1"}, "n": {"source": "pypi:y==1"}})
    gone = {change.path: (change.before, change.after) for change in changes(both, appliance())}
    assert gone["models.n.source"] == ("pypi:y==1", None)


def test_adapters_are_live_where_the_engine_was_started_for_some() -> None:
    def appliance(adapters: list[str], **engine: object) -> Appliance:
        each = [{"name": name, "source": f"./{name}"} for name in adapters]
        return Appliance.model_validate({"models": {"a.b": {"source": "./m", "adapters": each, "engine": engine}}})

    def cost(before: Appliance, after: Appliance) -> Cost:
        (change,) = changes(before, after)
        return change.cost

    assert cost(appliance(["one"]), appliance(["one", "two"])) is Cost.LIVE
    assert cost(appliance(["one"]), appliance(["two"])) is Cost.LIVE
    assert cost(appliance([]), appliance(["one"])) is Cost.RESTART
    assert cost(appliance(["one"]), appliance([])) is Cost.RESTART
    assert cost(appliance([], enable_lora=True), appliance(["one"], enable_lora=True)) is Cost.LIVE
