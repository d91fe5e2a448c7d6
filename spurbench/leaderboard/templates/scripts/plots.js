// -------------------------------------------------------------------------------- scatter plots

const NUMBERED = 30; // with more classifiers, points are small and carry no rank

/** A plot of two shares: one stop of the tab key, in which the arrow keys walk from point to point. */
function scatter(place, rows, { x, y, across, up, diagonal = false, corners = [] }) {
  const known = rows.filter((row) => row[x] && row[y]);
  const crowded = known.length > NUMBERED;
  const radius = crowded ? 1.25 : 2.9;
  const point = new Map(known.map((row) => [row.id, row]));
  const mended = known.filter((row) => point.has(row.base));
  const picture = drawn("svg", {
    viewBox: "-13 -4 118 118",
    role: "group",
    "aria-label": `Scatter plot of ${known.length} classifiers: ${across} across, ${up} up, in percent. The arrow keys go from point to point in the order of the table; Enter shows the row.${mended.length ? " Arrows lead from a classifier to what was mended of it." : ""}`,
  });
  for (const tick of [0, 25, 50, 75, 100]) {
    picture.append(
      drawn("path", { class: "grid", d: `M${tick} 0V100M0 ${tick}H100` }),
      drawn("text", { class: "tick", x: tick, y: 105.5, "text-anchor": "middle" }, tick),
      drawn("text", { class: "tick", x: -2.5, y: 101.4 - tick, "text-anchor": "end" }, tick),
    );
  }
  if (diagonal) picture.append(drawn("path", { class: "diagonal", d: "M0 100L100 0" }));
  for (const [text, at, line, anchor] of corners) {
    picture.append(drawn("text", { class: "corner", x: at, y: line, "text-anchor": anchor }, text));
  }
  picture.append(
    drawn("text", { class: "tick", x: 50, y: 112.5, "text-anchor": "middle" }, `${across}, %`),
    drawn("text", { class: "tick", transform: "translate(-10 50) rotate(-90)", "text-anchor": "middle" }, `${up}, %`),
  );
  for (const row of mended) {
    const [from, to] = [point.get(row.base), row].map((end) => [end[x].value, 100 - end[y].value]);
    const [right, down] = [to[0] - from[0], to[1] - from[1]];
    const far = Math.hypot(right, down);
    if (far <= 2 * radius) continue; // the points touch
    /** So far along the arrow, and so far to its side. */
    const at = (along, aside) => [
      from[0] + (along * right - aside * down) / far, from[1] + (along * down + aside * right) / far,
    ].join(" ");
    const [tip, barbs] = [far - radius, far - radius - 2];
    picture.append(drawn("path", {
      class: "mended",
      d: `M${at(radius, 0)}L${at(tip, 0)}M${at(barbs, 1)}L${at(tip, 0)}L${at(barbs, -1)}`,
    }));
  }
  const readout = place.querySelector(".readout");
  const links = known.map((row) => {
    const [a, b] = [row[x], row[y]];
    const base = point.get(row.base);
    const said = `${row.label}: ${across} ${one(a.value)} percent, ${up} ${one(b.value)} percent${row.unranked ? `; not ranked: ${row.unranked}` : ""}${base ? `; mended from ${base.label}, with ${one(base[x].value)} and ${one(base[y].value)} percent` : ""}`;
    const link = drawn("a", {
      href: toAddress({ dataset: board().id, row: row.id }),
      class: row.unranked ? "point unranked" : "point",
      "data-point": row.id,
      "aria-label": said,
      tabindex: -1,
    });
    link.append(
      drawn("path", { class: "cross", d: `M${a.low} ${100 - b.value}H${a.high}M${a.value} ${100 - b.high}V${100 - b.low}` }),
      drawn("circle", { cx: a.value, cy: 100 - b.value, r: radius }),
    );
    if (!crowded && row.rank !== null) {
      link.append(drawn("text", { x: a.value, y: 101.25 - b.value, "text-anchor": "middle" }, row.rank));
    }
    const tell = (on) => {
      if (on) {
        readout.textContent = `${row.rank === null ? "Not ranked" : `#${row.rank}`} ${row.label}: ${across} ${one(a.value)} % (${span(a)}), ${up} ${one(b.value)} % (${span(b)})${base ? `; mended from ${base.label}, ${one(base[x].value)} % and ${one(base[y].value)} %` : ""}`;
      }
      ranking.light(row.id, on);
    };
    link.addEventListener("pointerenter", () => {
      if (link.nextSibling) picture.append(link); // above the others
      tell(true);
    });
    link.addEventListener("pointerleave", () => tell(false));
    link.addEventListener("focus", () => tell(true));
    link.addEventListener("blur", () => tell(false));
    link.addEventListener("click", (event) => {
      event.preventDefault();
      go({ row: row.id });
      ranking.find(row.id, { focus: true });
    });
    return link;
  });
  links[0]?.setAttribute("tabindex", 0);
  picture.append(...links.toReversed()); // the best lie on top
  picture.addEventListener("keydown", (event) => {
    const at = links.indexOf(event.target);
    const by = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
    if (at < 0 || !by) return;
    event.preventDefault();
    links[at].setAttribute("tabindex", -1);
    const next = links[(at + by + links.length) % links.length];
    next.setAttribute("tabindex", 0);
    picture.append(next); // above the others; before it has the focus, which moving takes away
    next.focus();
  });
  place.querySelector("svg")?.remove();
  readout.before(picture);
  place.hidden = !known.length;
}

function drawPlots(rows) {
  const by = board().ranked_by;
  scatter(document.getElementById("plot-recognition"), rows, {
    x: "recognition",
    y: by,
    across: "recognition",
    up: `spurious accuracy (${by})`,
    corners: [
      ["recognises, not fooled", 99, 98.6, "end"],
      ["recognises nothing", 1, 93, "start"],
      ["recognises, and is fooled", 99, 3.6, "end"],
    ],
  });
  scatter(document.getElementById("plot-splits"), rows, {
    x: "real", y: "generated", across: "real", up: "generated", diagonal: true,
  });
}
