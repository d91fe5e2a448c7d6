// ------------------------------------------- the sheets: a class's images, a classifier's numbers

const dialog = document.getElementById("sheet");
const sheetTitle = document.getElementById("sheet-title");
const sheetText = document.getElementById("sheet-text");
const sheetBody = document.getElementById("sheet-body");

/** (n,) whether a classifier calls each image of a class the class; null where it isn't known. */
function callsOf(row, source, position) {
  const { answered, bits } = answers();
  const line = answered[source]?.indexOf(row.order) ?? -1;
  const n = board().classes[position].images[source];
  if (line < 0 || !n) return null;
  const packed = atob(bits[source][position]);
  return Array.from({ length: n }, (_, i) => {
    const at = line * n + i;
    return Boolean((packed.charCodeAt(at >> 3) >> (at & 7)) & 1);
  });
}

function callsOfAll(source, position, image) {
  const { answered, bits } = answers();
  const n = board().classes[position].images[source];
  const packed = atob(bits[source][position]);
  let called = 0;
  answered[source].forEach((_, line) => {
    const at = line * n + image;
    called += (packed.charCodeAt(at >> 3) >> (at & 7)) & 1;
  });
  return { called, of: answered[source].length };
}

/** A square for each image, filled where it is called the class; crossed out where it doesn't count. */
function strip(calls, left) {
  const across = Math.min(calls.length, 25);
  const rows = Math.ceil(calls.length / across);
  const picture = drawn("svg", { class: "strip", viewBox: `0 0 ${across * 4} ${rows * 4}`, "aria-hidden": "true" });
  picture.style.width = `${across * 0.5}rem`;
  const squares = (wanted) =>
    calls
      .map((called, i) => (wanted(called, i) ? `M${(i % across) * 4 + 0.4} ${Math.floor(i / across) * 4 + 0.4}h3.2v3.2h-3.2z` : ""))
      .join("");
  picture.append(
    drawn("path", { class: "not", d: squares((called, i) => !called && !left.includes(i)) }),
    drawn("path", { class: "called", d: squares((called, i) => called && !left.includes(i)) }),
    drawn("path", { class: "left", d: squares((_, i) => left.includes(i)) }),
  );
  return picture;
}

function shareCell(row, source, position) {
  const k = board().called[source]?.[row.order]?.[position] ?? null;
  const n = board().classes[position].n[source];
  if (k === null || !n) return element("td", {}, none());
  const { low, high } = wilson(k, n);
  const text = element("small", {}, `${one(low)}–${one(high)}, ${k} of ${n}`);
  return element("td", {}, element("b", { class: source }, one((100 * k) / n)), text);
}

function shareHeads(sources) {
  const titles = { generated: "Generated", control: "Twins", real: "Real", positive: "Recognition" };
  return sources.map((source) => element("th", { scope: "col" }, titles[source]));
}

function sourcesOf(position) {
  const { called, classes } = board();
  return ["generated", "control", "real", "positive"].filter(
    (source) => called[source] && classes.some((known, i) => (position === undefined || i === position) && known.n[source]),
  );
}

// --------------------------------------------------------------------------------------- a class

function classSheet(position) {
  const known = board().classes[position];
  sheetTitle.textContent = known.name;
  sheetText.textContent = known.feature ? `spurious feature: ${known.feature}` : "";
  document.getElementById("previous").hidden = document.getElementById("next").hidden = false;
  sheetBody.replaceChildren(chooser(), classTable(position, compared(), true), ...images(position), everyone(position));
}

/** The classifiers that are compared, to be taken out and added to. */
function chooser() {
  const { rows } = board();
  const chosen = state.compare !== "";
  const list = element("ul", { class: "chips" });
  for (const row of compared()) {
    const out = element("button", { type: "button", "aria-label": `Remove ${row.label}`, onclick: () => {
      if (!chosen) go({ compare: compared().filter((r) => r !== row).map((r) => r.id).join(",") });
      else compare(row, false);
    } }, "×");
    list.append(element("li", {}, element("span", {}, ...breakable(row.label)), out));
  }
  const options = element("datalist", { id: "every-classifier" });
  options.append(...rows.map((row) => element("option", { value: row.label })));
  const field = element("input", { type: "search", list: "every-classifier", placeholder: "add a classifier …", autocomplete: "off" });
  field.addEventListener("change", () => {
    const row = rows.find((r) => r.label === field.value);
    if (!row) return;
    const ids = [...new Set([...compared().map((r) => r.id), row.id])].slice(-MOST_COMPARED);
    go({ compare: ids.join(",") });
    document.querySelector(".chooser input").focus();
  });
  const title = chosen ? "Compared" : `Compared: the first ${compared().length}`;
  return element("div", { class: "chooser" }, element("h3", {}, title), list, element("label", {}, element("span", { class: "sr" }, "Add a classifier"), field), options);
}

function classTable(position, rows, withImages) {
  const sources = sourcesOf(position);
  const source = heat.source();
  const head = element("tr", {}, element("th", { scope: "col" }, "Classifier"), ...shareHeads(sources));
  const body = element("tbody");
  const left = answers().left[source]?.[position] ?? [];
  for (const row of rows) {
    const line = element("tr", {}, element("th", { scope: "row" }, ...breakable(row.label), row.unranked ? badges(row) : null), ...sources.map((s) => shareCell(row, s, position)));
    if (withImages) {
      const calls = callsOf(row, source, position);
      line.append(element("td", {}, calls ? strip(calls, left) : none()));
    }
    body.append(line);
  }
  if (withImages) head.append(element("th", { scope: "col" }, `Every ${source} image`));
  const table = element("table", { class: "numbers" }, element("caption", { class: "sr" }, "Percent of images called the class, with Wilson intervals"), element("thead", {}, head), body);
  const note = withImages
    ? element("p", { class: "note" }, `Percent of the images that are called the class, with Wilson intervals. Squares: one ${source} image each, filled where it is called the class${left.length ? "; outlined ones don’t count: the object is seen in them, or a generator was trained on them" : ""}.`)
    : null;
  return element("div", {}, element("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": "By classifier" }, table), note);
}

/** The same numbers of every classifier, made when they are asked for. */
function everyone(position) {
  const made = element("details", { class: "everyone" }, element("summary", {}, `All ${board().rows.length} classifiers on this class`));
  made.addEventListener("toggle", () => {
    if (made.open && made.children.length === 1) made.append(classTable(position, board().rows, false));
  });
  return made;
}

/** The embedded images: a generated one beside its twin, then the real ones. */
function images(position) {
  const { pictures } = answers();
  const made = [];
  for (const source of ["generated", "real"]) {
    const own = Object.entries(pictures[source]?.[position] ?? {});
    if (!own.length) continue;
    const of = board().classes[position].images[source];
    const twins = source === "generated" && pictures.control?.[position];
    made.push(
      element("h3", { class: source }, twins ? "Generated images and their twins" : `${source[0].toUpperCase()}${source.slice(1)} images`),
      element("p", { class: "note" }, `The first ${own.length} of ${of} by the hash of their content; nobody picked them.${twins ? " A twin is the same picture, noise for noise, made without the feature; one in which the detector sees feature or object all the same, or whose image doesn’t count, doesn’t count." : ""}`),
    );
    const grid = element("div", { class: twins ? "figures pairs" : "figures" });
    for (const [i, uri] of own) grid.append(pictured(position, source, Number(i), uri, twins?.[i]));
    made.push(grid);
  }
  if (!made.length) {
    made.push(element("p", { class: "note" }, "No images of this class are embedded in this page: it was rendered without the dataset, or there was no room for more."));
  }
  return made;
}

function pictured(position, source, i, uri, twin) {
  const { name } = board().classes[position];
  const sides = [[source, uri, twin ? "with the feature" : ""]];
  const amiss = answers().left.control?.[position]?.includes(i);
  if (twin) sides.push(["control", twin, amiss ? "its twin, doesn’t count" : "its twin without"]);
  const shots = element("div", { class: "shots" });
  for (const [from, image, text] of sides) {
    const alt = from === "control" ? `twin of generated image ${i + 1}, ${amiss ? "which doesn’t count" : "without the feature"}` : `${from} image ${i + 1}, without the ${name}`;
    const caption = element("p", {});
    if (answers().answered[from]?.length) {
      const { called, of } = callsOfAll(from, position, i);
      caption.append(element("b", {}, `${called} of ${of}`), ` call it ${name}`);
    }
    shots.append(element("div", {}, element("img", { src: image, alt, loading: "lazy" }), text && element("small", {}, text), caption));
  }
  const list = element("ul", { class: "answers" });
  for (const row of compared()) {
    const marks = sides.map(([from]) => callsOf(row, from, position)?.[i]);
    if (marks.every((mark) => mark === undefined)) continue;
    const line = element("li", { class: marks[0] ? "fooled" : "" }, element("span", { class: "who" }, row.label));
    for (const mark of marks) {
      const said = mark === undefined ? "not known" : mark ? `calls it ${name}` : "doesn’t";
      line.append(element("span", { class: mark ? "mark on" : "mark" }, element("span", { "aria-hidden": "true" }, mark === undefined ? "·" : mark ? "●" : "○"), element("span", { class: "sr" }, said)));
    }
    list.append(line);
  }
  return element("figure", {}, shots, element("figcaption", {}, list));
}

// ---------------------------------------------------------------------------------- a classifier

function classifierSheet(row) {
  sheetTitle.replaceChildren(...breakable(row.label));
  const place = row.unranked ? `not ranked: ${row.unranked}` : row.rank ? `rank ${row.rank} of ${board().ranked}${row.tied && row.tied[0] !== row.tied[1] ? `, tied ${tie(row)}` : ""}` : "";
  sheetText.textContent = place;
  document.getElementById("previous").hidden = document.getElementById("next").hidden = true;
  const percent = (part) => part && `${one(part.value)} % (${span(part)})`;
  const { recognition, effect, auroc } = row;
  const facts = [
    ["Spurious accuracy, generated", percent(row.generated) && `${percent(row.generated)}, ${row.generated.n} images`],
    ["Spurious accuracy, real", percent(row.real) && `${percent(row.real)}, ${row.real.n} images`],
    ["Recognition", recognition && `${percent(recognition)}, ${recognition.n} images${row.chance === null ? "" : `; its answers dealt at random: ${one(row.chance)} %`}`],
    ["AUROC", auroc && `${points(auroc.value)} (${span(auroc, points)})`],
    ["Feature effect", effect && `${signed(effect.value)} points (${span(effect, signed)}): ${one(effect.with)} % of the images with the feature, ${one(effect.without)} % of their twins without it, ${effect.pairs} pairs, p ${effect.p < 0.001 ? "< 0.001" : effect.p.toFixed(3)}`],
    ["Gap", row.gap === null ? null : `${signed(row.gap)} points, generated minus real`],
    ["Images that show the object", row.object_seen && `${one(row.object_seen.value)} % of ${row.object_seen.n}, not counted above`],
    ["With the references", row.with_references && `${one(row.with_references.value)} % of ${row.with_references.n} real images`],
    ["Architecture", row.architecture],
    ["Family", row.family],
    ["Training data", row.training],
    ["Parameters", millions(row.parameters)],
    ["Source", row.source],
    ["Preprocessing", row.preprocessing],
    ["Weights, sha256", row.weights],
    ["Measured", row.date],
  ].filter(([, text]) => text);
  const list = element("dl", { class: "facts-of" });
  for (const [term, text] of facts) list.append(element("div", {}, element("dt", {}, term), element("dd", {}, text)));
  const links = row.entries.map((href) => element("a", { href }, decodeURIComponent(href.split("/").at(-1))));
  list.append(element("div", {}, element("dt", {}, "Entry"), element("dd", {}, ...links)));
  const box = element("input", { type: "checkbox", onchange: (event) => compare(row, event.target.checked) });
  box.checked = state.compare.split(",").includes(row.id);
  const sources = sourcesOf();
  const table = element("table", { class: "numbers" }, element("caption", { class: "sr" }, "By class, percent"), element("thead", {}, element("tr", {}, element("th", { scope: "col" }, "Class"), ...shareHeads(sources))));
  const body = element("tbody");
  board().classes.forEach((known, position) => {
    const open = element("button", { type: "button", class: "link", onclick: () => go({ class: String(known.index), classifier: "" }) }, known.name);
    body.append(element("tr", {}, element("th", { scope: "row" }, open), ...sources.map((source) => shareCell(row, source, position))));
  });
  table.append(body);
  sheetBody.replaceChildren(
    element("label", { class: "choose" }, box, " Compare image by image"),
    list,
    element("h3", {}, "By class"),
    element("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": "By class" }, table),
  );
}

// --------------------------------------------------------------------------------- their dialog

let opener = null;

function drawSheet() {
  const position = board().classes.findIndex((known) => String(known.index) === state.class);
  const row = board().rows.find((r) => r.id === state.classifier);
  if (position >= 0) classSheet(position);
  else if (row) classifierSheet(row);
  else return dialog.close();
  if (!dialog.open) {
    opener = document.activeElement;
    dialog.showModal();
    dialog.scrollTop = 0;
  }
}

function step(by) {
  const { classes } = board();
  const position = classes.findIndex((known) => String(known.index) === state.class);
  if (position < 0) return;
  go({ class: String(classes[(position + by + classes.length) % classes.length].index) }, { step: false });
  dialog.scrollTop = 0;
}

document.getElementById("previous").addEventListener("click", () => step(-1));
document.getElementById("next").addEventListener("click", () => step(1));
document.getElementById("close").addEventListener("click", () => dialog.close());
dialog.addEventListener("click", (event) => {
  if (event.target === dialog) dialog.close(); // the backdrop
});
dialog.addEventListener("keydown", (event) => {
  if (event.target.matches("input") || !["ArrowLeft", "ArrowRight"].includes(event.key)) return;
  step(event.key === "ArrowLeft" ? -1 : 1);
});
dialog.addEventListener("close", () => {
  if (state.class || state.classifier) go({ class: "", classifier: "" });
  if (opener?.isConnected) opener.focus({ preventScroll: true });
  opener = null;
});
