// Draws the page's figures with plotly.js, sorts its tables, and offers the numbers as CSV.
"use strict";
(() => {
  const COLOURS = 8;
  const DASHES = ["solid", "dash", "dot", "dashdot", "longdash", "longdashdot"];
  const STROKES = ["", "8 4", "2 3", "8 3 2 3", "12 4", "12 3 2 3"];
  const SYMBOLS = ["circle", "square", "diamond", "triangle-up", "x", "cross", "star", "pentagon"];
  const PATTERNS = ["", "/", "\\", "x", "-", "|", "+", "."];
  const LEGIBLE = 8; // Series that are shown at first.

  const root = document.documentElement;
  const element = (name, properties, ...children) => {
    const made = Object.assign(document.createElement(name), properties);
    made.append(...children);
    return made;
  };
  // The library reads tags and entities in its texts; a name is neither.
  const plain = (name) => name.replace(/&/g, "&amp;").replace(/</g, "&lt;").replace(/>/g, "&gt;");
  const short = (name) => (name.length > 22 ? name.slice(0, 20) + "…" : name);
  const colour = (name) => getComputedStyle(root).getPropertyValue(name).trim();
  const style = (figure, series) => figure.styles[series] ?? [series, series];

  // --- Tables ---

  const sortBy = (table, column, descending) => {
    const body = table.tBodies[0];
    const key = (row) => {
      const cell = row.cells[column];
      return cell.dataset.v !== undefined ? Number(cell.dataset.v) : cell.textContent;
    };
    const missing = (cell) => cell.classList.contains("n") && cell.dataset.v === undefined;
    const compare = (a, b) => (typeof a === "number" && typeof b === "number" ? a - b
      : String(a).localeCompare(String(b), "en", { numeric: true }));
    const rows = [...body.rows];
    rows.sort((a, b) => {
      const gaps = missing(a.cells[column]) - missing(b.cells[column]);
      return gaps || (descending ? -1 : 1) * compare(key(a), key(b));
    });
    body.append(...rows);
    for (const [index, head] of [...table.tHead.rows[0].cells].entries()) {
      if (index === column) head.setAttribute("aria-sort", descending ? "descending" : "ascending");
      else head.removeAttribute("aria-sort");
    }
  };

  for (const table of document.querySelectorAll("table.sortable")) {
    for (const [column, head] of [...table.tHead.rows[0].cells].entries()) {
      head.querySelector("button").addEventListener("click", () => {
        sortBy(table, column, head.getAttribute("aria-sort") === "ascending");
      });
    }
  }

  // --- CSV: the numbers of a figure, a row a point ---

  const csv = (figure) => {
    const quoted = (value) => {
      let text = value === null || value === undefined ? "" : String(value);
      // A name that a spreadsheet would take for a formula.
      if (typeof value === "string" && /^[=+\-@\t\r]/.test(value)) text = "'" + text;
      return /[",\r\n]/.test(text) ? `"${text.replace(/"/g, '""')}"` : text;
    };
    const place = (axis, value) => axis.names[value] ?? value;
    const heads = [figure.panelKind, figure.seriesKind, figure.x.label, figure.y.label, "low", "high",
      `${figure.y.label} low`, `${figure.y.label} high`];
    const rows = [heads];
    for (const panel of figure.panels) {
      for (const mark of panel.marks) {
        for (const [i, x] of figure.grids[mark.x].entries()) {
          rows.push([panel.title, figure.series[mark.series] ?? "", place(figure.x, x),
            place(figure.y, mark.y[i]), mark.low?.[i], mark.high?.[i], mark.yLow?.[i], mark.yHigh?.[i]]);
        }
      }
    }
    const kept = heads.map((head, column) =>
      Boolean(head) && rows.slice(1).some((row) => (row[column] ?? "") !== ""));
    const line = (row) => row.filter((_, column) => kept[column]).map(quoted).join(",");
    return rows.map(line).join("\n") + "\n";
  };

  // --- Figures ---

  const traces = (figure, mark) => {
    const x = figure.grids[mark.x];
    const [hue, pattern] = style(figure, mark.series);
    const main = colour(`--s${hue % COLOURS}`);
    const symbol = SYMBOLS[pattern % SYMBOLS.length];
    const name = plain(figure.series[mark.series] ?? "");
    const base = { type: "scatter", x, y: mark.y, name, showlegend: false };
    const few = x.length <= 40;
    if (mark.kind === "area") {
      return [{ ...base, mode: few ? "lines+markers" : "lines", stackgroup: "all",
        line: { color: main, width: 1 }, marker: { size: 3 }, fillcolor: main + "b0",
        fillpattern: { shape: PATTERNS[pattern % PATTERNS.length], size: 6, solidity: 0.25,
          fgcolor: colour("--page"), bgcolor: main + "b0" } }];
    }
    if (mark.kind === "points") {
      return [{ ...base, mode: "markers",
        marker: { color: main, size: 8, symbol: symbol + "-open", line: { width: 1.5 } } }];
    }
    if (mark.kind === "interval") {
      // Where the interval is not known there is none, not one of width 0.
      const bars = (at, low, high) => {
        const less = (ends, sign) => ends.map((end, i) => (end === null ? NaN : sign * (end - at[i])));
        return low && { type: "data", symmetric: false, array: less(high, 1),
          arrayminus: less(low, -1), color: main, thickness: 2, width: 6 };
      };
      return [{ ...base, mode: "markers", marker: { color: main, size: 9, symbol },
        error_x: bars(x, mark.low, mark.high), error_y: bars(mark.y, mark.yLow, mark.yHigh) }];
    }
    if (mark.kind === "bars") {
      return [{ type: "bar", orientation: "h", x, y: mark.y, name, showlegend: false,
        marker: { color: main + "b0", line: { color: main, width: 1 },
          pattern: { shape: PATTERNS[pattern % PATTERNS.length], size: 6, solidity: 0.25, fgcolor: main } } }];
    }
    const line = { color: main, width: Math.max(1.6, 3.2 - 0.4 * hue), dash: DASHES[pattern % DASHES.length] };
    const drawn = { ...base, mode: few ? "lines+markers" : "lines", line,
      marker: { color: main, size: 5, symbol } };
    if (!mark.low) return [drawn];
    const edge = { type: "scatter", x, mode: "lines", line: { width: 0 }, hoverinfo: "skip",
      showlegend: false };
    // A logarithm ends above 0: a band that reaches below is cut far down, see `layout`.
    const low = figure.y.log ? mark.low.map((end, i) => end === null ? null : Math.max(end, mark.y[i] / 1e3)) : mark.low;
    return [{ ...edge, y: low },
      { ...edge, y: mark.high, fill: "tonexty", fillcolor: main + "2e" }, drawn];
  };

  const axis = (given, more) => {
    const out = { title: { text: plain(given.label), standoff: 8 }, automargin: true,
      gridcolor: colour("--grid"), linecolor: colour("--rule"), zerolinecolor: colour("--rule"),
      type: given.log ? "log" : "linear", ...more };
    if (given.ticks.length) {
      Object.assign(out, { tickvals: given.ticks, ticktext: given.ticks.map(String) });
    }
    if (given.names.length) {
      Object.assign(out, { tickvals: given.names.map((_, i) => i), zeroline: false,
        ticktext: given.names.map((name) => plain(short(name))),
        range: [given.names.length - 0.5, -0.5] });
    }
    return out;
  };

  // The ends of a logarithmic axis around lines and their bands, these as far as they stay within
  // reach of the line.
  const reach = (marks) => {
    const ends = marks.flatMap((mark) => mark.y.flatMap((y, i) =>
      (y > 0 ? [y, Math.max(mark.low?.[i] ?? y, y / 2), mark.high?.[i] ?? y] : [])));
    const [low, high] = ends.reduce(([l, h], v) => [Math.min(l, v), Math.max(h, v)], [Infinity, 0]);
    return [Math.log10(low) - 0.03, Math.log10(high) + 0.03];
  };

  // Both axes over all that is drawn of marks, and the line of equal x and y.
  const diagonal = (figure, marks) => {
    const all = marks.flatMap((mark) => [figure.grids[mark.x], mark.y, mark.low, mark.high, mark.yLow, mark.yHigh]);
    const ends = all.flatMap((values) => values ?? []).filter((value) => value !== null);
    const [low, high] = [Math.min(...ends), Math.max(...ends)];
    const room = 0.05 * (high - low || 1);
    const range = [low - room, high + room];
    return { range, line: { type: "line", x0: range[0], y0: range[0], x1: range[1], y1: range[1],
      layer: "below", line: { color: colour("--weak"), width: 1, dash: "dot" } } };
  };

  const layout = (figure, marks) => {
    const rows = figure.y.names.length;
    const equal = figure.diagonal && marks.length ? diagonal(figure, marks) : null;
    const more = figure.y.log && marks.some((mark) => mark.low) ? { range: reach(marks) } : {};
    const across = equal ? { range: equal.range } : {};
    const region = figure.region && { type: "rect", xref: "x", yref: "paper", x0: figure.region[0],
      x1: figure.region[1], y0: 0, y1: 1, fillcolor: colour("--region"), layer: "below",
      line: { color: colour("--weak"), width: 1, dash: "dot" } };
    return {
      height: rows ? 130 + 46 * rows : 300, margin: { l: 56, r: 14, t: 28, b: 48 },
      paper_bgcolor: colour("--page"), plot_bgcolor: colour("--page"), showlegend: false,
      font: { color: colour("--text"), size: 12, family: "system-ui, sans-serif" },
      hoverlabel: { namelength: -1, bgcolor: colour("--box"), font: { color: colour("--text") } },
      hovermode: "closest", barmode: "group", bargap: 0.25,
      xaxis: axis(figure.x, across), yaxis: axis(figure.y, { ...more, ...across }),
      shapes: [region, equal?.line].filter(Boolean),
    };
  };
  const options = { displaylogo: false, modeBarButtonsToRemove: ["select2d", "lasso2d", "autoScale2d"] };

  const swatch = ([hue, pattern], isLine) => {
    const dash = isLine ? STROKES[pattern % STROKES.length] : "";
    const template = document.createElement("template");
    template.innerHTML = `<svg width="30" height="10" aria-hidden="true"><line x1="0" x2="30" y1="5" y2="5"
      stroke="var(--s${hue % COLOURS})" stroke-width="${isLine ? 3 : 9}" stroke-dasharray="${dash}"/></svg>`;
    return template.content.firstChild;
  };

  class Plots {
    constructor(node) {
      this.node = node;
      this.data = JSON.parse(node.querySelector("script").textContent);
      const { panels, series } = this.data;
      const used = new Set(panels.flatMap((panel) => panel.marks.map((mark) => mark.series)));
      this.used = [...used].sort((a, b) => a - b);
      this.shown = new Set(this.kind() === "area" ? this.used : this.used.slice(0, LEGIBLE));
      this.chosen = panels.length > this.data.together ? 0 : null;
      const tools = node.querySelector(".tools");
      if (series.length > 1) {
        for (const index of this.used) tools.append(this.toggle(index, series[index]));
      }
      if (this.chosen !== null) tools.append(this.selection());
      const blob = new Blob([csv(this.data)], { type: "text/csv" });
      tools.append(element("a", { href: URL.createObjectURL(blob), textContent: "CSV",
        download: `${this.data.title.toLowerCase().replace(/[^a-z0-9]+/g, "-")}.csv` }));
    }

    kind() { return this.data.panels[0].marks[0].kind; }

    toggle(index, name) {
      const button = element("button", { type: "button" }, swatch(style(this.data, index), this.kind() === "line"),
        [name, this.data.seriesNotes[index]].filter(Boolean).join(", "));
      button.setAttribute("aria-pressed", this.shown.has(index));
      button.addEventListener("click", () => {
        if (!this.shown.delete(index)) this.shown.add(index);
        button.setAttribute("aria-pressed", this.shown.has(index));
        this.draw();
      });
      return button;
    }

    selection() {
      const entries = this.data.panels.map((panel, value) =>
        element("option", { value, textContent: panel.title }));
      const select = element("select", {}, ...entries);
      select.addEventListener("change", () => {
        this.chosen = Number(select.value);
        this.draw();
      });
      return element("label", {}, `${this.data.panelKind} `, select);
    }

    draw() {
      const box = this.node.querySelector(".panels");
      const all = this.data.panels;
      const panels = this.chosen === null ? all : [all[this.chosen]];
      while (box.children.length < panels.length) {
        const plot = element("div", { className: "plot" });
        plot.setAttribute("role", "img");
        box.append(element("div", { className: "panel" }, element("h4"), plot));
      }
      for (const [index, panel] of panels.entries()) {
        const [title, plot] = box.children[index].children;
        title.textContent = panel.title;
        title.hidden = !panel.title;
        plot.setAttribute("aria-label", [this.data.title, panel.title].filter(Boolean).join(": "));
        const marks = panel.marks.filter((mark) => this.shown.has(mark.series));
        const drawn = marks.flatMap((mark) => traces(this.data, mark));
        Plotly.react(plot, drawn, { ...layout(this.data, marks), width: plot.clientWidth }, options);
      }
    }
  }

  // --- The page ---

  const unpack = async (id) => {
    const packed = Uint8Array.from(atob(document.getElementById(id).textContent), (c) => c.charCodeAt(0));
    const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("gzip"));
    document.head.append(element("script", { textContent: await new Response(stream).text() }));
  };

  const figures = [];
  const drawAll = async () => {
    for (const figure of figures) {
      figure.draw();
      await new Promise((next) => setTimeout(next)); // The page stays usable meanwhile.
    }
  };

  const dark = matchMedia("(prefers-color-scheme: dark)");
  const isDark = () => (root.dataset.theme ?? (dark.matches ? "dark" : "light")) === "dark";
  const theme = document.getElementById("theme");
  const themed = () => { theme.textContent = isDark() ? "Light" : "Dark"; };
  theme.addEventListener("click", () => {
    root.dataset.theme = isDark() ? "light" : "dark";
    themed();
    drawAll();
  });
  dark.addEventListener("change", () => { themed(); drawAll(); });
  themed();
  theme.hidden = false;

  let width = root.clientWidth;
  let resized = 0;
  addEventListener("resize", () => {
    if (root.clientWidth === width) return; // A phone's bars come and go.
    width = root.clientWidth;
    clearTimeout(resized);
    resized = setTimeout(drawAll, 150);
  });
  // Paper is white, whatever the screen is.
  let onScreen;
  const onPaper = (printing) => {
    if (root.classList.contains("paper") === printing) return;
    root.classList.toggle("paper", printing);
    if (printing) {
      onScreen = root.dataset.theme;
      root.dataset.theme = "light";
    } else if (onScreen === undefined) delete root.dataset.theme;
    else root.dataset.theme = onScreen;
    for (const figure of figures) figure.draw();
  };
  addEventListener("beforeprint", () => onPaper(true));
  addEventListener("afterprint", () => onPaper(false));

  const start = async () => {
    for (const node of document.querySelectorAll("figure")) {
      if (node.querySelector("script")) figures.push(new Plots(node));
    }
    if (figures.length) {
      await unpack("plotly");
      await drawAll();
    }
    root.dataset.drawn = "all";
  };
  start().catch((error) => {
    const said = `The plots cannot be drawn: ${error.message}. Tables and CSV need no plots.`;
    document.querySelector("main").prepend(element("p", { textContent: said }));
    throw error;
  });
})();
