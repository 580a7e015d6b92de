// What is seen, in words: beside the drawing, and for who cannot see it.

import { networksOf } from "./shown.js";
import { alike, asPercent, capital, fixed, plain, signed, sum, times } from "../common/format.js";

export function reading(shown, series, bin) {
  const value = series.shown[bin];
  if (shown.change) return shown.numbers ? signed(value, 0) : `${signed(value, 1)} points`;
  const count = series.counts[bin].toLocaleString("en-US");
  return shown.numbers ? count : `${fixed(value, 1)} % (${count})`;
}

function medians(shown) {
  const { unit, factor, log } = shown.quantity;
  const summaries = shown.series.flatMap((series) => [series.summary, ...(shown.change ? [series.summaryBefore] : [])]);
  const told = alike(summaries.map((summary) => times(factor, summary[2])), log);
  const said = told.map((value) => (unit && value !== "—" ? `${value} ${unit}` : value));
  return shown.series.map(({ name }, row) =>
    shown.change ? `${name} ${said[2 * row]}, was ${said[2 * row + 1]}` : `${name} ${said[row]}`,
  );
}

function aboutGrid(shown) {
  const grid = shown.grid;
  if (!grid || grid.size === undefined) return `under ${shown.under} these weights are not rounded.`;
  const share = `${asPercent(grid.zeros)} of the weights become zero`;
  const trained = grid.trains ? " (it trains the weights further: its grid fits others than those drawn)" : "";
  if (!grid.size) {
    const why = "as it is very fine or differs within the layer";
    return `no grid of ${shown.under} is drawn, ${why}: ${share}${trained}.`;
  }
  if (!grid.zero) return `the grid of ${shown.under} has ${plain(grid.size)} values, zero is not among them${trained}.`;
  return (
    `the grid of ${shown.under} has ${plain(grid.size)} values; zero takes in all weights from ` +
    `${plain(grid.zero[0])} to ${plain(grid.zero[1])}: ${share}${trained}.`
  );
}

// What is seen, in one sentence.
export function sentence(shown) {
  const scale = shown.numbers ? `numbers of ${shown.of}` : `shares of ${shown.of}`;
  const name = capital(shown.quantity.name);
  if (shown.of === "weights") return `${name}, ${shown.bins} bins, ${scale}: ${aboutGrid(shown)}`;
  const what = shown.change ? `change against ${shown.first} in ${scale}` : scale;
  const where = shown.overlay ? "all in one panel" : "a panel for each group";
  const how = shown.series.length ? `medians ${medians(shown).join("; ")}` : "no group is chosen";
  const firsts = shown.tops ? shown.tops.sentence : "";
  return `${name} under ${shown.under}, ${shown.bins} bins, ${what}, ${where}: ${how}.${firsts}${shown.soFar}`;
}

export function flowSentence(view, flows) {
  const said = flows.map(
    ({ name, parts, total }) =>
      `${name} ${parts[1].toLocaleString("en-US")} right → wrong and ${parts[2].toLocaleString("en-US")} ` +
      `wrong → right of ${total.toLocaleString("en-US")}`,
  );
  return `Answers from ${view.before} to ${view.after}: ${said.join("; ") || "no group is chosen"}.`;
}

export function extent(data, ...treatments) {
  const images = sum(data.groups.map((group) => group.n)).toLocaleString("en-US");
  const fewest = Math.min(...treatments.map((name) => networksOf(data, name)));
  const soFar = fewest < data.seeds ? `; so far ${fewest} under ${treatments.at(-1)}` : "";
  const [one, several] = data.networks;
  const networks = data.seeds === 1 ? `1 ${one}` : `${data.seeds} ${several}, counted together`;
  return `${data.about ? `${capital(data.about)}: ` : ""}${networks}${soFar}, ${images} images.`;
}
