"use strict";
// The table of every case: filtered by words and choices, sorted by its headers, a page at a time.

const PAGE = 100; // rows
const CHOICES = ["status", "run", "model", "lowering", "step"];
const collator = new Intl.Collator("en", { numeric: true });
const shownTable = { sort: null, descending: false, page: 0, rows: [] };
const [head, body] = document.querySelectorAll("#case-table thead, #case-table tbody");
const filters = document.getElementById("filters");
const words = element("input", { type: "search", id: "words", autocomplete: "off" });
const selects = new Map();
let searched = null; // per case, all its texts in lower case

function cellText(spec, row) {
  const value = column(spec.column)[row];
  const at = (name) => (name in report.columns ? column(name)[row] : null);
  const scaled = typeof value === "number" ? value / spec.divisor : value;
  return spec.low ? withInterval(scaled, at(spec.low), at(spec.high), "\n") : number(scaled);
}

/** Why a case has no time, empty where it has one. */
const reasonOf = (row) => ("reason" in report.columns && column("reason")[row]) || "";

function matching() {
  const wanted = words.value.toLowerCase().split(/\s+/).filter(Boolean);
  const chosen = [...selects].filter(([, select]) => select.value !== "");
  if (wanted.length) {
    searched ??= Array.from({ length: report.count }, (_, row) =>
      [...report.table.map((spec) => cellText(spec, row)), reasonOf(row)].join(" ").toLowerCase());
  }
  return Array.from({ length: report.count }, (_, row) => row).filter((row) =>
    wanted.every((word) => searched[row].includes(word)) &&
    chosen.every(([name, select]) => column(name)[row] === select.value));
}

/** Rows by the sorted column; what is missing comes last either way, and equals keep the order of the run. */
function sorted(rows) {
  if (shownTable.sort === null) return rows;
  const spec = report.table[shownTable.sort];
  const values = column(spec.sort ?? spec.column);
  const order = (a, b) => (typeof a === "number" && typeof b === "number" ? a - b : collator.compare(a, b));
  const sign = shownTable.descending ? -1 : 1;
  return rows.sort((a, b) => {
    if (values[a] === null || values[b] === null) return (values[a] === null) - (values[b] === null) || a - b;
    return sign * order(values[a], values[b]) || a - b;
  });
}

function tableCell(spec, row) {
  const text = cellText(spec, row), reason = reasonOf(row);
  if (spec.column === "status" && reason) {
    return element("td", {}, element("details", {}, element("summary", {}, text), reason));
  }
  const isNumber = typeof column(spec.column)[row] === "number";
  return element("td", isNumber ? { class: "number" } : ["model", "lowering", "run"].includes(spec.column) ? { class: "name" } : {}, text);
}

function showPage() {
  const { rows, page } = shownTable;
  const first = page * PAGE, part = rows.slice(first, first + PAGE);
  body.replaceChildren(...part.map((row) => {
    const failed = column("status")[row] !== "ok";
    return element("tr", failed ? { class: "failed" } : {}, ...report.table.map((spec) => tableCell(spec, row)));
  }));
  const count = (value) => value.toLocaleString("en");
  const place = rows.length > PAGE ? `; rows ${count(first + 1)} to ${count(first + part.length)} are below` : "";
  document.getElementById("shown").textContent = `${count(rows.length)} of ${count(report.count)} cases shown${place}.`;
  const pages = Math.max(1, Math.ceil(rows.length / PAGE));
  previous.disabled = page === 0;
  next.disabled = page >= pages - 1;
  pageNumber.textContent = `Page ${page + 1} of ${pages}`;
}

function renewTable() {
  shownTable.page = 0;
  shownTable.rows = sorted(matching());
  showPage();
}

/** A header's button: up, down, then as the run has it. A click, Enter and Space all press it. */
function sortBy(place) {
  const again = shownTable.sort === place;
  if (again && shownTable.descending) Object.assign(shownTable, { sort: null, descending: false });
  else Object.assign(shownTable, { sort: place, descending: again });
  head.querySelectorAll("th").forEach((th, each) => {
    const state = shownTable.sort !== each ? "none" : shownTable.descending ? "descending" : "ascending";
    th.setAttribute("aria-sort", state);
  });
  renewTable();
}

function header(spec, place) {
  const button = element("button", { type: "button" }, spec.title);
  button.addEventListener("click", () => sortBy(place));
  return element("th", { scope: "col", "aria-sort": "none" }, button);
}

function turner(text, step) {
  const button = element("button", { type: "button" }, text);
  button.addEventListener("click", () => {
    shownTable.page += step;
    showPage();
  });
  return button;
}

const previous = turner("Previous", -1), next = turner("Next", 1), pageNumber = element("span");
const matched = element("button", { type: "button" }, "These rows (CSV)");
matched.addEventListener("click", () => {
  const names = Object.keys(report.columns);
  download("cases", [names, ...shownTable.rows.map((row) => names.map((name) => column(name)[row]))]);
});

if (report.count) {
  head.append(element("tr", {}, ...report.table.map(header)));
  filters.append(element("label", {}, "Filter ", words));
  words.addEventListener("input", renewTable);
  for (const name of CHOICES) {
    const values = name in report.columns ? [...new Set(column(name))].filter((value) => value !== null) : [];
    if (values.length < 2) continue;
    const options = values.sort(collator.compare).map((value) => element("option", { value }, value));
    const select = element("select", {}, element("option", { value: "" }, "all"), ...options);
    select.addEventListener("change", renewTable);
    filters.append(element("label", {}, `${name} `, select));
    selects.set(name, select);
  }
  document.getElementById("pages").append(previous, pageNumber, next, matched);
  renewTable();
} else {
  document.getElementById("shown").textContent = "No case has a record.";
}
