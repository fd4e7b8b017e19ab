// Beside the scoring, where the window is wide: the model's current best and worst of all pictures, moving as it learns.

import { ask } from "./api.js";
import { button, element, fileName, pictureAddress } from "./dom.js";
import { onLearner } from "./learner.js";
import { showView } from "./views.js";

const N_BEST = 8;
const N_WORST = 4;
const wide = window.matchMedia("(min-width: 1100px)");
const still = window.matchMedia("(prefers-reduced-motion: reduce)");

const aside = element("aside");
aside.id = "beside";
aside.hidden = true;
aside.setAttribute("aria-label", "What the model likes so far");
const best = row("Its best of all pictures");
const worst = row("Its worst");
aside.append(best.title, best.list, worst.title, worst.list, button("Open the gallery", { does: () => showView("gallery") }));
document.querySelector("main").append(aside);

function row(says) {
  const list = element("ul", "beside-list");
  return { title: element("h2", "", says), list, items: new Map() };
}

function show({ list, items }, found) {
  const before = new Map([...items].map(([path, item]) => [path, item.getBoundingClientRect()]));
  const wanted = new Set(found.map((one) => one.path));
  for (const [path, item] of items) {
    if (wanted.has(path)) continue;
    item.remove();
    items.delete(path);
  }
  for (const { path } of found) {
    let item = items.get(path);
    if (!item) {
      item = element("li");
      const image = new Image();
      image.alt = fileName(path);
      image.src = pictureAddress(path, 320);
      item.append(image);
      items.set(path, item);
    }
    list.append(item);
  }
  if (still.matches) return;
  for (const [path, item] of items) {
    const from = before.get(path);
    const to = item.getBoundingClientRect();
    if (!from) item.animate([{ opacity: 0 }, { opacity: 1 }], 300);
    else if (from.left !== to.left || from.top !== to.top) {
      item.animate([{ transform: `translate(${from.left - to.left}px, ${from.top - to.top}px)` }, { transform: "none" }], { duration: 350, easing: "ease-out" });
    }
  }
}

let version = -1;
async function refresh(status) {
  aside.hidden = status.version === 0;
  if (!wide.matches || status.version === 0 || status.version === version) return;
  version = status.version;
  const [top, bottom] = await Promise.all([
    ask("gallery", { order: "best", start: 0, count: N_BEST, source: "model" }),
    ask("gallery", { order: "worst", start: 0, count: N_WORST, source: "model" }),
  ]);
  show(best, top.items);
  show(worst, bottom.items);
}

onLearner((status) => refresh(status).catch(() => {}));
