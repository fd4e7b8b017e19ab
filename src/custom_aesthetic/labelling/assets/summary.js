// The page at the end: what was done, where it is saved, the best and the worst pictures.

import { counted, element, percent, pictureAddress } from "./dom.js";

const range = ([, low, high]) => `${Math.round(100 * low)}\u00a0to\u00a0${percent(high)}`;

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

// Returns lines on the quality of the scores; none before there are enough choices.
function worth(summary) {
  const more = summary.choices_to_go;
  if (more) return [`After ${counted(more, "more answer")}, this page shows how good the scores are.`];
  if (!summary.order_right || !summary.held_out) return [];
  return [
    `${percent(summary.order_right[0])} of random pairs are in the right order (${range(summary.order_right)}).`,
    `${percent(summary.predicted[0])} of your choices between two random pictures would be predicted (${range(summary.predicted)}).`,
    `${percent(summary.held_out[0])} of your ${summary.choices} choices so far are predicted by scores made without them (${range(summary.held_out)}); the pairs shown have closer scores than random pairs.`,
  ];
}

// Shows the summary in place of the view's content.
export async function showSummary(root, summary, others) {
  const page = element("div", "summary");
  page.append(element("h1", "", `${counted(summary.choices, "answer")}, ${summary.seen} of ${summary.pictures} pictures seen`));
  for (const line of worth(summary)) page.append(element("p", "", line));
  if (summary.files.length) page.append(element("p", "", `Saved: ${summary.files.join(", ")}.`));
  const closing = others
    ? "Another window is still open, so the script keeps running."
    : "The script has ended. Start it again to continue from here.";
  page.append(element("p", "", closing));
  page.append(...pictureRow("Liked most", summary.best), ...pictureRow("Liked least", summary.worst));
  root.replaceChildren(page);
  await Promise.allSettled([...page.querySelectorAll("img")].map((image) => image.decode()));
}
