// The view in which pictures are scored. A mode (pair.js, ...) shows a group and says what is answered; this module
// loads groups before they are needed, sends answers, skips, undoes and finishes.

import { answer, forgetHistory, onUndone, undo } from "./answers.js";
import { ask, askUntilAnswered, keepAlive, send, sendUnsent } from "./api.js";
import { button, element, fileName, pictureAddress, wait } from "./dom.js";
import { toggleNames } from "./frames.js";
import { addKeys, showHelp } from "./keys.js";
import { say } from "./message.js";
import { sayEnded, showSummary } from "./summary.js";
import { addView, setActions } from "./views.js";
import { close as closeZoom, toggleZoom, watchZoom } from "./zoom.js";

const READY_GROUPS = 3; // loaded and decoded before they are needed
const FINISH_MS = 2000; // q counts when it is pressed again within this time

const root = addView({ name: "score", label: "Score", shows: showActions });
const stage = element("div", "stage");
const question = element("h1");
question.id = "question";
const hint = element("p", "hint");
root.append(question, stage, hint);
watchZoom(stage);

const state = {
  mode: null,
  settings: null, // what the server said when the page opened: mode, number, question
  ready: [], // groups to come: { pictures, drawn, images }
  shown: null,
  shownAt: 0,
  filling: false,
  finished: false, // the page at the end is on screen
  ended: false,
  summary: null, // the page at the end
  pressedQ: -Infinity,
  leaves: () => {}, // stops telling the server that this window is open
};

// --- groups ------------------------------------------------------------------------------------------------------

function load(group) {
  const size = state.mode.cell(stage, group.pictures.length) * Math.min(window.devicePixelRatio, 2);
  const images = group.pictures.map((path) => {
    const image = new Image();
    image.alt = fileName(path);
    image.dataset.path = path;
    image.draggable = false;
    image.src = pictureAddress(path, size);
    return image;
  });
  const failed = [];
  const decoded = images.map((image) => image.decode().catch(() => failed.push(image.dataset.path)));
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
      const { group } = await askUntilAnswered("group");
      const loaded = await load(group);
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

function show(group) {
  closeZoom();
  state.shown = group ?? null;
  if (!group) {
    stage.replaceChildren(element("p", "waiting", "Loading pictures…"));
    return;
  }
  stage.replaceChildren(state.mode.show(group));
  root.focus({ preventScroll: true });
  state.shownAt = performance.now();
}

function next() {
  show(state.ready.shift());
  fill();
}

// --- what the user does ------------------------------------------------------------------------------------------

// Sends an answer about the group on screen and shows the next; does nothing, visibly, while none is on screen.
function give(kind, body) {
  const group = state.shown;
  if (!group || state.finished) {
    if (!state.finished) say("The next pictures are still loading.", true);
    return false;
  }
  const { pictures, drawn } = group;
  const seconds = (performance.now() - state.shownAt) / 1000;
  answer(kind, { drawn, seconds, ...body }, { pictures, drawn });
  next();
  return true;
}

function skip() {
  if (!state.shown) {
    say("The next pictures are still loading.", true);
    return;
  }
  send("skip", { pictures: state.shown.pictures });
  next();
}

onUndone(async (entry) => {
  if (!state.mode.kinds.some((kind) => entry.kind.startsWith(kind))) {
    say(`Undone: ${entry.kind} for ${entry.pictures.map(fileName).join(", ")}.`, true);
    return;
  }
  const loaded = await load({ pictures: entry.pictures, drawn: entry.drawn });
  if (!loaded) return;
  if (state.shown) state.ready.unshift(state.shown);
  show(loaded);
});

function pressQ() {
  const now = performance.now();
  if (now - state.pressedQ < FINISH_MS) finish();
  else say("Press q again to finish.", true);
  state.pressedQ = now;
}

async function finish() {
  if (state.finished) return;
  state.finished = true;
  say("");
  for (const part of [question, stage, hint]) part.hidden = true;
  const waiting = element("p", "waiting", "Saving the scores…");
  root.append(waiting);
  await sendUnsent();
  const { summary, others } = await askUntilAnswered("finish");
  waiting.remove();
  state.summary = showSummary(root, summary, others, { end, keepScoring });
  setActions([]);
}

function keepScoring() {
  state.summary.remove();
  state.summary = null;
  state.finished = false;
  for (const part of [question, stage, hint]) part.hidden = false;
  showActions();
  root.focus();
  fill();
}

async function end() {
  if (!state.summary || state.ended) return;
  state.ended = true;
  forgetHistory();
  state.leaves();
  await ask("leave").catch(() => {});
  sayEnded(state.summary);
}

function showActions() {
  if (state.finished) return;
  setActions([
    button("Undo", { id: "undo", key: "u", shortcuts: "u Backspace", does: undo }),
    ...(state.mode?.buttons ?? []),
    button("Skip", { id: "skip", key: "0", shortcuts: "0 s", does: skip }),
    button("Info", { id: "names", key: "i", shortcuts: "i", title: "File names and sizes (i)", does: toggleNames }),
    button("Finish", { id: "finish", key: "q", shortcuts: "q", title: "Finish (q, twice)", does: finish }),
    button("?", { id: "keys", shortcuts: "?", title: "All keys", does: showHelp }),
  ]);
}

addKeys("score", [
  { keys: ["u", "Backspace"], shown: "u or backspace", says: "undo the last answer", does: undo },
  { keys: ["digit 0", "s"], shown: "0 or s", says: "skip; these pictures are not asked again soon", does: skip },
  { keys: ["z"], shown: "z, hold or wheel", says: "see 100 %, at the same place in all pictures", does: toggleZoom, zooms: true },
  { keys: ["Escape"], shown: "escape", says: "see the whole pictures again", does: closeZoom, zooms: true },
  { keys: ["i"], shown: "i", says: "file names and sizes", does: toggleNames },
  { keys: ["q"], shown: "q q", says: "finish", does: pressQ },
].map((key) => ({ ...key, when: () => !state.finished && (!key.zooms || state.mode?.zooms) })));

addKeys("score", [
  { keys: ["k"], shown: "k", says: "keep scoring", does: keepScoring },
  { keys: ["q"], shown: "q", says: "end", does: end },
].map((key) => ({ ...key, when: () => state.finished && state.summary && !state.ended })));

// --- the beginning -----------------------------------------------------------------------------------------------

// Opens the window at the server and shows the first group; `modes` are the modes by name.
export async function startScoring(modes) {
  await sendUnsent();
  state.settings = await askUntilAnswered("open");
  state.leaves = keepAlive();
  state.mode = modes[state.settings.mode](state.settings, { give, shownFor: () => performance.now() - state.shownAt });
  question.textContent = state.settings.question;
  document.title = state.settings.question;
  hint.replaceChildren(...state.mode.hint);
  addKeys("score", state.mode.keys.map((key) => ({ ...key, when: () => !state.finished })));
  showActions();
  show(null);
  await fill();
}
