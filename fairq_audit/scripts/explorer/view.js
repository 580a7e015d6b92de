// What the reader has chosen: always whole and known, and as the end of a link.

export const WEIGHTS = "weights";

export function quantities(data) {
  const named = Object.entries(data.quantities).map(([key, quantity]) => [key, quantity.name]);
  return data.weights ? [...named, [WEIGHTS, "weights by layer"]] : named;
}

// A whole view, whatever was wished for: what is unknown or missing is as at the beginning.
export function viewOf(data, wish) {
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

export function toFragment(data, view, place) {
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
export function fromFragment(fragment, place) {
  if (!fragment.startsWith("#explorer=")) return null;
  const said = new URLSearchParams(fragment.slice("#explorer=".length));
  if (Number(said.get("widget") || 1) !== Math.max(place, 0) + 1) return null;
  const wish = Object.fromEntries(said);
  for (const key of ["overlay", "change", "numbers"]) wish[key] = wish[key] === "1";
  if (said.has("groups")) wish.groups = said.get("groups").split(".").map(Number);
  return wish;
}
