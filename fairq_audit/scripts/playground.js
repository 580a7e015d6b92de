// A network small enough to be trained and rounded in the page. What is computed stands first, what is drawn
// below. All constants come from Python in `recipe`, and fairq_utils/playground.py computes the same.

const FULL = 32;
const WIDTHS = [FULL, 8, 7, 6, 5, 4, 3, 2];
const GROUPS = ["majority", "minority"];
const LABELS = ["hollow", "filled"];

// ---------------------------------------------------------------- numbers

/** Uniform numbers from 0 to 1, the same in every browser (mulberry32). */
function uniform(seed) {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 4294967296;
  };
}

/** Sums of uniform numbers instead of a true bell: no logarithm that browsers could round differently. */
const bell = (draw) => draw() + draw() + draw() + draw() - 2;

const within = (value) => Math.floor(1000 * Math.max(-0.97, Math.min(0.97, value)) + 0.5) / 1000;

/** The simple boundary: the majority above it is filled, the majority below it hollow. */
const bend = (x, recipe) => recipe.bend * x * (1 - x * x);

function pointsOf(size, difficulty, recipe) {
  const points = [];
  let draw = uniform(recipe.draw);
  for (let i = 0; i < recipe.majority; i++) {
    const side = i % 2 ? 1 : -1;
    const x = recipe.reach * (2 * draw() - 1);
    const away = recipe.near + (recipe.far - recipe.near) * draw();
    const y = bend(x, recipe) + side * away;
    points.push({ x: within(x), y: within(y), label: LABELS[i % 2], group: "majority" });
  }
  draw = uniform(recipe.draw + 1);
  for (let i = 0; i < size; i++) {
    const side = i % 2 ? 1 : -1;
    const x = side * recipe.aside;
    const y = bend(x, recipe) + side * (recipe.easy - (recipe.easy + recipe.deep) * difficulty);
    const place = [x + recipe.spread * bell(draw), y + recipe.spread * bell(draw)];
    points.push({ x: within(place[0]), y: within(place[1]), label: LABELS[i % 2], group: "minority" });
  }
  return points;
}

/** Weights before training; each matrix row by row, a row for each output. */
function untrained(seed, recipe) {
  const draw = uniform(seed);
  return recipe.layers.slice(1).map((outputs, i) => {
    const inputs = recipe.layers[i];
    const reach = Math.sqrt(6 / (inputs + outputs));
    return {
      weights: Array.from({ length: outputs * inputs }, () => reach * (2 * draw() - 1)),
      biases: new Array(outputs).fill(0),
    };
  });
}

/** The logits of both labels; `values` receives what every layer answers. */
function forward(network, x, y, values = network.map(({ biases }) => new Array(biases.length))) {
  let given = [x, y];
  network.forEach(({ weights, biases }, layer) => {
    const answer = values[layer];
    for (let j = 0; j < biases.length; j++) {
      let sum = biases[j];
      for (let k = 0; k < given.length; k++) sum += weights[j * given.length + k] * given[k];
      answer[j] = layer < network.length - 1 ? Math.tanh(sum) : sum;
    }
    given = answer;
  });
  return given;
}

/** Trains by Adam on all points at once, at a rate that falls to 0. Stops after each step, for slices. */
function* training(points, seed, recipe) {
  const network = untrained(seed, recipe);
  const tensors = network.flatMap(({ weights, biases }) => [weights, biases]);
  const zeros = () => tensors.map((tensor) => new Float64Array(tensor.length));
  const [gradients, means, squares] = [zeros(), zeros(), zeros()];
  const values = network.map(({ biases }) => new Array(biases.length));
  const errors = network.map(({ biases }) => new Array(biases.length));
  const last = network.length - 1;
  let meanLeft = 1;
  let squareLeft = 1;
  for (let step = 0; step < recipe.steps; step++) {
    gradients.forEach((gradient) => gradient.fill(0));
    for (const { x, y, label } of points) {
      const [hollow, filled] = forward(network, x, y, values);
      const error = (1 / (1 + Math.exp(hollow - filled)) - LABELS.indexOf(label)) / points.length;
      errors[last][0] = -error;
      errors[last][1] = error;
      for (let layer = last; layer >= 0; layer--) {
        const given = layer ? values[layer - 1] : [x, y];
        const before = layer ? errors[layer - 1].fill(0) : null;
        const { weights } = network[layer];
        errors[layer].forEach((error, j) => {
          gradients[2 * layer + 1][j] += error;
          for (let k = 0; k < given.length; k++) {
            gradients[2 * layer][j * given.length + k] += error * given[k];
            if (before) before[k] += error * weights[j * given.length + k];
          }
        });
        if (before) given.forEach((value, k) => (before[k] *= 1 - value * value));
      }
    }
    meanLeft *= recipe.momentum;
    squareLeft *= recipe.memory;
    const rate = recipe.rate * (1 - step / recipe.steps);
    tensors.forEach((tensor, i) => {
      for (let k = 0; k < tensor.length; k++) {
        const gradient = gradients[i][k] + recipe.decay * tensor[k];
        means[i][k] = recipe.momentum * means[i][k] + (1 - recipe.momentum) * gradient;
        squares[i][k] = recipe.memory * squares[i][k] + (1 - recipe.memory) * gradient * gradient;
        const size = Math.sqrt(squares[i][k] / (1 - squareLeft)) + recipe.tiny;
        tensor[k] -= (rate * (means[i][k] / (1 - meanLeft))) / size;
      }
    });
    yield;
  }
  return network;
}

function trained(points, seed, recipe) {
  const run = training(points, seed, recipe);
  for (;;) {
    const { done, value } = run.next();
    if (done) return value;
  }
}

/** To the nearest whole number, and from the middle to the even one, as torch.round does. */
function toEven(value) {
  const low = Math.floor(value);
  const above = value - low;
  if (above === 0.5) return low % 2 === 0 ? low : low + 1;
  return above < 0.5 ? low : low + 1;
}

/** The step of the grid: the largest magnitude is its last value. */
function stepOf(weights, bits) {
  const smallestNormal = 2.2250738585072014e-308;
  const largest = weights.reduce((most, weight) => Math.max(most, Math.abs(weight)), 0);
  return Math.max(largest / (2 ** (bits - 1) - 1), smallestNormal);
}

/** One matrix on its symmetric abs-max grid, as UniformQuantizer(bits) rounds it. */
function rounded(weights, bits) {
  if (bits === FULL) return weights.slice();
  const step = stepOf(weights, bits);
  const [inverse, last] = [1 / step, 2 ** (bits - 1) - 1];
  return weights.map((weight) => Math.max(-last, Math.min(last, toEven(weight * inverse))) * step + 0);
}

const quantized = (network, bits) =>
  network.map(({ weights, biases }) => ({ weights: rounded(weights, bits), biases }));

/** What the network answers: more of "filled" than of "hollow" where this is positive. */
function leaning(network, x, y) {
  const [hollow, filled] = forward(network, x, y);
  return filled - hollow;
}

/** Of each group: n, accuracy and mean margin; and the gap between both accuracies. */
function measured(points, network) {
  const found = {};
  for (const group of GROUPS) {
    const own = points.filter((point) => point.group === group);
    const margins = own.map(({ x, y, label }) => leaning(network, x, y) * (label === "filled" ? 1 : -1));
    // Where both logits are equal the network answers with the first label.
    const right = own.filter(({ label }, i) => margins[i] > 0 || (margins[i] === 0 && label === "hollow"));
    const mean = (total) => (own.length ? total / own.length : null);
    found[group] = {
      n: own.length,
      accuracy: mean(right.length),
      margin: mean(margins.reduce((sum, margin) => sum + margin, 0)),
    };
  }
  const [one, other] = GROUPS.map((group) => found[group].accuracy);
  return { ...found, FVO: one === null || other === null ? null : Math.abs(one - other) };
}

/** By how much more the accuracy of the minority fell than that of the majority. */
function excess(full, now) {
  const [majority, minority] = GROUPS.map((group) => full[group].accuracy - now[group].accuracy);
  const more = minority - majority;
  return Math.abs(more) < 1e-9 ? 0 : more;
}

/** The lines around all places where the field is positive, closed, as an SVG path. */
function outline(field, cells, side) {
  const across = cells + 1;
  // Beyond the plane nothing is positive, so that each line closes; what lies out there is not shown.
  const at = (i, j) => (i < 0 || j < 0 || i > cells || j > cells ? -1 : field[j * across + i]);
  const name = (i, j, down) => 2 * ((j + 1) * (across + 2) + i + 1) + down;
  const [places, follows] = [new Map(), new Map()];
  for (let j = -1; j <= cells; j++) {
    for (let i = -1; i <= cells; i++) {
      const ring = [[i, j], [i + 1, j], [i + 1, j + 1], [i, j + 1]];
      const signs = ring.map(([a, b]) => at(a, b) > 0);
      const some = signs[0] + signs[1] + signs[2] + signs[3];
      if (some === 0 || some === 4) continue;
      const edges = [name(i, j, 0), name(i + 1, j, 1), name(i, j + 1, 0), name(i, j, 1)];
      for (let e = 0; e < 4; e++) {
        const next = (e + 1) % 4;
        if (!signs[e] || signs[next]) continue;
        let back = next;
        while (signs[back] || !signs[(back + 1) % 4]) back = (back + 1) % 4;
        follows.set(edges[e], edges[back]);
        const [[a, b], [c, d]] = [ring[e], ring[next]];
        const share = at(a, b) / (at(a, b) - at(c, d));
        places.set(edges[e], [a + share * (c - a), b + share * (d - b)]);
      }
    }
  }
  const lines = [];
  while (follows.size) {
    let edge = follows.keys().next().value;
    const line = [];
    while (follows.has(edge)) {
      line.push(places.get(edge).map((place) => ((place * side) / cells).toFixed(1)).join(","));
      const next = follows.get(edge);
      follows.delete(edge);
      edge = next;
    }
    lines.push(`M${line.join("L")}Z`);
  }
  return lines.join("");
}

/** The leaning of the network on a lattice over the plane, row by row from the top. */
function fieldOf(network, cells) {
  const field = new Float64Array((cells + 1) ** 2);
  const values = network.map(({ biases }) => new Array(biases.length));
  for (let j = 0, place = 0; j <= cells; j++) {
    for (let i = 0; i <= cells; i++, place++) {
      const [hollow, filled] = forward(network, (2 * i) / cells - 1, 1 - (2 * j) / cells, values);
      field[place] = filled - hollow;
    }
  }
  return field;
}

// ---------------------------------------------------------------- words

const percent = (share) => Math.round(100 * share);
const PERCENT = "\u00a0%"; // no line begins with the sign
const count = (n, thing) => `${n} ${thing}${n === 1 ? "" : "s"}`;
const signed = (value, digits) => value.toFixed(digits).replace("-", "−");
const precision = (bits) => (bits === FULL ? "full precision" : `${bits} bits`);

function sentence(bits, seed, full, now) {
  const where = bits === FULL ? "In full precision" : `At ${bits} bits`;
  const absent = GROUPS.filter((group) => now[group].n === 0);
  if (absent.length) {
    const has = absent.length === 1 ? "has" : "have";
    return `The ${absent.join(" and the ")} ${has} no points: add some to compare.`;
  }
  const right = GROUPS.map((group) => percent(now[group].accuracy));
  const before = GROUPS.map((group) => percent(full[group].accuracy));
  const said =
    `${where}, with seed ${seed}, the majority of ${now.majority.n} is right on ${right[0]}${PERCENT}, ` +
    `the minority of ${now.minority.n} on ${right[1]}${PERCENT}`;
  // From the rounded percentages, so that who subtracts them finds the same.
  const gap = Math.abs(right[0] - right[1]);
  const more = gap - Math.abs(before[0] - before[1]);
  const equal = `${said}: the gap is ${count(gap, "point")}`;
  if (bits === FULL) return `${equal}.`;
  const change = more === 0 ? "as" : `${Math.abs(more)} ${more > 0 ? "more" : "fewer"} than`;
  const lost = GROUPS.filter((group) => full[group].accuracy - now[group].accuracy > 1e-9);
  const further = excess(full, now);
  const both = `both lost, ${further === 0 ? "as much" : `the ${further > 0 ? "minority" : "majority"} more`}`;
  const who = [`neither group lost`, `only the ${lost[0]} lost`, both][lost.length];
  return `${equal}, ${change} in full precision; ${who}.`;
}

/** How many networks agree with what the reader sees; `excesses` holds one number for each seed. */
function verdictOfSeeds(bits, excesses) {
  if (bits === FULL) return "In full precision nothing is rounded, so nobody can lose. Choose fewer bits.";
  const all = [...excesses.values()];
  if (!all.length) return "Where a group has no points, there is nothing to compare.";
  const more = all.filter((value) => value > 0).length;
  const less = all.filter((value) => value < 0).length;
  return (
    `${all.length} networks learned from these points, each from another seed. At ${bits} bits the minority ` +
    `lost more than the majority in ${more} of them, less in ${less}, as much in ${all.length - more - less}.`
  );
}

function nameOf({ x, y, label, group }, answer) {
  const place = `${label} point of the ${group} at ${signed(x, 2)}, ${signed(y, 2)}`;
  return `${place}, ${answer === label ? "answered right" : `taken for ${answer}`}`;
}

// ---------------------------------------------------------------- drawing

function element(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  set(made, attributes);
  made.append(...children);
  return made;
}

function shape(name, attributes = {}, ...children) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", name);
  set(made, attributes);
  made.append(...children);
  return made;
}

function set(made, attributes) {
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
}

let named = 0;
const newId = () => `pg-${++named}-${Math.random().toString(36).slice(2)}`;

const SIDE = 400; // the plane, in the units of its drawing
const CELLS = 56; // of the lattice that the boundary is drawn from
const MARKS = {
  majority: (r) => `M${-r},0a${r},${r} 0 1,0 ${2 * r},0a${r},${r} 0 1,0 ${-2 * r},0Z`,
  minority: (r) => `M${-r},${-r}h${2 * r}v${2 * r}h${-2 * r}Z`,
};
const SIZES = { majority: 4, minority: 4.6 };
const onPlane = ({ x, y }) => [((x + 1) / 2) * SIDE, ((1 - y) / 2) * SIDE];

function swatch(group, label) {
  return shape(
    "svg",
    { viewBox: "-8 -8 16 16", class: "pg-swatch", "aria-hidden": "true" },
    shape("path", { d: MARKS[group](5), class: `pg-mark pg-${group} pg-${label}` }),
  );
}

/** A slider with its name and its value above it. */
function slider(name, className, attributes) {
  const [value, input] = [element("b"), element("input", { type: "range", ...attributes })];
  const label = element("label", {}, element("span", {}, name), " ", value);
  const holder = element("div", { class: `pg-slider ${className}` }, label, input);
  label.htmlFor = input.id = newId();
  const say = (text, spoken = text) => {
    value.textContent = text;
    input.setAttribute("aria-valuetext", spoken);
  };
  return { holder, input, say };
}

function button(name) {
  return element("button", { type: "button" }, name);
}

/** The weights of one matrix: above where training left them, below where the grid lets them be. */
function strip(title) {
  const [width, height, top, bottom, edge] = [340, 84, 26, 62, 12];
  const parts = {
    zero: shape("path", { class: "pg-zero-bin" }),
    ticks: shape("path", { class: "pg-ticks" }),
    lines: shape("path", { class: "pg-lines" }),
    zeros: shape("path", { class: "pg-zeros" }),
    dots: shape("g", {}),
    said: shape("text", { x: width, y: 12, "text-anchor": "end", class: "pg-zero-said" }),
  };
  const heading = shape("text", { x: 0, y: 12 }, title);
  const view = { viewBox: `0 0 ${width} ${height}`, role: "img" };
  const drawing = shape("svg", view, heading, ...Object.values(parts));
  return {
    drawing,
    draw(weights, shown, bits) {
      const reach = weights.reduce((most, weight) => Math.max(most, Math.abs(weight)), 1e-9);
      const x = (weight) => width / 2 + (weight / reach) * (width / 2 - edge);
      const last = 2 ** (bits - 1) - 1;
      const step = bits === FULL ? 0 : stepOf(weights, bits);
      const home = bits === FULL ? weights : rounded(weights, bits);
      const strokes = { lines: [], zeros: [] };
      weights.forEach((weight, i) => {
        const from = x(weight).toFixed(1);
        const stroke = `M${from},${top - 7}V${top}L${x(shown[i]).toFixed(1)},${bottom}`;
        strokes[bits !== FULL && home[i] === 0 ? "zeros" : "lines"].push(stroke);
      });
      parts.lines.setAttribute("d", strokes.lines.join(""));
      parts.zeros.setAttribute("d", strokes.zeros.join(""));
      const ticks = [];
      for (let code = -last; bits !== FULL && code <= last; code++) {
        ticks.push(`M${x(code * step).toFixed(1)},${bottom}v6`);
      }
      parts.ticks.setAttribute("d", `M${edge},${bottom}H${width - edge}${ticks.join("")}`);
      const [low, high] = [x(-step / 2), x(step / 2)];
      const bin = `M${low},${top - 9}H${high}V${top}L${width / 2},${bottom}L${low},${top}Z`;
      parts.zero.setAttribute("d", bits === FULL ? "" : bin);
      const many = new Map();
      if (bits !== FULL) home.forEach((value) => many.set(value, (many.get(value) || 0) + 1));
      const dots = [...many].map(([value, n]) =>
        shape("circle", {
          cx: x(value).toFixed(1),
          cy: bottom,
          r: (1.6 * Math.sqrt(n)).toFixed(1),
          class: value === 0 ? "pg-dot pg-at-zero" : "pg-dot",
        }),
      );
      parts.dots.replaceChildren(...dots);
      const at = strokes.zeros.length;
      parts.said.textContent = bits === FULL ? "not rounded" : `${at} of ${weights.length} rounded to 0`;
      const grid = `on ${2 * last + 1} values, ${signed(step, 3)} apart; ${at} of them are 0`;
      drawing.setAttribute("aria-label", `${title}: ${bits === FULL ? "not rounded" : grid}.`);
    },
  };
}

/** How right a group is: now, and hollow where it was in full precision. */
function meter(name, className, mark) {
  const [width, edge] = [160, 8];
  const x = (share) => edge + share * (width - 2 * edge);
  const line = shape("path", { class: "pg-change" });
  const was = shape("path", { d: mark(4.2), class: "pg-was" });
  const now = shape("path", { d: mark(5), class: "pg-now" });
  const ends = `M${edge},4v8M${width - edge},4v8`;
  const scale = shape("path", { d: `M${edge},8H${width - edge}${ends}`, class: "pg-scale" });
  const drawing = shape("svg", { viewBox: `0 0 ${width} 16`, "aria-hidden": "true" }, scale, line, was, now);
  const [value, note] = [element("strong"), element("small")];
  const label = element("span", {}, name);
  const row = element("div", { class: `pg-meter ${className}` }, label, drawing, value, note);
  return {
    row,
    show(before, after, unit, more) {
      const known = before !== null && after !== null;
      drawing.style.visibility = known ? "" : "hidden";
      value.textContent = known ? `${percent(after)}${unit}` : "–";
      note.textContent = known ? more : "";
      if (!known) return;
      line.setAttribute("d", `M${x(before)},8H${x(after)}`);
      was.setAttribute("transform", `translate(${x(before)},8)`);
      now.setAttribute("transform", `translate(${x(after)},8)`);
    },
  };
}

/** A dot for each seed: how much more the minority lost than the majority. */
function seedStrip() {
  const [width, height, floor] = [340, 88, 64];
  const dots = shape("g", {});
  const names = [
    shape("text", { x: 4, y: height - 4 }, "← the majority lost more"),
    shape("text", { x: width - 4, y: height - 4, "text-anchor": "end" }, "the minority lost more →"),
  ];
  const key = shape("text", { x: 4, y: 12 }, "● this seed");
  const zero = `M${width / 2},8V${floor + 9}`;
  const axis = shape("path", { d: `M4,${floor + 5}H${width - 4}${zero}`, class: "pg-scale" });
  const drawing = shape("svg", { viewBox: `0 0 ${width} ${height}`, role: "img" }, axis, dots, key, ...names);
  return {
    drawing,
    draw(excesses, seed, said) {
      const reach = Math.max(0.2, ...[...excesses.values()].map(Math.abs));
      const stacks = new Map();
      const drawn = [...excesses].map(([own, value]) => {
        const place = Math.round((value / reach) * 16); // a column of dots for each of 33 places
        const below = stacks.get(place) || 0;
        stacks.set(place, below + 1);
        return { own, value, x: width / 2 + place * 9.8, level: below };
      });
      const rise = Math.min(9, 54 / Math.max(1, ...stacks.values()));
      dots.replaceChildren(
        ...drawn.map(({ own, value, x, level }) =>
          shape(
            "circle",
            { cx: x, cy: floor - level * rise, r: 4, class: own === seed ? "pg-seed pg-this" : "pg-seed" },
            shape("title", {}, `seed ${own}: ${signed(100 * value, 0)} points`),
          ),
        ),
      );
      key.style.visibility = excesses.has(seed) ? "" : "hidden";
      drawing.setAttribute("aria-label", said);
    },
  };
}

/** A table whose rows begin with what they are called. */
function table(caption, head, rows) {
  const cells = (kind, texts) => texts.map((text) => element(kind, {}, text));
  const row = (first, texts, kind) => element("tr", {}, first, ...cells(kind, texts));
  const heading = element("thead", {}, row(element("td"), head, "th"));
  const lines = rows.map(([name, ...texts]) => row(element("th", { scope: "row" }, name), texts, "td"));
  return element("table", {}, element("caption", {}, caption), heading, element("tbody", {}, ...lines));
}

// ---------------------------------------------------------------- the widget

function render({ model, el }) {
  const recipe = model.get("recipe");
  const names = ["points", "bits", "seed", "size", "difficulty"];
  const initial = Object.fromEntries(names.map((name) => [name, model.get(name)]));
  const own = (name) => model.get(name);
  const change = (changes) => {
    for (const [name, value] of Object.entries(changes)) model.set(name, value);
    model.save_changes();
  };

  // -- controls
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

  // -- the plane
  const region = shape("path", { class: "pg-region", "fill-rule": "evenodd" });
  const boundary = shape("path", { class: "pg-boundary" });
  const before = shape("path", { class: "pg-before" });
  const view = `0 0 ${SIDE} ${SIDE}`;
  const ground = shape("svg", { viewBox: view, role: "img", class: "pg-ground" }, region, before, boundary);
  const keys = element(
    "p",
    { class: "pg-keys", id: newId() },
    "Keys: arrows move a point, with Shift further. Page Down and Page Up choose the next and the previous " +
      "one. Delete removes it.",
  );
  const layer = shape("svg", {
    viewBox: view,
    role: "application",
    class: "pg-points",
    "aria-label": "The points",
    "aria-describedby": keys.id,
  });
  const plane = element("div", { class: "pg-plane" }, ground, layer);

  // -- what a tap adds
  const kinds = GROUPS.flatMap((group) => LABELS.map((label) => ({ group, label })));
  const chosen = newId();
  const choices = kinds.map(({ group, label }, i) => {
    const radio = element("input", { type: "radio", name: chosen, value: i });
    radio.checked = group === "minority" && label === "filled";
    return element("label", {}, radio, swatch(group, label), `${group}, ${label}`);
  });
  const [add, remove] = [button("Add a point"), button("Remove the chosen point")];
  const editor = element(
    "fieldset",
    { class: "pg-editor" },
    element("legend", {}, "Drag points. Tap an empty place to add:"),
    element("div", { class: "pg-kinds" }, ...choices),
    element("div", { class: "pg-buttons" }, add, remove),
    keys,
  );
  const sample = (viewBox, className, drawing) =>
    shape("svg", { viewBox, class: className, "aria-hidden": "true" }, drawing);
  const line = (className) =>
    sample("0 0 26 10", "pg-key-line", shape("path", { d: "M1,5H25", class: className }));
  const ring = sample("-9 -9 18 18", "pg-swatch", shape("circle", { r: 7.5, class: "pg-ring" }));
  const legend = element(
    "p",
    { class: "pg-legend" },
    element("span", {}, element("i", { class: "pg-shade" }), "here the network answers “filled”"),
    element("span", {}, line("pg-boundary"), "its boundary"),
    element("span", {}, line("pg-before"), "in full precision"),
    element("span", {}, ring, "wrong"),
  );

  // -- what comes of it
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
  const numbers = element("div", { class: "pg-numbers" });
  const details = element("details", {}, element("summary", {}, "All numbers"), numbers);
  const root = element(
    "div",
    { class: "fairq-playground" },
    controls,
    said,
    element(
      "div",
      { class: "pg-stage" },
      element("div", { class: "pg-left" }, plane, legend),
      editor,
      element(
        "div",
        { class: "pg-right" },
        block("Right answers (outline: full precision)", ...Object.values(meters).map(({ row }) => row)),
        block("The weights snap to the grid", ...strips.map(({ drawing }) => drawing)),
        block("Another seed can tell another story", seeds.drawing, seedsSaid, warning),
      ),
    ),
    details,
  );
  el.append(root);

  // -- learning, in slices, so that no control waits
  const seedsOf = Array.from({ length: recipe.population }, (_, i) => i + 1);
  let learned = new Map(); // the trained networks on these points, by seed
  let learnedOn = null;
  let current = null; // what is drawn: trained on these points, or lately on earlier ones
  let working = null;
  let timer = 0;
  let quiet = 0; // when the reader last changed something
  let gone = false;

  const isLearned = () => learnedOn === own("points") && learned.has(own("seed"));

  function nextJob() {
    if (learnedOn !== own("points")) [learned, learnedOn] = [new Map(), own("points")];
    const seed = [own("seed"), ...seedsOf].find((candidate) => !learned.has(candidate));
    return seed && { seed, points: learnedOn, run: training(learnedOn, seed, recipe) };
  }

  function work() {
    timer = 0;
    if (gone) return;
    const urgent = !isLearned();
    if (!urgent && performance.now() < quiet + 400) return wake(100);
    // What was begun for other seeds gives way. What was begun for earlier points is finished, because else
    // a long drag would show nothing at all.
    if (urgent && working && working.seed !== own("seed")) working = null;
    working ||= nextJob();
    if (!working) return;
    const until = performance.now() + (urgent ? 14 : 7);
    let step = { done: false };
    while (!step.done && performance.now() < until) step = working.run.next();
    if (step.done) {
      const { seed, points } = working;
      working = null;
      if (points === own("points")) learned.set(seed, step.value);
      if (seed === own("seed")) {
        current = step.value;
        if (!isLearned()) show();
        update();
      } else if (points === own("points")) {
        drawSeeds();
      }
    }
    wake();
  }

  function wake(wait = 0) {
    if (!timer) timer = setTimeout(work, wait);
  }

  // -- drawing
  const still = window.matchMedia("(prefers-reduced-motion: reduce)");
  let shown = null; // the rounded network as drawn, on its way to the next width
  let whole = {}; // the boundary in full precision
  let frame = 0;

  function show() {
    cancelAnimationFrame(frame);
    shown = quantized(current, own("bits"));
    draw(shown);
  }

  function update() {
    if (learnedOn !== own("points")) [learned, learnedOn] = [new Map(), own("points")];
    const known = learned.get(own("seed"));
    root.setAttribute("aria-busy", String(!known));
    if (known) {
      current = known;
      show();
    } else wake();
    drawPoints();
    if (known) report();
  }

  function arrive() {
    show();
    drawPoints();
    if (isLearned()) report();
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
      shown = to.map(({ weights, biases }, i) => ({
        weights: weights.map((weight, k) => from[i].weights[k] + eased * (weight - from[i].weights[k])),
        biases,
      }));
      draw(shown);
      drawPoints();
      frame = requestAnimationFrame(tick);
    };
    if (isLearned()) report();
    frame = requestAnimationFrame(tick);
  }

  function draw(network) {
    const path = outline(fieldOf(network, CELLS), CELLS, SIDE);
    region.setAttribute("d", path);
    boundary.setAttribute("d", path);
    if (whole.network !== current) {
      whole = { network: current, path: outline(fieldOf(current, CELLS), CELLS, SIDE) };
    }
    before.setAttribute("d", own("bits") === FULL ? "" : whole.path);
    strips.forEach((one, i) => one.draw(current[i].weights, network[i].weights, own("bits")));
  }

  let focused = 0; // which point the Tab key comes to
  let picked = null; // which point is being dragged, or was chosen

  function drawPoints() {
    const points = own("points");
    while (layer.childElementCount > points.length) layer.lastChild.remove();
    while (layer.childElementCount < points.length) {
      layer.append(
        shape(
          "g",
          { role: "img" },
          shape("circle", { r: 11, class: "pg-hit" }),
          shape("circle", { r: 7.4, class: "pg-ring" }),
          shape("path", {}),
        ),
      );
    }
    focused = Math.max(0, Math.min(focused, points.length - 1));
    if (picked !== null && picked >= points.length) picked = null;
    points.forEach((point, i) => {
      const node = layer.children[i];
      const answer = shown && LABELS[Number(leaning(shown, point.x, point.y) > 0)];
      const wrong = shown && answer !== point.label;
      set(node, {
        transform: `translate(${onPlane(point).map((place) => place.toFixed(1)).join(",")})`,
        tabindex: i === focused ? 0 : -1,
        class: `pg-point pg-${point.group} ${wrong ? "pg-wrong" : ""} ${i === picked ? "pg-picked" : ""}`,
        "aria-label": shown ? nameOf(point, answer) : `${point.label} point of the ${point.group}`,
      });
      set(node.lastChild, {
        d: MARKS[point.group](SIZES[point.group]),
        class: `pg-mark pg-${point.group} pg-${point.label}`,
      });
    });
    remove.disabled = picked === null;
    add.disabled = points.length >= recipe.most;
  }

  function drawSeeds() {
    const points = own("points");
    const width = own("bits");
    const ready = seedsOf.filter((seed) => learned.has(seed));
    const excesses = new Map();
    for (const seed of width === FULL ? [] : ready) {
      const network = learned.get(seed);
      const [full, now] = [measured(points, network), measured(points, quantized(network, width))];
      if (full.FVO !== null) excesses.set(seed, excess(full, now));
    }
    const waiting = `${ready.length} of ${seedsOf.length} networks have learned from these points.`;
    seedsSaid.textContent = ready.length < seedsOf.length ? waiting : verdictOfSeeds(width, excesses);
    seeds.draw(excesses, own("seed"), `A dot for each seed. ${seedsSaid.textContent}`);
    seedRows = [...excesses].map(([seed, value]) => [`seed ${seed}`, signed(100 * value, 1)]);
    if (details.open) tabulate();
  }

  let seedRows = [];
  let latest = null;

  function report() {
    const [points, width, seed] = [own("points"), own("bits"), own("seed")];
    const network = learned.get(seed);
    const low = quantized(network, width);
    const [full, now] = [measured(points, network), measured(points, low)];
    const text = sentence(width, seed, full, now);
    if (said.textContent !== text) said.textContent = text;
    for (const group of GROUPS) {
      const [was, is] = [full[group], now[group]];
      const margins = was.n ? `margin ${signed(is.margin, 1)}, was ${signed(was.margin, 1)}` : "";
      const note = `was ${percent(was.accuracy)}${PERCENT} · ${margins}`;
      meters[group].show(was.accuracy, is.accuracy, PERCENT, note);
    }
    meters.FVO.show(full.FVO, now.FVO, "", `was ${count(percent(full.FVO), "point")}`);
    const wrong = GROUPS.map((group) => Math.round(now[group].n * (1 - (now[group].accuracy ?? 1))));
    const filled = fieldOf(low, CELLS).reduce((sum, value) => sum + (value > 0), 0) / (CELLS + 1) ** 2;
    ground.setAttribute(
      "aria-label",
      `A plane with ${count(points.length, "point")}. At ${precision(width)} the network answers filled on ` +
        `${percent(filled)}${PERCENT} of it, and is wrong on ${wrong[0]} of ${now.majority.n} points of the ` +
        `majority and on ${wrong[1]} of ${now.minority.n} of the minority.`,
    );
    latest = { width, full, now, network, low };
    drawSeeds();
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

  // -- what the reader does
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

  const edit = (points) => change({ points });
  const replaced = (i, changes) =>
    own("points").map((point, k) => (k === i ? { ...point, ...changes } : point));
  const without = (i) => own("points").filter((_, k) => k !== i);
  const placed = (x, y) => ({ x: within(x), y: within(y) });

  function focusOn(i) {
    focused = picked = i;
    drawPoints();
    layer.children[focused]?.focus({ preventScroll: true });
  }

  function addAt(x, y) {
    if (own("points").length >= recipe.most) return;
    const kind = kinds[choices.findIndex((choice) => choice.firstChild.checked)];
    edit([...own("points"), { ...placed(x, y), label: kind.label, group: kind.group }]);
    focusOn(own("points").length - 1);
  }

  function removeAt(i) {
    edit(without(i));
    if (own("points").length) focusOn(Math.min(i, own("points").length - 1));
    else [picked, remove.disabled] = [null, true];
  }

  bits.input.addEventListener("input", () => change({ bits: WIDTHS[Number(bits.input.value)] }));
  const redraw = () => {
    const [many, far] = [Number(size.input.value), Number(difficulty.input.value)];
    picked = null;
    change({ size: many, difficulty: far, points: pointsOf(many, far, recipe) });
  };
  size.input.addEventListener("input", redraw);
  difficulty.input.addEventListener("input", redraw);
  another.addEventListener("click", () => change({ seed: (own("seed") % recipe.population) + 1 }));
  reset.addEventListener("click", () => {
    picked = null;
    change(initial);
  });
  add.addEventListener("click", () => addAt(0, 0));
  remove.addEventListener("click", () => picked !== null && removeAt(picked));
  details.addEventListener("toggle", () => details.open && latest && tabulate());

  const here = (event) => {
    const box = layer.getBoundingClientRect();
    const [right, down] = [(event.clientX - box.left) / box.width, (event.clientY - box.top) / box.height];
    return [2 * right - 1, 1 - 2 * down];
  };
  const nearest = (event) => {
    const box = layer.getBoundingClientRect();
    const [x, y] = here(event);
    const reach = event.pointerType === "mouse" ? 9 : 16; // a finger is less exact
    let [found, least] = [null, reach];
    own("points").forEach((point, i) => {
      const away = (Math.hypot(point.x - x, point.y - y) * box.width) / 2;
      if (away <= least) [found, least] = [i, away];
    });
    return found;
  };

  let drag = null;
  layer.addEventListener("pointerdown", (event) => {
    if (event.button) return;
    const i = nearest(event);
    // A finger that means to scroll often lands on one of so many points; it moves those of the minority
    // and the chosen one, and the others only after a tap.
    const isSure = event.pointerType === "mouse" || i === picked;
    const held = i !== null && (isSure || own("points")[i].group === "minority");
    drag = { i, held, moved: false, x: event.clientX, y: event.clientY };
    if (held) {
      event.preventDefault();
      layer.setPointerCapture?.(event.pointerId);
      focusOn(i);
    }
  });
  layer.addEventListener("pointermove", (event) => {
    if (!drag) return;
    drag.moved ||= Math.hypot(event.clientX - drag.x, event.clientY - drag.y) > 4;
    if (drag.held && drag.moved) edit(replaced(drag.i, placed(...here(event))));
  });
  layer.addEventListener("pointerup", (event) => {
    if (drag && !drag.moved) {
      if (drag.i === null) addAt(...here(event));
      else focusOn(drag.i);
    }
    drag = null;
  });
  layer.addEventListener("pointercancel", () => (drag = null));
  // The pointer came down just before, so it is known whether this touch drags or scrolls.
  const hold = (event) => drag?.held && event.cancelable && event.preventDefault();
  layer.addEventListener("touchstart", hold, { passive: false });

  const arrows = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1] };
  layer.addEventListener("keydown", (event) => {
    const i = [...layer.children].indexOf(event.target);
    if (i < 0) return;
    const many = own("points").length;
    const goes = { PageDown: (i + 1) % many, PageUp: (i + many - 1) % many, Home: 0, End: many - 1 };
    if (event.key in arrows) {
      const [x, y] = arrows[event.key].map((way) => way * (event.shiftKey ? 0.1 : 0.02));
      const point = own("points")[i];
      edit(replaced(i, placed(point.x + x, point.y + y)));
    } else if (event.key in goes) focusOn(goes[event.key]);
    else if (event.key === "Delete" || event.key === "Backspace") removeAt(i);
    else return;
    event.preventDefault();
    event.stopPropagation(); // or a notebook would take it for a command
  });
  layer.addEventListener("focusin", (event) => {
    const i = [...layer.children].indexOf(event.target);
    if (i >= 0 && i !== picked) {
      focused = picked = i;
      drawPoints();
    }
  });

  const heard = {
    "change:points": () => ((quiet = performance.now()), update()),
    "change:seed": () => ((quiet = performance.now()), follow(), update()),
    "change:bits": () => (follow(), move()),
    "change:size": follow,
    "change:difficulty": follow,
  };
  for (const [event, action] of Object.entries(heard)) model.on(event, action);
  follow();
  update();

  return () => {
    gone = true;
    clearTimeout(timer);
    cancelAnimationFrame(frame);
    for (const [event, action] of Object.entries(heard)) model.off(event, action);
  };
}

export default { render };
