// The line of progress at the top: the number of answers, and what the model has learned from them.

import { onProgress } from "./api.js";
import { counted } from "./dom.js";

const count = document.getElementById("count");
const learned = document.getElementById("learned");

onProgress((progress) => {
  count.textContent = `${counted(progress.choices, "answer")} · ${progress.seen} of ${progress.pictures} pictures`;
  const sentence = progress.learned ?? "";
  if (learned.textContent !== sentence) learned.textContent = sentence; // a screen reader reads each change
});
