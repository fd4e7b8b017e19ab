// Answers of every kind, from every view, and their undo, one at a time, latest first.
//
//   const time = answer("stars", { picture, stars: 4, drawn, seconds }, { pictures: [picture], drawn });
//   onUndone((entry) => { ... });   // entry: { time, kind, pictures, drawn } as given, or as the server knows it

import { askUntilAnswered, send, sendUnsent, store, stored } from "./api.js";
import { wait } from "./dom.js";
import { say } from "./message.js";

const UNDO_STEPS = 200;
const PATIENCE_MS = 1000; // where the server does not answer, what is undone is shown again all the same
let history = stored("history", () => []); // answers of this window that can be undone
let undoing = Promise.resolve();
const listeners = [];

// The time identifies the answer, so it must be unique: the last three digits of the microseconds are random.
export function timeNow() {
  const digits = String(Math.floor(Math.random() * 1000)).padStart(3, "0");
  return new Date().toISOString().replace("Z", `${digits}+00:00`);
}

// Sends POST /api/KIND with `body` and its time, and remembers `shown` for undo; returns the time.
export function answer(kind, body, shown) {
  const time = timeNow();
  remember({ ...shown, time, kind });
  send(kind, { ...body, time });
  return time;
}

// Remembers an answer that the server has already, for undo: an entry as `onUndone` gives it.
export function remember(entry) {
  history = [...history, entry].slice(-UNDO_STEPS);
  store("history", history);
}

// Forgets the answers for which `isGone` is true: something else has undone or replaced them.
export function forget(isGone) {
  history = history.filter((entry) => !isGone(entry));
  store("history", history);
}

export function onUndone(listener) {
  listeners.push(listener);
}

// Undoes one answer; a second call waits until the listeners of the first are done.
export function undo() {
  undoing = undoing.then(undoOne);
  return undoing;
}

export function forgetHistory() {
  history = [];
  store("history", history);
}

async function undoOne() {
  let entry = history.pop();
  store("history", history);
  if (entry) {
    const told = await Promise.race([send("undo", { time: entry.time }), wait(PATIENCE_MS)]);
    if (told?.group === null) {
      say("That answer was undone already, in another window.", true);
      return;
    }
  } else {
    await sendUnsent();
    entry = (await askUntilAnswered("undo", { time: null })).group;
  }
  if (!entry) {
    say("There is nothing to undo.", true);
    return;
  }
  for (const listener of listeners) await listener(entry);
}
