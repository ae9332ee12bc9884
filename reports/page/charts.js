"use strict";
// Charts: a figure each, its panels drawn by plotly when they come into view.

const PALETTE = ["#0173b2", "#de8f05", "#029e73", "#d55e00", "#cc78bc", "#ca9161", "#56b4e9", "#949494"];
const BUTTONS = [["toImage", "zoom2d", "pan2d", "zoomIn2d", "zoomOut2d", "resetScale2d"]];
const CONFIG = { displaylogo: false, responsive: true, displayModeBar: "hover", modeBarButtons: BUTTONS };
const drawn = new Map(); // figure element -> what redraws it

/** Text that plotly shows as it is: it takes some tags for its own. */
const plain = (text) => String(text).replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(">", "&gt;");
const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
const namesOf = (view) => [...new Set(view.panels.flatMap((panel) => panel.traces.filter((trace) => trace.shape !== "roof").map((trace) => trace.name)))];

function styleOf(name, names) {
  const place = names.indexOf(name);
  return report.styles[name] ?? { color: PALETTE[place % PALETTE.length], symbol: "circle", dash: "solid" };
}

/** A trace with its numbers in place of the columns that it names, in the unit of the axis. */
function resolved(trace) {
  const scaled = (source) => source && read(source, trace.rows).map((v) => (typeof v === "number" ? v / trace.divisor : v));
  const x = read(trace.x, trace.rows);
  const ticks = trace.ticks ? read(trace.ticks, trace.rows).map(String) : x.map(number);
  return { ...trace, x, ticks, named: Boolean(trace.ticks), y: scaled(trace.y), low: scaled(trace.low), high: scaled(trace.high) };
}

function plotlyTrace(trace, style, visible) {
  const between = (ends, sign) => trace.y.map((y, i) => (ends[i] === null ? 0 : sign * (ends[i] - y)));
  const bounds = trace.low && {
    type: "data", symmetric: false, array: between(trace.high, 1), arrayminus: between(trace.low, -1), thickness: 1, width: 3,
  };
  const roof = trace.shape === "roof", bar = trace.shape === "bar", lies = bar || trace.shape === "mark";
  return {
    name: plain(trace.name), x: lies ? trace.y : trace.x, y: lies ? trace.x : trace.y, orientation: bar ? "h" : undefined, visible,
    type: bar ? "bar" : "scatter", [lies ? "error_x" : "error_y"]: (!bar && bounds) || undefined, mode: { bar: undefined, roof: "lines", mark: "markers" }[trace.shape] ?? trace.shape,
    line: roof ? { color: colour("--soft"), dash: trace.dashed ? "dash" : "solid", width: 1.2 } : { color: style.color, dash: style.dash, width: 1.8 },
    marker: { color: style.color, symbol: style.symbol, size: 8 },
    hoverinfo: "text",
    text: trace.y.map((y, i) => {
      const value = withInterval(y, trace.low?.[i], trace.high?.[i]);
      return `${plain(trace.name)}<br>${plain(trace.ticks[i])}: ${value}`;
    }),
    textposition: "none",
  };
}

/** The intervals of stacked bars at their ends, over all bars: a bar's own would be hidden by the next. */
function whiskers(traces) {
  const ends = new Map();
  return traces.filter((trace) => trace.shape === "bar" && trace.low).map((trace) => {
    const x = trace.x.map((name, i) => (ends.get(name) ?? 0) + (trace.y[i] ?? 0));
    trace.x.forEach((name, i) => ends.set(name, x[i]));
    const bounds = plotlyTrace({ ...trace, shape: "mark" }, {}, true).error_x;
    return { x, y: trace.x, type: "scatter", mode: "markers", marker: { size: 1, color: colour("--ink") }, error_x: { ...bounds, color: colour("--ink") }, hoverinfo: "skip" };
  });
}

/** The range that all panels share, in logarithms on a logarithmic axis; undefined where plotly may choose. */
function sharedRange(axis, name, panels) {
  if (axis.scale !== "log") return undefined;
  const ends = (trace) => (name === "y" ? [...(trace.low ?? []), ...(trace.high ?? [])] : []);
  const all = panels.flat().flatMap((trace) => [...trace[name], ...ends(trace)]);
  const logs = all.filter((value) => value > 0).map(Math.log10);
  const low = logs.reduce((a, b) => Math.min(a, b), Infinity), high = logs.reduce((a, b) => Math.max(a, b), -Infinity);
  const margin = Math.max(0.05 * (high - low), 0.02);
  return logs.length ? [low - margin, high + margin] : undefined;
}

const STEPS = [[1, 2, 5], [1, 1.5, 2, 3, 5, 7], [1, 1.2, 1.4, 1.7, 2, 2.5, 3, 4, 5, 6, 8]];

/** Round numbers within a range of logarithms: at least three a decade and three in all, where that is possible. */
function roundNumbers([low, high]) {
  let ticks = [];
  for (const steps of STEPS) {
    const powers = Array.from({ length: Math.ceil(high) - Math.floor(low) + 1 }, (_, i) => Math.floor(low) + i);
    ticks = powers.flatMap((power) => steps.map((step) => Number(`${step}e${power}`)));
    ticks = ticks.filter((tick) => Math.log10(tick) >= low && Math.log10(tick) <= high);
    if (ticks.length >= Math.max(3, 3 * Math.floor(high - low))) break;
  }
  return { tickmode: "array", tickvals: ticks, ticktext: ticks.map(number) };
}

/** The names of roofs at their upper ends, where no case is. */
function roofNames(traces) {
  return traces.filter((trace) => trace.shape === "roof").map((trace) => {
    const flat = trace.y[0] === trace.y.at(-1), end = flat ? trace.x.length - 1 : 0;
    const place = { x: Math.log10(trace.x[end]), y: Math.log10(trace.y[end]), yanchor: "bottom", showarrow: false };
    return { ...place, text: plain(trace.name), xanchor: flat ? "right" : "left", font: { size: 11, color: colour("--soft") } };
  });
}

function layout(chart, traces, ranges) {
  const look = { gridcolor: colour("--line"), linecolor: colour("--line"), zeroline: false, automargin: true };
  const axis = ({ title, scale }) => ({ ...look, title: { text: plain(title), standoff: 8 }, type: scale });
  const x = axis(chart.x);
  if (chart.x.scale === "log") {
    const places = new Map(traces.filter((trace) => trace.named).flatMap((trace) => trace.x.map((place, i) => [place, plain(trace.ticks[i])])));
    if (places.size) Object.assign(x, { tickvals: [...places.keys()], ticktext: [...places.values()] });
    else Object.assign(x, { range: ranges.x, ...roundNumbers(ranges.x) });
  }
  const y = { ...axis(chart.y), range: ranges.y, ...(ranges.y ? roundNumbers(ranges.y) : {}) };
  if (chart.y.measured) {
    const places = [...new Set(traces.filter((trace) => trace.named).flatMap((trace) => trace.y))];
    Object.assign(y, { tickvals: places, ticktext: places.map(number) });
  }
  const bars = chart.y.scale === "linear"; // they lie
  return {
    xaxis: bars ? { ...axis(chart.y), rangemode: "tozero" } : x, yaxis: bars ? { ...axis(chart.x), autorange: "reversed" } : y, annotations: roofNames(traces), barmode: "stack", ...(chart.x.scale === "category" ? { scattermode: "group" } : {}), showlegend: false,
    margin: { l: 10, r: 10, t: 30, b: 10 }, hovermode: "closest",
    paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)",
    font: { family: getComputedStyle(document.body).fontFamily, size: 12, color: colour("--ink") },
    modebar: { bgcolor: "rgba(0,0,0,0)", color: colour("--soft"), activecolor: colour("--accent") },
  };
}

/** What a panel shows, for those who do not see it: each line's ends. */
function inWords(chart, title, traces) {
  const point = (trace, i) => `${number(trace.y[i])} at ${trace.ticks[i]}`;
  const lines = traces.filter((trace) => trace.y.length).slice(0, 12).map((trace) => {
    const last = trace.y.length - 1;
    return `${trace.name}: ${point(trace, 0)}${last ? ` to ${point(trace, last)}` : ""}`;
  });
  return `${chart.title}${title ? `, ${title}` : ""}. ${chart.y.title} against ${chart.x.title}. ${lines.join("; ")}`;
}

/** Places for the panels of the chosen view; the plots that were there go when plotly has done with them. */
function layPanels(state) {
  const view = state.chart.views[state.view];
  const old = [...state.panels.querySelectorAll(".plot")];
  Promise.allSettled(state.pending).then(() => old.forEach(Plotly.purge));
  state.pending = [];
  state.panels.replaceChildren(...view.panels.map((panel) => {
    const label = inWords(state.chart, panel.names.join(", "), panel.traces.map(resolved));
    const plot = element("div", { class: "plot", role: "img", "aria-label": label });
    return element("div", { class: "panel" }, element("h4", {}, panel.names.join(", ")), plot);
  }));
}

/** Draw the panels, or draw them again in other colours or with other lines. */
function drawPanels(state) {
  const { chart, panels, hidden } = state;
  const view = chart.views[state.view], names = namesOf(view);
  const shown = view.panels.map((panel) => panel.traces.map(resolved));
  const ranges = { x: sharedRange(chart.x, "x", shown), y: sharedRange(chart.y, "y", shown) };
  panels.querySelectorAll(".plot").forEach((plot, place) => {
    const traces = shown[place].map((trace) => plotlyTrace(trace, styleOf(trace.name, names), !hidden.has(trace.name)));
    traces.push(...whiskers(shown[place].filter((trace) => !hidden.has(trace.name))));
    state.pending.push(Plotly.react(plot, traces, layout(chart, shown[place], ranges), CONFIG));
  });
}

/** A box a line, that shows or hides it in every panel; a keyboard reaches it. */
function legend(state) {
  const names = namesOf(state.chart.views[state.view]);
  const boxes = names.map((name) => {
    const box = element("input", { type: "checkbox" });
    box.checked = !state.hidden.has(name);
    box.addEventListener("change", () => {
      state.hidden[box.checked ? "delete" : "add"](name);
      drawPanels(state);
    });
    const swatch = element("span", { class: "swatch", "aria-hidden": "true" });
    swatch.style.background = styleOf(name, names).color;
    return element("label", {}, box, swatch, name);
  });
  state.legend.replaceChildren(element("legend", { class: "unseen" }, "shown"), ...boxes);
}

/** Every point of what is shown, with all columns of its case where it has one. */
function dataOf(state) {
  const points = state.chart.views[state.view].panels.flatMap((panel) => panel.traces.flatMap((raw) => {
    const trace = resolved(raw);
    return trace.y.map((y, i) => ({ row: trace.rows[i], cells: [panel.names.join(", "), trace.name, trace.ticks[i], y, trace.low?.[i], trace.high?.[i]] }));
  }));
  const columns = points.some((point) => point.row !== undefined) ? Object.keys(report.columns) : [];
  const head = ["panel", "line", state.chart.x.title, state.chart.y.title, "low", "high", ...columns];
  return [head, ...points.map(({ row, cells }) => [...cells, ...columns.map((name) => (row === undefined ? "" : column(name)[row]))])];
}

function figure(chart) {
  const heading = element("h3", { id: `${chart.name}-heading` }, chart.title);
  const note = element("p", { class: "note" });
  const state = {
    chart, view: 0, hidden: new Set(), pending: [],
    panels: element("div", { class: chart.y.scale === "linear" ? "panels wide" : "panels" }), legend: element("fieldset", { class: "legend" }),
  };
  const choice = element("select", {}, ...chart.views.map((view, place) => element("option", { value: place }, view.label)));
  const renew = () => {
    const view = chart.views[state.view];
    note.textContent = view.note;
    legend(state);
    layPanels(state);
  };
  choice.addEventListener("change", () => {
    state.view = Number(choice.value);
    renew();
    drawPanels(state);
  });
  const save = element("button", { type: "button" }, "Data (CSV)");
  save.addEventListener("click", () => download(chart.name, dataOf(state)));
  const links = chart.files.map((name) => element("a", { href: encodeURIComponent(name) }, name.split(".").pop().toUpperCase()));
  const fixed = chart.views.length > 1 ? element("label", {}, "at ", choice) : element("span", {}, `at ${chart.views[0].label}`);
  const controls = element("div", { class: "controls" }, fixed, save, ...links);
  const made = element("figure", { id: chart.name, "aria-labelledby": `${chart.name}-heading` },
    heading, controls, state.legend, state.panels, element("figcaption", {}, note));
  renew();
  drawn.set(made, { state, done: false });
  return made;
}

function drawOnce(made) {
  const entry = drawn.get(made);
  if (!entry.done) drawPanels(entry.state);
  entry.done = true;
}

function redraw() {
  for (const entry of drawn.values()) if (entry.done) drawPanels(entry.state);
}

const made = report.charts.map(figure);
document.getElementById("charts").append(...(made.length ? made : ["No figure: that takes two measured places along an axis."]));
document.getElementById("contents").append(...report.charts.map((chart) => element("a", { href: `#${chart.name}` }, chart.title)));
const watcher = new IntersectionObserver((entries) => {
  for (const entry of entries) if (entry.isIntersecting) drawOnce(entry.target);
}, { rootMargin: "400px" });
made.forEach((each) => watcher.observe(each));
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redraw);
addEventListener("beforeprint", () => {
  document.documentElement.toggleAttribute("data-printing", true);
  for (const folded of document.querySelectorAll("#verdict details, #case-table details")) folded.open = true;
  for (const entry of drawn.values()) entry.done = true;
  redraw();
});
addEventListener("afterprint", () => {
  document.documentElement.toggleAttribute("data-printing", false);
  redraw();
});
