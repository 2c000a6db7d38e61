"""What the page shows when something behind it fails: a revoked token, an unknown place, 503, no answer, a stage that is off.

Answers that a healthy server does not give are put in its place on the way to the browser; stages that are off are off in a
real server. As in `test_page`, every test also fails on a script error or a request to another origin.
"""

import json

import pytest
from playwright.sync_api import expect

from harness import payloads
from harness.waiting import wait_equal, wait_until
from test_page import address, box, chromium, options, search, settle, visit  # noqa: F401

FAULT = {"code": "service_unavailable", "message": "the shards are being opened", "id": "0f5e-17"}
PERSON = {"kind": "user", "key": "u-page", "name": "Page", "plan": "gold"}
SEARCH = "**/contexts/search"


@pytest.fixture(scope="module")
def filled(server):
    assert server.bulk([payloads.identify(PERSON)], payloads.payload_id()).status == 202
    wait_equal(lambda: [context["key"] for context in server.found()], [PERSON["key"]])
    return server


def answer_with(page, pattern, status, body=FAULT):
    """From now on requests that match are answered in the server's place, until `page.unroute(pattern)`."""
    text = body if isinstance(body, str) else json.dumps(body)
    page.route(pattern, lambda route: route.fulfill(status=status, content_type="application/json", body=text))


def try_again(page, pattern):
    """The server has recovered, and the person asks once more."""
    page.unroute(pattern)
    page.get_by_role("button", name="Try again").click()


def failed(page, title, text):
    expect(page.get_by_role("heading", name=title)).to_be_visible()
    expect(page.get_by_role("main")).to_contain_text(text)


def test_search_that_fails_can_be_tried_again(filled, visit):
    page = visit(filled)
    settle(page)
    answer_with(page, SEARCH, 503)
    search(page, "plan equals gold")
    failed(page, "The search failed", FAULT["message"])
    expect(page.get_by_role("main")).to_contain_text(FAULT["id"])
    try_again(page, SEARCH)
    expect(page.locator(".context-key")).to_have_text([PERSON["key"]])


@pytest.mark.parametrize("body", ["", "<html>Bad gateway</html>"], ids=["empty", "of a proxy"])
def test_answer_without_an_explanation(filled, visit, body):
    page = visit(filled)
    settle(page)
    answer_with(page, SEARCH, 502, body)
    search(page, "plan equals gold")
    failed(page, "The search failed", "answered 502 without an explanation")
    assert page.get_by_text("Bad gateway").count() == 0


def test_success_that_cannot_be_read_is_a_failure(filled, visit):
    page = visit(filled)
    settle(page)
    answer_with(page, SEARCH, 200, "[")
    search(page, "plan equals gold")
    failed(page, "The search failed", "answered 200 without an explanation")


def test_unknown_environment_says_so(filled, visit):
    page = visit(filled, address(environment="default/gone"))
    failed(page, "This environment is not known here", "")
    page.get_by_role("combobox", name="Environment").select_option("default / dev")
    expect(page.locator(".context-key")).to_have_text([PERSON["key"]])


def test_token_that_is_revoked_meanwhile_is_asked_for_again(filled, visit):
    """The search waits for the new token and then goes on by itself."""
    page = visit(filled)
    settle(page)
    revoked = [True]

    def refuse(route):
        if revoked[0]:
            route.fulfill(status=401, content_type="application/json", body=json.dumps({**FAULT, "code": "unauthorized"}))
        else:
            route.continue_()

    search(page, "plan equals silver")
    page.route("**/api/**", refuse)
    # Not typed anew: that would ask for suggestions, and the dialog would take the Enter meant for the filter.
    page.evaluate("location.hash = location.hash.replace('silver', 'gold')")
    dialog = page.get_by_role("dialog", name="API token")
    expect(dialog.get_by_role("alert")).to_contain_text("does not know this token")
    revoked[0] = False
    dialog.get_by_label("API token").fill(filled.reader_token)
    dialog.get_by_role("button", name="Continue").click()
    expect(dialog).to_be_hidden()
    expect(page.locator(".context-key")).to_have_text([PERSON["key"]])


def test_start_without_an_answer_can_be_tried_again(filled, visit):
    page = visit(filled, "/assets/app.js")
    answer_with(page, "**/api/tidegate/environments", 503)
    page.goto("/")
    failed(page, "The environments could not be read", FAULT["message"])
    try_again(page, "**/api/tidegate/environments")
    expect(page.locator(".context-key")).to_have_text([PERSON["key"]])


def test_typing_goes_on_without_suggestions(filled, visit):
    page = visit(filled)
    settle(page)
    asked = []
    page.on("response", lambda response: "context-attributes" in response.url and asked.append(response.status))
    answer_with(page, "**/context-attributes**", 503)
    box(page).press_sequentially("pla")
    wait_until(lambda: page.evaluate("1") and 503 in asked, what="a look-up that fails")
    box(page).press_sequentially("n equals gold")
    expect(options(page).filter(has_text="user.plan")).to_have_count(0)
    box(page).press("Escape")
    box(page).press("Enter")
    expect(page.locator(".context-key")).to_have_text([PERSON["key"]])


def test_columns_that_cannot_be_listed_say_why(filled, visit):
    page = visit(filled, "/assets/app.js")
    answer_with(page, "**/context-attributes**", 503)
    page.goto("/")
    settle(page)
    page.get_by_role("button", name="Columns").click()
    expect(page.get_by_role("dialog", name="Columns")).to_contain_text(FAULT["message"])


def test_context_that_cannot_be_read_can_be_tried_again(filled, visit):
    page = visit(filled)
    settle(page)
    answer_with(page, "**/contexts/user/*", 503)
    page.get_by_role("link", name=PERSON["key"]).click()
    failed(page, "The context could not be read", FAULT["message"])
    try_again(page, "**/contexts/user/*")
    expect(page.get_by_role("row", name="plan")).to_contain_text("gold")


def test_evaluations_that_cannot_be_read_leave_the_context_shown(filled, visit):
    page = visit(filled, "/assets/app.js")
    answer_with(page, "**/evaluations**", 503)
    page.goto(f"/#/default/dev/contexts/user/{PERSON['key']}")
    expect(page.get_by_role("row", name="plan")).to_contain_text("gold")
    expect(page.locator(".evaluations")).to_have_text(f"They could not be read: {FAULT['message']}")
    page.unroute("**/evaluations**")
    page.get_by_role("button", name="Read the evaluations again").click()
    expect(page.locator(".evaluations")).not_to_contain_text("could not be read")


def test_pipeline_recovers_by_itself(filled, visit):
    page = visit(filled, "/assets/app.js")
    answer_with(page, "**/api/tidegate/pipeline", 503)
    page.goto(address("pipeline"))
    status = page.locator(".pipeline-view").get_by_role("status").first
    expect(status).to_have_text(FAULT["message"])
    page.unroute("**/api/tidegate/pipeline")
    expect(status).to_contain_text("version")


def test_dead_letters_that_cannot_be_read_say_why(filled, visit):
    page = visit(filled, "/assets/app.js")
    answer_with(page, "**/api/tidegate/dead-letters**", 503)
    page.goto(address("pipeline"))
    expect(page.get_by_role("main")).to_contain_text(f"They could not be read: {FAULT['message']}")


def test_keys_that_cannot_be_read_say_why(filled, visit):
    page = visit(filled, "/assets/app.js")
    answer_with(page, "**/api/tidegate/setup", 503)
    page.goto(address("connect"))
    expect(page.get_by_role("main")).to_contain_text(FAULT["message"])


# Stages that are off.


def stage(page, name):
    return page.locator(".stage").filter(has=page.get_by_role("heading", name=name))


def test_page_without_an_index(serve, visit):
    """The search says what is off; the rest of the page works."""
    server = serve(settings={"indexer": {"enabled": False}})
    page = visit(server)
    failed(page, "The search failed", "switched off")
    page.goto("/#/default/dev/contexts/user/anybody")
    failed(page, "The context could not be read", "switched off")
    page.goto(address("pipeline"))
    expect(stage(page, "Context index").get_by_role("heading")).to_have_text("Context index, not running")
    expect(stage(page, "Table").get_by_role("heading")).to_have_text("Table, up to date")
    page.goto(address("connect"))
    expect(page.get_by_text(server.sdk_key).first).to_be_visible()


def test_page_without_tables(serve, visit):
    """Contexts are found; evaluations and dead letters are none, as nothing lands them."""
    server = serve(settings={"compactor": {"enabled": False}})
    assert server.bulk([payloads.identify(PERSON)], payloads.payload_id()).status == 202
    wait_until(lambda: server.found(), what="the context in the index")
    page = visit(server)
    page.get_by_role("link", name=PERSON["key"]).click()
    expect(page.get_by_role("row", name="plan")).to_contain_text("gold")
    expect(page.locator(".evaluations")).to_have_attribute("aria-busy", "false")
    expect(page.locator(".evaluations")).not_to_contain_text("could not be read")
    page.goto(address("pipeline"))
    expect(stage(page, "Table").get_by_role("heading")).to_have_text("Table, not running")
    expect(stage(page, "Context index").get_by_role("heading")).to_have_text("Context index, up to date")
    expect(page.get_by_role("region", name="Dead letters").or_(page.get_by_text("None. Everything")).first).to_be_visible()
