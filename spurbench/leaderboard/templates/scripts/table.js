// ------------------------------------------------------------------------------- the ranking
// The library sorts, filters and keeps the columns; the rows stand in a native table, in bodies of
// CHUNK rows each, of which only those in sight are filled.

const CHUNK = 20;
const ROW_HEIGHT = 58; // pixels, until a body has been seen

const none = () => element("span", { class: "none" }, "–");

function figure(part, kind, format = one) {
  if (!part) return [none()];
  const interval = format === signed ? span(part, signed) : `${format(part.low)}–${format(part.high)}`;
  return [element("b", { class: kind }, format(part.value)), element("small", {}, interval)];
}

function range(row) {
  const made = element("span", { class: "range", "aria-hidden": "true" });
  for (const kind of ["real", "generated"]) {
    const part = row[kind];
    if (!part) continue;
    const width = `${part.high - part.low}%`;
    made.append(
      element("i", { class: `whisker ${kind}`, style: { left: `${part.low}%`, width } }),
      element("i", { class: `dot ${kind}`, style: { left: `${part.value}%` } }),
    );
  }
  return made;
}

function millions(count) {
  if (count >= 1e9) return `${one(count / 1e9)} B`;
  if (count >= 1e8) return `${Math.round(count / 1e6)} M`;
  return count >= 1e6 ? `${one(count / 1e6)} M` : `${Math.round(count / 1e3)} k`;
}

function badges(row) {
  if (!row.unranked) return null;
  return element("span", { class: "badge" }, `not ranked: ${row.unranked}`);
}

function nameCell(row) {
  const link = element(
    "a",
    { class: "label", href: toAddress({ dataset: state.dataset || board().id, classifier: row.id }) },
    ...breakable(row.label),
  );
  link.addEventListener("click", (event) => {
    if (event.ctrlKey || event.metaKey || event.shiftKey) return;
    event.preventDefault();
    go({ classifier: row.id, row: "" });
  });
  const meta = board().modes > 1 ? row.preprocessing : "";
  return [
    link,
    badges(row),
    meta && element("span", { class: "meta" }, meta),
    element("span", { class: "narrow" }, range(row)),
  ].filter(Boolean);
}

function chooseCell(row) {
  const box = element("input", { type: "checkbox", "aria-label": `Compare ${row.label}` });
  box.checked = state.compare.split(",").includes(row.id);
  box.addEventListener("change", () => compare(row, box.checked));
  return [element("label", { class: "box" }, box)];
}

function entryCell(row) {
  return row.entries.map((href, i) =>
    element("a", { href, "aria-label": `Entry of ${row.label}, JSON` }, i ? ` ${i + 1}` : "JSON"),
  );
}

const share = (key) => (row) => row[key]?.value;
const points = (value) => value.toFixed(3);

/** Width in rem, on a phone where that differs; need: without it the column is shown while there is room, the lowest first. */
const COLUMNS = [
  { id: "compare", label: "Compare", width: 2.9, cell: chooseCell, title: "Choose classifiers to compare image by image" },
  { id: "rank", label: "#", width: 3.1, phone: 2.4, value: (row) => row.rank ?? undefined,
    cell: rankCell },
  { id: "tied", label: "Tied", width: 4.4, need: 6, value: (row) => row.tied?.[0],
    title: "Ranks among which the order may be chance",
    cell: (row) => [row.tied ? element("span", { class: "group" }, tie(row)) : none()] },
  { id: "name", label: "Classifier", width: 15, phone: 7.5, value: (row) => row.label.toLowerCase(), cell: nameCell },
  { id: "plot", label: "", width: 11, need: 7, cell: (row) => [range(row)] },
  { id: "generated", label: "Generated", width: 6.6, phone: 5, value: share("generated"),
    title: "Spurious accuracy on generated images, percent, with its 95 % interval; lower is better",
    cell: (row) => figure(row.generated, "generated") },
  { id: "recognition", label: "Recognition", width: 7, phone: 5.4, need: 1, value: share("recognition"), descending: true,
    title: "Accuracy on images that do show the class, percent, with its 95 % interval; higher is better",
    cell: (row) => figure(row.recognition, "recognition") },
  { id: "real", label: "Real", width: 6.4, need: 2, value: share("real"),
    title: "Spurious accuracy on real photographs, percent, with its 95 % interval; lower is better",
    cell: (row) => figure(row.real, "real") },
  { id: "effect", label: "Effect", width: 7.2, need: 3, value: share("effect"),
    title: "Feature effect: generated images minus their twins without the feature, percentage points, with its 95 % interval",
    cell: (row) => figure(row.effect, "effect", signed) },
  { id: "auroc", label: "AUROC", width: 6.6, need: 4, value: share("auroc"), descending: true,
    title: "How well the probability of the class tells images that show it from those that show the feature alone; 0.5 is chance, 1 is perfect",
    cell: (row) => figure(row.auroc, "auroc", points) },
  { id: "worst", label: "Worst class", width: 8.4, need: 5, value: (row) => row.worst?.value, cell: worstCell },
  { id: "gap", label: "Gap", width: 4.6, need: 9, value: (row) => row.gap ?? undefined,
    title: "Generated minus real, percentage points",
    cell: (row) => [row.gap === null ? none() : signed(row.gap)] },
  { id: "parameters", label: "Params", width: 5.2, need: 8, value: (row) => row.parameters,
    cell: (row) => [millions(row.parameters)] },
  { id: "family", label: "Family", width: 8, need: 10, value: (row) => row.family.toLowerCase(),
    cell: (row) => breakable(row.family) },
  { id: "training", label: "Training data", width: 9, need: 11, value: (row) => row.training.toLowerCase(),
    cell: (row) => breakable(row.training) },
  { id: "date", label: "Measured", width: 6.6, need: 12, value: (row) => row.date, descending: true,
    cell: (row) => [row.date] },
  { id: "entry", label: "Entry", width: 4.2, need: 13, cell: entryCell, title: "What was measured, as JSON" },
];

/** With the tie group, where that has no column of its own. */
function rankCell(row) {
  if (row.rank === null) return [none()];
  const group = row.tied && !ranking.tied && element("small", { class: "meta" }, element("span", { class: "sr" }, "tied "), tie(row));
  return [String(row.rank), group].filter(Boolean);
}

function tie(row) {
  const [first, last] = row.tied;
  return first === last ? String(first) : `${first}–${last}`;
}

function worstCell(row) {
  if (!row.worst) return [none()];
  const known = board().classes[row.worst.class];
  return [known.name, element("small", { class: "meta" }, `${one(row.worst.value)} % of ${row.worst.n}`)];
}

const ranking = {
  root: document.getElementById("ranking"),
  scroll: document.getElementById("ranking-scroll"),
  bodies: new Map(),
  library: null,
  tied: false, // whether that column is shown
  board: null,

  /** The columns that this board has values in. */
  columns() {
    const { rows } = board();
    const held = (column) => {
      if (["compare", "rank", "name", "entry"].includes(column.id)) return true;
      if (column.id === "plot") return rows.some((row) => row.generated || row.real);
      return rows.some((row) => column.value(row) !== undefined);
    };
    return COLUMNS.filter(held);
  },

  /** Those chosen, or as many as there is room for, the most needed first. */
  visible() {
    const all = this.columns();
    if (state.columns) {
      const chosen = state.columns.split(",");
      return all.filter((column) => !column.need || chosen.includes(column.id));
    }
    let room = this.room();
    const kept = new Set(all.filter((c) => !c.need && !(this.phone() && c.id === "compare")));
    for (const column of kept) room -= this.width(column);
    for (const column of all.filter((c) => c.need).sort((a, b) => a.need - b.need)) {
      if (this.width(column) > room) break;
      kept.add(column);
      room -= this.width(column);
    }
    return all.filter((column) => kept.has(column));
  },

  /** In rem. */
  room() {
    return this.scroll.clientWidth / parseFloat(getComputedStyle(document.documentElement).fontSize);
  },

  phone() {
    return this.room() < 40;
  },

  width(column) {
    return (this.phone() && column.phone) || column.width;
  },

  mount() {
    this.board = board();
    this.library = TableCore.createTable({
      data: this.board.rows,
      columns: [
        // Rows without a rank stay below the others, however these are sorted.
        { id: "unranked", accessorFn: (row) => Number(row.unranked !== null) },
        { id: "order", accessorFn: (row) => row.order },
        { id: "text", accessorFn: (row) => row.text, filterFn: (row, id, words) => words.every((word) => row.getValue(id).includes(word)) },
        { id: "is-family", accessorFn: (row) => row.family, filterFn: "equals" },
        { id: "is-training", accessorFn: (row) => row.training, filterFn: "equals" },
        ...COLUMNS.filter((column) => column.value).map((column) => ({
          id: column.id,
          accessorFn: column.value,
          sortUndefined: "last",
          sortingFn: ["name", "family", "training", "date"].includes(column.id) ? "alphanumeric" : "basic",
        })),
      ],
      state: {},
      onStateChange: () => {},
      renderFallbackValue: null,
      getCoreRowModel: TableCore.getCoreRowModel(),
      getFilteredRowModel: TableCore.getFilteredRowModel(),
      getSortedRowModel: TableCore.getSortedRowModel(),
    });
  },

  /** The rows that the filters leave, in the order asked for. */
  rows() {
    const words = state.find.toLowerCase().split(/\s+/).filter(Boolean);
    const columnFilters = [
      { id: "text", value: words.length ? words : null },
      { id: "is-family", value: state.family },
      { id: "is-training", value: state.training },
    ].filter((filter) => filter.value);
    const { id, descending } = sorting();
    const by = id === "rank" && !descending ? [] : [{ id, desc: descending }];
    const sorted = [{ id: "unranked", desc: false }, ...by, { id: "order", desc: false }];
    this.library.setOptions((options) => ({
      ...options,
      state: { ...this.library.initialState, columnFilters, sorting: sorted },
    }));
    return this.library.getRowModel().rows.map((row) => row.original);
  },

  draw(rows) {
    const columns = this.visible();
    this.tied = columns.some((column) => column.id === "tied");
    const total = columns.reduce((sum, column) => sum + this.width(column), 0);
    const { id, descending } = sorting();
    this.root.style.minWidth = state.columns ? `${total}rem` : "0";
    this.root.setAttribute("aria-rowcount", rows.length + 1);
    this.scroll.classList.toggle("long", rows.length > CHUNK + 5);
    this.root.caption.textContent =
      `${board().title}: classifiers by spurious accuracy on ${board().ranked_by} images, in percent, ` +
      "the fewest fooled first. Headings are buttons that sort.";
    const group = element("colgroup");
    for (const column of columns) {
      const width = column.id === "name" ? "auto" : `${this.width(column)}rem`;
      group.append(element("col", { style: { width } }));
    }
    const head = element("tr", { "aria-rowindex": "1" });
    for (const column of columns) head.append(this.heading(column, id, descending));
    this.observer?.disconnect();
    this.bodies = new Map();
    const made = [];
    const index = new Map(rows.map((row, i) => [row, i + 2]));
    for (const [title, part] of [
      [null, rows.filter((row) => row.unranked === null)],
      ["Not ranked", rows.filter((row) => row.unranked !== null)],
    ]) {
      for (let i = 0; i < part.length; i += CHUNK) {
        const body = element("tbody");
        const slice = part.slice(i, i + CHUNK);
        const above = part[i - 1];
        const ruled = id === "rank" && !descending;
        const divider = title && !i ? title : null;
        this.bodies.set(body, { slice, above, columns, index, ruled, divider, filled: false });
        made.push(body);
      }
    }
    const old = [...this.root.tBodies];
    for (const body of old) body.remove();
    this.root.querySelector("colgroup")?.remove();
    this.root.caption.after(group);
    this.root.tHead.replaceChildren(head);
    let room = this.scroll.scrollTop + window.innerHeight;
    for (const body of made) {
      if (room > 0) this.fill(body);
      else this.empty(body);
      room -= this.bodies.get(body).slice.length * ROW_HEIGHT;
    }
    this.root.append(...made);
    this.observer = new IntersectionObserver(
      (entries) => {
        for (const { target, isIntersecting } of entries) {
          if (isIntersecting) this.fill(target);
          else if (!target.contains(document.activeElement)) this.empty(target);
        }
      },
      { root: this.scroll, rootMargin: "500px 0px" },
    );
    for (const body of made) this.observer.observe(body);
  },

  heading(column, id, descending) {
    const sorted = column.id === id ? (descending ? "descending" : "ascending") : undefined;
    const made = element("th", { scope: "col", class: column.id, "aria-sort": sorted });
    if (column.id === "plot") {
      const axis = element("span", { class: "axis", "aria-hidden": "true" });
      axis.append(...["0", "50", "100"].map((tick) => element("i", {}, tick)));
      made.append(axis, element("span", { class: "sr" }, "Plot of both"));
    } else if (!column.value) {
      made.append(element("span", { title: column.title, class: column.id === "compare" ? "sr" : "plain" }, column.label));
    } else {
      const press = () => {
        const turned = column.id === id ? !descending : Boolean(column.descending);
        go({ sort: (turned ? "-" : "") + column.id });
        this.root.querySelector(`thead .${column.id} button`).focus({ preventScroll: true });
      };
      made.append(element("button", { type: "button", title: column.title, onclick: press }, column.label));
    }
    return made;
  },

  fill(body) {
    const held = this.bodies.get(body);
    if (!held || held.filled) return;
    let { above } = held;
    const made = held.slice.map((row) => {
      const line = element("tr", { "data-row": row.id, "aria-rowindex": held.index.get(row) });
      const opens = held.ruled && above && row.tied && above.tied && row.tied[0] !== above.tied[0];
      line.classList.toggle("opens", Boolean(opens));
      line.classList.toggle("unranked", row.unranked !== null);
      line.classList.toggle("lit", row.id === state.row);
      for (const column of held.columns) {
        const name = column.id === "name";
        line.append(element(name ? "th" : "td", { class: column.id, scope: name ? "row" : undefined }, ...column.cell(row)));
      }
      above = row;
      return line;
    });
    if (held.divider) {
      const cell = element("th", { colspan: held.columns.length, scope: "rowgroup" }, held.divider);
      cell.append(element("small", {}, " These had a part in the images, recognise no more than chance, or were not measured for it: shown, and left out of ranks and ties."));
      made.unshift(element("tr", { class: "divider" }, cell));
    }
    body.replaceChildren(...made);
    held.filled = true;
  },

  empty(body) {
    const held = this.bodies.get(body);
    if (!held) return;
    const height = held.filled ? body.offsetHeight : held.slice.length * ROW_HEIGHT;
    const cell = element("td", { colspan: held.columns.length, style: { height: `${height}px` } });
    body.replaceChildren(element("tr", { class: "unseen" }, cell));
    held.filled = false;
  },

  /** Bring a row into sight and mark it. */
  find(id, { focus = false } = {}) {
    for (const line of this.root.querySelectorAll("tr.lit")) line.classList.remove("lit");
    for (const [body, { slice }] of this.bodies) {
      if (!slice.some((row) => row.id === id)) continue;
      this.fill(body);
      const line = [...body.rows].find((row) => row.dataset.row === id);
      line.classList.add("lit");
      line.scrollIntoView({ block: "center" });
      if (focus) line.querySelector(".label").focus({ preventScroll: true });
    }
  },

  light(id, on) {
    for (const line of this.root.querySelectorAll("tr[data-row]")) {
      if (line.dataset.row === id) line.classList.toggle("lit", on || id === state.row);
    }
  },
};

function sorting() {
  const id = state.sort.replace(/^-/, "");
  const known = COLUMNS.some((column) => column.id === id && column.value);
  return known ? { id, descending: state.sort.startsWith("-") } : { id: "rank", descending: false };
}

window.addEventListener("beforeprint", () => {
  ranking.observer.disconnect();
  for (const body of ranking.bodies.keys()) ranking.fill(body);
});
window.addEventListener("afterprint", () => ranking.draw(ranking.rows()));
