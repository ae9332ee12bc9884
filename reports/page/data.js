"use strict";
// The cases and charts of this report, and what the other two scripts share. Texts go in as text, never as HTML.

const report = JSON.parse(document.getElementById("report-data").textContent);
const decoded = new Map();

/** All values of a column, one a case: numbers or texts, null where missing. */
function column(name) {
  if (!decoded.has(name)) {
    const { values, codes } = report.columns[name];
    decoded.set(name, codes ? codes.map((code) => (code < 0 ? null : values[code])) : values);
  }
  return decoded.get(name);
}

/** What a trace speaks of: a column, read at its rows, or the values themselves. */
function read(source, rows) {
  if (typeof source !== "string") return source;
  return source in report.columns ? rows.map((row) => column(source)[row]) : rows.map(() => null);
}

/** Four significant digits, plainly written, as in summary.md. */
function number(value) {
  if (value === null || value === undefined) return "";
  if (typeof value !== "number") return String(value);
  if (Math.abs(value) >= 1000) return value.toLocaleString("en", { maximumFractionDigits: 0 });
  return value !== 0 && Math.abs(value) < 1e-4 ? value.toExponential(1) : String(Number(value.toPrecision(4)));
}

/** "1.21 [1.19, 1.23]" */
function withInterval(value, low, high, space = " ") {
  const bounds = low === null || low === undefined ? "" : `${space}[${number(low)}, ${number(high)}]`;
  return value === null ? "" : number(value) + bounds;
}

/** A new element; children are elements or texts. */
function element(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  made.append(...children);
  return made;
}

/** Hand rows of cells to the reader as a CSV file. */
function download(name, rows) {
  const quoted = (cell) => (/[",\r\n]/.test(cell) ? `"${cell.replaceAll('"', '""')}"` : cell);
  const text = rows.map((row) => row.map((cell) => quoted(String(cell ?? ""))).join(",")).join("\n") + "\n";
  const address = URL.createObjectURL(new Blob([text], { type: "text/csv" }));
  element("a", { href: address, download: `${name}.csv` }).click();
  setTimeout(() => URL.revokeObjectURL(address), 10000);
}
