// The view Train: starts the recommended training, shows its progress, its verdict, and its report in the same place.

import { ask } from "./api.js";
import { button, element } from "./dom.js";
import { say } from "./message.js";
import { addView, currentView, showView } from "./views.js";

const POLL_MS = 1500;
let root = null;
const page = element("div", "train");
const title = element("h1", "", "Train a model on your answers");
const about = element("p", "", "The recommended training learns from your scores in the background, with several views of each picture, and says how good its model is on pictures that it has not seen. You can go on scoring.");
const buttons = element("div", "train-buttons");
const meter = element("progress");
meter.setAttribute("aria-label", "Progress of the training");
const verdict = element("div", "verdict");
verdict.setAttribute("role", "status");
const log = element("pre", "train-log");
log.setAttribute("aria-label", "What the training says");
log.tabIndex = 0;
const commands = element("details", "commands");
const report = element("iframe", "report");
report.title = "Report of the training";
report.setAttribute("sandbox", "");
report.hidden = true;
page.append(title, about, buttons, meter, verdict, log, commands);

export function addTrainView() {
  root = addView({ name: "train", label: "Train", shows: poll });
  root.append(page, report);
}

let timer = 0;
let before = "";
let shownReport = false;

async function poll() {
  clearTimeout(timer);
  let running = false;
  try {
    const status = await ask("training");
    show(status);
    running = status.state === "running" || status.scoring;
  } catch (error) {
    say(error.message);
  }
  if (currentView() === "train" || running) timer = setTimeout(poll, POLL_MS);
}

const act = (name) => async () => {
  try {
    show(await ask(`training/${name}`));
  } catch (error) {
    say(error.message);
  }
  poll();
};

function show(status) {
  const now = JSON.stringify(status);
  if (now === before) return;
  const was = before ? JSON.parse(before).state : status.state;
  before = now;
  const running = status.state === "running";
  buttons.replaceChildren(
    ...(running
      ? [button("Stop", { title: "What is done so far is kept", does: act("cancel") })]
      : [button(status.state === "idle" ? "Train" : "Train again", { does: act("start") })]),
    ...(status.state === "done" ? [button("Look at the best", { does: () => showView("gallery") })] : []),
    button("Keep scoring", { does: () => showView("score") }),
  );
  if (!running) buttons.firstChild.classList.add("main");
  meter.hidden = !running;
  if (status.share === null) meter.removeAttribute("value");
  else meter.value = status.share;
  const heading = {
    idle: [], running: [`${status.step}. You can close this page: the training goes on, and the terminal says how good its model is.`],
    done: [...status.verdict, status.scoring ? "The gallery shows its scores as soon as it has scored all pictures." : "The gallery shows its scores."],
    cancelled: ["Stopped. The next training goes on from here."],
    failed: ["The training ended with an error:"],
  }[status.state];
  verdict.replaceChildren(...heading.map((line) => element("p", "", line)));
  log.hidden = status.state !== "failed";
  log.textContent = status.lines.join("\n");
  showCommands(status.commands);
  if (running) {
    report.hidden = true;
    shownReport = false;
  } else if (status.report && !shownReport) {
    report.src = `/report?at=${Date.now()}`;
    report.hidden = false;
    shownReport = true;
  }
  root.classList.toggle("with-report", !report.hidden);
  if (was === "running" && status.state !== "running" && currentView() !== "train") {
    say(status.state === "done" ? "The training is done: see Train." : "The training has ended: see Train.");
  }
}

// Copies the commands for a terminal.
export async function copyCommands() {
  try {
    await copy((await ask("training")).commands.join("\n"));
  } catch (error) {
    say(error.message);
  }
}

function showCommands(lines) {
  if (commands.dataset.lines === lines.join("\n")) return;
  commands.dataset.lines = lines.join("\n");
  commands.replaceChildren(element("summary", "", "The same in a terminal"), ...lines.map((line) => {
    const row = element("div", "command");
    row.append(element("code", "", line), button("Copy", { does: () => copy(line) }));
    return row;
  }));
}

async function copy(text) {
  try {
    await navigator.clipboard.writeText(text);
    say("Copied.", true);
  } catch {
    say("The browser does not let the page copy; select the text instead.", true);
  }
}
