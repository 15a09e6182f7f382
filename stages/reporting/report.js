"use strict";
// The page is complete without this; it makes tables sortable and classes findable.

const collator = new Intl.Collator("en", { numeric: true, sensitivity: "base" });

// The collator alone takes the digits after a point for a whole number: 0.5 before 0.123.
function compare(a, b) {
  return a - b || collator.compare(a, b);
}

function valueOf(row, column) {
  const cell = row.cells[column];
  return cell.dataset.value ?? cell.textContent.trim();
}

function sortTable(table, head) {
  const column = head.cellIndex;
  const falling = head.getAttribute("aria-sort") === "ascending";
  const body = table.tBodies[0];
  const rows = [...body.rows].map((row) => [valueOf(row, column), row]);
  // What has no value stays at the end, whichever way.
  rows.sort(([a], [b]) => (a === "") - (b === "") || compare(a, b) * (falling ? -1 : 1));
  body.append(...rows.map(([, row]) => row));
  for (const each of table.tHead.rows[0].cells) each.removeAttribute("aria-sort");
  head.setAttribute("aria-sort", falling ? "descending" : "ascending");
}

for (const table of document.querySelectorAll("table.sortable")) {
  for (const head of table.tHead.rows[0].cells) {
    if (head.classList.contains("unsorted")) continue;
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    button.addEventListener("click", () => sortTable(table, head));
    head.append(button);
  }
}

// Cells and names of a confusion matrix move to the places that an order gives their classes.
function orderMatrix(matrix, order) {
  const { margin, side } = matrix.dataset;
  const place = [];
  order.forEach((each, position) => { place[each] = Number(margin) + position * Number(side); });
  for (const each of matrix.querySelectorAll("[data-row]")) {
    const { row, column } = each.dataset;
    each.setAttribute("transform", `translate(${place[column]} ${place[row]})`);
  }
  for (const each of matrix.querySelectorAll("[data-across]")) {
    each.setAttribute("transform", `translate(0 ${place[each.dataset.across]})`);
  }
  for (const each of matrix.querySelectorAll("[data-down]")) {
    each.setAttribute("transform", `translate(${place[each.dataset.down]} 0)`);
  }
}

function findIn(area, text) {
  const wanted = text.trim().toLowerCase();
  const has = (name) => name.toLowerCase().includes(wanted);
  for (const row of area.querySelectorAll("tbody tr")) {
    row.hidden = ![...row.querySelectorAll("[data-class]")].some((each) => has(each.textContent));
  }
  for (const each of area.querySelectorAll("[data-shown]")) {
    const count = each.closest("table").querySelectorAll("tbody tr:not([hidden])").length;
    const all = each.dataset.shown;
    each.textContent = String(count) === all ? all : `${count} of ${all}`;
  }
  for (const each of area.querySelectorAll(".matrix [data-names]")) {
    each.classList.toggle("faint", !each.dataset.names.split("\n").some(has));
  }
}

for (const area of document.querySelectorAll(".findable")) {
  const tools = area.querySelector(".tools");
  tools.hidden = false;
  tools.querySelector("input").addEventListener("input", (event) => {
    findIn(area, event.target.value);
  });
  const matrix = area.querySelector(".matrix svg");
  tools.querySelector("select")?.addEventListener("change", (event) => {
    orderMatrix(matrix, event.target.value.split(" ").map(Number));
  });
}
