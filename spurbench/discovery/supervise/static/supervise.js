// Labelling components: one at a time, by key or mouse. What is said is sent at once.
const $ = (id) => document.getElementById(id);
const state = { components: [], place: 0, verdicts: new Map(), marks: new Map() };
const smallest = 0.02; // a drag that is less, in shares of the picture, is a slip

async function get(path) {
  const response = await fetch(path);
  if (!response.ok) throw new Error(`${path}: ${response.status}`);
  return response.json();
}

async function post(path, body) {
  const response = await fetch(path, {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify(body),
  });
  if (!response.ok) throw new Error((await response.json()).error);
}

const person = () => $("person").value.trim();
const current = () => state.components[state.place];
const key = ({ index, component }) => `${index}/${component}`;
const markKey = (index, sha256) => `${index}/${sha256}`;

function tell(text, wrong = false) {
  $("said").textContent = text;
  $("said").classList.toggle("wrong", wrong);
}

function element(tag, properties = {}, ...children) {
  const made = Object.assign(document.createElement(tag), properties);
  made.append(...children);
  return made;
}

async function readLabels() {
  state.verdicts.clear();
  state.marks.clear();
  if (!person()) return;
  const said = await get(`/api/labels?person=${encodeURIComponent(person())}`);
  for (const verdict of said.verdicts) state.verdicts.set(key(verdict), verdict);
  for (const mark of said.marks) state.marks.set(markKey(mark.index, mark.sha256), mark.boxes);
}

async function show(place) {
  state.place = Math.max(0, Math.min(place, state.components.length - 1));
  const asked = current();
  const shown = await get(`/api/component/${asked.index}/${asked.component}`);
  if (asked !== current()) return; // someone was quicker
  location.replace(`#${key(asked)}`);
  $("title").textContent = `${asked.class}: component ${asked.component}`;
  $("about").textContent =
    `${(100 * shown.variance).toFixed(1)} % of the variance over ${shown.images} training images; ` +
    `a step along it adds ${shown.sum.toFixed(2)} to the logit.`;
  $("pictures").replaceChildren(...shown.pictures.map((p) => topImage(asked.index, shown.folder, p)));
  $("made").hidden = !shown.features.length;
  $("features").replaceChildren(...shown.features.map((feature) =>
    element("figure", {},
      element("img", { src: `/picture/${shown.folder}/${feature.file}`, alt: "feature" }),
      element("figcaption", {
        textContent: `${feature.start === "grey" ? "from grey" : "from the first image"}: ` +
          `alpha ${feature.alpha.toFixed(1)}, probability ${(100 * feature.probability).toFixed(0)} %`,
      }))));
  showVerdict();
}

function showVerdict() {
  const said = state.verdicts.get(key(current()));
  for (const button of $("verdict").querySelectorAll("button")) {
    button.setAttribute("aria-pressed", String(said?.verdict === button.dataset.verdict));
  }
  $("feature").value = said?.feature ?? "";
  $("noun").value = said?.noun ?? "";
  $("place").textContent =
    `${state.place + 1} of ${state.components.length}, ${state.verdicts.size} labelled`;
}

function topImage(index, folder, picture) {
  const drawn = element("div", { className: "drawn" },
    element("img", { src: `/picture/${folder}/${picture.file}`, alt: picture.path, draggable: false }));
  const absent = element("button", { type: "button", textContent: "object not there" });
  const marked = () => state.marks.get(markKey(index, picture.sha256));

  function redraw() {
    const boxes = marked();
    for (const old of drawn.querySelectorAll(".box")) old.remove();
    (boxes ?? []).forEach((box, i) => {
      const shape = element("div", { className: "box", title: "click: remove" });
      place(shape, box);
      shape.addEventListener("pointerdown", (event) => {
        event.stopPropagation();
        const left = boxes.filter((_, j) => j !== i);
        keep(left.length ? left : null);
      });
      drawn.append(shape);
    });
    absent.setAttribute("aria-pressed", String(boxes?.length === 0));
  }

  async function keep(boxes) {
    if (!named()) return;
    try {
      await post("/api/mark", { person: person(), index, sha256: picture.sha256, boxes });
    } catch (error) {
      return tell(error.message, true);
    }
    if (boxes === null) state.marks.delete(markKey(index, picture.sha256));
    else state.marks.set(markKey(index, picture.sha256), boxes);
    redraw();
  }

  drawn.addEventListener("pointerdown", (down) => {
    const size = drawn.getBoundingClientRect();
    const at = (event) => [
      Math.min(1, Math.max(0, (event.clientX - size.left) / size.width)),
      Math.min(1, Math.max(0, (event.clientY - size.top) / size.height)),
    ];
    const [x, y] = at(down);
    const shape = element("div", { className: "box new" });
    drawn.append(shape);
    drawn.setPointerCapture(down.pointerId);
    let box;
    const move = (event) => {
      const [u, v] = at(event);
      box = {
        left: Math.min(x, u), top: Math.min(y, v), right: Math.max(x, u), bottom: Math.max(y, v),
      };
      place(shape, box);
    };
    const end = (event) => {
      drawn.removeEventListener("pointermove", move);
      drawn.removeEventListener("pointerup", end);
      drawn.removeEventListener("pointercancel", end);
      shape.remove();
      const large = box && box.right - box.left > smallest && box.bottom - box.top > smallest;
      if (event.type === "pointerup" && large) keep([...(marked() ?? []), box]);
    };
    drawn.addEventListener("pointermove", move);
    drawn.addEventListener("pointerup", end);
    drawn.addEventListener("pointercancel", end);
  });
  absent.addEventListener("click", () => keep(marked()?.length === 0 ? null : []));
  redraw();
  return element("figure", {},
    element("div", { className: "pair" }, drawn,
      element("img", { src: `/picture/${folder}/${picture.heat}`, alt: "heat map" })),
    element("figcaption", {},
      `alpha ${picture.alpha.toFixed(1)}, probability ${(100 * picture.probability).toFixed(0)} %`, absent));
}

function place(shape, box) {
  const percent = (share) => `${100 * share}%`;
  shape.style.left = percent(box.left);
  shape.style.top = percent(box.top);
  shape.style.width = percent(box.right - box.left);
  shape.style.height = percent(box.bottom - box.top);
}

function named() {
  if (person()) return true;
  tell("say first who labels", true);
  $("person").focus();
  return false;
}

async function say(verdict) {
  if (!named()) return;
  const { index, component } = current();
  const said = {
    person: person(), index, component, verdict,
    feature: $("feature").value.trim(), noun: $("noun").value.trim(),
  };
  try {
    await post("/api/verdict", said);
  } catch (error) {
    return tell(error.message, true);
  }
  state.verdicts.set(key(said), said);
  tell(`kept: ${verdict}`);
  showVerdict();
  if ($("agreement").open) showAgreement();
}

function words() {
  const said = state.verdicts.get(key(current()));
  if (said) say(said.verdict);
  else if ($("feature").value || $("noun").value) tell("kept once you say yes, no or unsure");
}

async function showAgreement() {
  const head = element("tr", {}, ...["", "components", "same verdict", "Cohen's kappa"].map(
    (textContent) => element("th", { textContent })));
  const rows = (await get("/api/agreement")).map((of) =>
    element("tr", {}, ...[
      of.people.join(" and "), of.components, `${(100 * of.same).toFixed(0)} %`,
      of.kappa === null ? "–" : of.kappa.toFixed(2),
    ].map((textContent) => element("td", { textContent }))));
  const nobody = "No two people have labelled a component in common.";
  $("agreement").querySelector("div").replaceChildren(
    rows.length ? element("table", {}, head, ...rows) : nobody);
}

function nextUnlabelled() {
  const after = [...state.components.keys()].map(
    (i) => (state.place + 1 + i) % state.components.length);
  const found = after.find((i) => !state.verdicts.has(key(state.components[i])));
  if (found === undefined) tell("all are labelled");
  else show(found);
}

document.addEventListener("keydown", (event) => {
  if (event.target instanceof HTMLInputElement || event.ctrlKey || event.metaKey || event.altKey) return;
  const does = {
    y: () => say("yes"), n: () => say("no"), u: () => say("unsure"), o: nextUnlabelled,
    ArrowLeft: () => show(state.place - 1), ArrowRight: () => show(state.place + 1),
  }[event.key];
  if (does) {
    event.preventDefault();
    does();
  }
});
for (const button of $("verdict").querySelectorAll("button")) {
  button.addEventListener("click", () => say(button.dataset.verdict));
}
$("form").addEventListener("submit", (event) => event.preventDefault());
$("feature").addEventListener("change", words);
$("noun").addEventListener("change", words);
$("previous").addEventListener("click", () => show(state.place - 1));
$("next").addEventListener("click", () => show(state.place + 1));
$("open").addEventListener("click", nextUnlabelled);
$("agreement").addEventListener("toggle", () => $("agreement").open && showAgreement());
$("person").addEventListener("change", async () => {
  localStorage.setItem("person", person());
  await readLabels();
  tell("");
  await show(state.place);
});

const listed = await get("/api/components");
document.title = `${listed.classifier}: spurious?`;
state.components = listed.components;
$("person").value = localStorage.getItem("person") ?? "";
await readLabels();
await show(Math.max(0, state.components.findIndex((c) => `#${key(c)}` === location.hash)));
