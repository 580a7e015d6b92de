// A network small enough to be trained and rounded in the page, on points that the reader moves. All constants
// come from Python in `recipe`, and fairq_utils/playground.py computes the same.

import { FULL, quantized, WIDTHS } from "./playground/grid.js";
import { learning } from "./playground/learning.js";
import { measured } from "./playground/measures.js";
import { button, slider } from "./playground/parts.js";
import { planeOf } from "./playground/plane.js";
import { pointsOf } from "./playground/points.js";
import { resultsOf } from "./playground/results.js";
import { count, precision, sentence, signed } from "./playground/sentences.js";
import { element } from "./common/elements.js";

function render({ model, el }) {
  const recipe = model.get("recipe");
  const names = ["points", "bits", "seed", "size", "difficulty"];
  const initial = Object.fromEntries(names.map((name) => [name, model.get(name)]));
  const own = (name) => model.get(name);
  const change = (changes) => {
    for (const [name, value] of Object.entries(changes)) model.set(name, value);
    model.save_changes();
  };

  // -- controls, and what they change
  const bits = slider("Precision of the weights:", "pg-bits", { min: 0, max: WIDTHS.length - 1, step: 1 });
  const scale = WIDTHS.map((width) => element("span", {}, width === FULL ? "full" : `${width}`));
  bits.holder.append(element("div", { class: "pg-scale-names", "aria-hidden": "true" }, ...scale));
  const size = slider("Size of the minority:", "", { min: 0, max: recipe.largest, step: 1 });
  const difficulty = slider("Its difficulty:", "", { min: 0, max: 1, step: 0.01 });
  const [another, reset] = [button("Another seed"), button("Start again")];
  const controls = element(
    "div",
    { class: "pg-controls" },
    bits.holder,
    size.holder,
    difficulty.holder,
    element("div", { class: "pg-buttons" }, another, reset),
  );
  const said = element("p", { role: "status", class: "pg-said" });

  const learner = learning(own, recipe, {
    looked(network) {
      current = network;
      if (!learner.isLearned()) show();
      update();
    },
    another: () => results.drawSeeds(),
  });
  const plane = planeOf(own, (points) => change({ points }), recipe);
  const results = resultsOf(own, learner, recipe);
  const root = element(
    "div",
    { class: "fairq-playground" },
    controls,
    said,
    element("div", { class: "pg-stage" }, plane.left, plane.editor, results.right),
    results.details,
  );
  el.append(root);

  bits.input.addEventListener("input", () => change({ bits: WIDTHS[Number(bits.input.value)] }));
  const redraw = () => {
    const [many, far] = [Number(size.input.value), Number(difficulty.input.value)];
    plane.unpick();
    change({ size: many, difficulty: far, points: pointsOf(many, far, recipe) });
  };
  size.input.addEventListener("input", redraw);
  difficulty.input.addEventListener("input", redraw);
  another.addEventListener("click", () => change({ seed: (own("seed") % recipe.population) + 1 }));
  reset.addEventListener("click", () => {
    plane.unpick();
    change(initial);
  });

  // -- drawing
  const still = window.matchMedia("(prefers-reduced-motion: reduce)");
  let current = null; // what is drawn: trained on these points, or lately on earlier ones
  let shown = null; // the rounded network as drawn, on its way to the next width
  let frame = 0;

  function draw(network) {
    shown = network;
    plane.drawNetwork(network, current);
    results.drawWeights(network, current);
  }

  function show() {
    cancelAnimationFrame(frame);
    draw(quantized(current, own("bits")));
  }

  function update() {
    learner.keepUp();
    const known = learner.network(own("seed"));
    root.setAttribute("aria-busy", String(!known));
    if (known) {
      current = known;
      show();
    } else learner.wake();
    plane.drawPoints();
    if (known) report();
  }

  function arrive() {
    show();
    plane.drawPoints();
    if (learner.isLearned()) report();
  }

  /** To another width: the weights move to their bins, and the boundary with them. */
  function move() {
    const [from, to] = [shown, current && quantized(current, own("bits"))];
    if (!from || !to) return;
    if (still.matches) return arrive();
    const start = performance.now();
    cancelAnimationFrame(frame);
    const tick = (now) => {
      const passed = Math.min(1, Math.max(0, (now - start) / 280));
      if (passed === 1) return arrive();
      const eased = 1 - (1 - passed) ** 3;
      const between = to.map(({ weights, biases }, i) => ({
        weights: weights.map((weight, k) => from[i].weights[k] + eased * (weight - from[i].weights[k])),
        biases,
      }));
      draw(between);
      plane.drawPoints();
      frame = requestAnimationFrame(tick);
    };
    if (learner.isLearned()) report();
    frame = requestAnimationFrame(tick);
  }

  /** What the network does to the groups: said, drawn, and told to Python. */
  function report() {
    const [points, width, seed] = [own("points"), own("bits"), own("seed")];
    const network = learner.network(seed);
    const low = quantized(network, width);
    const [full, now] = [measured(points, network), measured(points, low)];
    const text = sentence(width, seed, full, now);
    if (said.textContent !== text) said.textContent = text;
    plane.describe(low, now);
    results.show({ width, full, now, network, low });
    const plain = (layers, name) => layers.map((one) => one[name]);
    change({
      result: {
        bits: width,
        seed,
        weights: plain(network, "weights"),
        rounded: plain(low, "weights"),
        biases: plain(network, "biases"),
        full,
        now,
      },
    });
  }

  /** The controls show what the model has. */
  function follow() {
    const [width, seed] = [own("bits"), own("seed")];
    bits.input.value = WIDTHS.indexOf(width);
    bits.say(precision(width));
    scale.forEach((name, i) => name.classList.toggle("pg-here", WIDTHS[i] === width));
    size.input.value = own("size");
    size.say(`${own("size")}`, count(own("size"), "point"));
    difficulty.input.value = own("difficulty");
    difficulty.say(signed(own("difficulty"), 2));
    another.textContent = `Another seed (now ${seed})`;
  }

  const heard = {
    "change:points": () => (learner.rest(), update()),
    "change:seed": () => (learner.rest(), follow(), update()),
    "change:bits": () => (follow(), move()),
    "change:size": follow,
    "change:difficulty": follow,
  };
  for (const [event, action] of Object.entries(heard)) model.on(event, action);
  follow();
  update();

  return () => {
    learner.stop();
    cancelAnimationFrame(frame);
    for (const [event, action] of Object.entries(heard)) model.off(event, action);
  };
}

export default { render };
