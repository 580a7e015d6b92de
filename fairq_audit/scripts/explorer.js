// How the answers of each group are spread, who flips, and where weights fall on a grid: from counts alone.

// ---------------------------------------------------------------- numbers

// Counts come with a negative number for so many zeros in a row.
function unpack(packed) {
  const counts = [];
  for (const part of packed) {
    if (part > 0) counts.push(part);
    else for (let zero = 0; zero < -part; zero++) counts.push(0);
  }
  return counts;
}

function sum(numbers) {
  return numbers.reduce((total, number) => total + number, 0);
}

function merge(counts, by) {
  const merged = [];
  for (let start = 0; start < counts.length; start += by) merged.push(sum(counts.slice(start, start + by)));
  return merged;
}

// How many bins there may be, few first: zero stays an edge where it is one.
function choicesOfBins(quantity) {
  const choices = [];
  for (let by = 1; quantity.bins / by >= 10; by++) {
    if (quantity.bins % by === 0 && (!quantity.zero || quantity.zero % by === 0)) choices.unshift(quantity.bins / by);
  }
  return choices.length ? choices : [quantity.bins];
}

function nearest(wanted, choices) {
  return choices.reduce((best, choice) => (Math.abs(choice - wanted) < Math.abs(best - wanted) ? choice : best));
}

function plain(value, digits = 3) {
  if (value === null || !Number.isFinite(value)) return "—";
  const size = Math.abs(value);
  let text = value.toLocaleString("en-US", { maximumSignificantDigits: digits });
  if (size >= 100) text = Math.round(value).toLocaleString("en-US");
  if (size && (size < 1e-4 || size >= 1e7)) text = value.toExponential(1).replace(".0e", "e").replace("e+", "e");
  return text.replaceAll("-", "−");
}

const MOST_DECIMALS = 4;

// With so many decimals; as a power of ten where that would be endless, or leave nothing.
function fixed(value, decimals) {
  if (value === null || !Number.isFinite(value)) return "—";
  const size = Math.abs(value);
  if (size >= 1e7 || (size && size < 1e-4 && decimals === MOST_DECIMALS)) return plain(value, 2);
  const places = { minimumFractionDigits: decimals, maximumFractionDigits: decimals, signDisplay: "negative" };
  return value.toLocaleString("en-US", places).replaceAll("-", "−");
}

// So many that the largest has three digits; of what spans powers of ten, the smallest two.
function decimalsFor(values, log = false) {
  const known = values.filter(Boolean);
  if (known.every(Number.isInteger)) return 0;
  const sizes = known.map(Math.abs);
  const needed = log ? 1 - Math.floor(Math.log10(Math.min(...sizes))) : 2 - Math.floor(Math.log10(Math.max(...sizes)));
  return Math.min(Math.max(needed, 0), MOST_DECIMALS);
}

// Numbers that stand one below the other, or beside each other, with as many decimals each.
function alike(values, log = false) {
  const decimals = decimalsFor(values, log);
  return values.map((value) => fixed(value, decimals));
}

function asPercent(share) {
  return `${fixed(100 * share, 1)} %`;
}

function signed(value, decimals) {
  const text = fixed(Math.abs(value), decimals);
  return Number(text) === 0 ? text : (value < 0 ? "−" : "+") + text;
}

function capital(text) {
  return text.charAt(0).toUpperCase() + text.slice(1);
}

function ticks(low, high, count) {
  const rough = (high - low) / count || 1;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 2.5, 5, 10].map((one) => one * power).find((one) => one >= rough * 0.999);
  const found = [];
  for (let place = Math.ceil(low / step - 1e-9); place <= high / step + 1e-9; place++) {
    found.push(place * step || 0); // and not -0
  }
  return found;
}

// Of an axis in powers of ten, in the exponents; what lies between them where there are few powers.
function logTicks(low, high, count) {
  const whole = [];
  const every = Math.max(1, Math.ceil((high - low) / count));
  for (let power = Math.ceil(low - 1e-9); power <= high + 1e-9; power++) {
    if (power % every === 0) whole.push(power);
  }
  if (whole.length > 2) return whole;
  const between = [];
  for (let power = Math.floor(low); power <= high; power++) {
    for (const one of [1, 2, 5]) between.push(power + Math.log10(one));
  }
  const inside = between.filter((place) => place >= low && place <= high);
  return inside.length > 1 ? inside : [low, high];
}

// A spreadsheet takes text that begins so for a formula.
function csvField(value) {
  if (typeof value === "number") return String(value);
  const text = /^[=+\-@\t\r]/.test(value) ? `'${value}` : value;
  return /[",\n\r]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
}

function csv(rows) {
  return rows.map((row) => row.map(csvField).join(",")).join("\r\n") + "\r\n";
}

// ---------------------------------------------------------------- what is shown

const WEIGHTS = "weights";

function quantities(data) {
  const named = Object.entries(data.quantities).map(([key, quantity]) => [key, quantity.name]);
  return data.weights ? [...named, [WEIGHTS, "weights by layer"]] : named;
}

// A whole view, whatever was wished for: what is unknown or missing is as at the beginning.
function viewOf(data, wish) {
  const names = data.treatments;
  const known = quantities(data).map(([key]) => key);
  const one = (value, among, otherwise) => (among.includes(value) ? value : otherwise);
  const layers = data.weights ? data.weights.layers.map((layer) => layer.name) : [];
  const everyone = data.groups.map((_, place) => place);
  const treatment = one(wish.treatment, names, names[Math.min(Math.ceil(names.length / 2), names.length - 1)]);
  return {
    quantity: one(wish.quantity, known, known.includes("margin") ? "margin" : known[0]),
    treatment,
    layer: one(wish.layer, layers, layers[Math.floor(layers.length / 2)] || ""),
    bins: Number(wish.bins) > 0 ? Number(wish.bins) : 36,
    groups: Array.isArray(wish.groups) ? everyone.filter((place) => wish.groups.includes(place)) : everyone,
    overlay: wish.overlay === true,
    change: wish.change === true,
    numbers: wish.numbers === true,
    before: one(wish.before, names, names[0]),
    after: one(wish.after, names, treatment),
  };
}

function toFragment(data, view, place) {
  const said = { ...view, groups: view.groups.join(".") || "none" };
  if (view.groups.length === data.groups.length) delete said.groups;
  if (view.quantity !== WEIGHTS) delete said.layer;
  for (const key of ["overlay", "change", "numbers"]) {
    if (said[key]) said[key] = 1;
    else delete said[key];
  }
  if (place > 0) said.widget = place + 1;
  return `#explorer=${new URLSearchParams(said)}`;
}

// The view that a link holds for the widget at this place of the page, or nothing.
function fromFragment(fragment, place) {
  if (!fragment.startsWith("#explorer=")) return null;
  const said = new URLSearchParams(fragment.slice("#explorer=".length));
  if (Number(said.get("widget") || 1) !== Math.max(place, 0) + 1) return null;
  const wish = Object.fromEntries(said);
  for (const key of ["overlay", "change", "numbers"]) wish[key] = wish[key] === "1";
  if (said.has("groups")) wish.groups = said.get("groups").split(".").map(Number);
  return wish;
}

// ---------------------------------------------------------------- what is to be drawn

// Of how many networks there are answers: while another treatment is computed, at first of few.
function networksOf(data, treatment) {
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

function shownOf(data, view) {
  return view.quantity === WEIGHTS ? weightsShown(data, view) : answersShown(data, view);
}

// What stands at a place of the axis, where 0 is its beginning and the number of bins its end.
function valueAt(shown, place) {
  const at = shown.low + ((shown.high - shown.low) * place) / shown.bins;
  return shown.quantity.factor * (shown.quantity.log ? 10 ** at : Math.abs(at) < 1e-12 ? 0 : at);
}

function binName(shown, bin) {
  const unit = shown.quantity.unit ? ` ${shown.quantity.unit}` : "";
  if (shown.quantity.whole) {
    const [first, last] = [Math.ceil(valueAt(shown, bin) - 1e-6), Math.floor(valueAt(shown, bin + 1) - 1e-6)];
    if (first === last) return plain(first, 6);
    if (first < last) return `${plain(first, 6)} to ${plain(last, 6)}`;
  }
  const [from, to] = [plain(valueAt(shown, bin)), plain(valueAt(shown, bin + 1))];
  if (shown.of === "answers" && !shown.quantity.closed) {
    if (bin === 0) return `at most ${to}${unit}`;
    if (bin === shown.bins - 1) return `${from}${unit} or more`;
  }
  return `${from} to ${to}${unit}`;
}

function reading(shown, series, bin) {
  const value = series.shown[bin];
  if (shown.change) return shown.numbers ? signed(value, 0) : `${signed(value, 1)} points`;
  const count = series.counts[bin].toLocaleString("en-US");
  return shown.numbers ? count : `${fixed(value, 1)} % (${count})`;
}

// A value as it is said; what is not known stays so.
function times(factor, value) {
  return value === null ? null : factor * value;
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
function sentence(shown) {
  const scale = shown.numbers ? `numbers of ${shown.of}` : `shares of ${shown.of}`;
  const name = capital(shown.quantity.name);
  if (shown.of === "weights") return `${name}, ${shown.bins} bins, ${scale}: ${aboutGrid(shown)}`;
  const what = shown.change ? `change against ${shown.first} in ${scale}` : scale;
  const where = shown.overlay ? "all in one panel" : "a panel for each group";
  const how = shown.series.length ? `medians ${medians(shown).join("; ")}` : "no group is chosen";
  const firsts = shown.tops ? shown.tops.sentence : "";
  return `${name} under ${shown.under}, ${shown.bins} bins, ${what}, ${where}: ${how}.${firsts}${shown.soFar}`;
}

const FLOWS = ["right → right", "right → wrong", "wrong → right", "wrong → other wrong", "wrong → same wrong"];

function flowsOf(data, view) {
  const known = (before, after) => data.flows[before]?.[after];
  const other = data.treatments.find((name) => name !== view.before);
  const asked = view.before === view.after ? [view.before, other] : [view.before, view.after];
  const networks = Math.min(...asked.map((name) => networksOf(data, name)));
  const between = (before, after, place) => {
    if (before === after) {
      const [kept, lost] = between(before, other, place);
      return [kept + lost, 0, 0, 0];
    }
    const there = known(before, after);
    if (there) return there[place];
    const [kept, won, lost, others] = known(after, before)[place];
    return [kept, lost, won, others];
  };
  return view.groups.map((place) => {
    const group = data.groups[place];
    const total = group.n * networks;
    const four = between(view.before, view.after, place);
    return { ...group, total, parts: [...four, total - sum(four)] };
  });
}

function flowSentence(view, flows) {
  const said = flows.map(
    ({ name, parts, total }) =>
      `${name} ${parts[1].toLocaleString("en-US")} right → wrong and ${parts[2].toLocaleString("en-US")} ` +
      `wrong → right of ${total.toLocaleString("en-US")}`,
  );
  return `Answers from ${view.before} to ${view.after}: ${said.join("; ") || "no group is chosen"}.`;
}

// ---------------------------------------------------------------- drawing

const SVG = "http://www.w3.org/2000/svg";

function draw(tag, attributes = {}, ...children) {
  const node = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  node.append(...children);
  return node;
}

function html(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else node.setAttribute(name, value);
  }
  node.append(...children);
  return node;
}

function rounded(number) {
  return Math.round(100 * number) / 100;
}

function polygon(corners) {
  return `M${corners.map(([x, y]) => `${rounded(x)},${rounded(y)}`).join("L")}Z`;
}

function around(count, radius, turn = 0) {
  return Array.from({ length: count }, (_, corner) => {
    const angle = 2 * Math.PI * (corner / count + turn);
    return [radius * Math.sin(angle), -radius * Math.cos(angle)];
  });
}

// The marks of the figures, as paths about the origin.
const MARKS = {
  o: "M-4.5,0a4.5,4.5 0 1 0 9,0a4.5,4.5 0 1 0 -9,0Z",
  s: polygon(around(4, 5.6, 1 / 8)),
  "^": polygon(around(3, 5.6)),
  D: polygon(around(4, 5.6)),
  v: polygon(around(3, 5.6, 1 / 2)),
  P: "M-1.7,-5h3.4v3.3h3.3v3.4h-3.3v3.3h-3.4v-3.3h-3.3v-3.4h3.3Z",
  X: "M-5,-2.6L-2.6,-5L0,-2.4L2.6,-5L5,-2.6L2.4,0L5,2.6L2.6,5L0,2.4L-2.6,5L-5,2.6L-2.4,0Z",
  h: polygon(around(6, 5.2)),
};

function mark(group, x, y) {
  const place = `translate(${rounded(x)},${rounded(y)})`;
  return draw("path", { d: MARKS[group.mark], fill: group.colour, transform: place });
}

function text(x, y, words, attributes = {}) {
  return draw("text", { x: rounded(x), y: rounded(y), fill: "currentColor", ...attributes }, words);
}

function rule(x1, y1, x2, y2, attributes = {}) {
  const d = `M${rounded(x1)},${rounded(y1)}L${rounded(x2)},${rounded(y2)}`;
  return draw("path", { d, stroke: "currentColor", fill: "none", ...attributes });
}

// About as wide as the words will be; there is nothing to measure before they are drawn.
function widthOf(words) {
  return 7.4 * words.length;
}

// Labels with something before each, in as many lines as they need.
function labelled(items, left, top, width) {
  const drawn = draw("g");
  let [x, y] = [left, top];
  for (const { sign, words } of items) {
    const wide = 14 + widthOf(words) + 14;
    if (x > left && x + wide > left + width) [x, y] = [left, y + 16];
    const piece = draw("g", { transform: `translate(${rounded(x)},${rounded(y)})` }, sign);
    piece.append(text(14, 4, words));
    drawn.append(piece);
    x += wide;
  }
  return { drawn, bottom: y + 10 };
}

function whole(width, height, words) {
  return draw("svg", {
    xmlns: SVG, width, height, viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": words,
    "font-size": 12, "font-family": "system-ui, sans-serif",
  });
}

const LEFT = 50, RIGHT = 12, GAP = 14;

// The upper edge of a histogram.
function steps(values, x, y) {
  const step = (value, bin) => `L${rounded(x(bin))},${rounded(y(value))}L${rounded(x(bin + 1))},${rounded(y(value))}`;
  return values.map(step).join("");
}

// What a picture that stands alone has to say above itself.
function heading(shown, width, overlay) {
  const against = shown.change ? `, change against ${shown.first}` : "";
  const title = `${capital(shown.quantity.name)} under ${shown.under}${against}`;
  const drawn = [text(2, 16, title, { "font-weight": "bold", "font-size": 14 })];
  if (!overlay || shown.of !== "answers") return { drawn, bottom: 30 };
  const items = shown.series.map((one) => ({ sign: mark(one, 4, 0), words: one.name }));
  const names = labelled(items, 2, 36, width);
  return { drawn: [...drawn, names.drawn], bottom: names.bottom + 6 };
}

function axisBelow(shown, across, width, top, foot) {
  const { quantity } = shown;
  const count = Math.max(3, Math.floor((width - LEFT - RIGHT) / 70));
  const linear = () => ticks(shown.low * quantity.factor, shown.high * quantity.factor, count);
  const places = quantity.log
    ? logTicks(shown.low, shown.high, count).map((at) => [at, 10 ** at])
    : linear().map((value) => [value / quantity.factor, value]);
  const drawn = places.flatMap(([at, value]) => [
    rule(across(at), top, across(at), foot, { opacity: 0.14 }),
    text(across(at), foot + 15, plain(value), { "text-anchor": "middle" }),
  ]);
  const name = quantity.axis || (quantity.unit ? `${quantity.name}, ${quantity.unit}` : quantity.name);
  const points = shown.change && !shown.numbers ? "; heights in points" : "";
  return [...drawn, text(LEFT, foot + 33, name + points)];
}

// Where right answers begin.
function boundary(shown, across, width, top, foot, titled) {
  if (!shown.boundary || shown.low >= 0 || shown.high <= 0) return [];
  const at = across(0);
  const line = rule(at, top, at, foot, { "stroke-width": 1.4 });
  if (titled) return [line, text(width - RIGHT, foot + 33, "left of the line: wrong", { "text-anchor": "end" })];
  return [line, text(at - 5, top + 8, "wrong", { "text-anchor": "end" }), text(at + 5, top + 8, "right")];
}

// How far those lie that come first, in one panel.
function firstOnes(shown, across, top, foot) {
  const lines = shown.quantity.lines || [];
  return lines.map((at) => rule(across(at), top, across(at), foot, { "stroke-width": 1.4 }));
}

function axisBeside(shown, y, most, width, single) {
  const low = shown.change ? -most : 0;
  const top = ticks(0, most, 2).at(-1); // there is room for one above zero
  const levels = single ? ticks(low, most, 4) : [...(shown.change ? [-top] : []), 0, top];
  return levels.flatMap((level) => {
    const plus = shown.change && level > 0 ? "+" : "";
    const unit = level === levels.at(-1) && !shown.numbers && !shown.change ? " %" : "";
    const words = `${plus}${plain(level)}${unit}`;
    return [
      text(LEFT - 6, y(level) + 4, words, { "text-anchor": "end", opacity: 0.85 }),
      rule(LEFT, y(level), width - RIGHT, y(level), { opacity: level === 0 ? 0.8 : 0.14 }),
    ];
  });
}

function bars(one, x, y, width, overlay) {
  const [from, to] = [`M${LEFT},${rounded(y(0))}`, `L${width - RIGHT},${rounded(y(0))}`];
  const outline = from + steps(one.shown, x, y) + to;
  return [
    draw("path", { d: `${outline}Z`, fill: one.colour, "fill-opacity": overlay ? 0.12 : 0.6 }),
    draw("path", { d: outline, stroke: one.colour, fill: "none", "stroke-width": overlay ? 2 : 1 }),
  ];
}

const DASHED = { fill: "none", stroke: "currentColor", "stroke-dasharray": "3 2", opacity: 0.75 };

// All groups in one panel, or a panel for each, one below the other on a common axis.
function histogram(shown, { width, overlay, legend = false }) {
  const panels = overlay ? [shown.series] : shown.series.map((one) => [one]);
  const single = panels.length < 2;
  const titled = !overlay && shown.of === "answers";
  const withBefore = titled && !shown.change;
  const high = single ? Math.min(260, Math.max(180, width * 0.45)) : 62;
  const above = titled ? 22 : 16;
  const head = legend ? heading(shown, width, overlay) : { drawn: [], bottom: 6 };
  const top = head.bottom;
  const foot = top + Math.max(panels.length, 1) * (high + above);
  const x = (place) => LEFT + ((width - LEFT - RIGHT) * place) / shown.bins;
  const across = (value) => x(((value - shown.low) / (shown.high - shown.low)) * shown.bins);
  const seen = shown.series.flatMap((one) => [...one.shown, ...((withBefore && one.before) || [])]);
  const most = Math.max(0, ...seen.map(Math.abs)) || 1;

  const svg = whole(width, Math.round(foot + 40), sentence(shown));
  svg.append(...head.drawn);
  svg.append(...axisBelow(shown, across, width, top + above - 4, foot));
  svg.append(...boundary(shown, across, width, top, foot, titled));
  const { lined } = shown.quantity;
  if (lined) svg.append(text(width - RIGHT, foot + 33, lined, { "text-anchor": "end" }));
  if (shown.of === "weights") svg.append(...gridOf(shown, across, top + above, foot));
  if (!shown.series.length) svg.append(text(LEFT + 8, top + high / 2, "No group is chosen."));
  panels.forEach((group, row) => {
    const end = top + (row + 1) * (high + above);
    const [middle, reach] = shown.change ? [end - high / 2, high / 2] : [end, high];
    const y = (value) => middle - (reach * value) / most;
    if (titled) svg.append(mark(group[0], LEFT + 6, end - high - 9), text(LEFT + 16, end - high - 5, group[0].name));
    svg.append(...axisBeside(shown, y, most, width, single), ...firstOnes(shown, across, end - high, end));
    for (const one of group) {
      svg.append(...bars(one, x, y, width, overlay));
      if (withBefore && one.before) {
        svg.append(draw("path", { d: `M${LEFT},${rounded(middle)}${steps(one.before, x, y)}`, ...DASHED }));
      }
    }
    if (overlay && shown.of === "answers") {
      for (const one of group) {
        const sizes = one.shown.map(Math.abs);
        const peak = sizes.indexOf(Math.max(...sizes));
        svg.append(mark(one, x(peak + 0.5), y(one.shown[peak])));
      }
    }
  });
  if (withBefore && shown.series[0]?.before) {
    const start = width - RIGHT - widthOf(shown.first);
    svg.append(rule(start - 28, top + 8, start - 6, top + 8, DASHED), text(start, top + 12, shown.first));
  }
  return { svg, top, foot, x };
}

// The values of the grid as lines, and the bin of zero as a band.
function gridOf(shown, across, top, foot) {
  const grid = shown.grid;
  if (!grid || !grid.zero) return [];
  const [from, to] = grid.zero.map(across);
  const thick = Math.max(2, to - from);
  const band = draw("rect", {
    class: "fairq-zero-bin", x: rounded((from + to - thick) / 2), y: top, width: rounded(thick), height: foot - top,
    fill: "#c4720e", opacity: 0.3,
  });
  const lines = grid.values
    .filter((value) => value >= shown.low && value <= shown.high)
    .map((value) => {
      const look = value === 0 ? { opacity: 1 } : { opacity: 0.55, "stroke-dasharray": "4 3" };
      return rule(across(value), top, across(value), foot, look);
    });
  const label = text((from + to) / 2, top - 5, `zero bin: ${asPercent(grid.zeros)}`, { "text-anchor": "middle" });
  return [band, ...lines, label];
}

function ribbon(x1, y1, x2, y2, size, attributes) {
  const middle = (x1 + x2) / 2;
  const curve = (from, to, end) => `C${middle},${rounded(from)} ${middle},${rounded(to)} ${rounded(end)},${rounded(to)}`;
  const there = `M${rounded(x1)},${rounded(y1)}${curve(y1, y2, x2)}`;
  const back = `V${rounded(y2 + size)}${curve(y2 + size, y1 + size, x1)}Z`;
  return draw("path", { d: there + back, ...attributes });
}

function flowLooks(colour) {
  return [
    { fill: colour, "fill-opacity": 0.25 },
    { fill: colour, "fill-opacity": 0.95 },
    { fill: "currentColor", "fill-opacity": 0.6 },
    { fill: "currentColor", "fill-opacity": 0.32 },
    { fill: "currentColor", "fill-opacity": 0.12 },
  ];
}

// Words in lines of so many letters, each broken after a hyphen or a blank where it has one.
function wrapped(words, most) {
  const lines = [""];
  for (const [piece] of words.matchAll(new RegExp(`[^- ]{1,${most - 1}}[- ]?|[- ]`, "gu"))) {
    if (lines.at(-1).length + piece.length > most) lines.push(piece);
    else lines.push(lines.pop() + piece);
  }
  return lines;
}

function alluvial(view, flows, width) {
  const side = 106, high = 76;
  const svg = whole(width, 10, flowSentence(view, flows));
  const heads = [view.before, view.after].map((name) => wrapped(name, Math.floor((width / 2 - 10) / 8.5)));
  heads.forEach((lines, right) => {
    const [x, anchor] = right ? [width - 2, "end"] : [2, "start"];
    const look = { "text-anchor": anchor, "font-weight": "bold" };
    lines.forEach((words, row) => svg.append(text(x, 14 + 15 * row, words, look)));
  });
  let top = 9 + 15 * Math.max(...heads.map((lines) => lines.length));
  if (!flows.length) svg.append(text(side, top + 20, "No group is chosen."));
  for (const group of flows) {
    const { total, parts } = group;
    const share = (part) => asPercent(part / (total || 1));
    const looks = flowLooks(group.colour);
    svg.append(mark(group, 6, top + 9), text(16, top + 13, group.name, { "font-weight": "bold" }));
    const items = [1, 2, 3].map((part) => ({
      sign: draw("rect", { x: 0, y: -5, width: 9, height: 9, ...looks[part] }),
      words: `${FLOWS[part]} ${parts[part].toLocaleString("en-US")} (${share(parts[part])})`,
    }));
    const lines = labelled(items, 16, top + 26, width - 18);
    svg.append(lines.drawn);
    top = lines.bottom + 6;
    const size = (part) => ((high - GAP) * part) / (total || 1);
    const [kept, lost, won, other, same] = parts.map(size);
    const [x1, x2] = [side, width - side];
    const ends = [
      [0, 0, kept],
      [kept, GAP + kept + won, lost],
      [GAP + kept + lost, kept, won],
      [GAP + kept + lost + won, GAP + kept + won + lost, other],
      [GAP + kept + lost + won + other, GAP + kept + won + lost + other, same],
    ];
    // The thin ones last, or the thick ones would hide them.
    for (const part of [0, 1, 2, 3, 4].sort((one, two) => parts[two] - parts[one])) {
      const [left, right, thick] = ends[part];
      if (parts[part]) svg.append(ribbon(x1, top + left, x2, top + right, Math.max(thick, 0.8), looks[part]));
    }
    for (const [x, right] of [[x1 - 5, kept + lost], [x2, kept + won]]) {
      const [foot, rest] = [rounded(top + right + GAP), rounded(high - GAP - right)];
      svg.append(
        draw("rect", { x, y: top, width: 5, height: rounded(right), fill: group.colour }),
        draw("rect", { x, y: foot, width: 5, height: rest, fill: "currentColor", "fill-opacity": 0.5 }),
      );
    }
    const was = parts[0] + parts[1], now = parts[0] + parts[2];
    for (const [x, anchor, right] of [[x1 - 9, "end", was], [x2 + 9, "start", now]]) {
      svg.append(text(x, top + 11, `right ${share(right)}`, { "text-anchor": anchor }));
      svg.append(text(x, top + high - 2, `wrong ${share(total - right)}`, { "text-anchor": anchor }));
    }
    top += high + 16;
  }
  const height = Math.round(Math.max(top, 60));
  svg.setAttribute("height", height);
  svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
  return svg;
}

// ---------------------------------------------------------------- tables, for eyes and for files

function distributionRows(shown) {
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

function flowRows(view, flows) {
  const heads = ["group", "from", "to", "answers", ...FLOWS];
  return [heads, ...flows.map((one) => [one.name, view.before, view.after, one.total, ...one.parts])];
}

function table(caption, rows) {
  const [heads, ...body] = rows;
  const row = ([first, ...rest]) =>
    html("tr", {}, html("th", { scope: "row" }, first), ...rest.map((value) => html("td", {}, value)));
  // A caption inside would be as wide as the table, wider than a phone.
  return [
    html("p", { class: "fairq-caption", "aria-hidden": "true" }, caption),
    html(
      "div",
      { class: "fairq-scrolled", tabindex: 0, role: "group", "aria-label": caption },
      html(
        "table",
        {},
        html("thead", {}, html("tr", {}, ...heads.map((head) => html("th", { scope: "col" }, head)))),
        html("tbody", {}, ...body.map(row)),
      ),
    ),
  ];
}

// As many rows, in which the numbers of a column are alike.
function inColumns(rows, log = false) {
  const columns = rows.length ? rows[0].map((_, column) => rows.map((row) => row[column])) : [];
  const told = columns.map((column) => (typeof column[0] === "string" ? column : alike(column, log)));
  return rows.map((_, row) => told.map((column) => column[row]));
}

function summaryTable(data, view, shown) {
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

// ---------------------------------------------------------------- files and links

function save(name, blob) {
  const link = html("a", { href: URL.createObjectURL(blob), download: name });
  document.body.append(link);
  link.click();
  link.remove();
  setTimeout(() => URL.revokeObjectURL(link.href), 10000);
}

// A picture that leaves the page takes along what it is of.
function captioned(svg, words) {
  const [width, height] = [svg.getAttribute("width"), Number(svg.getAttribute("height")) + 20];
  svg.append(text(2, height - 8, words, { "font-size": 11 }));
  svg.setAttribute("height", height);
  svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
  return svg;
}

function extent(data, ...treatments) {
  const images = sum(data.groups.map((group) => group.n)).toLocaleString("en-US");
  const fewest = Math.min(...treatments.map((name) => networksOf(data, name)));
  const soFar = fewest < data.seeds ? `; so far ${fewest} under ${treatments.at(-1)}` : "";
  const [one, several] = data.networks;
  const networks = data.seeds === 1 ? `1 ${one}` : `${data.seeds} ${several}, counted together`;
  return `${data.about ? `${capital(data.about)}: ` : ""}${networks}${soFar}, ${images} images.`;
}

// A file goes onto paper and slides: dark ink on white, whatever the page looks like.
function onPaper(svg) {
  const copy = svg.cloneNode(true);
  copy.setAttribute("style", "color:#1a1a1a;background:#ffffff");
  copy.prepend(draw("rect", { width: "100%", height: "100%", fill: "#ffffff" }));
  return new XMLSerializer().serializeToString(copy);
}

function asPng(svg) {
  return new Promise((done, failed) => {
    const image = new Image();
    image.onload = () => {
      const canvas = html("canvas", { width: 2 * svg.getAttribute("width"), height: 2 * svg.getAttribute("height") });
      const pen = canvas.getContext("2d");
      pen.scale(2, 2);
      pen.drawImage(image, 0, 0);
      canvas.toBlob((blob) => (blob ? done(blob) : failed(new Error("empty"))), "image/png");
    };
    image.onerror = () => failed(new Error("not drawn"));
    image.src = `data:image/svg+xml;charset=utf-8,${encodeURIComponent(onPaper(svg))}`;
  });
}

function fileName(...words) {
  return words.join("-").replace(/[^\w.-]+/g, "-").slice(0, 80);
}

// ---------------------------------------------------------------- the widget

function render({ model, el }) {
  el.classList.add("fairq-explorer");
  const data = () => model.get("data");
  const explorers = [...document.querySelectorAll('.fairq-widget[data-kind="explorer"]')];
  const here = explorers.indexOf(el.closest(".fairq-widget"));
  let view = viewOf(data(), model.get("view") || {});
  let bin = null;
  let shown, placed, read;
  const inOnePanel = () => view.overlay || view.quantity === WEIGHTS;

  const status = html("p", { role: "status", class: "fairq-status" });
  const say = (words) => {
    status.textContent = words;
  };
  const change = (part) => {
    view = viewOf(data(), { ...view, ...part });
    model.set("view", view);
    model.save_changes();
  };

  // -- controls
  const select = (name, words) => {
    const control = html("select", { "data-control": name, onchange: () => change({ [name]: control.value }) });
    return { control, label: html("label", {}, html("span", {}, words), control) };
  };
  const tick = (name, words) => {
    const changed = () => change({ [name]: control.checked });
    const control = html("input", { type: "checkbox", "data-control": name, onchange: changed });
    const said = html("span", {}, words);
    return { control, said, label: html("label", { class: "fairq-tick" }, control, said) };
  };
  const slider = (name, words, heard) => {
    const said = html("output");
    const moved = () => heard(Number(control.value));
    const control = html("input", { type: "range", min: 0, step: 1, "data-control": name, oninput: moved });
    return { control, said, label: html("label", {}, html("span", {}, words, " ", said), control) };
  };
  const quantity = select("quantity", "Show");
  const layer = select("layer", "Layer");
  const treatment = slider("treatment", "Treatment:", (place) => {
    const chosen = data().treatments[place];
    change({ treatment: chosen, after: chosen === view.before ? view.after : chosen });
  });
  const bins = slider("bins", "Bins:", (place) => change({ bins: bins.choices[place] }));
  const overlay = tick("overlay", "all groups in one panel");
  const difference = tick("change", "");
  const numbers = tick("numbers", "numbers instead of shares");
  const groups = html("fieldset", { class: "fairq-groups" });
  const boxes = data().groups.map((group, place) => {
    const changed = () => {
      const others = view.groups.filter((one) => one !== place);
      change({ groups: control.checked ? [...others, place] : others });
    };
    const control = html("input", { type: "checkbox", "data-control": `group-${place}`, onchange: changed });
    const look = { width: 14, height: 14, viewBox: "-7 -7 14 14", "aria-hidden": "true" };
    const sign = draw("svg", look, mark(group, 0, 0));
    const read = html("span", { class: "fairq-read" });
    const about = html("span", {}, group.name, html("small", {}, ` ${group.n.toLocaleString("en-US")}`));
    return { control, read, label: html("label", { class: "fairq-tick" }, control, sign, about, read) };
  });
  groups.append(html("legend", {}, "Groups, and their images"), ...boxes.map((box) => box.label));

  const canvas = html("div", { class: "fairq-canvas" });
  const scrub = html("input", {
    type: "range", min: 0, step: 1, "data-control": "bin", oninput: () => point(Number(scrub.value)),
  });
  const note = html("p", { class: "fairq-note" });
  const topsTable = html("div");
  const numbersTable = html("div");
  const buttons = (make, words, rows) => {
    const failed = () => say("The picture could not be made; take the SVG instead.");
    return ["PNG", "SVG", "CSV"].map((kind) =>
      html("button", {
        type: "button", "data-control": `${words()[0]}-${kind.toLowerCase()}`,
        onclick: () => {
          const name = `${fileName(...words())}.${kind.toLowerCase()}`;
          say(`${kind} of what is shown: ${name}.`);
          if (kind === "CSV") save(name, new Blob(["\ufeff", csv(rows())], { type: "text/csv" }));
          else if (kind === "SVG") save(name, new Blob([onPaper(make())], { type: "image/svg+xml" }));
          else asPng(make()).then((blob) => save(name, blob), failed);
        },
      }, kind),
    );
  };
  const address = html("input", {
    type: "text", readonly: "", class: "fairq-address", "aria-label": "Link to this view", hidden: "",
  });
  const link = html("button", {
    type: "button", "data-control": "link",
    ...(location.protocol === "about:" && { hidden: "" }), // the page of a frame has no address of its own
    onclick: async () => {
      address.value = location.href.split("#")[0] + toFragment(data(), view, here);
      address.hidden = false;
      address.select();
      try {
        await navigator.clipboard.writeText(address.value);
        say("A link to this view is copied.");
      } catch {
        say("Here is a link to this view: copy it from the field.");
      }
    },
  }, "Copy link");

  const wish = html("input", {
    type: "text", size: 14, placeholder: "int5", maxlength: 80, "data-control": "wish",
    "aria-label": "Another treatment, by its name or width",
  });
  const ask = html("form", {
    class: "fairq-ask",
    onsubmit: (event) => {
      event.preventDefault();
      const wanted = wish.value.trim();
      if (!wanted) return;
      say(`${wanted} is asked for.`);
      model.send({ wanted });
    },
  }, html("span", {}, "Another treatment:"), wish, html("button", { type: "submit", "data-control": "ask" }, "Compute"));
  const done = html("progress", { max: 1, value: 0, "aria-label": "How much of it is computed", hidden: "" });
  ask.append(done);

  const before = select("before", "From");
  const after = select("after", "To");
  const flowCanvas = html("div", { class: "fairq-canvas" });
  const flowTable = html("div");
  const scrubbed = html("label", { class: "fairq-scrub" }, html("span", {}, "Read a bin"), scrub);
  const plotted = html("div", { class: "fairq-plot" }, canvas, scrubbed);

  el.append(
    html("p", { class: "fairq-extent" }),
    html("div", { class: "fairq-controls" }, quantity.label, layer.label, treatment.label, bins.label),
    html("div", { class: "fairq-ticks" }, overlay.label, difference.label, numbers.label),
    groups,
    plotted,
    note,
    status,
    topsTable,
    html("div", { class: "fairq-buttons" }, link, ...buttons(
      () => captioned(histogram(shown, { width: 760, overlay: inOnePanel(), legend: true }).svg, extent(data(), view.treatment)),
      () => ["spread", view.quantity, view.treatment],
      () => distributionRows(shown),
    )),
    address,
    ask,
    html("details", {}, html("summary", {}, "These numbers as a table"), numbersTable),
  );
  const flowPart = html(
    "section",
    { "aria-label": "Who flipped", class: "fairq-flows" },
    html("p", { class: "fairq-heading" }, "Who flipped"),
    html("p", { class: "fairq-note" },
      "What becomes of each answer from one treatment to another: the right ones on top, the wrong ones below."),
    html("div", { class: "fairq-controls" }, before.label, after.label),
    flowCanvas,
    html("div", { class: "fairq-buttons" }, ...buttons(
      () => captioned(alluvial(view, flowsOf(data(), view), 760), extent(data(), view.before, view.after)),
      () => ["flow", view.before, view.after],
      () => flowRows(view, flowsOf(data(), view)),
    )),
    html("details", {}, html("summary", {}, "These flows as a table"), flowTable),
  );
  if (Object.keys(data().flows).length || model.get("asks")) el.append(flowPart);

  // -- keeping what is seen up to date
  const options = (control, pairs) => {
    const known = JSON.stringify(pairs);
    if (control.dataset.known === known) return;
    control.dataset.known = known;
    control.replaceChildren(...pairs.map(([value, words]) => html("option", { value }, words)));
  };
  const set = (one, most, place, words) => {
    one.control.max = most;
    one.control.value = place;
    one.said.textContent = words;
    one.control.setAttribute("aria-valuetext", words);
  };

  function refresh() {
    const all = data();
    const weights = view.quantity === WEIGHTS;
    shown = shownOf(all, view);
    options(quantity.control, quantities(all));
    options(layer.control, all.weights ? all.weights.layers.map(({ name }) => [name, name]) : []);
    for (const one of [before, after]) options(one.control, all.treatments.map((name) => [name, name]));
    quantity.control.value = view.quantity;
    layer.control.value = view.layer;
    before.control.value = view.before;
    after.control.value = view.after;
    set(treatment, all.treatments.length - 1, all.treatments.indexOf(view.treatment), view.treatment);
    bins.choices = choicesOfBins(shown.quantity);
    set(bins, bins.choices.length - 1, bins.choices.indexOf(shown.bins), String(shown.bins));
    overlay.control.checked = view.overlay;
    difference.control.checked = view.change;
    difference.said.textContent = `change against ${all.treatments[0]}`;
    numbers.control.checked = view.numbers;
    layer.label.hidden = !weights;
    for (const one of [overlay.label, difference.label]) one.hidden = weights;
    groups.hidden = weights;
    boxes.forEach((box, place) => {
      box.control.checked = view.groups.includes(place);
    });
    el.querySelector(".fairq-extent").textContent = extent(all, view.treatment);
    const edges = "What lies beyond an end of the axis is counted in the last bin before it.";
    if (!weights) note.textContent = shown.quantity.closed ? "" : edges;
    else if (all.weights.seed === null) note.textContent = "";
    else note.textContent = `Weights of the network of seed ${all.weights.seed}, before rounding.`;
    note.hidden = !note.textContent;
    const [axis, most] = [`${view.quantity} ${view.layer}`, Number(scrub.max) + 1];
    if (axis !== read) bin = null;
    else if (bin !== null) bin = Math.floor((bin * shown.bins) / most);
    read = axis;
    scrub.max = shown.bins - 1;
    ask.hidden = !(model.get("live") && model.get("asks"));
    topsTable.replaceChildren(...(shown.tops ? table(shown.tops.caption, shown.tops.rows) : []));
    numbersTable.replaceChildren(...summaryTable(all, view, shown));
    paint();
  }

  function paint() {
    const width = Math.max(280, Math.floor(el.clientWidth || 600));
    placed = histogram(shown, { width, overlay: inOnePanel() });
    const size = { y: placed.top, height: placed.foot - placed.top };
    placed.cursor = draw("rect", { ...size, fill: "currentColor", opacity: 0.18 });
    placed.svg.append(placed.cursor);
    canvas.replaceChildren(placed.svg);
    const flowing = data().treatments.length > 1 && Object.keys(data().flows).length;
    flowPart.hidden = !flowing;
    if (flowing) {
      const flows = flowsOf(data(), view);
      flowCanvas.replaceChildren(alluvial(view, flows, width));
      const [heads, ...rows] = flowRows(view, flows);
      const caption = `Answers from ${view.before} to ${view.after}`;
      flowTable.replaceChildren(...table(caption, [heads, ...inColumns(rows)]));
    }
    showBin();
  }

  // While none is read, the band stands over the slider's handle, in the middle.
  function showBin() {
    const place = bin ?? Math.floor(shown.bins / 2);
    placed.cursor.setAttribute("x", rounded(placed.x(place)));
    placed.cursor.setAttribute("width", rounded(placed.x(place + 1) - placed.x(place)));
    scrub.value = place;
    scrub.setAttribute("aria-valuetext", binName(shown, place));
    for (const box of boxes) box.read.textContent = "";
    if (bin !== null && shown.of === "answers") {
      view.groups.forEach((place, row) => {
        boxes[place].read.textContent = reading(shown, shown.series[row], bin);
      });
    }
  }

  function point(place) {
    bin = Math.max(0, Math.min(place, shown.bins - 1));
    showBin();
    const values = shown.series.map((one) => {
      const value = reading(shown, one, bin);
      return shown.of === "weights" ? value : `${one.name} ${value}`;
    });
    say(`${capital(shown.quantity.name)} ${binName(shown, bin)}: ${values.join("; ") || "no group is chosen"}.`);
  }

  function pointed(event) {
    const box = canvas.getBoundingClientRect();
    const at = (event.clientX - box.left - LEFT) / (placed.x(shown.bins) - LEFT);
    if (at >= 0 && at < 1) {
      const place = Math.floor(at * shown.bins);
      if (place !== bin) point(place);
    }
  }
  canvas.addEventListener("pointermove", pointed);
  canvas.addEventListener("pointerdown", pointed);
  canvas.addEventListener("click", () => scrub.focus({ preventScroll: true }));
  scrub.addEventListener("focus", () => {
    if (bin === null) point(Number(scrub.value));
  });
  plotted.addEventListener("keydown", (event) => {
    const from = Number(scrub.value);
    const to = {
      ArrowLeft: from - 1, ArrowDown: from - 1, ArrowRight: from + 1, ArrowUp: from + 1,
      PageDown: from - 5, PageUp: from + 5, Home: 0, End: shown.bins - 1,
    }[event.key];
    if (to === undefined) return;
    event.preventDefault();
    point(to);
  });

  let seen = JSON.stringify(view);
  const viewChanged = () => {
    const old = JSON.parse(seen);
    view = viewOf(data(), model.get("view") || {});
    seen = JSON.stringify(view);
    refresh();
    const changed = Object.keys(view).filter((name) => String(old[name]) !== String(view[name]));
    const flowOnly = changed.length && changed.every((name) => name === "before" || name === "after");
    if (!model.get("busy")) say(flowOnly ? flowSentence(view, flowsOf(data(), view)) : sentence(shown));
  };
  const dataChanged = () => {
    view = viewOf(data(), view);
    refresh();
  };
  const busyChanged = () => {
    const busy = model.get("busy");
    done.hidden = !busy;
    say(busy ? `${busy} …` : model.get("answer") || sentence(shown));
  };
  const doneChanged = () => {
    done.value = model.get("done");
  };
  const answered = () => {
    if (model.get("answer")) say(model.get("answer"));
  };
  const heard = {
    "change:view": viewChanged,
    "change:data": dataChanged,
    "change:asks": refresh,
    "change:busy": busyChanged,
    "change:done": doneChanged,
    "change:answer": answered,
  };
  for (const [event, hears] of Object.entries(heard)) model.on(event, hears);

  const restore = () => {
    const wished = fromFragment(location.hash, here);
    if (!wished) return;
    change(wished);
    el.scrollIntoView({ block: "start" });
  };
  window.addEventListener("hashchange", restore);
  refresh();
  restore();
  say(sentence(shown));

  let width = el.clientWidth;
  const watch = new ResizeObserver(() => {
    if (el.clientWidth && el.clientWidth !== width) {
      width = el.clientWidth;
      paint();
    }
  });
  watch.observe(el);
  return () => {
    watch.disconnect();
    window.removeEventListener("hashchange", restore);
    for (const [event, hears] of Object.entries(heard)) model.off(event, hears);
  };
}

export default { render };
