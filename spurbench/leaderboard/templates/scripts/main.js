// ------------------------------------------------------------------ controls, and what draws what

const find = document.getElementById("find");
const pickers = { family: document.getElementById("family"), training: document.getElementById("training") };
const chosenColumns = document.getElementById("columns");
const tests = document.getElementById("tests");

/** Work for when the browser has shown the table; asked for again, it is done once. */
let later = 0;
function afterwards(work) {
  clearTimeout(later);
  later = setTimeout(work, 60);
}

function mount() {
  const { id, rows, splits } = board();
  for (const part of document.querySelectorAll("[data-board]")) part.hidden = part.dataset.board !== id;
  const dataset = document.getElementById("dataset");
  if (dataset) dataset.value = id;
  for (const [key, picker] of Object.entries(pickers)) {
    const names = [...new Set(rows.map((row) => row[key]))].sort((a, b) => a.localeCompare(b, "en"));
    picker.replaceChildren(element("option", { value: "" }, "all"), ...names.map((name) => element("option", {}, name)));
  }
  for (const split of ["generated", "real"]) {
    for (const part of document.querySelectorAll(`.of-${split}`)) part.hidden = !splits.includes(split);
  }
  ranking.mount();
  heat.labels();
}

function drawColumns() {
  const on = new Set(ranking.visible().map((column) => column.id));
  const made = ranking.columns().filter((column) => column.need).map((column) => {
    const box = element("input", { type: "checkbox" });
    box.checked = on.has(column.id);
    box.addEventListener("change", () => {
      const wanted = ranking.visible().filter((c) => c.need && c.id !== column.id).map((c) => c.id);
      go({ columns: [...wanted, ...(box.checked ? [column.id] : [])].join(",") || "none" }, { step: false });
    });
    return element("label", {}, box, column.id === "plot" ? "Plot of both" : column.label);
  });
  if (state.columns) {
    made.push(element("button", { type: "button", onclick: () => go({ columns: "" }) }, "As many as fit"));
  }
  chosenColumns.replaceChildren(...made);
}

function drawTests() {
  const { p_values: packed } = board();
  tests.hidden = !packed;
  if (!packed || !tests.open) return;
  const ranked = compared().filter((row) => row.line !== null);
  const bytes = atob(packed);
  const p = (a, b) => {
    const [low, high] = [Math.min(a, b), Math.max(a, b)];
    const at = 2 * ((high * (high - 1)) / 2 + low);
    return (bytes.charCodeAt(at) | (bytes.charCodeAt(at + 1) << 8)) / 1000;
  };
  const head = element("tr", {}, element("td"), ...ranked.map((row) => element("th", { scope: "col" }, element("span", { class: "turned" }, row.label))));
  const body = element("tbody");
  for (const row of ranked) {
    const line = element("tr", {}, element("th", { scope: "row" }, row.label));
    for (const other of ranked) {
      const value = row === other ? null : p(row.line, other.line);
      const text = value === null ? "·" : value < 0.001 ? "<0.001" : value.toFixed(value < 0.05 ? 3 : 2);
      line.append(element("td", {}, value !== null && value < 0.05 ? element("b", {}, text) : text));
    }
    body.append(line);
  }
  tests.querySelector("table").replaceChildren(tests.querySelector("caption"), element("thead", {}, head), body);
}

/** Draw what the state has changed since it was last drawn. */
function draw() {
  const before = shown ?? {};
  shown = state;
  const changed = (...keys) => keys.some((key) => before[key] !== state[key]);
  if (changed("dataset")) mount();
  if (document.activeElement !== find) find.value = state.find;
  pickers.family.value = state.family;
  pickers.training.value = state.training;
  const table = changed("dataset", "sort", "find", "family", "training", "columns");
  if (table) {
    const rows = ranking.rows();
    ranking.draw(rows);
    document.getElementById("empty").hidden = rows.length > 0;
    document.getElementById("status").textContent = `${rows.length} of ${plural(board().rows.length, "classifier")}`;
    afterwards(() => {
      drawPlots(rows);
      heat.draw(rows);
    });
  } else if (changed("compare")) {
    const chosen = new Set(state.compare.split(","));
    for (const box of ranking.root.querySelectorAll("tr[data-row] .compare input")) {
      box.checked = chosen.has(box.closest("tr").dataset.row);
    }
  }
  if (changed("dataset", "columns")) drawColumns();
  if (changed("images")) {
    heat.labels();
    heat.draw(ranking.rows());
  }
  if (changed("dataset", "compare")) drawTests();
  if (changed("row") && state.row) ranking.find(state.row);
  const wanted = state.class || state.classifier || dialog.open;
  if (wanted && changed("dataset", "class", "classifier", "compare", "images")) {
    // The answers come after this script.
    if (document.readyState === "loading") window.addEventListener("DOMContentLoaded", drawSheet, { once: true });
    else drawSheet();
  }
}

find.addEventListener("input", () => go({ find: find.value.trim() }, { step: false }));
for (const [key, picker] of Object.entries(pickers)) {
  picker.addEventListener("change", () => go({ [key]: picker.value }));
}
document.getElementById("clear").addEventListener("click", () => {
  find.value = "";
  go({ find: "", family: "", training: "" });
  find.focus();
});
document.getElementById("dataset")?.addEventListener("change", (event) =>
  go({ ...Object.fromEntries(KEYS.map((key) => [key, ""])), dataset: event.target.value }),
);
tests.addEventListener("toggle", drawTests);
for (const event of ["popstate", "hashchange"]) {
  window.addEventListener(event, () => {
    state = fromAddress();
    draw();
  });
}
let width = window.innerWidth;
window.addEventListener("resize", () => {
  if (window.innerWidth === width) return; // a phone's bars come and go
  width = window.innerWidth;
  const rows = ranking.rows();
  ranking.draw(rows);
  drawColumns();
  afterwards(() => heat.draw(rows));
});

document.getElementById("skip").addEventListener("click", (event) => {
  event.preventDefault(); // the address is the state's
  document.getElementById("main").focus();
});
for (const part of document.querySelectorAll(".scripted")) part.hidden = false;
draw();
