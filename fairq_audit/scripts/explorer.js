// How the answers of each group are spread, who flips, and where weights fall on a grid: from counts alone.

import { choicesOfBins } from "./explorer/bins.js";
import { askFor, groupBoxes, linkTo, offer, select, slide, slider, tick } from "./explorer/controls.js";
import { captioned, downloads } from "./explorer/files.js";
import { flippedPart } from "./explorer/flipped.js";
import { flowsOf } from "./explorer/flows.js";
import { histogram } from "./explorer/histogram.js";
import { binReader } from "./explorer/reader.js";
import { extent, flowSentence, sentence } from "./explorer/sentences.js";
import { shownOf } from "./explorer/shown.js";
import { distributionRows, summaryTable, table } from "./explorer/tables.js";
import { fromFragment, quantities, toFragment, viewOf, WEIGHTS } from "./explorer/view.js";
import { element } from "./common/elements.js";

function render({ model, el }) {
  el.classList.add("fairq-explorer");
  const data = () => model.get("data");
  const explorers = [...document.querySelectorAll('.fairq-widget[data-kind="explorer"]')];
  const here = explorers.indexOf(el.closest(".fairq-widget"));
  let view = viewOf(data(), model.get("view") || {});
  let shown;
  const inOnePanel = () => view.overlay || view.quantity === WEIGHTS;

  const status = element("p", { role: "status", class: "fairq-status" });
  const say = (words) => {
    status.textContent = words;
  };
  const change = (part) => {
    view = viewOf(data(), { ...view, ...part });
    model.set("view", view);
    model.save_changes();
  };

  // -- controls
  const quantity = select("quantity", "Show", change);
  const layer = select("layer", "Layer", change);
  const treatment = slider("treatment", "Treatment:", (place) => {
    const chosen = data().treatments[place];
    change({ treatment: chosen, after: chosen === view.before ? view.after : chosen });
  });
  let choices = []; // how many bins there may be
  const bins = slider("bins", "Bins:", (place) => change({ bins: choices[place] }));
  const overlay = tick("overlay", "all groups in one panel", change);
  const difference = tick("change", "", change);
  const numbers = tick("numbers", "numbers instead of shares", change);
  const { boxes, fieldset: groups } = groupBoxes(data().groups, (place, checked) => {
    const others = view.groups.filter((one) => one !== place);
    change({ groups: checked ? [...others, place] : others });
  });
  const reader = binReader((told) => {
    for (const box of boxes) box.read.textContent = "";
    if (shown.of === "answers") told.forEach((words, row) => (boxes[view.groups[row]].read.textContent = words));
  }, say);
  const note = element("p", { class: "fairq-note" });
  const topsTable = element("div");
  const numbersTable = element("div");
  const link = linkTo(() => location.href.split("#")[0] + toFragment(data(), view, here), say);
  const ask = askFor((wanted) => {
    say(`${wanted} is asked for.`);
    model.send({ wanted });
  });
  const alone = () => histogram(shown, { width: 760, overlay: inOnePanel(), legend: true }).svg;
  const files = downloads({
    make: () => captioned(alone(), extent(data(), view.treatment)),
    words: () => ["spread", view.quantity, view.treatment],
    rows: () => distributionRows(shown),
  }, say);
  const flipped = flippedPart(data, () => view, change, say);

  const about = element("p", { class: "fairq-extent" });
  el.append(
    about,
    element("div", { class: "fairq-controls" }, quantity.label, layer.label, treatment.label, bins.label),
    element("div", { class: "fairq-ticks" }, overlay.label, difference.label, numbers.label),
    groups,
    reader.plotted,
    note,
    status,
    topsTable,
    element("div", { class: "fairq-buttons" }, link.button, ...files),
    link.field,
    ask.form,
    element("details", {}, element("summary", {}, "These numbers as a table"), numbersTable),
  );
  if (Object.keys(data().flows).length || model.get("asks")) el.append(flipped.part);

  // -- keeping what is seen up to date
  function refresh() {
    const all = data();
    const weights = view.quantity === WEIGHTS;
    shown = shownOf(all, view);
    offer(quantity.control, quantities(all));
    offer(layer.control, all.weights ? all.weights.layers.map(({ name }) => [name, name]) : []);
    quantity.control.value = view.quantity;
    layer.control.value = view.layer;
    flipped.follow();
    slide(treatment, all.treatments.length - 1, all.treatments.indexOf(view.treatment), view.treatment);
    choices = choicesOfBins(shown.quantity);
    slide(bins, choices.length - 1, choices.indexOf(shown.bins), String(shown.bins));
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
    about.textContent = extent(all, view.treatment);
    const edges = "What lies beyond an end of the axis is counted in the last bin before it.";
    if (!weights) note.textContent = shown.quantity.closed ? "" : edges;
    else if (all.weights.seed === null) note.textContent = "";
    else note.textContent = `Weights of the network of seed ${all.weights.seed}, before rounding.`;
    note.hidden = !note.textContent;
    reader.follow(shown, `${view.quantity} ${view.layer}`);
    ask.form.hidden = !(model.get("live") && model.get("asks"));
    topsTable.replaceChildren(...(shown.tops ? table(shown.tops.caption, shown.tops.rows) : []));
    numbersTable.replaceChildren(...summaryTable(all, view, shown));
    paint();
  }

  function paint() {
    const width = Math.max(280, Math.floor(el.clientWidth || 600));
    reader.paint(histogram(shown, { width, overlay: inOnePanel() }));
    flipped.paint(width);
  }

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
    ask.done.hidden = !busy;
    say(busy ? `${busy} …` : model.get("answer") || sentence(shown));
  };
  const doneChanged = () => {
    ask.done.value = model.get("done");
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
