"""What the page has around its filter box, in a real Chromium: builder, facets, saved searches, copying, honest totals.

The contexts are those of the check data, some people, and one whose key, names and values try to break the page. As in
`test_page`, every test also fails on a script error, a violated policy or a request to another origin.
"""

import json
import re

import pytest
from playwright.sync_api import expect

from test_page import (  # noqa: F401
    IMG,
    PEOPLE,
    PRIVATE,
    address,
    box,
    chromium,
    curl_request,
    expect_keys,
    in_address,
    keys,
    script,
    search,
    settle,
    shoot,
    visit,
)
from test_search import CONTEXTS, MATCHES

SEARCH = "**/contexts/search"
REWRITE = """
async (text) => {
  const { readDraft, writeDraft } = await import("/assets/draft.js");
  return writeDraft(readDraft(text));
}
"""
LONG = {
    "kind": "user",
    "key": ('/:%|"+#' * 150)[:1000] + "🎉",
    "name": "مرحبا بالعالم 👩‍👩‍👧",
    "plan": "خطة ذهبية",
    "note": IMG + "x" * 3000,
    "a/b:c|d, (e)": "odd name",
}
ALL = [*CONTEXTS.values(), *PEOPLE, PRIVATE, LONG]


@pytest.fixture(scope="module")
def filled(server):
    server.fill(ALL)
    return server


def builder(page):
    return page.get_by_role("group", name="Filter as rows")


def rows(page):
    """Field, operator and value of each row; a list's values are its chips."""
    found = []
    for row in builder(page).get_by_role("group", name="Condition").all():
        if row.locator(".kept-text code").count():
            found.append(row.locator(".kept-text code").inner_text())
            continue
        chips = row.locator(".chip bdi").all_inner_texts()
        value = row.get_by_label("Value", exact=True)
        operator = row.get_by_label("Operator").input_value()
        found.append((row.get_by_label("Field", exact=True).input_value(), operator, chips or value.input_value()))
    return found


def expect_found(page, server, text):
    expected = server.found(text)
    expect(page.locator(".context-key")).to_have_count(min(len(expected), 20))
    assert len(expected) > 20 or sorted(keys(page)) == sorted(context["key"] for context in expected)


# Builder and text.


@pytest.mark.parametrize("text, letters", MATCHES)
def test_rows_find_what_their_text_finds(filled, script, text, letters):
    """Reading into rows and writing them back changes nothing about what is found, for all check data."""
    rewritten = script.evaluate(REWRITE, text)
    path = f"/v2/{filled.environments[0].path}/contexts/search"
    first, second = (filled.api("POST", path, {"filter": one, "limit": 50}) for one in (text, rewritten))
    assert first.status == second.status
    assert first.json().get("items") == second.json().get("items")


def test_rows_write_the_text(filled, visit, shoot):
    page = visit(filled)
    settle(page)
    builder(page).get_by_role("button", name="Condition").click()
    expect(builder(page).get_by_label("Field", exact=True)).to_be_focused()
    page.keyboard.type("user.pla")
    expect(page.get_by_role("option").filter(has_text="user.plan")).to_have_count(1)
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")
    value = builder(page).get_by_label("Value", exact=True)
    expect(value).to_be_focused()
    page.keyboard.type("gol")
    expect(box(page)).to_have_value("user.plan equals gol")
    expect(page.get_by_role("option").filter(has_text="gold")).to_have_count(1)
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")
    expect(box(page)).to_have_value("user.plan equals gold")
    expect_found(page, filled, "user.plan equals gold")
    builder(page).get_by_label("Operator").select_option("is any of")
    page.keyboard.press("Tab")
    expect(builder(page).get_by_role("button", name="Remove gold")).to_be_focused()
    page.keyboard.press("Tab")
    page.keyboard.type("silver")
    page.keyboard.press("Enter")
    expect(box(page)).to_have_value('user.plan anyOf ["gold", "silver"]')
    builder(page).get_by_role("button", name="Group").click()
    page.keyboard.type("kind")
    group = builder(page).get_by_role("group", name="Group, joined by or")
    group.get_by_label("Value", exact=True).first.fill("user")
    group.get_by_label("Field", exact=True).last.fill("user.seats")
    group.get_by_label("Value", exact=True).last.fill("44")
    page.keyboard.press("Enter")
    written = 'user.plan anyOf ["gold", "silver"], (kind equals user | user.seats equals 44)'
    expect(box(page)).to_have_value(written)
    expect_found(page, filled, written)
    assert in_address(page, "filter") == [written]
    shoot(page, "builder")
    builder(page).get_by_label("Combine conditions by").select_option("or")
    expect(box(page)).to_have_value('user.plan anyOf ["gold", "silver"] | (kind equals user, user.seats equals 44)')
    page.reload()
    expect(builder(page).get_by_label("Combine conditions by")).to_have_value("any")


def test_text_writes_the_rows(filled, visit):
    page = visit(filled)
    settle(page)
    box(page).fill('user.name equals "Johan, Jr", user.seats equals "44"')
    assert rows(page) == [("user.name", "equals", "Johan, Jr"), ("user.seats", "equals", '"44"')]
    deep = "plan equals silver,user.seats equals 3"
    box(page).fill(f"kind equals user,(plan equals gold|({deep}))")
    assert rows(page) == [("kind", "equals", "user"), ("plan", "equals", "gold"), deep]
    expect(builder(page)).to_contain_text("Too deep for rows")
    builder(page).get_by_role("button", name="Remove this condition").first.click()
    expect(box(page)).to_have_value(f"plan equals gold | ({deep})")
    expect_found(page, filled, f"plan equals gold|({deep})")
    search(page, "user.seats equals 3, user.plan is gold")
    expect(builder(page)).to_contain_text("cannot be shown as rows yet: expected an operator")
    expect(page.locator(".fault-place mark")).to_have_text("is")
    expect(builder(page).get_by_role("button", name="Condition")).to_be_disabled()
    box(page).fill("Person")
    expect(builder(page)).to_contain_text("searched as it is")


# Facets.


def facet(page, name, value):
    lists = page.get_by_role("complementary", name="Frequent values").get_by_role("list", name=name, exact=True)
    return lists.get_by_role("button", name=re.compile(rf"^{re.escape(value)}, "))


def test_facets_count_and_narrow(filled, visit):
    page = visit(filled)
    gold = facet(page, "plan", "gold")
    expect(gold).to_have_accessible_name(f"gold, {len(filled.found('plan equals gold'))} contexts")
    expect(page.locator(".facet-scope")).to_have_text("Counts of all contexts here.")
    gold.click()
    expect(box(page)).to_have_value("user.plan equals gold")
    expect(gold).to_have_attribute("aria-pressed", "true")
    expect_found(page, filled, "user.plan equals gold")
    expect(page.locator(".facet-scope")).to_contain_text("Counts of the contexts found; a condition on the attribute itself")
    gold.focus()
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")
    expect(box(page)).to_have_value(re.compile(r'user\.plan anyOf \["gold", "\w+"\]'))
    gold.click()
    expect(box(page)).to_have_value(re.compile(r'user\.plan anyOf \["\w+"\]'))


def test_facet_of_a_list_finds_its_elements(filled, visit):
    """A list equals only a whole list, while its elements are counted."""
    page = visit(filled)
    settle(page)
    page.get_by_role("button", name="Choose facets").click()
    dialog = page.get_by_role("dialog", name="Facets")
    dialog.get_by_label("Find an attribute").fill("groups")
    dialog.get_by_role("checkbox", name="groups").check()
    page.keyboard.press("Escape")
    facet(page, "groups", "ops").click()
    expect(box(page)).to_have_value('user.groups anyOf ["ops"]')
    expect_keys(page, ["u-ana"])
    page.goto("/")
    page.reload()
    expect(facet(page, "groups", "ops")).to_be_visible()


# Saved searches, copying.


def test_searches_are_saved_by_name(filled, visit):
    page = visit(filled, address(filter="kind equals org"))
    expect_keys(page, ["lagoa"])
    page.get_by_role("button", name="Saved").click()
    dialog = page.get_by_role("dialog", name="Saved searches")
    name = dialog.get_by_label("Name of the search")
    expect(name).to_be_focused()
    page.keyboard.press("Enter")
    expect(dialog.get_by_role("status")).to_have_text("Give it a name.")
    page.keyboard.type(IMG)
    page.keyboard.press("Enter")
    expect(dialog.get_by_role("link", name=IMG)).to_have_count(1)
    page.goto("/")
    page.reload()
    expect(page.locator(".context-key")).to_have_count(20)
    page.get_by_role("button", name="Saved").click()
    dialog.get_by_role("link", name=IMG).click()
    expect_keys(page, ["lagoa"])
    assert in_address(page, "filter") == ["kind equals org"]
    page.get_by_role("button", name="Saved").click()
    dialog.get_by_role("button", name="Delete").click()
    expect(dialog.get_by_role("listitem")).to_have_text(["None yet: name the search on the screen to keep it."])


def test_search_is_copied_as_a_call_and_as_a_filter(filled, visit, shoot):
    text = 'user.name equals "Johan, Jr", key notEquals "it\'s"'
    page = visit(filled, address(filter=text, sort="key"), permissions=["clipboard-read", "clipboard-write"])
    expect_keys(page, ["u:jo|1"])
    page.get_by_role("button", name="Copy", exact=True).click()
    dialog = page.get_by_role("dialog", name="Use this search elsewhere")
    shoot(page, "share")
    assert filled.api_token not in dialog.inner_text()
    dialog.get_by_role("button", name="Copy API call").click()
    expect(dialog.get_by_role("status").first).to_have_text("API call copied")
    url, headers, body = curl_request(page.evaluate("navigator.clipboard.readText()"))
    assert headers["Authorization"] == "YOUR_API_TOKEN"
    headers["Authorization"] = filled.api_token
    answer = filled.post(url.removeprefix(filled.url), body, headers)
    assert [item["context"]["key"] for item in answer.json()["items"]] == ["u:jo|1"]
    dialog.get_by_role("button", name="Copy SDK filter").click()
    expect(dialog.get_by_role("status").nth(1)).to_have_text("SDK filter copied")
    assert json.loads(page.evaluate("navigator.clipboard.readText()")) == text


# What an answer is worth.


def change_answers(page, headers=None, **fields):
    """Lays fields and headers over the answers of the search, as a server under other circumstances sends them."""

    def over(route):
        answer = route.fetch()
        route.fulfill(response=answer, headers={**answer.headers, **(headers or {})}, json={**answer.json(), **fields})

    page.route(SEARCH, over)


@pytest.mark.parametrize(
    "fields, headers, total, caution",
    [
        ({"totalCount": 12300}, {}, "1–20 of 12,300", ""),
        ({"totalCount": 12300}, {"X-Tidegate-Index": "partial"}, "1–20 of at least 12,300", "stopped early"),
        ({"totalCount": 12300}, {"X-Tidegate-Index": "rebuilding"}, "1–20 of 12,300", "being rebuilt"),
        ({"totalCount": None}, {}, "1–20 of more than 20", ""),
    ],
)
def test_totals_are_honest(filled, visit, fields, headers, total, caution):
    page = visit(filled, "/assets/app.js")
    change_answers(page, headers, **fields)
    page.goto(address())
    expect(page.locator(".status")).to_have_text(total)
    expect(page.locator(".caution")).to_have_text(re.compile(caution) if caution else "")


def test_indexed_up_to_is_told(filled, visit):
    page = visit(filled, "/assets/app.js")
    state = {"now": 1_772_359_200_000, "index": {"freshnessSeconds": 125.0}}
    page.route("**/api/tidegate/pipeline", lambda route: route.fulfill(json=state))
    page.goto(address())
    clock = page.evaluate("new Date(1772359075000).toTimeString().slice(0, 8)")
    expect(page.locator(".indexed")).to_have_text(f"indexed up to {clock}, 2 min behind")
    page.unroute("**/api/tidegate/pipeline")
    expect(page.locator(".behind")).to_be_empty()
    expect(page.locator(".indexed")).to_have_text(re.compile(r"^indexed up to \d\d:\d\d:\d\d$"))


# Keyboard and hostile text.


def test_arrow_keys_walk_through_the_rows(filled, visit):
    page = visit(filled, address(sort="key"))
    settle(page)
    links = page.locator(".context-key")
    links.first.focus()
    page.keyboard.press("ArrowDown")
    expect(links.nth(1)).to_be_focused()
    page.keyboard.press("End")
    expect(links.last).to_be_focused()
    page.keyboard.press("Home")
    expect(links.first).to_be_focused()
    page.keyboard.press("/")
    expect(box(page)).to_be_focused()


@pytest.mark.parametrize("width", [360, 1280])
def test_long_and_odd_text_keeps_the_layout(filled, visit, shoot, width):
    columns = ["/name", "/plan", "/note", "/a~1b:c|d, (e)"]
    found = address(filter=f"key equals {json.dumps(LONG['key'])}", column=columns)
    page = visit(filled, found, viewport={"width": width, "height": 800})
    settle(page)
    for name in ("Builder", "Facets"):
        button = page.get_by_role("button", name=name, exact=True)
        if button.get_attribute("aria-pressed") == "false":
            button.click()
    expect(facet(page, "plan", LONG["plan"])).to_be_visible()
    assert rows(page) == [("key", "equals", LONG["key"])]
    assert page.locator("tbody tr").bounding_box()["height"] < 400
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), "the page scrolls sideways"
    shoot(page, f"long-{width}")
    page.locator(".context-key").click()
    expect(page.get_by_role("heading", level=1)).to_contain_text(LONG["key"])
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), "the context scrolls sideways"
