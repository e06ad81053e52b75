"use strict";
// The page can be read without this. It adds what a page at rest cannot do: sorting, reading off, looking at one row.
document.documentElement.classList.add("js");

// Tables are sorted by a click on a heading: by the number that a cell carries, else by its words. What has none comes last.
for (const table of document.querySelectorAll("table.sorts")) {
  const body = table.tBodies[0];
  const heads = [...table.tHead.rows[table.tHead.rows.length - 1].cells];
  heads.forEach((head, column) => {
    // The heading of a drawing is its axis; the column of its ratios beside it sorts.
    if (!head.textContent.trim() || head.classList.contains("track")) return;
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    head.append(button);
    button.addEventListener("click", () => {
      const down = head.getAttribute("aria-sort") === "ascending";
      heads.forEach(other => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", down ? "descending" : "ascending");
      const key = row => {
        const cell = row.cells[column];
        return cell.dataset.v === undefined ? NaN : Number(cell.dataset.v);
      };
      const rows = [...body.rows].map(row => ({ row, number: key(row), words: row.cells[column].textContent }));
      const numbers = rows.some(its => !Number.isNaN(its.number));
      rows.sort((a, b) => {
        if (!numbers) return a.words.localeCompare(b.words, undefined, { numeric: true }) * (down ? -1 : 1);
        if (Number.isNaN(a.number) || Number.isNaN(b.number)) return Number.isNaN(a.number) - Number.isNaN(b.number);
        return (a.number - b.number) * (down ? -1 : 1);
      });
      body.append(...rows.map(its => its.row));
    });
  });
}

// Reading off: what is under the pointer, or of every line what it says there.
const tip = document.createElement("div");
tip.id = "tip";
tip.hidden = true;
document.body.append(tip);
const show = (event, text) => {
  tip.textContent = text;
  tip.hidden = !text;
  if (!text) return;
  const { width, height } = tip.getBoundingClientRect();
  const left = event.clientX + 14 + width > innerWidth ? event.clientX - 14 - width : event.clientX + 14;
  tip.style.left = Math.max(4, Math.min(left, innerWidth - width - 4)) + "px";
  tip.style.top = Math.max(4, Math.min(event.clientY + 14, innerHeight - height - 4)) + "px";
};
document.addEventListener("pointermove", event => {
  const told = event.target.closest && event.target.closest("[data-tip]");
  if (told) show(event, told.dataset.tip);
  else if (!(event.target.closest && event.target.closest(".read"))) tip.hidden = true;
});
document.addEventListener("pointerleave", () => { tip.hidden = true; });
for (const area of document.querySelectorAll(".read")) {
  const canvas = area.querySelector("svg.canvas");
  const cross = document.createElementNS(canvas.namespaceURI, "line");
  cross.setAttribute("class", "cross");
  cross.setAttribute("y2", "100%");
  area.addEventListener("pointermove", event => {
    const box = canvas.getBoundingClientRect();
    const at = (event.clientX - box.left) / box.width * 100;
    const lines = [];
    let place = null;
    for (const series of canvas.querySelectorAll("[data-x]")) {
      if (getComputedStyle(series).display === "none") continue;
      const places = series.dataset.x.split(" ").map(Number);
      let best = 0;
      places.forEach((its, index) => { if (Math.abs(its - at) < Math.abs(places[best] - at)) best = index; });
      place = place === null || Math.abs(places[best] - at) < Math.abs(place - at) ? places[best] : place;
      lines.push(series.dataset.name + ": " + series.dataset.t.split("|")[best]);
    }
    if (place === null) return;
    cross.setAttribute("x1", place + "%");
    cross.setAttribute("x2", place + "%");
    canvas.append(cross);
    show(event, lines.join("\n"));
  });
  area.addEventListener("pointerleave", () => { cross.remove(); tip.hidden = true; });
}

// One row of the workloads in the scatter.
for (const select of document.querySelectorAll("select[data-of]")) {
  select.addEventListener("change", () => {
    const plot = document.getElementById(select.dataset.of);
    plot.classList.toggle("one-row", select.value !== "");
    for (const mark of plot.querySelectorAll("[data-row]")) mark.classList.toggle("chosen", mark.dataset.row === select.value);
  });
}
