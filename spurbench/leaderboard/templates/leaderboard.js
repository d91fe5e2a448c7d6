"use strict";
// Text from outside reaches the page as textContent only.

const data = new Map();

function boardData(board) {
  if (!data.has(board.id)) {
    data.set(board.id, JSON.parse(document.getElementById(`${board.id}-data`).textContent));
  }
  return data.get(board.id);
}

function element(tag, className, text) {
  const made = document.createElement(tag);
  if (className) made.className = className;
  if (text !== undefined) made.textContent = text;
  return made;
}

const percent = (share) => `${Math.round(100 * share)} %`;

// One dataset at a time; without this script all are shown.
const chooser = document.getElementById("dataset");
function chooseBoard() {
  for (const board of document.querySelectorAll(".board")) board.hidden = board.id !== chooser.value;
}
if (chooser) {
  const linked = document.getElementById(location.hash.slice(1))?.closest(".board");
  if (linked) chooser.value = linked.id;
  chooser.addEventListener("change", chooseBoard);
  chooseBoard();
}

for (const board of document.querySelectorAll(".board")) {
  const body = board.querySelector(".ranking tbody");
  const headings = [...board.querySelectorAll(".ranking thead th")];
  const search = board.querySelector("[data-search]");
  const filters = [...board.querySelectorAll("[data-filter]")];
  const empty = board.querySelector(".empty");
  const parts = (id) =>
    board.querySelectorAll(`[data-point="${id}"], [data-column="${id}"]`);

  function update(announce) {
    const words = search.value.toLowerCase().split(/\s+/).filter(Boolean);
    const rows = [...body.rows];
    let shown = 0;
    let above = null;
    const ranked = rows.every((row, i) => !i || +rows[i - 1].dataset.order < +row.dataset.order);
    for (const row of rows) {
      const text = row.textContent.toLowerCase();
      const visible =
        words.every((word) => text.includes(word)) &&
        filters.every((f) => !f.value || row.dataset[f.dataset.filter] === f.value);
      row.hidden = !visible;
      for (const part of parts(row.id)) part.toggleAttribute("hidden", !visible);
      const tied = row.querySelector(".group")?.textContent;
      row.classList.toggle("opens", visible && ranked && above !== null && tied !== above);
      if (visible) {
        shown += 1;
        above = tied;
      }
    }
    empty.hidden = shown > 0;
    if (announce) {
      board.querySelector(".status").textContent = `${shown} of ${rows.length} classifiers`;
    }
  }

  function sort(heading) {
    const descending = heading.getAttribute("aria-sort") === "ascending";
    for (const other of headings) other.removeAttribute("aria-sort");
    heading.setAttribute("aria-sort", descending ? "descending" : "ascending");
    const column = heading.cellIndex;
    const numeric = heading.dataset.kind === "number" || heading.classList.contains("tied");
    const key = (row) => {
      const cell = row.cells[column];
      return numeric ? Number(cell.dataset.value) : cell.textContent.trim();
    };
    const rows = [...body.rows].sort((a, b) => {
      const [x, y] = [key(a), key(b)];
      if (numeric && (x === 1e9 || y === 1e9)) return x - y; // unknown is last, either way
      const order = numeric ? x - y : x.localeCompare(y, "en", { numeric: true });
      return (descending ? -order : order) || a.dataset.order - b.dataset.order;
    });
    body.append(...rows);
    update(false);
  }

  for (const heading of headings) {
    heading.querySelector("button")?.addEventListener("click", () => sort(heading));
  }
  search.addEventListener("input", () => update(true));
  for (const filter of filters) filter.addEventListener("change", () => update(true));
  board.querySelector("[data-clear]").addEventListener("click", () => {
    search.value = "";
    for (const filter of filters) filter.value = "";
    update(true);
    search.focus();
  });

  // A row and its point light up together.
  const light = (id, on) => {
    document.getElementById(id).classList.toggle("lit", on);
    for (const part of parts(id)) part.classList.toggle("lit", on);
  };
  for (const part of board.querySelectorAll(".ranking tbody tr, [data-point]")) {
    const id = part.dataset.point || part.id;
    for (const [event, on] of [["pointerenter", true], ["pointerleave", false], ["focusin", true], ["focusout", false]]) {
      part.addEventListener(event, () => light(id, on));
    }
  }

  for (const button of board.querySelectorAll("[data-class]")) {
    button.addEventListener("click", () => openSamples(board, button));
  }
  update(true);
}

const dialog = document.getElementById("samples");
let current = null;

function openSamples(board, button) {
  current = { board, button };
  const known = boardData(board);
  const index = Number(button.dataset.class);
  const name = button.firstChild.textContent;
  document.getElementById("samples-title").textContent = name;
  document.getElementById("samples-feature").textContent =
    button.querySelector("small")?.textContent ?? "";
  const rows = [...board.querySelectorAll(".ranking tbody tr")].sort(
    (a, b) => a.dataset.order - b.dataset.order,
  );
  const labels = rows.map((row) => row.querySelector(".label").textContent);
  const content = document.getElementById("samples-body");
  content.replaceChildren();
  const samples = known.samples[index] ?? [];
  if (!samples.length) {
    content.append(
      element("p", "note", "No images: this page was rendered without the dataset or the answers."),
    );
  }
  for (const split of ["generated", "real"]) {
    const own = samples.filter((sample) => sample.split === split);
    if (!own.length) continue;
    content.append(element("h3", split, split));
    const grid = element("div", "grid");
    own.forEach((sample, i) => grid.append(figure(sample, i, index, name, labels, known.names)));
    content.append(grid);
  }
  if (samples.length) {
    content.append(
      element(
        "p",
        "note",
        "The first images by the hash of their content; nobody picked them. Answers in the order of rank, with the probability of the class.",
      ),
    );
  }
  if (!dialog.open) dialog.showModal();
  dialog.scrollTop = 0;
}

function figure(sample, position, index, name, labels, names) {
  const made = element("figure");
  const fooled = sample.answers.filter((answer) => answer && answer[0] === index).length;
  const asked = sample.answers.filter(Boolean).length;
  const image = element("img");
  image.src = sample.image;
  image.alt = `${sample.split} image ${position + 1} without the ${name}`;
  const caption = element("figcaption");
  const called = element("p", "called");
  called.append(element("b", "", `${fooled} of ${asked}`), ` answer ${name}`);
  const list = element("ul");
  sample.answers.forEach((answer, i) => {
    if (!answer) return;
    const [prediction, probability] = answer;
    const line = element("li", prediction === index ? "fooled" : "");
    line.append(
      element("span", "who", labels[i]),
      element("span", "what", names[prediction]),
      element("span", "sure", percent(probability)),
    );
    list.append(line);
  });
  caption.append(called, list);
  made.append(image, caption);
  return made;
}

function step(by) {
  const buttons = [...current.board.querySelectorAll("[data-class]")];
  const next = (buttons.indexOf(current.button) + by + buttons.length) % buttons.length;
  openSamples(current.board, buttons[next]);
}

document.getElementById("previous").addEventListener("click", () => step(-1));
document.getElementById("next").addEventListener("click", () => step(1));
document.getElementById("close").addEventListener("click", () => dialog.close());
dialog.addEventListener("click", (event) => {
  if (event.target === dialog) dialog.close(); // the backdrop
});
dialog.addEventListener("keydown", (event) => {
  if (event.key === "ArrowLeft") step(-1);
  if (event.key === "ArrowRight") step(1);
});
dialog.addEventListener("close", () => current?.button.focus());
