"""Tasks whose arguments and results are pydantic models."""

from __future__ import annotations

import datetime

import pytest

from beatd import App
from beatd.message import json_codec
from tests.conftest import needed
from tests.unit.app.test_calling import Published

pydantic = needed("pydantic")


class Item(pydantic.BaseModel):
    name: str
    made: datetime.date | None = None


@pytest.fixture
def app():
    return App("x", set_as_current=False, publisher=Published())


def test_arguments_arrive_as_models_and_results_leave_as_data(app):
    @app.task(pydantic=True)
    def older(item: Item, other: Item | None = None, *, days: int = 0) -> Item:
        assert isinstance(item, Item)
        assert other is None or isinstance(other, Item)
        return Item(name=item.name + (other.name if other else ""), made=datetime.date(2026, 1, 1))

    assert older.apply(({"name": "a"}, {"name": "b"})).get() == {"name": "ab", "made": "2026-01-01"}
    assert older.apply(({"name": "a"},), {"days": 3}).get()["name"] == "a"
    assert isinstance(older.apply(({"nome": "a"},)).result, pydantic.ValidationError)


def test_models_may_be_sent(app):
    @app.task(pydantic=True, bind=True)
    def take(self, item: Item):
        return item.name

    take.delay(Item(name="a", made=datetime.date(2026, 1, 1)))
    assert json_codec.loads(app.publisher.messages[0].body)[0] == [{"name": "a", "made": "2026-01-01"}]
    assert take.apply(({"name": "a"},)).get() == "a"


def test_coroutines_take_models_too(app):
    @app.task(pydantic=True, pydantic_dump_kwargs={"exclude_none": True})
    async def back(item: Item) -> Item:
        return item

    assert back.apply(({"name": "a"},)).get() == {"name": "a"}


def test_a_second_function_with_the_same_task_name_is_logged(app, caplog):
    first = app.task(name="t")(lambda: 1)
    second = app.task(name="t")(test_models_may_be_sent)
    assert second is first
    (record,) = caplog.records
    assert record.event == "task_name_taken"
    assert "test_models_may_be_sent is not registered" in record.getMessage()
