"""How the page finds: narrowed suggestions and counts, orders by attributes, best matches, lists of keys, search while typing.

The contexts are those of the check data, some people, and a thousand members of a club. As in `test_page`, every test also fails
on a script error, a violated policy or a request to another origin.
"""

import json
import re

import pytest
from playwright.sync_api import expect

from harness.waiting import wait_until
from test_page import (  # noqa: F401
    PEOPLE,
    address,
    box,
    chromium,
    expect_keys,
    in_address,
    keys,
    options,
    script,
    search,
    settle,
    shoot,
    visit,
)
from test_page_builder import builder, facet
from test_search import CONTEXTS

SEARCH = "**/contexts/search"
MEMBERS = [
    {"kind": "member", "key": f"m-{number:04}", "level": ["iron", "bronze"][number % 2], "points": number}
    for number in range(1000)
]
ODD = [
    {"kind": "user", "key": "o-1", "seats": "many", "name": "anna"},
    {"kind": "user", "key": "o-2", "seats": ["a", "list"], "name": "Anna Lisa"},
    {"kind": "user", "key": "o-3", "name": "Anne"},
]
ALL = [*CONTEXTS.values(), *PEOPLE, *ODD, *MEMBERS]


@pytest.fixture(scope="module")
def filled(server):
    server.fill(ALL)
    return server


def seats(context):
    """Numbers before texts; what has no single value comes last."""
    value = context.get("seats")
    kind = 0 if isinstance(value, int) else 1 if isinstance(value, str) else 2 if isinstance(value, list) else 3
    return (kind, value if kind < 2 else 0, context["kind"], context["key"])


# Look-ups within the filter.


def test_second_row_suggests_what_the_first_leaves(filled, visit):
    page = visit(filled, address(filter="kind equals user, city equals x"))
    settle(page)
    value = builder(page).get_by_label("Value", exact=True).last
    suggested = builder(page).locator(".filter-popup:not([hidden]) .filter-option")
    # Recife is the city of an org alone.
    with page.expect_response("**/context-attributes/*withFilter*"):
        value.fill("Rec")
    expect(suggested).to_have_count(0)
    builder(page).get_by_label("Value", exact=True).first.fill("org")
    value.fill("Reci")
    expect(suggested).to_have_text([re.compile("Recife")])
    page.keyboard.press("Escape")
    box(page).fill("")
    box(page).press_sequentially("plan equals gold, beta equals ")
    gold = [context for context in ALL if context.get("plan") == "gold"]
    expected = {str(context["beta"]).lower() for context in gold if "beta" in context}
    expect(options(page)).to_have_count(len(expected))
    assert {option.split("\n")[0] for option in options(page).all_inner_texts()} == expected


def test_facets_count_what_is_found(filled, visit, shoot):
    page = visit(filled, address(filter="user.seats before 10"))
    few = [context for context in ALL if isinstance(context.get("seats"), int) and context["seats"] <= 10]
    gold = [context for context in few if context.get("plan") == "gold"]
    expect(facet(page, "plan", "gold")).to_have_accessible_name(f"gold, {len(gold)} contexts")
    expect(page.locator(".facet-scope")).to_contain_text("Counts of the contexts found")
    silver = sum(context.get("plan") == "silver" for context in few)
    facet(page, "plan", "gold").click()
    # Its own condition does not count, so that another value can be chosen instead.
    expect(facet(page, "plan", "silver")).to_have_accessible_name(f"silver, {silver} contexts")
    expect(facet(page, "kind", "user")).to_have_accessible_name(f"user, {len(gold)} contexts")
    expect(page.get_by_role("button", name=re.compile("^member, "))).to_have_count(0)
    shoot(page, "facets-narrowed")


def test_counts_that_are_estimates_are_marked(filled, visit):
    page = visit(filled)
    settle(page)

    def estimated(route):
        answer = route.fetch().json()
        for item in answer["items"]:
            for value in item["values"]:
                value["isEstimate"] = True
        route.fulfill(json={**answer, "isPartial": True})

    page.route("**/context-attributes/*withFilter*", estimated)
    search(page, "user.plan exists true")
    expect(facet(page, "plan", "gold")).to_have_accessible_name(re.compile("^gold, ~"))
    expect(page.locator(".facet-scope")).to_contain_text("~ are estimates. There may be more values.")


# Orders.


def test_headings_order_by_attributes(filled, visit, shoot):
    page = visit(filled, address(filter="kind equals user", column=["/seats", "lastSeen"], limit=50))
    users = [context for context in ALL if context["kind"] == "user"]
    heading = page.get_by_role("columnheader", name="seats")
    expect(heading).to_have_attribute("aria-sort", "none")
    heading.get_by_role("button").click()
    up = [context["key"] for context in sorted(users, key=seats)]
    expect_keys(page, up[:50])
    expect(heading).to_have_attribute("aria-sort", "ascending")
    assert in_address(page, "sort") == ["attr:/seats"]
    shoot(page, "sorted")
    heading.get_by_role("button").click()
    expect(heading).to_have_attribute("aria-sort", "descending")
    valued = [context for context in users if isinstance(context.get("seats"), (int, str))]
    shared = [context for context in users if context not in valued]
    down = sorted(valued, key=lambda context: (context["key"]))
    down.sort(key=lambda context: seats(context)[:2], reverse=True)
    expected = [context["key"] for context in [*down, *sorted(shared, key=seats)]]
    expect_keys(page, expected[:50])
    expect(page.get_by_role("combobox", name="Sort")).to_have_value("-attr:/seats")
    page.reload()
    expect_keys(page, expected[:50])
    if len(expected) > 50:
        page.get_by_role("button", name="Next").click()
        expect_keys(page, expected[50:])
    page.get_by_role("combobox", name="Sort").select_option("Newest first")
    expect(page.get_by_role("columnheader", name="Last seen")).to_have_attribute("aria-sort", "descending")
    assert in_address(page, "sort") == []


def test_phone_orders_by_the_same_attributes(filled, visit, shoot):
    page = visit(filled, address(filter="kind equals user", column="/seats"), viewport={"width": 390, "height": 780})
    settle(page)
    page.get_by_role("combobox", name="Sort").select_option("seats, ascending")
    users = sorted((context for context in ALL if context["kind"] == "user"), key=seats)
    expect_keys(page, [context["key"] for context in users[:20]])
    shoot(page, "sorted-phone")


def test_text_has_its_best_matches_first(filled, visit):
    page = visit(filled)
    search(page, "anna")
    # Ana is as near as Anne.
    expect_keys(page, ["o-1", "o-2", "o-3", "u-ana"])
    expect(page.get_by_role("combobox", name="Sort")).to_have_value("key")
    page.get_by_role("combobox", name="Sort").select_option("Newest first")
    assert in_address(page, "sort") == ["-ts"]
    page.get_by_role("combobox", name="Sort").select_option("Best match")
    assert in_address(page, "sort") == []


# Lists of keys.


def key_dialog(page):
    return page.get_by_role("dialog", name="Look up a list of keys")


def paste(page, text):
    """Into the field of the keys, in the place of what is there."""
    page.get_by_label("Keys, one a line").evaluate(
        """(area, text) => {
          const clipboardData = new DataTransfer();
          clipboardData.setData("text/plain", text);
          area.select();
          area.dispatchEvent(new ClipboardEvent("paste", { clipboardData, bubbles: true, cancelable: true }));
        }""",
        text,
    )


def test_short_list_of_keys_is_in_the_address(filled, visit, shoot):
    page = visit(filled)
    settle(page)
    page.get_by_role("button", name="Keys").focus()
    page.keyboard.press("Enter")
    expect(key_dialog(page)).to_be_visible()
    page.keyboard.insert_text("u-ana\nnobody\n u-ana \nlagoa\tu:jo|1\nhe, too\n")
    expect(key_dialog(page)).to_contain_text("5 distinct keys, 1 more are repeated")
    shoot(page, "keys")
    page.keyboard.press("Control+Enter")
    expect(key_dialog(page)).to_be_hidden()
    expect(page.locator(".context-key")).to_have_count(3)
    assert sorted(keys(page)) == ["lagoa", "u-ana", "u:jo|1"]
    expect(page.locator(".keys-line")).to_contain_text("Only the 5 keys of a list, 2 of them are not there")
    assert in_address(page, "key") == ["u-ana", "nobody", "lagoa", "u:jo|1", "he, too"]
    page.get_by_role("button", name="Show the list").click()
    expect(key_dialog(page)).to_contain_text("Not there: 2 keys")
    expect(key_dialog(page).locator("pre")).to_have_text("nobody\nhe, too")
    shoot(page, "keys-absent")
    page.keyboard.press("Escape")
    copied = page.url
    other = visit(filled, copied)
    expect(other.locator(".context-key")).to_have_count(3)
    search(page, "kind equals org")
    expect_keys(page, ["lagoa"])
    page.get_by_role("button", name="Search without the list of keys").click()
    expect(page.locator(".keys-line")).to_be_hidden()
    expect_keys(page, ["lagoa"])
    assert in_address(page, "key") == []


def test_long_list_of_keys_stays_in_its_tab(filled, visit, shoot):
    page = visit(filled)
    settle(page)
    pasted = [f"m-{number:04}" for number in range(500)] + [f"gone-{number}" for number in range(9500)]
    page.get_by_role("button", name="Keys").click()
    paste(page, "\n".join([*pasted, "one more"]))
    expect(key_dialog(page)).to_contain_text("10,001 distinct keys: at most 10,000 can be looked up at once")
    expect(key_dialog(page).get_by_role("button", name="Search")).to_be_disabled()
    paste(page, "\n".join(pasted))
    key_dialog(page).get_by_role("button", name="Search").click()
    expect(page.get_by_role("status").filter(has_text="of 500")).to_be_visible()
    expect(page.locator(".keys-line")).to_contain_text("Only the 10,000 keys of a list, 9,500 of them are not there")
    assert in_address(page, "key") == [] and in_address(page, "keys")[0].startswith("10000-")
    assert len(page.url) < 300
    page.get_by_role("button", name="Next").click()
    expect(page.locator(".pager")).to_contain_text("Page 2")
    page.reload()
    expect(page.get_by_role("status").filter(has_text="of 500")).to_be_visible()
    page.get_by_role("button", name="Copy").click()
    expect(page.get_by_role("dialog", name="Use this search elsewhere")).to_contain_text("too long for an address")
    page.keyboard.press("Escape")
    # Another browser knows nothing of the list.
    other = visit(filled, page.url)
    expect(other.get_by_role("heading", name="This search had a list of keys")).to_be_visible()
    expect(other.locator(".results-area")).to_contain_text("An address cannot hold 10,000 keys")
    shoot(other, "keys-unknown")
    other.get_by_role("button", name="Paste the list").click()
    other.get_by_label("Keys, one a line").fill("m-0001")
    other.keyboard.press("Control+Enter")
    expect_keys(other, ["m-0001"])


# Searching while typing.


class Held:
    """Holds back the answers of searches, and tells what was asked and what was given up."""

    def __init__(self, page):
        self.asked, self.given_up, self.routes = [], [], {}
        page.route(SEARCH, self.hold)
        page.on("requestfailed", self.failed)

    def hold(self, route):
        filter = json.loads(route.request.post_data)["filter"]
        self.asked.append(filter)
        self.routes[filter] = route

    def failed(self, request):
        if request.url.endswith("/contexts/search"):
            self.given_up.append(json.loads(request.post_data)["filter"])


def test_typing_searches_and_gives_up_what_is_older(filled, visit):
    page = visit(filled)
    settle(page)
    held = Held(page)
    box(page).press_sequentially("ann")
    wait_until(lambda: page.evaluate("1") and held.asked[-1:] == ['q equals "ann"'], what="the first search")
    box(page).press_sequentially("e")
    wait_until(lambda: page.evaluate("1") and held.asked[-1] == 'q equals "anne"', what="the second search")
    wait_until(lambda: page.evaluate("1") and held.given_up == held.asked[:-1], what="the older ones to be given up")
    held.routes['q equals "anne"'].continue_()
    expect(page.locator(".context-key").first).to_have_text("o-3")
    expect(box(page)).to_be_focused()
    assert in_address(page, "filter") == ["anne"]
    page.unroute(SEARCH)
    # What was typed in one go is one step back.
    page.go_back()
    expect(box(page)).to_have_value("")


def test_fast_typing_asks_once(filled, visit):
    page = visit(filled)
    settle(page)
    asked = []
    page.on("request", lambda request: asked.append(request.url) if request.url.endswith("/contexts/search") else None)
    box(page).press_sequentially("m-0007")
    expect(page.locator(".context-key").first).to_have_text("m-0007")
    assert len(asked) < 6, "not for each letter"


def test_half_a_filter_is_not_searched_for(filled, visit):
    page = visit(filled)
    settle(page)
    asked = []
    page.on("request", lambda request: asked.append(json.loads(request.post_data)["filter"]) if request.url.endswith("/contexts/search") else None)
    box(page).press_sequentially("member.level equals iron, kind equals member", delay=40)
    expect(page.get_by_role("status").filter(has_text="of 500")).to_be_visible()
    assert all(filter.startswith("member.level equals ") for filter in asked), asked
    # A mistake is told when the person is done, not before.
    box(page).press_sequentially(", key before 5")
    expect(options(page)).to_have_count(0)
    wait_until(lambda: page.evaluate("1") and asked[-1].endswith("before 5"), what="the faulty search")
    settle(page)
    expect(page.locator("#filter-error .fault-message")).to_have_count(0)
    expect(page.locator(".context-key").first).to_be_visible()
    box(page).press("Enter")
    expect(page.locator("#filter-error .fault-message")).to_be_visible()
