// Tables, for eyes and for files.

import { valueAt } from "./bins.js";
import { FLOWS } from "./flows.js";
import { element } from "../common/elements.js";
import { alike, asPercent, capital, decimalsFor, fixed, sum, times } from "../common/format.js";

export function distributionRows(shown) {
  const unit = shown.quantity.unit ? `, ${shown.quantity.unit}` : "";
  const name = `${shown.quantity.name}${unit}`;
  const exact = (value) => Number(value.toPrecision(6));
  const percent = (count, all) => exact((100 * count) / (all || 1));
  const places = [`${name}: from`, `${name}: to`];
  const between = (bin) => [exact(valueAt(shown, bin)), exact(valueAt(shown, bin + 1))];
  if (shown.of === "weights") {
    const [one] = shown.series;
    const rows = one.counts.map((count, bin) => [one.name, ...between(bin), count, percent(count, one.total)]);
    return [["layer, before rounding", ...places, "count", "percent"], ...rows];
  }
  const heads = ["group", "treatment", ...places, "count", "percent", `count ${shown.first}`, `percent ${shown.first}`];
  const rows = shown.series.flatMap((one) => {
    const before = sum(one.originals);
    return one.counts.map((count, bin) => [
      one.name, shown.under, ...between(bin), count, percent(count, one.total),
      one.originals[bin], percent(one.originals[bin], before),
    ]);
  });
  return [heads, ...rows];
}

export function flowRows(view, flows) {
  const heads = ["group", "from", "to", "answers", ...FLOWS];
  return [heads, ...flows.map((one) => [one.name, view.before, view.after, one.total, ...one.parts])];
}

export function table(caption, rows) {
  const [heads, ...body] = rows;
  const row = ([first, ...rest]) =>
    element("tr", {}, element("th", { scope: "row" }, first), ...rest.map((value) => element("td", {}, value)));
  // A caption inside would be as wide as the table, wider than a phone.
  return [
    element("p", { class: "fairq-caption", "aria-hidden": "true" }, caption),
    element(
      "div",
      { class: "fairq-scrolled", tabindex: 0, role: "group", "aria-label": caption },
      element(
        "table",
        {},
        element("thead", {}, element("tr", {}, ...heads.map((head) => element("th", { scope: "col" }, head)))),
        element("tbody", {}, ...body.map(row)),
      ),
    ),
  ];
}

// As many rows, in which the numbers of a column are alike.
export function inColumns(rows, log = false) {
  const columns = rows.length ? rows[0].map((_, column) => rows.map((row) => row[column])) : [];
  const told = columns.map((column) => (typeof column[0] === "string" ? column : alike(column, log)));
  return rows.map((_, row) => told.map((column) => column[row]));
}

export function summaryTable(data, view, shown) {
  if (shown.of === "weights") {
    const own = data.weights.grids[view.treatment];
    const grids = data.weights.layers.map((_, place) => (own ? own.layers[place] : {}));
    const decimals = decimalsFor(grids.flatMap((grid) => grid.zero || []));
    const rows = data.weights.layers.map((layer, place) => {
      const grid = grids[place];
      const zero = grid.zero ? grid.zero.map((end) => fixed(end, decimals)).join("\u00a0to\u00a0") : "—";
      const share = grid.zeros === undefined ? "—" : asPercent(grid.zeros);
      return [layer.name, layer.reach, grid.size || null, zero, share];
    });
    const heads = ["layer", "largest weight", "values of the grid", "zero bin", "weights at zero"];
    return table(`Layers under ${view.treatment}`, [heads, ...inColumns(rows)]);
  }
  const { quantity } = shown;
  const unit = quantity.unit ? `, ${quantity.unit}` : "";
  const cells = (summary) => summary.map((value) => times(quantity.factor, value));
  const rows = shown.series.flatMap((one) => [
    ...(shown.under === shown.first ? [] : [[one.name, one.n, shown.first, ...cells(one.summaryBefore)]]),
    [one.name, one.n, shown.under, ...cells(one.summary)],
  ]);
  const heads = ["group", "images", "treatment", quantity.mean, "lower quartile", "median", "upper quartile"];
  const caption = `${capital(quantity.name)}${unit} of each group, over all ${data.networks[1]}`;
  return table(caption, [heads, ...inColumns(rows, quantity.log)]);
}
