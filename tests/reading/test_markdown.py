import time

import pytest

from m3rag.reading.markdown import read_markdown

from .files import check, real_files

SOURCE = """# Guide to **M3** { #guide }

Intro.

```python
# not a heading
```

Second
title
------

~~~~
## nor this
~~~
~~~~

    # code by indentation

### Third `x` [link](https://a.b) ###
#no heading
- item
---
####### seven

Last
==="""


def found(source):
    content = read_markdown(source.encode())
    return content, [(h.level, h.text, content.text[h.start : h.end]) for h in content.headings]


@pytest.mark.parametrize("entry", real_files(".md"))
def test_real_files(entry):
    document = check(entry)
    assert document.headings
    assert document.title
    assert "{ #" not in "".join(h.text for h in document.headings)


def test_headings_of_both_kinds_outside_code():
    content, headings = found(SOURCE)
    assert content.text == SOURCE
    assert headings == [
        (1, "Guide to M3", "# Guide to **M3** { #guide }"),
        (2, "Second title", "Second\ntitle\n------"),
        (3, "Third x link", "### Third `x` [link](https://a.b) ###"),
        (1, "Last", "Last\n==="),
    ]


def test_front_matter_gives_the_title_and_no_heading():
    content, headings = found('---\ntitle: "Body"\ntags: [a]\n---\n\n# Real\n')
    assert content.title == "Body"
    assert [h[1] for h in headings] == ["Real"]


def test_a_rule_at_the_top_is_not_front_matter():
    assert [h[1] for h in found("---\n\n# One\n\n---\n\n# Two\n")[1]] == ["One", "Two"]


def test_an_open_fence_runs_to_the_end():
    assert found("# A\n```\n# B\n")[1] == [(1, "A", "# A")]


def test_comments_go_where_they_are_hidden_and_stay_in_code():
    content, headings = found("a <!-- ignore\n# all --> b `<!-- c -->`\n```\n<!-- d -->\n```\n<!-- open\n")
    assert content.text == "a  b `<!-- c -->`\n```\n<!-- d -->\n```\n<!-- open\n"
    assert not headings


@pytest.mark.parametrize(
    "hostile",
    [
        "<!--" * 250_000,
        "`" * 1_000_000,
        "a\n" * 500_000,
        "[" * 1_000_000,
        "---\na:\n" * 90_000,
        f"---{' ' * 100_000}x\n===\n",
    ],
)
def test_hostile_text_takes_linear_time(hostile):
    begun = time.perf_counter()
    read_markdown(hostile.encode())
    assert time.perf_counter() - begun < 10


@pytest.mark.parametrize("block", ["|", ">-", ">2"])
def test_a_title_may_be_a_block_of_lines(block):
    assert found(f"---\ntitle: {block}\n  The long\n  title\ntags: [a]\n---\n# Real\n")[0].title == "The long title"


@pytest.mark.parametrize(
    ("heading", "expected"),
    [
        ("# a{}x", "a x"),
        ("# a{}x ##", "a x"),
        ("a{}x\n===", "a x"),
        ("# a {{ #b }}{}", "a"),
        ("---\ntitle: a{}x\n---\n# a", "a"),
    ],
)
def test_long_rows_of_blanks_in_a_heading(heading, expected):
    """200,000 blanks would take minutes where each of them is tried as the last one."""
    assert found(heading.format(" " * 200_000))[1][0][1] == expected


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("# a ##", "a"),
        ("#  a # b #\t", "a # b"),
        ("# a#", "a#"),
        ("# #a ## ##", "#a ##"),
        ("# ##", "##"),
        ("# a {.b} #", "a"),
        ("# a {b} {:#c}", "a {b}"),
        ("# a {b {#c}", "a {b"),
        ("# a {#b} c", "a {#b} c"),
    ],
)
def test_what_closes_a_heading_is_not_of_its_text(line, expected):
    assert [h[1] for h in found(line)[1]] == [expected]


@pytest.mark.parametrize(
    "code",
    [
        "1. Add this:\n\n    ```xml\n    <!-- kept -->\n    ```\n",
        "- ~~~\n  <!-- kept -->\n  ~~~\n",
        "> ```\n> <!-- kept -->\n> ```\n",
        "Or:\n\n    <!-- kept -->\n    <a/>\n",
        "a\n\n\t<!-- kept -->\n\n    <!-- kept too -->\n",
    ],
)
def test_comments_in_code_are_text(code):
    assert read_markdown(f"{code}\nend <!-- gone -->".encode()).text == f"{code}\nend "


@pytest.mark.parametrize(
    "hidden", ["> ```\n> a\n\n", "- item\n\n    ", "- ```\n  a\n\nb\n", "text\n    ", "    ", "- a\n\n  b\n\n    "]
)
def test_comments_outside_code_are_none(hidden):
    source = hidden + "<!-- gone -->x" if hidden != "    " else "- a\n    <!-- gone -->x"
    assert "gone" not in read_markdown(source.encode()).text


def test_an_underlined_heading_may_begin_with_emphasis():
    text = "**Overview**\n============\n\n*Em* head\n---\n\n- item\n---\n\n***\n---\n\n* * *\n===\n\n+1 more\n---\n"
    content = read_markdown(text.encode())
    assert [(h.text, h.level) for h in content.headings] == [("Overview", 1), ("*Em* head", 2), ("+1 more", 2)]


@pytest.mark.parametrize("rule", ["---", "* * *", " _ _ _ \t", "***", "- - -\t"])
def test_a_rule_is_no_paragraph(rule):
    assert not found(f"a\n\n{rule}\n===\n")[1]
