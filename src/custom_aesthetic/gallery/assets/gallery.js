// The view Gallery: all pictures in an order, the answers that the model disagrees with, and choosing.
//
//   learner.js     what the server says of the quick model; asks for features
//   grid.js        the pictures, of which only those in sight exist
//   lightbox.js    one picture, large
//   disagree.js    "you chose A, I would have said B"
//   choose.js      how many, and what to do with them
//   beside.js      the best and the worst beside the scoring
//   train.js       the view Train
//   offers.js      what the page at the end offers

import { ask } from "./api.js";
import "./beside.js";
import { createChooser } from "./choose.js";
import { showDisagreements } from "./disagree.js";
import { button, element, fileName } from "./dom.js";
import { createGrid } from "./grid.js";
import { addKeys } from "./keys.js";
import { onLearner } from "./learner.js";
import { openLightbox } from "./lightbox.js";
import { setMark } from "./marks.js";
import { say } from "./message.js";
import "./offers.js";
import { addTrainView } from "./train.js";
import { addView, currentView } from "./views.js";

const ORDERS = [
  ["best", "Best", "The model's best of all pictures, scored or not", "By your answers: what you liked most first"],
  ["worst", "Worst", "The model's worst of all pictures", "By your answers: what you liked least first"],
  ["unsure", "Unsure", "Where the model knows least: answers about these teach it most", "Where your answers say least"],
  ["disagree", "Disagrees", "Answers that the model would have given otherwise"],
];
const SOURCES = { answers: "Scores from your answers alone", model: "The model that learns beside you", trained: "The trained model" };

const root = addView({ name: "gallery", label: "Gallery", shows: refresh });
addTrainView();
const bar = element("div", "gallery-bar");
const orders = element("div", "segments");
orders.setAttribute("role", "radiogroup");
orders.setAttribute("aria-label", "Order of the pictures");
const source = element("select", "button");
source.setAttribute("aria-label", "Scores by");
const about = element("p", "about");
bar.append(orders, source, about);
const list = element("div", "disagreements");
list.hidden = true;

let order = "best";
let wanted = null; // the source that the user asked for
let total = 0;

const grid = createGrid({
  label: "Pictures",
  fetchItems: async (start, count) => {
    const found = await ask("gallery", { order: order === "disagree" ? "best" : order, start, count, source: wanted });
    showSources(found);
    total = found.total;
    return found;
  },
  opens: (item, place) => openLightbox({ item, place, at: (other) => grid.itemAt(other), total: () => total, marks: mark }),
  marks: mark,
});
const chooser = createChooser({
  source: () => wanted,
  changed: () => grid.refresh(true).catch((error) => say(error.message)),
  shows: (asked, chosen) => grid.setCut(order === "best" && !asked.per_group ? chosen : null),
});
root.append(bar, grid.element, list, chooser.element);

for (const [name, label, says] of ORDERS) {
  const choice = button(label, { title: says, does: () => setOrder(name) });
  choice.setAttribute("role", "radio");
  choice.dataset.order = name;
  orders.append(choice);
}
orders.addEventListener("keydown", (event) => {
  const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
  if (!step) return;
  event.preventDefault();
  event.stopPropagation();
  const names = ORDERS.map(([name]) => name);
  setOrder(names[(names.indexOf(order) + step + names.length) % names.length]);
  orders.querySelector("[aria-checked=true]").focus();
});
source.addEventListener("change", () => {
  wanted = source.value;
  refresh();
});

function setOrder(name) {
  const changed = name !== order;
  order = name;
  for (const choice of orders.children) {
    const chosen = choice.dataset.order === name;
    choice.setAttribute("aria-checked", chosen);
    choice.tabIndex = chosen ? 0 : -1;
  }
  if (changed) grid.toTop();
  refresh();
}

function showSources(found) {
  if (order === "disagree") return;
  const names = ["answers", ...found.sources];
  if (source.dataset.names !== names.join()) {
    source.dataset.names = names.join();
    source.replaceChildren(...names.map((name) => {
      const option = element("option", "", SOURCES[name]);
      option.value = name;
      return option;
    }));
  }
  source.value = found.source;
  source.hidden = names.length < 2;
  const [, , byModel, byAnswers] = ORDERS.find(([name]) => name === order);
  const says = found.source === "answers" ? byAnswers : byModel;
  about.textContent = `${says} · ${found.total.toLocaleString("en")}`;
}

async function refresh() {
  if (currentView() !== "gallery") return;
  const disagree = order === "disagree";
  grid.element.hidden = disagree;
  list.hidden = !disagree;
  chooser.element.hidden = disagree;
  if (disagree) {
    source.hidden = true;
    about.textContent = ORDERS.find(([name]) => name === order)[2];
  }
  try {
    if (disagree) await showDisagreements(list);
    else await Promise.all([grid.refresh(), chooser.refresh()]);
  } catch (error) {
    say(error.message);
  }
}

// Marks a picture, or takes the same mark back; answers what the mark is now.
async function mark(item, name) {
  const now = item.mark === name ? null : name;
  try {
    await setMark(item.path, now);
  } catch (error) {
    say(error.message);
    return item.mark;
  }
  item.mark = now;
  grid.showMark(item);
  chooser.refresh();
  say(now ? `${fileName(item.path)}: ${now === "keep" ? "kept" : "rejected"}.` : `${fileName(item.path)}: no mark.`, true);
  return now;
}

let version = -1;
onLearner((status) => {
  if (status.version === version) return;
  version = status.version;
  if (order !== "disagree") refresh();
});

addKeys("gallery", [
  { keys: ["b"], shown: "b", says: "best first", does: () => setOrder("best") },
  { keys: ["w"], shown: "w", says: "worst first", does: () => setOrder("worst") },
  { keys: ["n"], shown: "n", says: "where the model is unsure", does: () => setOrder("unsure") },
  { keys: ["d"], shown: "d", says: "where it disagrees with you", does: () => setOrder("disagree") },
  { keys: ["ArrowDown", "ArrowRight"], shown: "arrows", says: "go through the pictures", does: () => grid.focus() },
  { keys: [], shown: "space, x", says: "keep, reject the picture; again takes it back", does: () => {} },
  { keys: [], shown: "enter", says: "show it large", does: () => {} },
]);
setOrder("best");
