// ----------------------------------------------------------------------- the heat map, by class
// One canvas; its classes are buttons that open the same numbers as a table.

const heat = {
  panel: document.getElementById("heat"),
  canvas: document.querySelector("#heat canvas"),
  dark: window.matchMedia("(prefers-color-scheme: dark)"),
  columns: [],

  source() {
    const { splits, ranked_by } = board();
    return splits.includes(state.images) ? state.images : ranked_by;
  },

  labels() {
    const list = document.getElementById("heat-classes");
    const made = board().classes.map((known, position) => {
      const open = () => go({ class: String(known.index) });
      const button = element("button", { type: "button", "data-class": known.index, "aria-haspopup": "dialog", onclick: open }, known.name);
      if (known.feature) button.append(element("small", {}, known.feature));
      return element("li", {}, button);
    });
    list.replaceChildren(...made);
    this.panel.classList.toggle("many", board().classes.length > 20);
    const choice = document.getElementById("heat-images");
    choice.hidden = board().splits.length < 2;
    for (const input of choice.querySelectorAll("input")) input.checked = input.value === this.source();
  },

  draw(rows) {
    const { classes, called } = board();
    const source = this.source();
    this.columns = rows.filter((row) => called[source]?.[row.order]);
    const height = this.panel.classList.contains("many") ? 28 : 44;
    const head = this.columns.length <= NUMBERED ? 22 : 8;
    const room = this.canvas.parentNode.clientWidth;
    const width = Math.min(120, Math.max(3, room / Math.max(1, this.columns.length)));
    const scale = Math.min(2, window.devicePixelRatio || 1);
    const size = [Math.ceil(width * this.columns.length), head + height * classes.length];
    this.size = { width, height, head };
    [this.canvas.width, this.canvas.height] = size.map((side) => Math.max(1, Math.round(side * scale)));
    [this.canvas.style.width, this.canvas.style.height] = size.map((side) => `${side}px`);
    document.getElementById("heat-classes").style.paddingTop = `${head}px`;
    const colours = block("heat-colours")[this.dark.matches ? "dark" : "light"];
    const pen = this.canvas.getContext("2d");
    pen.scale(scale, scale);
    const style = getComputedStyle(document.body);
    pen.textAlign = "center";
    pen.textBaseline = "middle";
    const gap = width > 12 ? 2 : 0;
    this.columns.forEach((row, column) => {
      const left = column * width;
      if (head > 8) {
        pen.fillStyle = style.color;
        pen.font = `600 12px ${style.fontFamily}`;
        pen.fillText(row.rank ?? "–", left + width / 2, head / 2);
      }
      pen.font = `13px ${style.fontFamily}`;
      called[source][row.order].forEach((k, position) => {
        if (k === null) return;
        const value = k / classes[position].n[source];
        const [background, text] = colours[Math.min(colours.length - 1, Math.floor(value * colours.length + 1e-9))];
        const top = head + position * height;
        pen.fillStyle = background;
        pen.fillRect(left + gap / 2, top + 1, width - gap + (gap ? 0 : 0.5), height - 2);
        if (width < 30) return;
        pen.fillStyle = text;
        pen.fillText(Math.round(100 * value), left + width / 2, top + height / 2);
      });
    });
    const unit = this.columns.length === 1 ? "classifier" : "classifiers";
    this.canvas.setAttribute("aria-label", `Heat map of ${classes.length} classes by ${this.columns.length} ${unit}, ${source} images. The buttons of the classes open the same numbers as tables.`);
    this.canvas.setAttribute("role", "img");
  },

  at(event) {
    const { width, height, head } = this.size;
    const position = Math.floor((event.offsetY - head) / height);
    const row = this.columns[Math.floor(event.offsetX / width)];
    return row && board().classes[position] ? { row, position } : null;
  },
};

heat.canvas.addEventListener("pointermove", (event) => {
  const found = heat.at(event);
  if (!found) return;
  const { row, position } = found;
  const known = board().classes[position];
  const source = heat.source();
  const k = board().called[source][row.order][position];
  if (k === null) return;
  const n = known.n[source];
  document.getElementById("heat-readout").textContent =
    `${row.label}, ${known.name}: ${k} of ${n} ${source} images, ${one((100 * k) / n)} % (${span(wilson(k, n))})`;
});
heat.canvas.addEventListener("click", (event) => {
  const found = heat.at(event);
  if (found) go({ class: String(board().classes[found.position].index) });
});
heat.dark.addEventListener("change", () => heat.draw(ranking.rows()));
for (const input of document.querySelectorAll("#heat-images input")) {
  input.addEventListener("change", () => go({ images: input.value }));
}
