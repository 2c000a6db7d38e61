"""From the key press to the list, in a real Chromium, over an index of many contexts: a measurement, not a test.

    target/release/bench search --contexts 1000000 --questions 0 --dir index
    TIDEGATE_BIN=target/release/tidegate python tests/e2e/page_speed.py --index index

The index is copied, and `serve` takes the copy as its own. Each text is typed letter by letter; the time is from the press of a
key to the frame in which the list for that text stands, with the pause in which the page waits for the next letter. Letters after
which a text may still become a filter are left out: the page does not search for those.
"""

import argparse
import shutil
import tempfile
from pathlib import Path

from harness.browser import Chromium
from harness.config import Environment
from harness.process import Server

PLACE = Environment.numbered("shop", "production", 0xA)
TEXTS = ["goran", "ana souza", "mail7", "user-0000", "city 4711", "enterprise"]

LOOK = """(text) => {
  window.shown = new Promise((resolve) => {
    let pressed = 0;
    addEventListener("keydown", () => { pressed = performance.now(); }, { once: true, capture: true });
    const look = () => {
      const query = new URLSearchParams(location.hash.split("?")[1] ?? "");
      const isShown = query.get("filter") === text && document.querySelector(".results-area").getAttribute("aria-busy") === "false";
      if (pressed && isShown) resolve(performance.now() - pressed);
      else if (pressed && performance.now() - pressed > 1500) resolve(null);
      else requestAnimationFrame(look);
    };
    look();
  });
}"""


def typed(page, text):
    """Milliseconds for each letter of a text that is typed into the empty box."""
    box = page.get_by_role("combobox", name="Filter contexts")
    box.fill("")
    box.press("Enter")
    times = []
    for end in range(1, len(text) + 1):
        if text[end - 1] == " ":
            box.press("Space")
            continue
        page.evaluate(LOOK, text[:end])
        box.press(text[end - 1])
        times.append(page.evaluate("() => window.shown"))
    # What may still become a filter is not searched for while it is typed.
    return [time for time in times if time is not None]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--index", required=True, type=Path, help="what `bench search --dir` has left")
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        server = Server(Path(folder), environments=[PLACE])
        shutil.copytree(arguments.index, server.data_dir / "index")
        server.start()
        print(f"{server.pipeline()['index']['contexts']} contexts")
        with Chromium() as browser:
            page, watch = browser.open(server, server.api_token)
            page.goto(f"/#/{PLACE.project}/{PLACE.key}/contexts")
            everything = []
            for text in TEXTS:
                times = sorted(time for _ in range(arguments.rounds) for time in typed(page, text))
                everything += times
                print(f"{text!r}: half within {times[len(times) // 2]:.0f} ms, the slowest {times[-1]:.0f} ms")
            everything.sort()
            print(f"all: p50 {everything[len(everything) // 2]:.0f} ms, p99 {everything[len(everything) * 99 // 100]:.0f} ms")
            watch.check()
        server.close()


if __name__ == "__main__":
    main()
