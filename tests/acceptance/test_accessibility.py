"""Accessibility: axe-core finds nothing in any place of the page, and no place is wider than its window."""

from __future__ import annotations

from importlib.resources import files

import pytest

from tests.screenshots import PLACES, STATES, TOKEN, faults, installation, tab


@pytest.mark.slow
@pytest.mark.parametrize("name", ["few-failing", "store-down"])
def test_nothing_is_found_in_any_place(browser, name):
    axe = files("axe_playwright_python").joinpath("axe.min.js").read_text()
    with installation(STATES[name]) as one:
        run, found = one.run_id(), []
        for width, scheme in ((360, "light"), (1440, "dark")):
            page = tab(browser, one.root, width, scheme, TOKEN if one.state.store else "")
            for place, path in PLACES.items():
                page.goto(one.root + path.format(run=run))
                found += [f"{place}, {width} px, {scheme}: {fault}" for fault in faults(page, axe)]
            page.context.close()
    assert found == []
