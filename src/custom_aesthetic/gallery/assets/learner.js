// What the server says of the quick model; under the line of progress, the question whether features may be computed.
//
//   onLearner((status) => { ... });   // at every change: state, version, worth, ...

import { ask, onProgress } from "./api.js";
import { button, element } from "./dom.js";
import { say } from "./message.js";
import { hasEnded } from "./summary.js";

const OFTEN_MS = 1500;
const SELDOM_MS = 6000;
const listeners = [];
const learned = document.getElementById("learned"); // progress.js writes it too, with each answer
const place = element("div", "model-line");
place.id = "model";
place.hidden = true;
document.getElementById("progress").append(place);

let latest = null;
let timer = 0;
let before = "";

export function onLearner(listener) {
  listeners.push(listener);
  if (latest) listener(latest);
}

export const learnerStatus = () => latest;

export async function pollLearner() {
  clearTimeout(timer);
  if (hasEnded()) return;
  try {
    if (document.visibilityState === "visible" || !latest) take(await ask("learner"));
  } catch (error) {
    if (!error.status) return; // until the server answers again: see onProgress below
  }
  timer = setTimeout(pollLearner, latest && ["extracting", "learning", "checking"].includes(latest.state) ? OFTEN_MS : SELDOM_MS);
}

function take(status) {
  latest = status;
  const now = JSON.stringify(status);
  if (now === before) return;
  before = now;
  if (status.sentence && learned.textContent !== status.sentence) learned.textContent = status.sentence;
  show(status);
  for (const listener of listeners) listener(status);
}

const act = (name) => async () => {
  try {
    take(await ask(`learner/${name}`));
  } catch (error) {
    say(error.message);
  }
};

function show({ state, extractor, missing, done, reason }) {
  place.hidden = !["asking", "extracting", "failed"].includes(state);
  place.dataset.state = state;
  if (state === "asking") {
    place.replaceChildren(
      element("span", "", `A model can learn from features of ${missing.toLocaleString("en")} pictures (${extractor}).`),
      button("Compute them", { title: "In the background, once; they are kept", does: act("extract") }),
      button("Not now", { does: act("decline") }),
    );
  } else if (state === "extracting") {
    let meter = place.querySelector("progress");
    if (!meter) {
      meter = element("progress");
      meter.setAttribute("aria-label", "Pictures whose features are computed");
      place.replaceChildren(meter, element("span"), button("Stop", { does: act("cancel") }));
    }
    meter.max = Math.max(missing, 1);
    meter.value = done;
    place.querySelector("span").textContent = done < missing || !missing ? `Features: ${done} of ${missing}` : "Features: nearly done";
  } else if (state === "failed") {
    place.replaceChildren(
      element("span", "", `The model cannot learn: ${reason}.`),
      button("Try again", { does: act("extract") }),
      button("Not now", { does: act("decline") }),
    );
  }
}

let asked = 0;
onProgress(() => {
  if (Date.now() - asked < OFTEN_MS) return;
  asked = Date.now();
  pollLearner();
});
pollLearner();
