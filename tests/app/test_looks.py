"""Light, dark, narrow; and what axe, the accessibility checker, says of the main states."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from .conftest import Visits
from .sites import Site, ask, expect, highlight, ready

axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="needs axe-playwright-python")


def violations(page: Any) -> list[str]:
    found = axe.Axe().run(page).response["violations"]
    return [
        f"{one['id']}: {node['html']} {node['any'][0]['message'] if node['any'] else ''}"
        for one in found
        if one["impact"] in ("serious", "critical")
        for node in one["nodes"]
    ]


@pytest.mark.parametrize("colours", ["light", "dark"])
def test_axe_finds_nothing_serious(quoting: Site, visit: Visits, colours: str, tmp_path: Path) -> None:
    page = visit(quoting, color_scheme=colours, reduced_motion="reduce")
    ready(page)
    assert violations(page) == []
    broken = tmp_path / "broken.pdf"
    broken.write_bytes(b"%PDF-1.7 and nothing more")
    page.get_by_label("Files to add").set_input_files(broken)
    expect(page.locator(".job.failed").last).to_be_visible()
    ask(page, "What do ducks eat?")
    page.locator(".turn button.cite").first.click()
    expect(page.locator("#source .box").first).to_be_visible()
    page.locator(".considered summary").click()
    highlight(page, "words (lexical)")
    expect(page.locator(".hits mark").first).to_be_visible()
    page.locator("#options summary").click()
    page.get_by_label("Weights").select_option("own")
    assert violations(page) == []
    page.get_by_role("button", name="Show the text").click()
    expect(page.locator("#source mark")).to_be_visible()
    page.get_by_role("button", name="Delete The garden handbook").click()
    expect(page.get_by_role("dialog")).to_be_visible()
    assert violations(page) == []


def test_the_colours_are_chosen_and_kept(writing: Site, visit: Visits) -> None:
    page = visit(writing, color_scheme="light")
    ready(page)
    colour = "getComputedStyle(document.body).backgroundColor"
    light = page.evaluate(colour)
    switch = page.get_by_role("button", name="Dark colours")
    expect(switch).to_have_attribute("aria-pressed", "false")
    switch.click()
    expect(switch).to_have_attribute("aria-pressed", "true")
    dark = page.evaluate(colour)
    assert dark != light
    page.reload()
    assert page.evaluate(colour) == dark


def test_a_narrow_screen_shows_one_pane_at_a_time(quoting: Site, visit: Visits) -> None:
    page = visit(quoting, viewport={"width": 375, "height": 700}, has_touch=True)
    tabs = page.get_by_role("navigation", name="Panes")
    expect(page.get_by_label("Question", exact=True)).to_be_in_viewport()
    expect(page.get_by_role("button", name="Choose files")).to_be_hidden()
    ask(page, "What do ducks eat?")
    page.locator(".turn button.cite").first.click()
    expect(page.locator("#source .box").first).to_be_in_viewport()
    expect(tabs.get_by_role("button", name="Source")).to_have_attribute("aria-current", "true")
    page.keyboard.press("Escape")
    expect(page.locator(".turn button.cite").first).to_be_focused()
    tabs.get_by_role("button", name="Documents").click()
    expect(page.get_by_role("button", name="Choose files")).to_be_visible()
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert violations(page) == []


def test_the_narrowest_screens_need_no_scrolling_sideways(quoting: Site, visit: Visits) -> None:
    page = visit(quoting, viewport={"width": 320, "height": 500})  # WCAG 2.2, 1.4.10: 1280 px at 400 %
    expect(page.get_by_role("heading", name="Ask about")).to_be_visible()
    for pane in ("Documents", "Conversation", "Source"):
        page.get_by_role("navigation", name="Panes").get_by_role("button", name=pane).click()
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
