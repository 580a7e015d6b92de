// The part of the widget that shows who flipped, from one treatment to another.

import { alluvial } from "./alluvial.js";
import { offer, select } from "./controls.js";
import { captioned, downloads } from "./files.js";
import { flowsOf } from "./flows.js";
import { extent } from "./sentences.js";
import { flowRows, inColumns, table } from "./tables.js";
import { element } from "../common/elements.js";

// `data` and `view` are functions that return what is there now.
export function flippedPart(data, view, change, say) {
  const before = select("before", "From", change);
  const after = select("after", "To", change);
  const canvas = element("div", { class: "fairq-canvas" });
  const numbers = element("div");
  const flows = () => flowsOf(data(), view());
  const files = downloads({
    make: () => captioned(alluvial(view(), flows(), 760), extent(data(), view().before, view().after)),
    words: () => ["flow", view().before, view().after],
    rows: () => flowRows(view(), flows()),
  }, say);
  const part = element(
    "section",
    { "aria-label": "Who flipped", class: "fairq-flows" },
    element("p", { class: "fairq-heading" }, "Who flipped"),
    element("p", { class: "fairq-note" },
      "What becomes of each answer from one treatment to another: the right ones on top, the wrong ones below."),
    element("div", { class: "fairq-controls" }, before.label, after.label),
    canvas,
    element("div", { class: "fairq-buttons" }, ...files),
    element("details", {}, element("summary", {}, "These flows as a table"), numbers),
  );

  function follow() {
    for (const one of [before, after]) offer(one.control, data().treatments.map((name) => [name, name]));
    before.control.value = view().before;
    after.control.value = view().after;
  }

  function paint(width) {
    const flowing = data().treatments.length > 1 && Object.keys(data().flows).length;
    part.hidden = !flowing;
    if (!flowing) return;
    canvas.replaceChildren(alluvial(view(), flows(), width));
    const [heads, ...rows] = flowRows(view(), flows());
    const caption = `Answers from ${view().before} to ${view().after}`;
    numbers.replaceChildren(...table(caption, [heads, ...inColumns(rows)]));
  }

  return { part, follow, paint };
}
