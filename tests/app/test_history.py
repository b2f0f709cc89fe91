"""Conversations in the browser's storage: kept, several, and robust."""

from __future__ import annotations

from m3rag.testing.llm_server import Reply

from .conftest import Visits
from .sites import Site, ask, expect, ready

PREFIX = "m3rag.conversation."


def test_a_reload_keeps_the_conversation(writing: Site, visit: Visits) -> None:
    page = visit(writing)
    ready(page)
    ask(page, "What do ducks eat?")
    expect(page.locator(".tools")).to_be_visible()
    page.reload()
    expect(page.locator(".turn .question")).to_have_text("What do ducks eat?")
    expect(page.locator(".turn .answer")).to_contain_text("Ducks eat grass")
    page.locator(".considered summary").click()
    assert page.locator(".hits > li").count() >= 2
    page.locator(".turn button.cite").click()
    expect(page.locator("#source mark")).to_be_in_viewport()


def test_several_conversations_are_renamed_and_deleted(writing: Site, visit: Visits) -> None:
    page = visit(writing)
    ready(page)
    saved = page.locator("#saved-list > li")
    expect(saved).to_have_count(0)
    ask(page, "What do ducks eat?")
    expect(page.locator(".tools")).to_be_visible()
    page.get_by_role("button", name="New", exact=True).click()
    expect(page.get_by_role("heading", name="Ask about")).to_be_visible()
    ask(page, "What is a black hole?")
    expect(page.locator(".tools")).to_be_visible()
    expect(saved).to_have_count(2)
    expect(saved.first.locator("[aria-current]")).to_have_text("What is a black hole?")
    page.get_by_role("button", name="Rename What do ducks eat?").click()
    page.get_by_role("textbox", name="Name").fill("Birds")
    page.get_by_role("textbox", name="Name").press("Enter")
    page.get_by_role("button", name="Birds", exact=True).click()
    expect(page.locator(".turn .question")).to_have_text("What do ducks eat?")
    page.get_by_role("button", name="Delete the conversation Birds").click()
    page.get_by_role("button", name="Delete", exact=True).click()
    expect(saved).to_have_count(1)
    expect(page.locator(".turn .question")).to_have_text("What is a black hole?")
    page.reload()
    expect(saved).to_have_count(1)


def test_a_damaged_conversation_harms_no_other(writing: Site, visit: Visits) -> None:
    page = visit(writing)
    ready(page)
    ask(page, "What do ducks eat?")
    expect(page.locator(".tools")).to_be_visible()
    page.evaluate(
        """prefix => {
            localStorage.setItem(`${prefix}a`, "{broken");
            localStorage.setItem(`${prefix}b`, JSON.stringify({id: "b", updated: 1, turns: [null, {question: "Old?",
                hits: [{}], citations: "none"}]}));
            localStorage.setItem("m3rag.options", "]");
        }""",
        PREFIX,
    )
    page.reload()
    expect(page.get_by_role("alert")).to_contain_text("damaged")
    expect(page.locator("#saved-list > li")).to_have_count(2)
    expect(page.locator(".turn .answer")).to_contain_text("Ducks eat grass")
    page.get_by_role("button", name="Untitled", exact=True).click()
    expect(page.locator(".turn .question")).to_have_text("Old?")


def test_a_full_storage_gives_up_the_oldest_first(writing: Site, visit: Visits) -> None:
    page = visit(writing)
    ready(page)
    page.evaluate(
        """prefix => {
            const old = {id: "old", title: "Very old", updated: 1, turns: [{question: "x".repeat(1e5)}]};
            localStorage.setItem(`${prefix}old`, JSON.stringify(old));
            let filler = "x".repeat(1 << 20);  // what another page of this address has stored
            for (let n = 0; filler; ) {
                try { localStorage.setItem(`filler${n++}`, filler); }
                catch { filler = filler.slice(filler.length / 2 + 1); }
            }
        }""",
        PREFIX,
    )
    ask(page, "What do ducks eat?")
    expect(page.locator(".tools")).to_be_visible()
    expect(page.locator("#saved-list > li")).to_have_text(["What do ducks eat?"])
    page.reload()
    expect(page.locator(".turn .answer")).to_contain_text("Ducks eat grass")


def test_two_windows_over_one_conversation_keep_both_their_turns(writing: Site, visit: Visits) -> None:
    one = visit(writing)
    ready(one)
    ask(one, "What do ducks eat?")
    expect(one.locator(".tools")).to_be_visible()
    other = visit(writing, context=one.context)
    ready(other)
    ask(other, "What is a black hole?")
    expect(one.locator(".turn .question")).to_have_text(["What do ducks eat?", "What is a black hole?"])
    ask(one, "Where do they sleep?")
    expect(other.locator(".turn .question")).to_have_count(3)
    one.reload()
    expect(one.locator(".turn .question")).to_have_count(3)


def test_a_conversation_deleted_while_it_is_answered_stays_deleted(writing: Site, visit: Visits) -> None:
    writing.script["slow?"] = Reply("Ducks eat " + "very " * 400 + "slowly [1].", pause=0.05)
    page = visit(writing)
    ready(page)
    ask(page, "Is it slow?")
    expect(page.locator(".turn .answer")).to_contain_text("very very")
    page.get_by_role("button", name="Delete the conversation Is it slow?").click()
    page.get_by_role("button", name="Delete", exact=True).click()
    expect(page.get_by_role("button", name="Ask", exact=True)).to_be_visible()
    expect(page.locator("#saved-list > li")).to_have_count(0)
    page.reload()
    ready(page)
    expect(page.locator("#saved-list > li")).to_have_count(0)
