// What comes of it, beside the plane and below it: how right each group is, its weights, and other seeds.

import { meter, seedStrip, strip } from "./charts.js";
import { FULL, quantized, stepOf } from "./grid.js";
import { excess, measured } from "./measures.js";
import { MARKS, table } from "./parts.js";
import { GROUPS } from "./points.js";
import { count, percent, PERCENT, precision, signed, verdictOfSeeds } from "./sentences.js";
import { element } from "../common/elements.js";

/** `own` returns what the model has under a name; `learner` the networks that have learned so far. */
export function resultsOf(own, learner, recipe) {
  const meters = {
    majority: meter("majority", "pg-majority", MARKS.majority),
    minority: meter("minority", "pg-minority", MARKS.minority),
    FVO: meter("gap (FVO)", "pg-gap", (r) => `M0,${-r}L${r},0L0,${r}L${-r},0Z`),
  };
  const strips = recipe.layers.slice(1).map((outputs, i) => {
    const inputs = recipe.layers[i];
    return strip(`${inputs} × ${outputs} weights`);
  });
  const seeds = seedStrip();
  const seedsSaid = element("p", { class: "pg-seeds-said" });
  const warning = element(
    "p",
    { class: "pg-warning" },
    "The points you found here were chosen to show an effect. Move them, and it may vanish.",
  );
  const block = (title, ...parts) => element("div", {}, element("p", { class: "pg-title" }, title), ...parts);
  const right = element(
    "div",
    { class: "pg-right" },
    block("Right answers (outline: full precision)", ...Object.values(meters).map(({ row }) => row)),
    block("The weights snap to the grid", ...strips.map(({ drawing }) => drawing)),
    block("Another seed can tell another story", seeds.drawing, seedsSaid, warning),
  );
  const numbers = element("div", { class: "pg-numbers" });
  const details = element("details", {}, element("summary", {}, "All numbers"), numbers);
  let seedRows = [];
  let latest = null; // what was shown last

  function drawWeights(network, full) {
    strips.forEach((one, i) => one.draw(full[i].weights, network[i].weights, own("bits")));
  }

  function drawSeeds() {
    const points = own("points");
    const width = own("bits");
    const ready = learner.seeds.filter(learner.network);
    const excesses = new Map();
    for (const seed of width === FULL ? [] : ready) {
      const network = learner.network(seed);
      const [full, now] = [measured(points, network), measured(points, quantized(network, width))];
      if (full.FVO !== null) excesses.set(seed, excess(full, now));
    }
    const waiting = `${ready.length} of ${learner.seeds.length} networks have learned from these points.`;
    seedsSaid.textContent = ready.length < learner.seeds.length ? waiting : verdictOfSeeds(width, excesses);
    seeds.draw(excesses, own("seed"), `A dot for each seed. ${seedsSaid.textContent}`);
    seedRows = [...excesses].map(([seed, value]) => [`seed ${seed}`, signed(100 * value, 1)]);
    if (details.open) tabulate();
  }

  function show(found) {
    latest = found;
    const { full, now } = found;
    for (const group of GROUPS) {
      const [was, is] = [full[group], now[group]];
      const margins = was.n ? `margin ${signed(is.margin, 1)}, was ${signed(was.margin, 1)}` : "";
      const note = `was ${percent(was.accuracy)}${PERCENT} · ${margins}`;
      meters[group].show(was.accuracy, is.accuracy, PERCENT, note);
    }
    meters.FVO.show(full.FVO, now.FVO, "", `was ${count(percent(full.FVO), "point")}`);
    drawSeeds();
  }

  function tabulate() {
    const { width, full, now, network, low } = latest;
    const name = precision(width);
    const number = (value, digits, factor = 1) => (value === null ? "–" : signed(factor * value, digits));
    const groups = GROUPS.flatMap((group) => [
      [`${group}, accuracy, %`, number(full[group].accuracy, 1, 100), number(now[group].accuracy, 1, 100)],
      [`${group}, mean margin`, number(full[group].margin, 2), number(now[group].margin, 2)],
    ]);
    groups.push(["gap (FVO), points", number(full.FVO, 1, 100), number(now.FVO, 1, 100)]);
    const weights = network.map((one, i) => [
      `${recipe.layers[i]} × ${recipe.layers[i + 1]}`,
      `${one.weights.length}`,
      width === FULL ? "–" : stepOf(one.weights, width).toFixed(3),
      `${low[i].weights.filter((weight) => weight === 0).length}`,
    ]);
    numbers.replaceChildren(
      table("The groups", ["full precision", width === FULL ? "now" : name], groups),
      table("The weights", ["weights", "step", "rounded to 0"], weights),
      table("What the minority lost beyond the majority", ["points"], seedRows),
    );
  }
  details.addEventListener("toggle", () => details.open && latest && tabulate());

  return { right, details, drawWeights, drawSeeds, show };
}
