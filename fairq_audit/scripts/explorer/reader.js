// The histogram on the page, of which one bin can be read: by pointing at it, by a slider, or by keys.

import { binName } from "./bins.js";
import { LEFT } from "./histogram.js";
import { reading } from "./sentences.js";
import { rounded } from "./shapes.js";
import { element, shape } from "../common/elements.js";
import { capital } from "../common/format.js";

// `tell` is called with what each series says of the bin, in the order of the series, or with nothing.
export function binReader(tell, say) {
  let bin = null; // none is read yet
  let shown, axis, drawn, cursor;

  const canvas = element("div", { class: "fairq-canvas" });
  const scrub = element("input", {
    type: "range", min: 0, step: 1, "data-control": "bin", oninput: () => point(Number(scrub.value)),
  });
  const scrubbed = element("label", { class: "fairq-scrub" }, element("span", {}, "Read a bin"), scrub);
  const plotted = element("div", { class: "fairq-plot" }, canvas, scrubbed);

  // On the same axis the place that is read stays where it is, however many bins there are.
  function follow(now, nameOfAxis) {
    shown = now;
    const before = Number(scrub.max) + 1;
    if (nameOfAxis !== axis) bin = null;
    else if (bin !== null) bin = Math.floor((bin * shown.bins) / before);
    axis = nameOfAxis;
    scrub.max = shown.bins - 1;
  }

  function paint(histogram) {
    drawn = histogram;
    const size = { y: drawn.top, height: drawn.foot - drawn.top };
    cursor = shape("rect", { ...size, fill: "currentColor", opacity: 0.18 });
    drawn.svg.append(cursor);
    canvas.replaceChildren(drawn.svg);
    show();
  }

  // While none is read, the band stands over the slider's handle, in the middle.
  function show() {
    const place = bin ?? Math.floor(shown.bins / 2);
    cursor.setAttribute("x", rounded(drawn.x(place)));
    cursor.setAttribute("width", rounded(drawn.x(place + 1) - drawn.x(place)));
    scrub.value = place;
    scrub.setAttribute("aria-valuetext", binName(shown, place));
    tell(bin === null ? [] : shown.series.map((one) => reading(shown, one, bin)));
  }

  function point(place) {
    bin = Math.max(0, Math.min(place, shown.bins - 1));
    show();
    const values = shown.series.map((one) => {
      const value = reading(shown, one, bin);
      return shown.of === "weights" ? value : `${one.name} ${value}`;
    });
    say(`${capital(shown.quantity.name)} ${binName(shown, bin)}: ${values.join("; ") || "no group is chosen"}.`);
  }

  function pointed(event) {
    const box = canvas.getBoundingClientRect();
    const at = (event.clientX - box.left - LEFT) / (drawn.x(shown.bins) - LEFT);
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
  return { plotted, follow, paint };
}
