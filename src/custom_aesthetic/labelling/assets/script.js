"use strict";
// Shows groups of pictures and sends each choice; while choices cannot be sent, the page says so.
// Choices that are not sent yet are kept in sessionStorage: neither a reload nor a killed server loses them.

const READY_GROUPS = 3; // loaded and decoded before they are needed
const RETRY_MS = 1000;
const UNDO_STEPS = 200;
const token = document.querySelector('meta[name="token"]').content;
const stage = document.getElementById("stage");
const message = document.getElementById("message");

const state = {
  window: stored("window", () => crypto.randomUUID()),
  unsent: stored("unsent", () => []), // [{ name, body }] in order
  history: stored("history", () => []), // choices of this window that can be undone
  ready: [], // groups to come: { pictures, drawn, images }
  shown: null,
  shownAt: 0,
  number: 2,
  filling: false,
  sending: null,
  undoing: Promise.resolve(),
  finished: false,
  reloading: false,
};

function stored(name, make) {
  const text = sessionStorage.getItem(name);
  const value = text === null ? make() : JSON.parse(text);
  sessionStorage.setItem(name, JSON.stringify(value));
  return value;
}

function store(name) {
  sessionStorage.setItem(name, JSON.stringify(state[name]));
}

const wait = (ms) => new Promise((done) => setTimeout(done, ms));

// --- talking to the server ---------------------------------------------------------------------------------------

// A file name that is not UTF-8 cannot be part of a URL as it is: it is sent as JSON.
function inAddress(path) {
  try {
    return encodeURIComponent(path);
  } catch {
    return encodeURIComponent(JSON.stringify(path));
  }
}

async function ask(name, body) {
  const answer = await fetch(`/api/${name}`, {
    method: "POST",
    headers: { "Content-Type": "application/json", "X-Token": token },
    body: JSON.stringify({ window: state.window, ...body }),
  });
  const content = await answer.json();
  if (answer.ok) return content;
  throw Object.assign(new Error(content.error || answer.statusText), { status: answer.status });
}

// Repeats the request until the server answers. A restarted server has a new token: the page is then reloaded.
async function askUntilAnswered(name, body) {
  for (;;) {
    try {
      const content = await ask(name, body);
      say("");
      return content;
    } catch (error) {
      if (error.status === 400) throw error;
      if (error.status === 403) {
        if (!state.reloading) location.reload();
        state.reloading = true; // a second call of reload would cancel the first
        await new Promise(() => {});
      }
      const count = state.unsent.filter((one) => one.name === "choice").length;
      const kept = count ? ` This page keeps ${count} unsaved choice${count > 1 ? "s" : ""} until then.` : "";
      say(error.status ? `${error.message}.${kept}` : `The server does not answer; start the script again to continue.${kept}`);
      await wait(RETRY_MS);
    }
  }
}

function send(name, body) {
  state.unsent.push({ name, body });
  store("unsent");
  state.sending ??= sendAll().finally(() => { state.sending = null; });
}

async function sendAll() {
  while (state.unsent.length) {
    const { name, body } = state.unsent[0];
    try {
      const answer = await askUntilAnswered(name, body);
      showProgress(answer.progress);
    } catch (error) {
      say(error.message);
    }
    state.unsent.shift();
    store("unsent");
  }
}

// --- groups ------------------------------------------------------------------------------------------------------

function load(group) {
  const cell = Math.max(stage.clientWidth, stage.clientHeight) / (state.number > 2 ? 1.5 : 1);
  const size = Math.ceil(cell * Math.min(window.devicePixelRatio, 2));
  const images = group.pictures.map((path) => {
    const image = new Image();
    image.alt = path;
    image.draggable = false;
    image.src = `/picture?path=${inAddress(path)}&size=${size}`;
    return image;
  });
  const failed = [];
  const decoded = images.map((image) => image.decode().catch(() => failed.push(image.alt)));
  return Promise.all(decoded).then(() => {
    if (failed.length) say(`${failed.join(", ")} cannot be shown.`, true);
    return failed.length ? null : { ...group, images };
  });
}

async function fill() {
  if (state.filling) return;
  state.filling = true;
  try {
    while (!state.finished && state.ready.length < READY_GROUPS) {
      const { group, progress } = await askUntilAnswered("group", {});
      const loaded = await load(group);
      showProgress(progress);
      if (loaded === null) {
        await wait(20); // the server has left the picture out
        continue;
      }
      state.ready.push(loaded);
      if (state.shown === null) show(state.ready.shift());
    }
  } finally {
    state.filling = false;
  }
}

const ARROWS = { 2: ["←", "→"], 3: ["←", "↓", "→"], 4: ["←", "↑", "↓", "→"] };
const ARROW_KEYS = {
  2: { ArrowLeft: 0, ArrowUp: 0, ArrowRight: 1, ArrowDown: 1 },
  3: { ArrowLeft: 0, ArrowUp: 1, ArrowDown: 1, ArrowRight: 2 },
  4: { ArrowLeft: 0, ArrowUp: 1, ArrowDown: 2, ArrowRight: 3 },
};

function show(group) {
  state.shown = group ?? null;
  if (!group) {
    stage.replaceChildren(element("p", "waiting", "Loading pictures…"));
    return;
  }
  const box = element("div", "group");
  box.dataset.number = group.images.length;
  group.images.forEach((image, place) => {
    const button = element("button", "choice");
    button.type = "button";
    button.setAttribute("aria-label", `Choose picture ${place + 1}, ${image.alt}`);
    button.append(image, element("kbd", "", `${place + 1} ${ARROWS[group.images.length][place]}`));
    button.addEventListener("click", () => choose(place));
    box.append(button);
  });
  stage.replaceChildren(box);
  stage.focus({ preventScroll: true });
  state.shownAt = performance.now();
}

function next() {
  show(state.ready.shift());
  fill();
}

// --- what the user does ------------------------------------------------------------------------------------------

// The time identifies the choice, so it must be unique: the last three digits of the microseconds are random.
function timeNow() {
  const digits = String(Math.floor(Math.random() * 1000)).padStart(3, "0");
  return new Date().toISOString().replace("Z", `${digits}+00:00`);
}

function choose(place) {
  const group = state.shown;
  if (!group || place >= group.pictures.length) return;
  const { pictures, drawn } = group;
  const time = timeNow();
  const seconds = (performance.now() - state.shownAt) / 1000;
  state.history = [...state.history, { time, pictures, drawn }].slice(-UNDO_STEPS);
  store("history");
  send("choice", { time, pictures, drawn, winner: pictures[place], seconds });
  next();
}

function skip() {
  if (state.shown) next();
}

// Undoes one choice at a time: a second press waits until the pictures of the first are shown.
function undo() {
  state.undoing = state.undoing.then(undoOne);
}

async function undoOne() {
  const last = state.history.pop();
  store("history");
  let group = last;
  if (last) {
    send("undo", { time: last.time });
  } else {
    await state.sending;
    const answer = await askUntilAnswered("undo", { time: null });
    showProgress(answer.progress);
    group = answer.group;
    if (!group) {
      say("There is nothing to undo.", true);
      return;
    }
  }
  const loaded = await load(group);
  if (!loaded) return;
  if (state.shown) state.ready.unshift(state.shown);
  show(loaded);
}

async function finish() {
  if (state.finished) return;
  state.finished = true;
  stage.replaceChildren(element("p", "waiting", "Saving the scores…"));
  await state.sending;
  const { summary, others } = await askUntilAnswered("finish", {});
  await showSummary(summary, others);
  state.history = [];
  store("history");
  await ask("leave", {}).catch(() => {});
}

document.getElementById("undo").addEventListener("click", undo);
document.getElementById("skip").addEventListener("click", skip);
document.getElementById("finish").addEventListener("click", finish);

document.addEventListener("keydown", (event) => {
  if (event.repeat || event.ctrlKey || event.metaKey || event.altKey || state.finished) return;
  const onButton = document.activeElement?.tagName === "BUTTON";
  const key = event.key.length === 1 ? event.key.toLowerCase() : event.key;
  const number = state.shown?.pictures.length ?? 2;
  if (key >= "1" && key <= "4") choose(Number(key) - 1);
  else if (key in ARROW_KEYS[number]) choose(ARROW_KEYS[number][key]);
  else if (key === "0" || (key === " " && !onButton)) skip();
  else if (key === "u" || key === "Backspace") undo();
  else if (key === "q") finish();
  else return;
  event.preventDefault();
});

// --- figures and messages ----------------------------------------------------------------------------------------

function element(kind, name, text = "") {
  const made = document.createElement(kind);
  made.className = name;
  made.textContent = text;
  return made;
}

function write(id, text) {
  document.getElementById(id).textContent = text;
}

const percent = (share) => `${Math.round(100 * share)}\u00a0%`;
const range = ([, low, high]) => `${Math.round(100 * low)}\u00a0to\u00a0${percent(high)}`;

function showProgress(progress) {
  if (!progress) return;
  const today = progress.choices_this_time;
  write("choices", today === progress.choices ? today : `${progress.choices} (+${today})`);
  write("seen", `${progress.seen} of ${progress.pictures}`);
  write("pace", progress.pace === null ? "–" : `${progress.pace.toFixed(1)} s`);
  const early = progress.choices_to_go ? `${progress.choices_to_go} to go` : "…";
  write("right", progress.order_right ? percent(progress.order_right[0]) : early);
  write("predicted", progress.predicted ? percent(progress.predicted[0]) : early);
  const beyondChance = progress.order_right ? Math.max(0, Math.round(200 * progress.order_right[0] - 100)) : 0;
  document.getElementById("beyond-chance").style.width = `${beyondChance}%`;
  document.querySelector(".meter").setAttribute("aria-valuenow", beyondChance);
}

let messageTimer = 0;

function say(text, passing = false) {
  clearTimeout(messageTimer);
  message.textContent = text;
  message.hidden = text === "";
  if (passing) messageTimer = setTimeout(() => say(""), 2500);
}

function pictureRow(title, paths) {
  if (!paths.length) return [];
  const list = element("ul", "row");
  for (const path of paths) {
    const item = element("li", "", "");
    const image = new Image();
    image.alt = "";
    image.src = `/picture?path=${inAddress(path)}&size=320`;
    item.append(image, path);
    item.title = path;
    list.append(item);
  }
  return [element("h2", "", title), list];
}

// Returns lines on the quality of the scores; none before there are enough choices.
function worth(summary) {
  const more = summary.choices_to_go;
  if (more) return [`After ${more} more choice${more === 1 ? "" : "s"}, this page shows how good the scores are.`];
  if (!summary.order_right || !summary.held_out) return [];
  return [
    `${percent(summary.order_right[0])} of random pairs are in the right order (${range(summary.order_right)}).`,
    `${percent(summary.predicted[0])} of your choices between two random pictures would be predicted (${range(summary.predicted)}).`,
    `${percent(summary.held_out[0])} of your ${summary.choices} choices so far are predicted by scores made without them (${range(summary.held_out)}); the pairs shown have closer scores than random pairs.`,
  ];
}

async function showSummary(summary, others) {
  document.body.classList.add("finished");
  const page = element("div", "summary");
  const choices = `${summary.choices} choice${summary.choices === 1 ? "" : "s"}`;
  page.append(element("h1", "", `${choices}, ${summary.seen} of ${summary.pictures} pictures seen`));
  for (const line of worth(summary)) page.append(element("p", "", line));
  if (summary.files.length) page.append(element("p", "", `Saved: ${summary.files.join(", ")}.`));
  const closing = others
    ? "Another window is still open, so the script keeps running."
    : "The script has ended. Start it again to continue from here.";
  page.append(element("p", "", closing));
  page.append(...pictureRow("Liked most", summary.best), ...pictureRow("Liked least", summary.worst));
  stage.replaceChildren(page);
  await Promise.allSettled([...page.querySelectorAll("img")].map((image) => image.decode()));
}

async function begin() {
  if (state.unsent.length) {
    state.sending = sendAll().finally(() => { state.sending = null; });
    await state.sending;
  }
  const opened = await askUntilAnswered("open", {});
  state.number = opened.number;
  showProgress(opened.progress);
  await fill();
}

begin();
