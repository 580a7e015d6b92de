// Starts the widgets of a published page: each finds its state beside it, and nobody to ask.
(() => {
  class PageModel {
    constructor(state) {
      this.state = state;
      this.listeners = {};
    }
    get(name) {
      return this.state[name];
    }
    set(name, value) {
      if (this.state[name] === value) return;
      this.state[name] = value;
      (this.listeners[`change:${name}`] || []).forEach((heard) => heard());
    }
    save_changes() {}
    send() {}
    on(event, heard) {
      (this.listeners[event] ||= []).push(heard);
    }
    off(event, heard) {
      this.listeners[event] = (this.listeners[event] || []).filter((other) => other !== heard);
    }
  }

  function start() {
    for (const place of document.querySelectorAll(".fairq-widget")) {
      const kind = window.fairqWidgets[place.dataset.kind];
      const state = JSON.parse(place.querySelector("script[type='application/json']").textContent);
      const el = document.createElement("div");
      el.className = "fairq-live";
      place.prepend(el);
      place.classList.add("fairq-started");
      kind.render({ model: new PageModel(state), el });
    }
  }

  if (document.readyState === "loading") document.addEventListener("DOMContentLoaded", start);
  else start();
})();
