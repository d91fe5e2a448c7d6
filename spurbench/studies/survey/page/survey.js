"use strict";

// What the server wrote into the page.
const { survey, token, send } = document.body.dataset;
const images = JSON.parse(document.body.dataset.images);

// Grade and revision by position. Answers that the server has not confirmed, or without a server all
// of them, are also in `kept`, which outlives the page: in a tab that dies nothing is lost.
const answers = new Map();
const kept = new Map();
const STORE = `spurbench-survey:${survey}:${token}:`;
let storable = true;

const UNSEEN = 250; // ms for which a new image takes no grade: a second tap is meant for the last
const SLOWEST = 15000; // ms between attempts to send, at most

const by = (id) => document.getElementById(id);
const stars = [...document.querySelectorAll(".star")];
const sections = ["welcome", "grading", "done"];

function newer(answer, than) {
  return !than || answer.revision > than.revision;
}

function read() {
  for (const [position, [grade, revision]] of Object.entries(JSON.parse(document.body.dataset.answers)))
    answers.set(Number(position), { grade, revision });
  try {
    for (let position = 0; position < images.length; position++) {
      const answer = JSON.parse(localStorage.getItem(STORE + position));
      if (!answer || !newer(answer, answers.get(position))) continue;
      answers.set(position, answer);
      kept.set(position, answer);
    }
  } catch {
    storable = false;
  }
}

// An entry for each position, so that two tabs don't overwrite each other's.
function keep(position, answer) {
  kept.set(position, answer);
  try {
    localStorage.setItem(STORE + position, JSON.stringify(answer));
    storable = true;
  } catch {
    storable = false;
  }
}

function forget(position) {
  kept.delete(position);
  try {
    localStorage.removeItem(STORE + position);
  } catch {
    storable = false;
  }
}

// --- sending

let sending = false;
let refused = false;
let pause = 0;
let timer;

async function post(batch) {
  const body = JSON.stringify(batch.map(([position, answer]) => ({ position, ...answer })));
  const headers = { "Content-Type": "application/json" };
  // keepalive: also when the page is being closed.
  const response = await fetch(send, { method: "POST", headers, body, keepalive: true });
  refused = response.status >= 400 && response.status < 500 && response.status !== 429;
  if (!response.ok) throw new Error(String(response.status));
  return response.json();
}

// Sends what is kept until the server has confirmed it. Sending twice is harmless: of two answers to
// one position the server keeps that of the higher revision.
async function flush() {
  clearTimeout(timer);
  if (!send || sending || refused || !kept.size) return tell();
  sending = true;
  tell();
  try {
    for (const { position, grade, revision } of await post([...kept].slice(0, 200))) {
      if (revision >= (kept.get(position)?.revision ?? 0)) forget(position);
      if (revision >= (answers.get(position)?.revision ?? 0)) answers.set(position, { grade, revision });
    }
    pause = 0;
    if (!by("broken").hidden) load(); // the server is there again
  } catch {
    pause = Math.min(SLOWEST, Math.max(1000, 2 * pause));
  }
  sending = false;
  tell();
  if (kept.size && !refused) timer = setTimeout(flush, pause);
}

function tell() {
  const waiting = `${kept.size} ${kept.size === 1 ? "grade" : "grades"}`;
  let text = answers.size ? "Everything is saved." : "";
  let trouble = false;
  if (!storable && (kept.size || !send)) {
    text = "This browser keeps nothing: please leave this page open until you are done.";
    trouble = true;
  } else if (!send) {
    text = answers.size ? `${waiting} kept in this browser.` : "";
  } else if (refused) {
    text = `The server refuses ${waiting}. They are kept in this browser; please tell whoever sent the link.`;
    trouble = true;
  } else if (kept.size && pause) {
    text = `No connection. ${waiting} kept in this browser, to be sent as soon as possible.`;
    trouble = true;
  } else if (kept.size) {
    text = "Saving…";
  }
  const line = by("saving");
  // A status that is written again is read out again.
  if (line.textContent !== text) line.textContent = text;
  line.classList.toggle("trouble", trouble);
  if (send) by("close").hidden = kept.size > 0;
  else by("save").hidden = answers.size === 0;
}

// --- showing

let current = 0;
let shownAt = Infinity;

function section(name) {
  for (const id of sections) by(id).hidden = id !== name;
}

function firstUnanswered() {
  for (let position = 0; position < images.length; position++) if (!answers.has(position)) return position;
  return images.length;
}

function show(position) {
  current = position;
  if (position >= images.length) {
    section("done");
    by("thanks").focus();
    return;
  }
  section("grading");
  const place = `Image ${position + 1} of ${images.length}`;
  by("place").textContent = place;
  by("progress").max = images.length;
  by("progress").value = position;
  by("back").disabled = position === 0;
  by("next").disabled = !answers.has(position);
  by("stars").classList.remove("aimed");
  mark();
  load();
}

function mark() {
  const grade = answers.get(current)?.grade ?? 0;
  for (const star of stars) {
    const value = Number(star.dataset.grade);
    star.classList.toggle("full", value <= grade);
    star.setAttribute("aria-pressed", String(value === grade));
  }
}

// Nobody can grade what they have not seen.
function load() {
  const picture = by("picture");
  shownAt = Infinity;
  by("broken").hidden = true;
  picture.classList.add("loading");
  picture.alt = "";
  picture.onload = () => {
    picture.classList.remove("loading");
    picture.alt = `Image ${current + 1} of ${images.length}, to be graded by eye`;
    shownAt = performance.now();
    if (current + 1 < images.length) new Image().src = images[current + 1];
  };
  picture.onerror = () => (by("broken").hidden = false);
  picture.src = images[current];
}

function rate(grade) {
  if (by("grading").hidden || performance.now() - shownAt < UNSEEN) return;
  const answer = { grade, revision: (answers.get(current)?.revision ?? 0) + 1 };
  answers.set(current, answer);
  keep(current, answer);
  show(current + 1);
  flush();
}

function back() {
  if (current > 0) show(current - 1);
}

function next() {
  if (answers.has(current)) show(current + 1);
}

// --- saving as a file

function save() {
  const graded = [...answers].map(([position, answer]) => ({ position, ...answer }));
  const made = { schema: "spurbench.survey.answers/1", survey, token, answers: graded };
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([JSON.stringify(made)], { type: "application/json" }));
  link.download = `survey-answers-${token.slice(0, 8)}.json`;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60000);
}

// --- input

for (const star of stars) star.addEventListener("click", () => rate(Number(star.dataset.grade)));
// Not before the pointer moves: it still lies on the last image's grade, which must suggest nothing.
// Browsers also report a move when the page changes below a pointer that rests.
let pointer = "";
by("stars").addEventListener("pointermove", ({ clientX, clientY }) => {
  const at = `${clientX} ${clientY}`;
  if (pointer && at !== pointer) by("stars").classList.add("aimed");
  pointer = at;
});
by("start").addEventListener("click", () => {
  show(firstUnanswered());
  stars[0].focus({ preventScroll: true });
});
by("back").addEventListener("click", back);
by("look").addEventListener("click", back);
by("next").addEventListener("click", next);
by("again").addEventListener("click", load);
by("save")?.addEventListener("click", save);
document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.altKey || event.metaKey || event.repeat) return;
  if (by("welcome").hidden && /^[1-5]$/.test(event.key)) rate(Number(event.key));
  else if (by("welcome").hidden && event.key === "ArrowLeft") back();
  else if (!by("grading").hidden && event.key === "ArrowRight") next();
});
window.addEventListener("online", () => {
  pause = 0;
  flush();
});
document.addEventListener("visibilitychange", flush);
window.addEventListener("beforeunload", (event) => {
  if (!storable && kept.size) event.preventDefault();
});

read();
if (firstUnanswered() === 0) section("welcome");
else show(firstUnanswered());
flush();
