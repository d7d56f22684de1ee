#!/usr/bin/env python3
"""Opens pages of `cuvee report` in a headless Chromium and checks that they work.

    scripts/check_report.py PAGE.html…

Of each page, wide and as narrow as a phone, light and dark: no error and no warning in the console,
nothing asked of the network, marks in every plot, nothing wider than the window, a picture that
differs from an empty page's, colours that can be told from the background; a click on a heading
sorts a table, the Enter key too; hiding a series takes its marks away; a point has a bar where its
interval is known and none where it is not; sliders over a law keep the shares' sum and say what the
law said; a figure's CSV has its numbers, and no text that a
spreadsheet would take for a formula; the page prints, on white. Needs Chromium (Debian's `chromium`, or the path in CHROMIUM) and nothing
but Python's own library.

Exits with 1 and what is wrong on stderr.
"""

import base64
import csv
import io
import json
import os
import re
import shutil
import socket
import struct
import subprocess
import sys
import tempfile
import time
import urllib.request
import zlib
from pathlib import Path

SECONDS = 180


class Browser:
    """A Chromium without a window, and one tab in it, spoken to over its DevTools socket."""

    def __init__(self, folder: str):
        program = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")
        if not program:
            sys.exit("check_report.py: expected Chromium, found none\nhint: apt-get install chromium")
        flags = [
            "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage",
            "--no-first-run", "--disable-extensions", "--disable-background-networking",
            "--disable-component-update", "--disable-sync", "--hide-scrollbars",
            "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
            f"--user-data-dir={folder}", "--remote-debugging-port=0", "about:blank",
        ]
        self.log = open(Path(folder) / "stderr", "w+")
        self.process = subprocess.Popen([program, *flags], stdout=subprocess.DEVNULL, stderr=self.log)
        port_file = Path(folder) / "DevToolsActivePort"
        end = time.monotonic() + 60
        while not (port_file.exists() and port_file.read_text().strip()):
            if self.process.poll() is not None or time.monotonic() > end:
                self.log.seek(0)
                sys.exit(f"check_report.py: Chromium did not start:\n{self.log.read()}")
            time.sleep(0.05)
        port = int(port_file.read_text().split()[0])
        tab = urllib.request.Request(f"http://127.0.0.1:{port}/json/new?about:blank", method="PUT")
        with urllib.request.urlopen(tab) as answer:
            address = json.load(answer)["webSocketDebuggerUrl"]
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=SECONDS)
        self.buffer = b""
        path = address.split(f":{port}", 1)[1]
        key = base64.b64encode(os.urandom(16)).decode()
        self.socket.sendall(
            f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nUpgrade: websocket\r\n"
            f"Connection: Upgrade\r\nSec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n\r\n".encode()
        )
        while b"\r\n\r\n" not in self.buffer:
            self.buffer += self.socket.recv(65536)
        head, self.buffer = self.buffer.split(b"\r\n\r\n", 1)
        assert b" 101 " in head.splitlines()[0], head
        self.calls = 0
        self.events: list[dict] = []

    def exactly(self, count: int) -> bytes:
        while len(self.buffer) < count:
            part = self.socket.recv(1 << 20)
            if not part:
                sys.exit("check_report.py: Chromium closed its socket")
            self.buffer += part
        taken, self.buffer = self.buffer[:count], self.buffer[count:]
        return taken

    def receive(self) -> dict:
        """A whole message; it may come in several frames."""
        message = b""
        while True:
            first, second = self.exactly(2)
            length = second & 127
            if length == 126:
                (length,) = struct.unpack(">H", self.exactly(2))
            elif length == 127:
                (length,) = struct.unpack(">Q", self.exactly(8))
            payload = self.exactly(length)
            if first & 15 in (0, 1):
                message += payload
                if first & 128:
                    return json.loads(message)

    def call(self, method: str, **parameters):
        """What the browser answers; events that come before it are kept."""
        self.calls += 1
        text = json.dumps({"id": self.calls, "method": method, "params": parameters}).encode()
        mask = os.urandom(4)
        if len(text) < 126:
            head = struct.pack(">BB", 0x81, 0x80 | len(text))
        elif len(text) < 65536:
            head = struct.pack(">BBH", 0x81, 0x80 | 126, len(text))
        else:
            head = struct.pack(">BBQ", 0x81, 0x80 | 127, len(text))
        self.socket.sendall(head + mask + bytes(b ^ mask[i & 3] for i, b in enumerate(text)))
        while (message := self.receive()).get("id") != self.calls:
            self.events.append(message)
        if "error" in message:
            raise RuntimeError(f"{method}: {message['error']}")
        return message["result"]

    def run(self, script: str):
        """The value of an expression in the page; it may be a promise."""
        answer = self.call("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True)
        if "exceptionDetails" in answer:
            raise RuntimeError(f"{script}: {answer['exceptionDetails']}")
        return answer["result"].get("value")

    def picture(self) -> bytes:
        return base64.b64decode(self.call("Page.captureScreenshot", format="png")["data"])

    def close(self):
        self.process.terminate()
        self.process.wait()
        self.log.close()


def scanlines(png: bytes) -> list[bytes]:
    """The rows of a picture as PNG filters them, which equal rows after equal rows share."""
    at, data, stride = 8, b"", 0
    while at < len(png):
        (length,) = struct.unpack(">I", png[at : at + 4])
        kind, body = png[at + 4 : at + 8], png[at + 8 : at + 8 + length]
        if kind == b"IHDR":
            width, _, depth, colour = struct.unpack(">IIBB", body[:10])
            stride = 1 + width * depth // 8 * {0: 1, 2: 3, 4: 2, 6: 4}[colour]
        elif kind == b"IDAT":
            data += body
        at += 12 + length
    raw = zlib.decompress(data)
    return [raw[start : start + stride] for start in range(0, len(raw), stride)]


def unlike(one: list[bytes], other: list[bytes]) -> float:
    """The share of rows in which two pictures differ."""
    if len(one) != len(other):
        return 1.0
    return sum(a != b for a, b in zip(one, other)) / len(one)


def contrast(one: str, other: str) -> float:
    """WCAG's contrast of two colours as `#rrggbb`."""
    def luminance(colour: str) -> float:
        parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    low, high = sorted([luminance(one), luminance(other)])
    return (high + 0.05) / (low + 0.05)


MARKS = """[...document.querySelectorAll("figure")].map((figure) => ({
  title: figure.querySelector("strong").textContent,
  plots: [...figure.querySelectorAll(".plot")].map((plot) => plot.querySelectorAll(
    ".scatterlayer path.js-line, .scatterlayer path.js-fill, .scatterlayer .point, .barlayer .point").length),
}))"""

# Bars of intervals in every plot that is drawn, and how many intervals are known there.
BARS = """[...document.querySelectorAll("figure")].flatMap((figure) => {
  const data = JSON.parse(figure.querySelector("script").textContent);
  const chosen = figure.querySelector("select")?.value;
  const panels = chosen === undefined ? data.panels : [data.panels[chosen]];
  return [...figure.querySelectorAll(".plot")].map((plot, index) => ({
    title: `${data.title} ${panels[index].title}`,
    drawn: [...plot.querySelectorAll("path.xerror, path.yerror")].filter((bar) => bar.getAttribute("d")).length,
    known: panels[index].marks.filter((mark) => mark.kind === "interval").flatMap((mark) =>
      [...(mark.low ?? []), ...(mark.yLow ?? [])]).filter((end) => end !== null).length,
  }));
})"""

# Whatever sticks out of the window and does not lie in a box that scrolls.
TOO_WIDE = """[...document.body.querySelectorAll("*")].filter((node) => {
  const box = node.getBoundingClientRect();
  if (!box.width || box.right <= innerWidth + 1 || node.closest(".modebar")) return false;
  return !node.closest(".scroll, pre, svg, .tools");
}).map((node) => `${node.tagName}.${node.className}`).slice(0, 5)"""

COLUMN = """((table, column) => [...table.tBodies[0].rows].map((row) => {
  const cell = row.cells[column];
  return cell.dataset.v === undefined ? cell.textContent : Number(cell.dataset.v);
}))(document.querySelectorAll("table.sortable")[%d], %d)"""

CSV = """Promise.all([...document.querySelectorAll("figure")].map(async (figure) => {
  const data = JSON.parse(figure.querySelector("script").textContent);
  const link = figure.querySelector("a[download]");
  const points = data.panels.flatMap((panel) => panel.marks).reduce(
    (sum, mark) => sum + data.grids[mark.x].length, 0);
  return { href: link.href, points, name: link.download };
}))"""


def check(browser: Browser, page: Path) -> list[str]:
    """What is wrong with a page."""
    wrong: list[str] = []
    url = page.resolve().as_uri()
    size = page.stat().st_size
    if size >= 6_000_000:
        wrong.append(f"{size} bytes: expected fewer than 6 MB")
    for theme in ("light", "dark"):
        for width, height in ((1280, 900), (360, 740)):
            where = f"{theme}, {width} pixels wide"
            browser.events.clear()
            browser.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": theme}])
            browser.call("Emulation.setDeviceMetricsOverride", width=width, height=height,
                         deviceScaleFactor=1, mobile=width < 500)
            browser.call("Page.navigate", url="about:blank")
            browser.run("document.documentElement.style.colorScheme = 'light dark'")
            empty = scanlines(browser.picture())
            browser.call("Page.navigate", url=url)
            end = time.monotonic() + SECONDS
            while browser.run(f"location.href === {json.dumps(url)} && document.documentElement?.dataset.drawn") != "all":
                if time.monotonic() > end:
                    wrong.append(f"{where}: not drawn after {SECONDS} s: {browser.run('document.querySelector(`main`)?.innerText.slice(0, 300)')}")
                    break
                time.sleep(0.05)
            figures = browser.run(MARKS)
            if not figures:
                wrong.append(f"{where}: no figures")
            for figure in figures:
                if not figure["plots"] or 0 in figure["plots"]:
                    wrong.append(f"{where}: {figure['title']}: a plot without marks: {figure['plots']}")
            for plot in browser.run(BARS):
                if plot["drawn"] != plot["known"]:
                    wrong.append(f"{where}: {plot['title']}: {plot['drawn']} bars of {plot['known']} intervals")
            if wide := browser.run(TOO_WIDE):
                wrong.append(f"{where}: wider than the window: {wide}")
            if (scrolled := browser.run("document.documentElement.scrollWidth")) > width:
                wrong.append(f"{where}: the page is {scrolled} pixels wide")
            drawn = scanlines(browser.picture())
            if (share := unlike(drawn, empty)) < 0.25:
                wrong.append(f"{where}: {share:.0%} of the picture's rows are not an empty page's")
            wrong += [f"{where}: {said}" for said in colours(browser)]
            if width > 500:
                wrong += [f"{where}: {said}" for said in uses(browser, drawn)]
            wrong += [f"{where}: {said}" for said in complaints(browser, url)]
    return wrong


def colours(browser: Browser) -> list[str]:
    """Colours that cannot be told from the background."""
    names = ["text", "weak", "link", "good", "bad"] + [f"s{i}" for i in range(8)]
    script = "((style) => %s.map((name) => style.getPropertyValue('--' + name).trim()))(getComputedStyle(document.documentElement))"
    page, *found = browser.run(script % json.dumps(["page"] + names))
    wrong = []
    for name, value in zip(names, found):
        least = 3.0 if re.fullmatch(r"s\d", name) else 4.5
        if (is_ := contrast(value, page)) < least:
            wrong.append(f"--{name} has a contrast of {is_:.2f} on the page: expected {least}")
    background = browser.run("getComputedStyle(document.body).backgroundColor")
    if background != f"rgb({', '.join(str(int(page[i : i + 2], 16)) for i in (1, 3, 5))})":
        wrong.append(f"the background is {background}, not {page}")
    return wrong


def uses(browser: Browser, drawn: list[bytes]) -> list[str]:
    """What a reader does: sort, hide, take the CSV, change the theme, print."""
    wrong = []
    for table in range(browser.run("document.querySelectorAll('table.sortable').length")):
        columns = browser.run(f"document.querySelectorAll('table.sortable')[{table}].tHead.rows[0].cells.length")
        for column in range(columns):
            head = f"document.querySelectorAll('table.sortable')[{table}].tHead.rows[0].cells[{column}]"
            for way in ("ascending", "descending"):
                browser.run(f"{head}.querySelector('button').click()")
                values = [v for v in browser.run(COLUMN % (table, column)) if isinstance(v, (int, float))]
                said = browser.run(f"{head}.getAttribute('aria-sort')")
                if values != sorted(values, reverse=way == "descending") or said != way:
                    wrong.append(f"table {table}, column {column}: not {way}: {said}, {values[:8]}")
    head = "document.querySelector('table.sortable').tHead.rows[0].cells[0]"
    if browser.run("document.querySelectorAll('table.sortable').length"):
        browser.run(f"{head}.querySelector('button').focus()")
        for kind in ("keyDown", "keyUp"):
            browser.call("Input.dispatchKeyEvent", type=kind, key="Enter", code="Enter",
                         windowsVirtualKeyCode=13, text="\r" if kind == "keyDown" else "")
        if browser.run(f"{head}.getAttribute('aria-sort')") != "ascending":
            wrong.append("the Enter key on a heading does not sort")

    marks = "document.querySelectorAll('.scatterlayer .trace, .barlayer .trace').length"
    before = browser.run(marks)
    toggle = "window.lastShown"
    browser.run("window.lastShown = [...document.querySelectorAll('figure .tools [aria-pressed=true]')].at(-1); 0")
    if browser.run(f"Boolean({toggle})"):
        browser.run(f"{toggle}.click()")
        if not browser.run(marks) < before or browser.run(f"{toggle}.getAttribute('aria-pressed')") != "false":
            wrong.append("hiding a series leaves its marks")
        browser.run(f"{toggle}.click()")
        if browser.run(marks) != before:
            wrong.append("showing a series again does not draw it")
    for select in range(browser.run("document.querySelectorAll('figure select').length")):
        browser.run(f"((s) => {{ s.value = s.options.length - 1; s.dispatchEvent(new Event('change')); }})"
                    f"(document.querySelectorAll('figure select')[{select}])")
    if any(0 in figure["plots"] for figure in browser.run(MARKS)):
        wrong.append("a chosen plot has no marks")

    wrong += sliders(browser)
    for link in browser.run(CSV):
        if not link["href"].startswith("blob:") or not link["name"].endswith(".csv"):
            wrong.append(f"no CSV behind {link}")
    # The page's policy forbids it to fetch, its own links included: the numbers are read here.
    read = """(async () => { const out = []; for (const link of document.querySelectorAll("a[download]")) {
      out.push(await window.csvOf.get(link.href).text()); } return out; })()"""
    for link, text in zip(browser.run(CSV), browser.run(read)):
        rows = text.count("\n") - 1
        if rows < link["points"]:
            wrong.append(f"{link['name']} has {rows} rows of {link['points']}")
        for cell in {cell for row in csv.reader(io.StringIO(text)) for cell in row}:
            if cell[:1] in ("=", "+", "-", "@", "\t", "\r") and not is_number(cell):
                wrong.append(f"{link['name']}: a spreadsheet takes {cell!r} for a formula")

    browser.run("document.getElementById('theme').click()")
    browser.run("new Promise((done) => setTimeout(done, 300))")
    if unlike(scanlines(browser.picture()), drawn) < 0.25:
        wrong.append("the theme's button changes nothing")
    wrong += [f"after the theme's button: {said}" for said in colours(browser)]
    browser.run("document.getElementById('theme').click()")
    theme = "document.documentElement.dataset.theme"
    before = browser.run(theme)
    browser.run("dispatchEvent(new Event('beforeprint'))")
    if (colour := browser.run("getComputedStyle(document.body).backgroundColor")) != "rgb(255, 255, 255)":
        wrong.append(f"on paper the background is {colour}")
    wrong += [f"on paper: {said}" for said in colours(browser)]
    papers = browser.run("[...new Set([...document.querySelectorAll('.plot .main-svg:first-of-type')].map((s) => s.style.background))]")
    if any(paper not in ("rgb(255, 255, 255)", "rgb(255, 255, 255) none repeat scroll 0% 0%") for paper in papers):
        wrong.append(f"on paper plots lie on {papers}")
    browser.run("dispatchEvent(new Event('afterprint'))")
    if browser.run(theme) != before:
        wrong.append("printing changes the theme")
    if len(browser.call("Page.printToPDF")["data"]) < 10_000:
        wrong.append("the page does not print")
    return wrong


# Of each set of sliders: what is predicted of the mixtures whose predictions are known; then, one
# slider after the other moved to a few places, the shares that come out and what is shown of them.
SLIDERS = """[...document.querySelectorAll(".mixture")].map((node) => {
  const { mixture } = node;
  const told = mixture.data.mixtures.map(({ name, shares, losses, mean }) => {
    const found = mixture.predict(shares);
    const apart = [...losses.map((loss, i) => Math.abs(loss - found[i])), Math.abs(mean - mixture.mean(found))];
    return { name, apart: Math.max(...apart) };
  });
  const moves = [];
  const say = () => node.querySelector("output").textContent;
  const rows = [...node.querySelectorAll("[data-domain]")];
  for (const [at, row] of rows.slice(0, 8).entries()) {
    const [number, range] = row.querySelectorAll("input");
    for (const [field, typed, value] of [[range, "0.5", 0.5], [range, "0", 0], [range, "1", 1],
      [range, "0.2", 0.2], [number, "12.5", 0.125], [number, "", null], [number, "33", 0.33]]) {
      const before = [...mixture.shares];
      const said = say();
      field.value = typed;
      field.dispatchEvent(new Event("input"));
      const shares = [...mixture.shares];
      const losses = mixture.predict(shares);
      const shown = [...node.querySelectorAll("[data-target]")].map((row) => row.cells[2].textContent);
      moves.push({ at, value, before, shares, losses, shown, said, says: say(), mean: mixture.mean(losses),
        fields: rows.map((row) => [...row.querySelectorAll("input")].map((input) => Number(input.value))) });
    }
  }
  const select = node.querySelector("select");
  select.value = 1;
  select.dispatchEvent(new Event("change"));
  const chosen = { found: [...mixture.shares], expected: mixture.data.mixtures[1].shares };
  return { told, moves, chosen };
})"""


def sliders(browser: Browser) -> list[str]:
    wrong = []
    for number, found in enumerate(browser.run(SLIDERS)):
        for told in found["told"]:
            if not told["apart"] <= 1e-9:
                wrong.append(f"sliders {number}: {told['name']}: {told['apart']} from what the law predicts")
        if not found["moves"]:
            wrong.append(f"sliders {number}: none")
        for move in found["moves"]:
            where = f"sliders {number}, domain {move['at']} to {move['value']}"
            shares, before, at = move["shares"], move["before"], move["at"]
            if abs(sum(shares) - 1) > 1e-12 or min(shares) < 0:
                wrong.append(f"{where}: the shares are {shares}")
            if move["value"] is None:
                if shares != before:
                    wrong.append(f"{where}: an empty field changes {before} to {shares}")
                continue
            if abs(shares[at] - move["value"]) > 1e-12:
                wrong.append(f"{where}: the share is {shares[at]}")
            rest = [i for i in range(len(shares)) if i != at]
            left, was = sum(shares[i] for i in rest), sum(before[i] for i in rest)
            if left > 0 and was > 0 and any(abs(shares[i] / left - before[i] / was) > 1e-9 for i in rest):
                wrong.append(f"{where}: the others' ratios change from {before} to {shares}")
            if move["shown"] != [f"{loss:.4f}" for loss in move["losses"]]:
                wrong.append(f"{where}: {move['shown']} is shown of {move['losses']}")
            if not move["says"].startswith(f"{move['mean']:.4f} nats a token"):
                wrong.append(f"{where}: it says {move['says']} of {move['mean']}")
            for (percent, share), expected in zip(move["fields"], shares):
                if abs(share - expected) > 1e-6 or abs(percent - 100 * expected) > 0.006:
                    wrong.append(f"{where}: the fields show {percent} % and {share} of {expected}")
        if found["chosen"]["found"] != found["chosen"]["expected"]:
            wrong.append(f"sliders {number}: choosing a mixture gives {found['chosen']}")
    return wrong


def is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def complaints(browser: Browser, url: str) -> list[str]:
    """What the console said, and what was asked of the network."""
    wrong = []
    for event in browser.events:
        method, parameters = event.get("method"), event.get("params", {})
        if method == "Runtime.exceptionThrown":
            wrong.append(f"exception: {json.dumps(parameters['exceptionDetails'])[:400]}")
        elif method == "Runtime.consoleAPICalled" and parameters["type"] in ("error", "warning", "assert"):
            wrong.append(f"console: {json.dumps(parameters['args'])[:400]}")
        elif method == "Log.entryAdded" and parameters["entry"]["level"] in ("error", "warning"):
            wrong.append(f"log: {json.dumps(parameters['entry'])[:400]}")
        elif method == "Network.requestWillBeSent":
            asked = parameters["request"]["url"]
            if asked != url and not asked.startswith(("data:", "blob:", "about:")):
                wrong.append(f"asked of the network: {asked[:200]}")
        elif method == "Page.javascriptDialogOpening":
            wrong.append(f"a dialog: {parameters['message']}")
    return wrong


def main():
    pages = [Path(name) for name in sys.argv[1:]]
    if not pages:
        sys.exit(__doc__)
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        browser = Browser(folder)
        try:
            for domain in ("Page", "Runtime", "Log", "Network"):
                browser.call(f"{domain}.enable")
            # Blobs that the page makes: its policy keeps a script from fetching them.
            browser.call("Page.addScriptToEvaluateOnNewDocument", source="""
              window.csvOf = new Map();
              const make = URL.createObjectURL.bind(URL);
              URL.createObjectURL = (blob) => { const url = make(blob); window.csvOf.set(url, blob); return url; };""")
            failed = False
            for page in pages:
                start = time.monotonic()
                wrong = check(browser, page)
                failed |= bool(wrong)
                for said in wrong:
                    print(f"{page}: {said}", file=sys.stderr)
                if not wrong:
                    print(f"{page}: {page.stat().st_size:,} bytes, all well in {time.monotonic() - start:.0f} s")
        finally:
            browser.close()
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
