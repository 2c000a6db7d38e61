"""The page in a real Chromium: type, complete, filter, page, open, reload; by keyboard, in both colours, on a phone.

The contexts arrive as events on `/bulk`, some with text that would run if it ever became markup. Every test also fails when a
request leaves the origin, the Content-Security-Policy is violated or a script error shows (`harness.browser.Watch`).
Screenshots are kept below pytest's base temporary folder (`pytest --basetemp`), in `screenshots`.
"""

import json
import re
import shlex
import urllib.parse

import pytest
from playwright.sync_api import expect

from harness import payloads
from harness.browser import Chromium
from harness.config import OTHER
from harness.waiting import wait_until
from test_search import CONTEXTS, FAULTS, MATCHES

expect.set_options(timeout=15_000)

POLICY = {
    "default-src 'none'",
    "script-src 'self'",
    "style-src 'self'",
    "img-src 'self' data:",
    "connect-src 'self'",
    "base-uri 'none'",
    "form-action 'none'",
    "frame-ancestors 'none'",
}

IMG = '<img src=x onerror="window.hacked=1">'
HOSTILE = {
    "kind": "user",
    "key": f"{IMG}/../%2F?#&",
    "name": IMG,
    "bio": "</td><script>window.hacked=1</script>",
    "plan": '"><svg onload=window.hacked=1>',
    "link": "javascript:window.hacked=1",
    f"{IMG}": "a name of an attribute",
    "__proto__": {"hacked": 1},
}

PLANS = ["gold", "silver", "free"]
PEOPLE = [
    {"kind": "user", "key": f"p-{number:02}", "name": f"Person {number:02}", "plan": PLANS[number % 3], "seats": number}
    for number in range(44)
]
PRIVATE = {"kind": "user", "key": "u-private", "name": "Priva Cy", "_meta": {"redactedAttributes": ["/email"]}}
ALL = [*CONTEXTS.values(), *PEOPLE, PRIVATE, HOSTILE]


@pytest.fixture(scope="module")
def chromium():
    with Chromium() as browser:
        yield browser


@pytest.fixture(scope="module")
def filled(server):
    server.fill(ALL)
    return server


@pytest.fixture
def visit(chromium, request):
    """Opens an address on a server, signed in; all pages are checked and closed at the end."""
    opened = []

    def open_page(server, address="/", token=None, signed_in=True, **options):
        page, watch = chromium.open(server, token or (server.api_token if signed_in else None), **options)
        opened.append((page, watch))
        page.goto(address)
        return page

    yield open_page
    for page, watch in opened:
        watch.check()
        page.context.close()


@pytest.fixture(scope="module")
def script(chromium, server):
    """A page whose modules can be called."""
    page, watch = chromium.open(server, server.api_token)
    page.goto("/")
    yield page
    watch.check()
    page.context.close()


@pytest.fixture
def shoot(tmp_path_factory):
    folder = tmp_path_factory.getbasetemp() / "screenshots"
    folder.mkdir(exist_ok=True)
    return lambda page, name: page.screenshot(path=str(folder / f"{name}.png"), full_page=True)


def address(view="contexts", environment="default/dev", **parameters):
    query = urllib.parse.urlencode(parameters, doseq=True)
    return f"/#/{environment}/{view}" + (f"?{query}" if query else "")


def in_address(page, name):
    """Values of a parameter of the search state in the address."""
    return urllib.parse.parse_qs(page.url.partition("#")[2].partition("?")[2]).get(name, [])


def box(page):
    return page.get_by_role("combobox", name="Filter contexts")


def options(page):
    return page.get_by_role("listbox", name="Suggestions").get_by_role("option")


def settle(page):
    expect(page.locator(".results-area")).to_have_attribute("aria-busy", "false")


def search(page, text):
    box(page).fill(text)
    box(page).press("Enter")
    settle(page)


def keys(page):
    """Keys of the contexts in the table, from top to bottom."""
    settle(page)
    return page.locator(".context-key").all_inner_texts()


def expect_keys(page, expected):
    expect(page.locator(".context-key")).to_have_text(expected)


# What the server delivers.


def test_policy_and_types_of_the_page(server):
    page = server.get("/")
    assert page.status == 200 and page.headers["content-type"].startswith("text/html")
    assert {part.strip() for part in page.headers["content-security-policy"].split(";") if part.strip()} == POLICY
    assert page.headers["x-content-type-options"] == "nosniff"
    assert not re.search(rb"<style|\sstyle=|\son[a-z]+=|<script(?![^>]* src=)", page.body)
    for name in re.findall(rb'(?:src|href)="(/assets/[^"]+)"', page.body):
        answer = server.get(name.decode())
        kind = "text/css" if name.endswith(b".css") else "text/javascript"
        assert answer.status == 200 and answer.headers["content-type"].startswith(kind), name
    assert server.get("/assets/nothing.js").status == 404
    assert server.get("/assets/../Cargo.toml").status == 404


# The token.


def test_token_is_asked_once(filled, visit, shoot):
    page = visit(filled, signed_in=False)
    dialog = page.get_by_role("dialog", name="API token")
    token = dialog.get_by_label("API token")
    expect(token).to_be_focused()
    shoot(page, "token")
    token.fill(filled.sdk_key)
    token.press("Enter")
    expect(dialog.get_by_role("alert")).to_contain_text("does not know this token")
    token.fill(filled.api_token)
    token.press("Enter")
    expect(dialog).to_be_hidden()
    expect(page.locator(".context-key")).to_have_count(20)
    page.reload()
    expect(page.locator(".context-key")).to_have_count(20)
    expect(dialog).to_be_hidden()
    page.get_by_role("button", name="Forget the API token").click()
    expect(dialog).to_be_visible()


def test_token_that_is_refused_later_is_asked_for_again(filled, visit):
    page = visit(filled, token="api-that-was-revoked")
    dialog = page.get_by_role("dialog", name="API token")
    expect(dialog.get_by_role("alert")).to_contain_text("does not know this token")
    dialog.get_by_label("API token").fill(filled.reader_token)
    dialog.get_by_role("button", name="Continue").click()
    expect(page.locator(".context-key")).to_have_count(20)


# Typing a filter.


def test_type_and_complete_a_filter(filled, visit, shoot):
    page = visit(filled)
    settle(page)
    box(page).press_sequentially("pla")
    expect(box(page)).to_have_attribute("aria-expanded", "true")
    expect(options(page).filter(has_text="user.plan")).to_have_count(1)
    shoot(page, "complete-name")
    box(page).press("ArrowDown")
    chosen = page.locator("[role=option][aria-selected=true]")
    expect(chosen).to_have_count(1)
    assert box(page).get_attribute("aria-activedescendant") == chosen.get_attribute("id")
    box(page).press("Enter")
    expect(box(page)).to_have_value("user.plan ")
    expect(options(page)).to_contain_text(["equals", "notEquals", "anyOf"])
    box(page).press_sequentially("eq")
    box(page).press("Tab")
    expect(box(page)).to_have_value("user.plan equals ")
    expect(options(page).filter(has_text="gold")).to_have_count(1)
    shoot(page, "complete-value")
    box(page).press_sequentially("go")
    expect(options(page)).to_have_count(1)
    box(page).press("Tab")
    expect(box(page)).to_have_value("user.plan equals gold ")
    expect(box(page)).to_have_attribute("aria-expanded", "false")
    box(page).press("Enter")
    expect(page.get_by_role("status").filter(has_text=" contexts")).to_have_text(
        f"{len(filled.found('user.plan equals gold'))} contexts"
    )
    assert sorted(keys(page)) == sorted(context["key"] for context in filled.found("user.plan equals gold"))
    assert in_address(page, "filter") == ["user.plan equals gold "]


def test_complete_lists_nested_names_and_joints(filled, visit):
    page = visit(filled)
    box(page).press_sequentially("city")
    options(page).filter(has_text="user./address/city").click()
    options(page).filter(has_text="anyOf").click()
    options(page).filter(has_text="Recife").click()
    expect(box(page)).to_have_value('user./address/city anyOf ["Recife"] ')
    box(page).press("End")
    box(page).press("Control+Space")
    options(page).filter(has_text="and").first.click()
    expect(box(page)).to_have_value('user./address/city anyOf ["Recife"] , ')
    box(page).press_sequentially("kind equals ")
    expect(options(page)).to_have_text(["device", "org", "user"])
    box(page).press("Escape")
    expect(options(page)).to_have_count(0)


def test_late_suggestions_never_replace_newer_ones(filled, visit):
    page = visit(filled)
    settle(page)

    def held(route):
        if "startsWith+%22%2Fp%22" in route.request.url or "startsWith%20%22%2Fp%22" in route.request.url:
            held.routes.append(route)
        else:
            route.continue_()

    held.routes = []
    page.route("**/context-attributes?*", held)
    box(page).press_sequentially("p")
    wait_until(lambda: page.evaluate("1") and held.routes, what="the first look-up")
    box(page).press_sequentially("lan")
    expect(options(page).filter(has_text="user.plan")).to_have_count(1)
    for route in held.routes:
        route.abort()
    expect(options(page).filter(has_text="user.plan")).to_have_count(1)
    assert all("lan" in text for text in options(page).all_inner_texts())


def test_free_text_is_searched_as_text(filled, visit):
    page = visit(filled)
    search(page, "u-ana")
    expect_keys(page, ["u-ana"])
    expect(page.locator("#filter-help")).to_contain_text("Not a filter")
    search(page, "Priva")
    expect_keys(page, ["u-private"])


def test_fault_is_shown_at_its_place(filled, visit, shoot):
    page = visit(filled)
    text = 'user.name equals "Zoë", user.plan is gold'
    search(page, text)
    expect(page.get_by_role("alert")).to_contain_text("filter")
    expect(page.locator(".fault-place mark")).to_have_text("is")
    expect(page.locator(".filter-paint .token-fault")).to_have_text("is")
    expect(box(page)).to_have_attribute("aria-invalid", "true")
    assert box(page).evaluate("node => node.selectionStart") == text.index("is gold")
    shoot(page, "fault")
    box(page).press_sequentially("x")
    expect(page.get_by_role("alert")).to_be_empty()
    search(page, "user.plan equals free")
    assert len(keys(page)) == len(filled.found("user.plan equals free"))


def scan(page, text):
    """Whether the page's own reading of a filter finds a fault."""
    return page.evaluate("async (text) => (await import('/assets/filter.js')).scan(text).error", text)


def test_page_and_server_agree_on_what_a_filter_is(filled, visit):
    page = visit(filled)
    right = [text for text, _ in MATCHES]
    assert [text for text in right if scan(page, text) is not None] == []
    # Whether an operator fits its field is for the server alone to say.
    typed = [text for text in FAULTS if scan(page, text) is None]
    assert typed == [
        'kind before "2026-01-01T00:00:00Z"',
        "user.joined after tomorrow",
        'q startsWith "a"',
        'user.email exists "yes"',
    ]


# The text up to the caret, what is being typed there, and the part of it that a completion replaces.
SLOTS = [
    ("", "field", ""),
    ("user.pl", "field", "user.pl"),
    ('"user.job t', "field", '"user.job t'),
    ("kind equals user,na", "field", "na"),
    ("(kind equals user | na", "field", "na"),
    ("plan ", "operator", ""),
    ("plan eq", "operator", "eq"),
    ("plan equals ", "value", ""),
    ("plan equals go", "value", "go"),
    ('plan equals "New Y', "value", '"New Y'),
    ("plan anyOf [", "value", ""),
    ('plan anyOf ["gold", "sil', "value", '"sil'),
    ("plan equals gold ", "joint", ""),
    ("(plan equals gold ", "joint", ""),
    ('plan equals "gold"', None, None),
    ('kind:"us', "value", '"us'),
    ('kind:{"eq', None, None),
    ("plan is gold", None, None),
]


@pytest.mark.parametrize("text, slot, replaced", SLOTS)
def test_slot_at_the_caret(script, text, slot, replaced):
    found = script.evaluate("async (text) => (await import('/assets/filter.js')).slotAt(text, text.length)", text)
    assert (found["slot"], text[found["start"] : found["end"]]) == (slot, replaced) if found else slot is None


# Results.


def test_paging_shows_each_context_once(filled, visit):
    page = visit(filled, address(sort="key"))
    everyone = [context["key"] for context in filled.found()]
    expect_keys(page, everyone[:20])
    expect(page.get_by_text(f"1–20 of {len(everyone)}")).to_be_visible()
    page.get_by_role("button", name="Next").click()
    expect_keys(page, everyone[20:40])
    expect(page.get_by_text(f"21–40 of {len(everyone)}")).to_be_visible()
    page.get_by_role("button", name="Next").click()
    expect_keys(page, everyone[40:])
    expect(page.get_by_role("button", name="Next")).to_have_attribute("aria-disabled", "true")
    page.get_by_role("button", name="Previous").click()
    expect_keys(page, everyone[20:40])
    page.reload()
    expect_keys(page, everyone[20:40])
    page.get_by_role("button", name="Previous").click()
    expect_keys(page, everyone[:20])
    page.go_back()
    expect_keys(page, everyone[20:40])


def test_link_to_a_later_page_leads_back_to_the_first(filled, visit):
    page = visit(filled, address(sort="key"))
    settle(page)
    page.get_by_role("button", name="Next").click()
    expect(page.get_by_text("Page 2")).to_be_visible()
    other = visit(filled, page.url)
    expect(other.get_by_text("Page 2")).to_be_visible()
    assert keys(other) == keys(page)
    other.get_by_role("button", name="First page").click()
    expect_keys(other, [context["key"] for context in filled.found()[:20]])
    other.goto(address(sort="key", page=2, after="damaged"))
    other.get_by_role("button", name="Go to the first page").click()
    expect_keys(other, [context["key"] for context in filled.found()[:20]])


def test_sort_and_columns_are_kept_in_the_address(filled, visit, shoot):
    page = visit(filled, address(filter='key startsWith "p-"'))
    settle(page)
    page.get_by_role("combobox", name="Sort").select_option("Kind, then key")
    expect(page.locator(".context-key").first).to_have_text("p-00")
    page.get_by_role("button", name="Columns").click()
    dialog = page.get_by_role("dialog", name="Columns")
    dialog.get_by_label("Find an attribute").fill("pla")
    dialog.get_by_role("checkbox", name="plan").check()
    dialog.get_by_role("button", name="Move up plan").click()
    shoot(page, "columns")
    page.keyboard.press("Escape")
    headings = ["Context", "name", "plan", "Last seen"]
    expect(page.get_by_role("columnheader")).to_have_text(headings)
    assert in_address(page, "column") == ["/name", "/plan", "lastSeen"] and in_address(page, "sort") == ["key"]
    page.reload()
    expect(page.get_by_role("columnheader")).to_have_text(headings)
    expect(page.locator(".context-key").first).to_have_text("p-00")
    # They are also remembered for the next visit, and a copied link shows them to someone else.
    copied = page.url
    page.goto("/")
    expect(page.get_by_role("columnheader")).to_have_text(headings)
    assert in_address(page, "column") == ["/name", "/plan", "lastSeen"]
    expect(visit(filled, copied).get_by_role("columnheader")).to_have_text(headings)
    page.goto(address(filter="kind equals org"))
    expect_keys(page, ["lagoa"])
    expect(page.get_by_role("columnheader")).to_have_text(headings)


def test_back_and_forward_walk_through_searches(filled, visit):
    page = visit(filled)
    settle(page)
    search(page, "kind equals org")
    expect_keys(page, ["lagoa"])
    search(page, "kind equals device")
    expect_keys(page, ["d-1"])
    page.go_back()
    expect_keys(page, ["lagoa"])
    expect(box(page)).to_have_value("kind equals org")
    page.go_forward()
    expect_keys(page, ["d-1"])
    expect(box(page)).to_have_value("kind equals device")


def test_filter_without_a_match_says_so(filled, visit):
    page = visit(filled, address(filter="kind equals nothing"))
    expect(page.get_by_role("heading", name="No context matches")).to_be_visible()
    page.get_by_role("button", name="Clear the filter").last.click()
    expect(page.locator(".context-key")).to_have_count(20)


# One context.


def test_open_a_context(filled, visit, shoot):
    person = {
        "kind": "user",
        "key": payloads.unique("opened"),
        "name": "Opened",
        "address": {"city": "Oslo"},
        "groups": ["qa", "44"],
        "_meta": {"redactedAttributes": ["/email"]},
    }
    events = [payloads.identify(person)]
    events += [
        payloads.feature("checkout", person, value=True, variation=1, version=7, reason={"kind": "RULE_MATCH"}),
        payloads.custom("bought", person),
    ]
    assert filled.bulk(events, payloads.payload_id()).status == 202
    wait_until(lambda: filled.found(f'key equals "{person["key"]}"'), what="the context in the index")
    page = visit(filled, address(filter="kind equals user"))
    page.get_by_role("link", name=person["key"]).click()
    expect(page.get_by_role("heading", level=1)).to_be_focused()
    expect(page.get_by_role("row", name="/address/city")).to_contain_text("Oslo")
    expect(page.get_by_role("row", name="groups")).to_contain_text('"44"')
    expect(page.get_by_role("listitem").filter(has_text="email")).to_contain_text("private")
    history = page.get_by_role("region", name="Recent evaluations")
    again = page.get_by_role("button", name="Read the evaluations again")

    def listed():
        again.click()
        expect(page.locator(".evaluations")).to_have_attribute("aria-busy", "false")
        return history.is_visible() and {"checkout", "bought"} <= set(
            history.get_by_role("rowheader").locator("bdi").all_inner_texts()
        )

    wait_until(listed, what="the evaluations in the table")
    checkout = history.get_by_role("row").filter(has_text="checkout")
    expect(checkout.first).to_contain_text("rule match")
    expect(checkout.first).to_contain_text("version 7")
    shoot(page, "context")
    page.get_by_role("link", name="Find contexts with the same /address/city").click()
    expect_keys(page, [person["key"]])
    page.go_back()
    page.get_by_role("main").get_by_role("link", name="Contexts", exact=True).click()
    expect(page.get_by_role("link", name=person["key"])).to_be_focused()
    assert in_address(page, "filter") == ["kind equals user"]


def test_site_link_of_the_search_api_opens_the_context(filled, visit):
    found = filled.search(filter='key equals "u:jo|1"')["items"][0]
    site = found.get("_links", {}).get("site", {}).get("href", "/default/dev/contexts/user/u%3Ajo%7C1")
    page = visit(filled, site)
    expect(page.get_by_role("heading", level=1)).to_contain_text("u:jo|1")
    expect(page.get_by_role("row", name="plan")).to_contain_text("gold")


@pytest.mark.parametrize("key", ["..", ".", "a?b#c", "日本 語", "%2F", "a+b&c=d"])
def test_any_key_opens(filled, visit, key):
    assert filled.bulk([payloads.identify({"kind": "odd", "key": key, "mark": key})]).status == 202
    wait_until(lambda: filled.found(f"kind equals odd,key equals {json.dumps(key)}"), what="the context in the index")
    page = visit(filled, address(filter=f"odd.mark equals {json.dumps(key)}"))
    page.get_by_role("link", name=key, exact=True).click()
    expect(page.get_by_role("row", name="mark")).to_contain_text(key)
    page.reload()
    expect(page.get_by_role("row", name="mark")).to_contain_text(key)


def test_unknown_context_says_so(filled, visit):
    page = visit(filled, "/#/default/dev/contexts/user/nobody")
    expect(page.get_by_role("heading", name="This context is not in the index")).to_be_visible()


def test_text_of_events_never_runs(filled, visit, shoot):
    columns = ["/name", "/bio", "/plan", "/link", "/" + IMG.replace("~", "~0").replace("/", "~1")]
    page = visit(filled, address(filter="user.link exists true", column=columns))
    row = page.get_by_role("row").filter(has=page.locator(".context-key"))
    expect(row).to_have_count(1)
    expect(row).to_contain_text(IMG)
    expect(row).to_contain_text("<script>window.hacked=1</script>")
    shoot(page, "hostile-search")
    for typed in ("user.<im", "user.plan equals "):
        box(page).fill(typed)
        expect(options(page).filter(has_text="<").first).to_be_visible()
    box(page).press("Escape")
    page.get_by_role("button", name="Columns").click()
    expect(page.get_by_role("dialog").get_by_text(IMG).first).to_be_visible()
    page.keyboard.press("Escape")
    page.locator(".context-key").click()
    expect(page.get_by_role("heading", level=1)).to_contain_text(HOSTILE["key"])
    expect(page.get_by_role("row", name="bio")).to_contain_text("<script>")
    page.get_by_text("JSON", exact=True).click()
    assert page.locator("main img, main script, main svg[onload], main a[href^='javascript']").count() == 0
    page.reload()
    expect(page.get_by_role("row", name="link")).to_contain_text("javascript:window.hacked=1")
    shoot(page, "hostile-context")
    search_text = f"user.name equals {json.dumps('x' + IMG)} bad"
    page.goto(address(filter=search_text))
    expect(page.get_by_role("alert")).to_contain_text("onerror")


# Keyboard only.


def test_everything_by_keyboard(filled, visit):
    page = visit(filled, signed_in=False)
    expect(page.get_by_label("API token").last).to_be_focused()
    page.keyboard.type(filled.api_token)
    page.keyboard.press("Enter")
    expect(page.locator(".context-key")).to_have_count(20)
    page.keyboard.press("/")
    expect(box(page)).to_be_focused()
    page.keyboard.type("user.sea")
    expect(options(page).first).to_be_visible()
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")
    page.keyboard.type("equals 44")
    page.keyboard.press("Enter")
    expect_keys(page, ["u-ana"])
    link = page.get_by_role("link", name="u-ana")
    press_until_focused(page, "Tab", link)
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", level=1)).to_be_focused()
    page.keyboard.press("Shift+Tab")
    page.keyboard.press("Enter")
    expect(link).to_be_focused()
    press_until_focused(page, "Shift+Tab", page.get_by_role("link", name="Pipeline"))
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", level=1)).to_have_text("Pipeline")
    expect(page.get_by_role("heading", level=1)).to_be_focused()
    page.reload()
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="Skip to the content")).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.get_by_role("main")).to_be_focused()


def press_until_focused(page, key, target, most=40):
    for _ in range(most):
        if target.evaluate("node => node === document.activeElement"):
            return
        page.keyboard.press(key)
        outline = page.evaluate(
            "getComputedStyle(document.activeElement).outlineStyle + getComputedStyle(document.activeElement.closest('.filter-box') ?? document.body).boxShadow"
        )
        assert outline != "nonenone", page.evaluate("document.activeElement.outerHTML")
    pytest.fail(f"{key} does not lead to {target}")


# The other views.


def curl_request(line):
    """Method, path, headers and body of a `curl` line."""
    words = iter(shlex.split(line.replace("\\\n", " "))[1:])
    url, headers, body = None, {}, None
    for word in words:
        if word in ("-H", "--header"):
            name, _, value = next(words).partition(":")
            headers[name.strip()] = value.strip()
        elif word in ("-d", "--data", "--data-raw", "--data-binary"):
            body = next(words)
        elif word in ("-X", "--request"):
            assert next(words) == "POST"
        elif not word.startswith("-"):
            url = word
    return url, headers, body


def test_empty_installation_shows_the_next_step(serve, visit, shoot):
    server = serve()
    page = visit(server, address(environment="default/staging"), permissions=["clipboard-read", "clipboard-write"])
    expect(page.get_by_role("heading", name="No contexts here yet")).to_be_visible()
    expect(page.get_by_text(OTHER.sdk_key).first).to_be_visible()
    for language in ("Python", "Node.js", "Go"):
        page.get_by_role("tab", name=language).click()
        expect(page.get_by_role("tabpanel")).to_contain_text(server.url)
    page.get_by_role("tab", name="curl").click()
    page.get_by_role("button", name="Copy these lines").click()
    expect(page.get_by_role("status").filter(has_text="copied")).to_have_count(1)
    copied = page.evaluate("navigator.clipboard.readText()")
    shoot(page, "empty")
    # What the page tells people to run does work, and the page notices by itself.
    url, headers, body = curl_request(copied)
    assert url.startswith(server.url) and headers["Authorization"] == OTHER.sdk_key
    assert server.post(url.removeprefix(server.url), body, headers).status == 202
    expect(page.locator(".context-key")).to_have_count(1)
    expect(page.get_by_role("heading", name="No contexts here yet")).to_have_count(0)
    assert page.locator(".context-key").inner_text() in body


def test_reader_is_told_why_there_are_no_keys(serve, visit):
    server = serve()
    page = visit(server, token=server.reader_token)
    expect(page.get_by_text("may not see SDK keys")).to_be_visible()


def test_pipeline_follows_the_load(filled, visit, shoot):
    broken = '[{"kind":"custom"' + IMG
    assert filled.post("/bulk", broken, payloads.server_headers(filled.environments[0])).status == 400
    page = visit(filled, address("pipeline"))
    events = page.locator(".figure").filter(has_text="Events").locator(".figure-value")

    def busy():
        filled.bulk([payloads.custom("load") for _ in range(200)], payloads.payload_id())
        return events.inner_text() not in ("–", "0")

    wait_until(busy, what="a rate of events")
    answers = page.get_by_role("row").filter(has=page.get_by_role("rowheader", name="202"))
    expect(answers).to_have_count(1)
    for stage in ("Table", "Context index"):
        facts = page.locator(".stage").filter(has=page.get_by_role("heading", name=stage))
        expect(facts.get_by_role("heading")).to_have_text(f"{stage}, up to date")
        expect(facts).to_contain_text("Freshness")
        expect(facts).to_contain_text("Lag")
    letters = page.get_by_role("region", name="Dead letters")
    expect(letters).to_contain_text(IMG)
    shoot(page, "pipeline")
    letters.get_by_role("button").first.click()
    letter = page.get_by_role("dialog", name="Dead letter")
    expect(letter).to_contain_text(IMG)
    expect(letter.locator("mark")).to_have_text("<")
    shoot(page, "dead-letter")
    page.keyboard.press("Escape")
    page.get_by_role("button", name="Pause").click()
    expect(page.get_by_role("button", name="Paused")).to_have_attribute("aria-pressed", "true")


def test_environment_is_chosen_and_remembered(filled, visit):
    page = visit(filled)
    settle(page)
    chooser = page.get_by_role("combobox", name="Environment")
    chooser.select_option("default / staging")
    expect(page.get_by_text("No contexts yet")).to_be_visible()
    page.goto("/")
    expect(chooser).to_have_value("default/staging")
    expect(page.get_by_text("No contexts yet")).to_be_visible()


def test_server_that_goes_away_is_reported(serve, visit):
    server = serve()
    page = visit(server)
    settle(page)
    server.stop()
    search(page, "kind equals user")
    expect(page.get_by_role("heading", name="No connection")).to_be_visible()
    server.start()
    page.get_by_role("button", name="Try again").click()
    expect(page.get_by_role("heading", name="No context matches")).to_be_visible()


# Appearance.

VIEWS = {
    "search": address(),
    "fault": address(filter="user.plan equals gold, user.seats is 3, user.name startsWith Person"),
    "many-columns": address(
        column=["/name", "/plan", "/address/city", "/groups", "/seats", "/bio", "/email", "lastSeen"]
    ),
    "context": "/#/default/dev/contexts/user/u-ana",
    "hostile": "/#/default/dev/contexts/user/" + urllib.parse.quote(HOSTILE["key"], safe=""),
    "pipeline": address("pipeline"),
    "connect": address("connect"),
}

LOOKS = {
    "light": {"color_scheme": "light"},
    "dark": {"color_scheme": "dark"},
    "phone": {"viewport": {"width": 390, "height": 844}, "has_touch": True},
    "narrow-dark": {"viewport": {"width": 360, "height": 740}, "has_touch": True, "color_scheme": "dark"},
}


@pytest.mark.parametrize("look", LOOKS)
@pytest.mark.parametrize("view", VIEWS)
def test_looks(filled, visit, shoot, view, look):
    page = visit(filled, VIEWS[view], **LOOKS[look])
    expect(page.get_by_text("Connecting…")).to_have_count(0)
    expect(page.locator(".skeleton")).to_have_count(0)
    expect(page.locator("main [aria-busy=true]")).to_have_count(0)
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), "the page scrolls sideways"
    dark = page.evaluate("getComputedStyle(document.documentElement).backgroundColor.match(/\\d+/g)[0] < 100")
    assert dark == (LOOKS[look].get("color_scheme") == "dark")
    shoot(page, f"{view}-{look}")


def test_theme_toggle_wins_over_the_system(filled, visit):
    page = visit(filled, color_scheme="dark")
    ground = "getComputedStyle(document.documentElement).backgroundColor"
    settle(page)
    dark = page.evaluate(ground)
    page.get_by_role("button", name="Colours: auto").click()
    expect(page.get_by_role("button", name="Colours: light")).to_be_visible()
    light = page.evaluate(ground)
    assert light != dark
    page.reload()
    settle(page)
    assert page.evaluate(ground) == light
    page.get_by_role("button", name="Colours: light").click()
    page.get_by_role("button", name="Colours: dark").click()
    assert page.evaluate(ground) == dark


def test_reduced_motion_stops_animations(serve, visit):
    page = visit(serve(), reduced_motion="reduce")
    pulse = page.locator(".pulse")
    expect(pulse).to_be_visible()
    assert pulse.evaluate("node => getComputedStyle(node).animationName") == "none"
