// What a view asks to be drawn: the histograms of each group, or those of a layer's weights.

import { choicesOfBins, merge, nearest, unpack } from "./bins.js";
import { WEIGHTS } from "./view.js";
import { alike, capital, sum, times } from "../common/format.js";

// Of how many networks there are answers: while another treatment is computed, at first of few.
export function networksOf(data, treatment) {
  return data.so_far[treatment] ?? data.seeds;
}

function weightsShown(data, view) {
  const place = data.weights.layers.findIndex((layer) => layer.name === view.layer);
  const layer = data.weights.layers[place];
  const own = data.weights.grids[view.treatment];
  const counts = unpack(layer.counts);
  const about = { name: `weights of ${layer.name}`, unit: "", factor: 1 };
  const quantity = { ...about, bins: counts.length, zero: counts.length / 2 };
  const bins = nearest(view.bins, choicesOfBins(quantity));
  const found = merge(counts, counts.length / bins);
  const all = sum(found) || 1;
  const shown = view.numbers ? found : found.map((count) => (100 * count) / all);
  return {
    quantity,
    low: -layer.reach,
    high: layer.reach,
    bins,
    of: "weights",
    numbers: view.numbers,
    change: false,
    under: view.treatment,
    grid: own ? { ...own.layers[place], trains: own.trains } : null,
    series: [{ name: layer.name, colour: "#7d828a", mark: "h", counts: found, shown, before: null, total: all }],
  };
}

function answersShown(data, view) {
  const quantity = data.quantities[view.quantity];
  const bins = nearest(view.bins, choicesOfBins(quantity));
  const by = quantity.bins / bins;
  const first = data.treatments[0];
  const counted = (treatment, place) => merge(unpack(data.counts[view.quantity][treatment][place]), by);
  const networks = networksOf(data, view.treatment);
  const tops = data.tops[view.quantity];
  const soFar = networks < data.seeds ? ` So far ${networks} of ${data.seeds} networks.` : "";
  const numbers = view.numbers && !soFar; // those of fewer networks would only look like fewer answers
  const series = view.groups.map((place) => {
    const [counts, originals] = [counted(view.treatment, place), counted(first, place)];
    const [own, before] = [counts, originals].map((found) =>
      numbers ? found : found.map((count) => (100 * count) / (sum(found) || 1)),
    );
    return {
      ...data.groups[place],
      counts,
      originals,
      before: view.treatment === first ? null : before,
      shown: view.change ? own.map((value, bin) => value - before[bin]) : own,
      own,
      summary: data.summaries[view.quantity][view.treatment][place],
      summaryBefore: data.summaries[view.quantity][first][place],
      total: sum(counts),
    };
  });
  return {
    quantity,
    low: quantity.low,
    high: quantity.high,
    bins,
    of: "answers",
    numbers,
    soFar,
    change: view.change,
    overlay: view.overlay,
    under: view.treatment,
    first,
    boundary: view.quantity === "margin",
    tops: tops ? topsShown(tops, data, view) : null,
    series,
  };
}

// What the groups that are chosen get of what comes first, and then all groups together.
function topsShown(tops, data, view) {
  const places = [...view.groups, ...tops.rows.map((_, place) => data.groups.length + place)];
  const names = [...data.groups.map((group) => group.name), ...tops.rows];
  const [now, was] = [view.treatment, data.treatments[0]].map((treatment) => tops.values[treatment]);
  const heads = tops.heads.map((head) => `${head.name}, ${head.unit}`);
  const columns = tops.heads.map((head, column) => {
    const found = [now, was].flatMap((values) => places.map((place) => times(head.factor, values[place][column])));
    const told = alike(found);
    return places.map((_, row) => [told[row], told[places.length + row]]);
  });
  const cell = ([own, before]) => (own === before ? own : `${own} (was ${before})`);
  const rows = places.map((place, row) => [names[place], ...columns.map((column) => cell(column[row]))]);
  const values = places.map((place, row) => `${names[place]} ${columns.at(-1)[row][0]}`);
  return {
    caption: `${tops.name}, by group, under ${view.treatment}`,
    rows: [["group", ...heads], ...rows],
    sentence: ` ${capital(heads.at(-1))}: ${values.join("; ")}.`,
  };
}

export function shownOf(data, view) {
  return view.quantity === WEIGHTS ? weightsShown(data, view) : answersShown(data, view);
}
