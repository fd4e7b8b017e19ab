// The page at the end: what was done, how consistent the answers were, where all is saved, what to do next.

import { button, counted, element, percent, pictureAddress } from "./dom.js";

const offers = [];

// Offers something more on the page at the end: a button with this text that calls `does`.
export function addOffer(text, does) {
  offers.push({ text, does });
}

const range = (low, high) => `${Math.round(100 * low)}\u00a0to\u00a0${percent(high)}`;

function pictureRow(title, paths) {
  if (!paths.length) return [];
  const list = element("ul", "row");
  for (const path of paths) {
    const item = element("li");
    const image = new Image();
    image.alt = "";
    image.src = pictureAddress(path, 320);
    item.append(image, path);
    item.title = path;
    list.append(item);
  }
  return [element("h2", "", title), list];
}

// Returns lines on the model and on the user's consistency, as far as something is known.
function worth({ learned, consistency }) {
  const lines = learned ? [learned] : [];
  if (consistency) {
    const { same, repeats, low, high, ceiling } = consistency;
    lines.push(
      `${counted(repeats, "pair")} ${repeats === 1 ? "was" : "were"} shown to you again, sides swapped: ${same} of ${repeats} answers were the same (${range(low, high)}).`
      + (ceiling ? ` On such pairs, even a perfect model would agree with about ${percent(ceiling)} of your answers.` : ""),
    );
  }
  return lines;
}

// Shows the summary below what `root` contains; returns its element.
export function showSummary(root, summary, others, { end, keepScoring }) {
  const page = element("div", "summary");
  page.append(element("h1", "", `${counted(summary.choices, "answer")}, ${summary.seen} of ${summary.pictures} pictures seen`));
  for (const line of worth(summary)) page.append(element("p", "", line));
  if (summary.files.length) page.append(element("p", "", `Saved: ${summary.files.join(", ")}.`));
  const next = element("div", "next");
  next.setAttribute("role", "group");
  next.setAttribute("aria-label", "What next");
  next.append(
    button("Keep scoring", { id: "keep-scoring", key: "k", shortcuts: "k", does: keepScoring }),
    ...offers.map(({ text, does }) => button(text, { does })),
    button("End", { id: "end", key: "q", shortcuts: "q", does: end }),
  );
  const closing = element("p", "closing", others
    ? "Another window is open, so the script keeps running when this one ends."
    : "The script ends when you press End or close this page, or when the training that you have begun is done.");
  page.append(next, closing);
  page.append(...pictureRow("Liked most", summary.best), ...pictureRow("Liked least", summary.worst));
  root.append(page);
  page.tabIndex = -1;
  page.focus({ preventScroll: true });
  return page;
}

let ended = false;

// Whether this window has ended, so that nothing more is to be asked of the server.
export const hasEnded = () => ended;

// Says that this window has ended.
export function sayEnded(page) {
  ended = true;
  page.querySelector(".next").remove();
  page.querySelector(".closing").textContent = "This window has ended. Start the script again to continue from here.";
}
