"use strict";
// An A4 sheet between its margins, in pixels.
const SHEET = 688;
// Charts are drawn from the data in the page. Everything else is there without this script.
document.documentElement.classList.add("drawn");
for (const place of document.querySelectorAll("[data-chart]")) {
  const { data, layout } = JSON.parse(document.getElementById(place.dataset.chart).textContent);
  // A drawing that knows its own size can be scaled to the width of a printed page.
  const measure = () => {
    for (const drawing of place.querySelectorAll(".main-svg")) {
      const { width, height } = drawing;
      drawing.setAttribute("viewBox", `0 0 ${width.baseVal.value} ${height.baseVal.value}`);
    }
  };
  Plotly.newPlot(place, data, layout, { displayModeBar: false, responsive: true }).then(() => {
    measure();
    place.on("plotly_afterplot", measure);
  });
  // On paper the letters keep their size where the browser says that it is about to print.
  window.addEventListener("beforeprint", () => Plotly.relayout(place, { width: SHEET }));
  window.addEventListener("afterprint", () => Plotly.relayout(place, { width: null }));
}
