// The pieces that the widget is made of.

import { element, shape } from "../common/elements.js";

let named = 0;
export const newId = () => `pg-${++named}-${Math.random().toString(36).slice(2)}`;

// The marks of the groups, as paths about the origin.
export const MARKS = {
  majority: (r) => `M${-r},0a${r},${r} 0 1,0 ${2 * r},0a${r},${r} 0 1,0 ${-2 * r},0Z`,
  minority: (r) => `M${-r},${-r}h${2 * r}v${2 * r}h${-2 * r}Z`,
};

export function swatch(group, label) {
  return shape(
    "svg",
    { viewBox: "-8 -8 16 16", class: "pg-swatch", "aria-hidden": "true" },
    shape("path", { d: MARKS[group](5), class: `pg-mark pg-${group} pg-${label}` }),
  );
}

/** A slider with its name and its value above it. */
export function slider(name, className, attributes) {
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

export function button(name) {
  return element("button", { type: "button" }, name);
}

/** A table whose rows begin with what they are called. */
export function table(caption, head, rows) {
  const cells = (kind, texts) => texts.map((text) => element(kind, {}, text));
  const row = (first, texts, kind) => element("tr", {}, first, ...cells(kind, texts));
  const heading = element("thead", {}, row(element("td"), head, "th"));
  const lines = rows.map(([name, ...texts]) => row(element("th", { scope: "row" }, name), texts, "td"));
  return element("table", {}, element("caption", {}, caption), heading, element("tbody", {}, ...lines));
}
