// 100 %: one pixel of the picture is one pixel of the screen, at the same place in all pictures shown.
// Hold a picture (mouse or finger), turn the wheel up, or press z; moving the pointer moves all pictures.

import { element, pictureAddress, WHOLE } from "./dom.js";

const HOLD_MS = 220;
const MOVED = 12; // pixels that a finger may move while it waits for the zoom

const state = { box: null, lenses: [], holding: 0, held: false, from: null };

const place = (value) => Math.min(1, Math.max(0, value));

// Returns where in the picture the pointer is, each 0...1.
function placeIn(cell, event) {
  const frame = cell.querySelector(".frame").getBoundingClientRect();
  return { x: place((event.clientX - frame.left) / frame.width), y: place((event.clientY - frame.top) / frame.height) };
}

function open(box, at) {
  close();
  state.box = box;
  state.at = at;
  state.lenses = [...box.querySelectorAll(".choice, .single")].map((cell) => {
    const lens = element("span", "lens");
    const image = new Image();
    image.alt = "";
    image.draggable = false;
    image.addEventListener("load", () => {
      image.style.width = `${image.naturalWidth / window.devicePixelRatio}px`;
      lens.classList.add("ready");
      move(state.at);
    });
    image.src = pictureAddress(cell.querySelector("img").dataset.path, WHOLE);
    lens.append(image, element("span", "percent", "100 %"));
    cell.append(lens);
    return { lens, image };
  });
}

function move(at) {
  state.at = at;
  for (const { lens, image } of state.lenses) {
    const free = { x: lens.clientWidth - image.clientWidth, y: lens.clientHeight - image.clientHeight };
    const x = free.x < 0 ? free.x * at.x : free.x / 2;
    const y = free.y < 0 ? free.y * at.y : free.y / 2;
    image.style.transform = `translate(${Math.round(x)}px, ${Math.round(y)}px)`;
  }
}

export function close() {
  for (const { lens } of state.lenses) lens.remove();
  Object.assign(state, { box: null, lenses: [] });
}

export const isZoomed = () => state.box !== null;

// For the key z.
export function toggleZoom() {
  const box = document.querySelector(".stage > .group");
  if (isZoomed()) close();
  else if (box) open(box, { x: 0.5, y: 0.5 });
}

function endHold() {
  clearTimeout(state.holding);
  state.from = null;
}

// Watches the stage in which groups are shown.
export function watchZoom(stage) {
  const cellOf = (event) => event.target.closest(".choice, .single");
  stage.addEventListener("wheel", (event) => {
    const cell = cellOf(event);
    if (!cell || event.ctrlKey) return;
    event.preventDefault();
    if (event.deltaY < 0 && !isZoomed()) open(cell.parentElement, placeIn(cell, event));
    else if (event.deltaY > 0) close();
  }, { passive: false });
  stage.addEventListener("pointerdown", (event) => {
    const cell = cellOf(event);
    if (!cell || event.button !== 0 || isZoomed()) return;
    state.held = false;
    state.from = event;
    state.holding = setTimeout(() => {
      state.held = true;
      open(cell.parentElement, placeIn(cell, event));
    }, HOLD_MS);
  });
  stage.addEventListener("pointermove", (event) => {
    const { from } = state;
    if (from && !state.held && Math.hypot(event.clientX - from.clientX, event.clientY - from.clientY) > MOVED) endHold();
    const cell = cellOf(event);
    if (isZoomed() && cell) move(placeIn(cell, event));
  });
  for (const kind of ["pointerup", "pointercancel"]) {
    window.addEventListener(kind, () => {
      endHold();
      if (state.held) close();
      setTimeout(() => { state.held = false; }, 0);
    });
  }
  stage.addEventListener("click", (event) => {
    if (!state.held) return;
    event.stopPropagation(); // the end of a hold is no choice
    event.preventDefault();
  }, { capture: true });
  stage.addEventListener("contextmenu", (event) => {
    if (cellOf(event) && event.pointerType === "touch") event.preventDefault();
  });
}
