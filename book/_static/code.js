// One switch for the code of a page: hidden, so that the text can be read; shown, with all of it open.
(() => {
  const page = document.documentElement;
  const read = () => {
    try {
      return localStorage.getItem("fairq-code") === "shown";
    } catch {
      return false; // a browser that keeps nothing
    }
  };
  page.dataset.code = read() ? "shown" : "hidden";
  addEventListener("DOMContentLoaded", () => {
    const folded = document.querySelectorAll("article details.above-input");
    const place = document.querySelector(".article-header-buttons");
    if (!folded.length || !place) return;
    const button = document.createElement("button");
    button.type = "button";
    button.className = "btn btn-sm fairq-code";
    button.textContent = "Code";
    const show = () => {
      const shown = page.dataset.code === "shown";
      button.setAttribute("aria-pressed", String(shown));
      button.title = shown ? "Hide the code of this page" : "Show the code of this page";
      for (const one of folded) one.open = shown;
      for (const box of document.querySelectorAll("article div.cell_input pre")) {
        if (box.scrollWidth > box.clientWidth + 1) box.tabIndex = 0; // the theme looked while it was hidden
      }
    };
    button.addEventListener("click", () => {
      page.dataset.code = page.dataset.code === "shown" ? "hidden" : "shown";
      try {
        localStorage.setItem("fairq-code", page.dataset.code);
      } catch {
        // it holds for this page alone, then
      }
      show();
    });
    show();
    place.prepend(button);
  });
})();
