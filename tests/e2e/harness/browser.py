"""Debian's Chromium, driven by Playwright, with an eye on everything that a page must never do.

`Watch` collects, from the first request on: requests to another origin, violations of the Content-Security-Policy, script
errors, and whether text of an event ran as code (it would set `window.hacked`).
"""

import shutil

from playwright.sync_api import sync_playwright

FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]

RECORD_VIOLATIONS = """
window.violations = [];
document.addEventListener("securitypolicyviolation", (event) => window.violations.push(`${event.violatedDirective} ${event.blockedURI}`));
"""


def remember_token(token):
    """A script that signs in before the page starts, as if the person had done so on an earlier visit."""
    return f"if (localStorage.getItem('tidegate.token') === null) localStorage.setItem('tidegate.token', '{token}');"


class Chromium:
    """One browser process; every page lives in a context of its own."""

    def __enter__(self):
        self.playwright = sync_playwright().start()
        self.browser = self.playwright.chromium.launch(executable_path=shutil.which("chromium"), args=FLAGS)
        return self

    def __exit__(self, *_):
        self.browser.close()
        self.playwright.stop()

    def open(self, server, token=None, **options):
        """A page and the watch over it; `token` signs in beforehand, `options` are those of a Playwright context."""
        options = {"viewport": {"width": 1280, "height": 860}, "color_scheme": "light", **options}
        context = self.browser.new_context(base_url=server.url, **options)
        context.add_init_script(RECORD_VIOLATIONS)
        if token:
            context.add_init_script(remember_token(token))
        page = context.new_page()
        page.set_default_timeout(15_000)
        return page, Watch(page, server.url)


class Watch:
    def __init__(self, page, origin):
        self.page = page
        self.faults = []
        page.on("request", lambda request: self._request(request.url, origin))
        page.on("pageerror", lambda error: self.faults.append(f"script error: {error}"))
        page.on("dialog", lambda dialog: self._dialog(dialog))
        page.on("console", lambda message: self._console(message))

    def _request(self, url, origin):
        if not url.startswith((f"{origin}/", "data:")):
            self.faults.append(f"request to another origin: {url}")

    def _dialog(self, dialog):
        self.faults.append(f"a script dialog opened: {dialog.message}")
        dialog.dismiss()

    # An answer of 4xx is reported by the browser itself; the page handles those.
    def _console(self, message):
        if message.type == "error" and not message.text.startswith("Failed to load resource"):
            self.faults.append(f"console: {message.text}")

    def check(self):
        """Fails if anything happened that must not; to be called while the page still exists."""
        faults = [*self.faults, *self.page.evaluate("window.violations")]
        if self.page.evaluate("window.hacked !== undefined"):
            faults.append("text of an event ran as code")
        assert faults == []
