// A grid of any number of pictures, of which only those in sight exist in the page. When the order changes, the
// pictures move to their new places.

import { element, fileName, pictureAddress } from "./dom.js";
import { say } from "./message.js";

const CHUNK = 120; // items asked for at once
const MOST_CHUNKS = 40;
const ROWS_BEYOND = 2; // rows that exist above and below those in sight
const GAP = 8;
const SCROLLING_MS = 80;
const SIZES = [{ upTo: 500, width: 108 }, { upTo: 1000, width: 150 }, { upTo: Infinity, width: 190 }];

export function createGrid({ label, fetchItems, opens, marks }) {
  const scroller = element("div", "grid");
  const space = element("div", "grid-space");
  scroller.append(space);
  space.setAttribute("role", "list");
  space.setAttribute("aria-label", label);
  const state = {
    total: 0,
    version: "",
    chunks: new Map(), // number -> items
    asked: new Set(),
    cells: new Map(), // path or place -> cell
    columns: 1,
    cell: 150,
    focus: 0,
    wantsFocus: false,
    scrolledAt: -Infinity,
    cut: null, // pictures from this place on are not chosen
  };

  // --- data --------------------------------------------------------------------------------------------------------

  const itemAt = (place) => state.chunks.get(Math.floor(place / CHUNK))?.[place % CHUNK];

  async function load(number) {
    if (state.asked.has(number) || state.chunks.has(number)) return;
    state.asked.add(number);
    try {
      take(number, await fetchItems(number * CHUNK, CHUNK));
    } finally {
      state.asked.delete(number);
    }
    draw();
  }

  function take(number, found) {
    if (found.version !== state.version || found.total !== state.total) state.chunks.clear();
    state.version = found.version;
    state.total = found.total;
    state.chunks.set(number, found.items);
    if (state.chunks.size > MOST_CHUNKS) state.chunks.delete(state.chunks.keys().next().value);
  }

  // Asks again for what is in sight; the pictures on screen stay until the answer is there.
  async function refresh(fromScratch = false) {
    const [first, last] = inSight();
    const numbers = chunksOf(first, last);
    if (fromScratch) state.version = "";
    const found = await Promise.all(numbers.map((number) => fetchItems(number * CHUNK, CHUNK)));
    found.forEach((answer, i) => take(numbers[i], answer));
    measure();
  }

  const chunksOf = (first, last) => {
    const numbers = [];
    for (let number = Math.floor(first / CHUNK); number <= Math.floor(Math.max(last, first) / CHUNK); number += 1) numbers.push(number);
    return numbers;
  };

  // --- what is in sight --------------------------------------------------------------------------------------------

  function measure() {
    const width = scroller.clientWidth - 2 * GAP;
    if (width <= 0) return;
    const wished = SIZES.find((size) => width <= size.upTo).width;
    state.columns = Math.max(2, Math.floor((width + GAP) / (wished + GAP)));
    state.cell = (width - GAP * (state.columns - 1)) / state.columns;
    space.style.height = `${Math.ceil(state.total / state.columns) * (state.cell + GAP) + GAP}px`;
    draw();
  }

  function inSight() {
    const row = state.cell + GAP;
    const first = Math.max(0, Math.floor(scroller.scrollTop / row) - ROWS_BEYOND) * state.columns;
    const rows = Math.ceil(scroller.clientHeight / row) + 2 * ROWS_BEYOND + 1;
    return [first, Math.min(first + rows * state.columns, Math.max(state.total, 1)) - 1];
  }

  function draw() {
    const [first, last] = inSight();
    const kept = new Set();
    for (let place = first; place <= last && place < state.total; place += 1) {
      const item = itemAt(place);
      const key = item ? item.path : `place ${place}`;
      kept.add(key);
      let cell = state.cells.get(key);
      if (!cell) {
        cell = item ? makeCell(item) : element("div", "cell empty");
        state.cells.set(key, cell);
        space.append(cell);
      }
      put(cell, place, item);
    }
    for (const [key, cell] of state.cells) {
      if (kept.has(key)) continue;
      cell.remove();
      state.cells.delete(key);
    }
    const focused = state.wantsFocus && state.cells.get(itemAt(state.focus)?.path);
    if (focused) {
      state.wantsFocus = false;
      focused.querySelector(".open").focus({ preventScroll: true });
    }
    for (const number of chunksOf(first, last)) if (number * CHUNK < state.total) load(number).catch((error) => say(error.message));
  }

  function put(cell, place, item) {
    const column = place % state.columns;
    const row = Math.floor(place / state.columns);
    cell.style.width = cell.style.height = `${state.cell}px`;
    cell.style.transform = `translate(${GAP + column * (state.cell + GAP)}px, ${GAP + row * (state.cell + GAP)}px)`;
    if (!item) return;
    cell.item = item;
    cell.place = place;
    cell.classList.toggle("beyond", state.cut !== null && place >= state.cut);
    cell.setAttribute("aria-setsize", state.total);
    cell.setAttribute("aria-posinset", place + 1);
    cell.querySelector(".rank").textContent = place + 1;
    cell.querySelector(".open").tabIndex = place === state.focus ? 0 : -1;
    showMarkOf(cell, item);
  }

  // --- one picture -------------------------------------------------------------------------------------------------

  function makeCell(item) {
    const cell = element("div", "cell");
    cell.setAttribute("role", "listitem");
    const open = element("button", "open");
    open.type = "button";
    const image = new Image();
    image.alt = "";
    image.decoding = "async";
    image.draggable = false;
    image.addEventListener("load", () => image.classList.add("there"), { once: true });
    const load = () => { image.src = pictureAddress(item.path, 320); };
    if (performance.now() - state.scrolledAt < SCROLLING_MS) setTimeout(() => cell.isConnected && load(), SCROLLING_MS); // not for those that rush past
    else load();
    open.append(image, element("span", "rank"));
    open.addEventListener("click", () => opens(cell.item, cell.place));
    const bar = element("div", "marks");
    for (const [name, sign] of [["keep", "✓"], ["reject", "✕"]]) {
      const set = element("button", name, sign);
      set.type = "button";
      set.tabIndex = -1;
      set.addEventListener("click", () => marks(cell.item, name));
      bar.append(set);
    }
    cell.append(open, bar);
    return cell;
  }

  function showMarkOf(cell, item) {
    cell.dataset.mark = item.mark ?? "";
    const said = { keep: ", kept", reject: ", rejected" }[item.mark] ?? "";
    cell.querySelector(".open").setAttribute("aria-label", `${cell.place + 1}: ${fileName(item.path)}${said}`);
    for (const set of cell.querySelectorAll(".marks button")) {
      set.setAttribute("aria-label", `${set.className === "keep" ? "Keep" : "Reject"} ${fileName(item.path)}`);
      set.setAttribute("aria-pressed", item.mark === set.className);
    }
  }

  function showMark(item) {
    const cell = state.cells.get(item.path);
    if (cell) showMarkOf(cell, (cell.item = item));
  }

  // --- keys --------------------------------------------------------------------------------------------------------

  function focusOn(place) {
    state.focus = Math.min(Math.max(place, 0), state.total - 1);
    const row = state.cell + GAP;
    const top = Math.floor(state.focus / state.columns) * row;
    if (top < scroller.scrollTop) scroller.scrollTop = top;
    else if (top + row + GAP > scroller.scrollTop + scroller.clientHeight) scroller.scrollTop = top + row + GAP - scroller.clientHeight;
    state.wantsFocus = true; // the picture may still have to be asked for
    draw();
  }

  scroller.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const cell = event.target.closest(".cell");
    if (!cell?.item) return;
    const page = Math.max(1, Math.floor(scroller.clientHeight / (state.cell + GAP))) * state.columns;
    const steps = { ArrowRight: 1, ArrowLeft: -1, ArrowDown: state.columns, ArrowUp: -state.columns, PageDown: page, PageUp: -page, Home: -state.total, End: state.total };
    if (event.key in steps) focusOn(cell.place + steps[event.key]);
    else if (event.key === " ") marks(cell.item, "keep");
    else if (event.key.toLowerCase() === "x") marks(cell.item, "reject");
    else return;
    event.preventDefault();
    event.stopPropagation();
  });

  let frame = 0;
  scroller.addEventListener("scroll", () => {
    state.scrolledAt = performance.now();
    frame ||= requestAnimationFrame(() => {
      frame = 0;
      draw();
    });
  }, { passive: true });
  new ResizeObserver(measure).observe(scroller);

  return {
    element: scroller,
    refresh,
    itemAt,
    showMark,
    setCut: (cut) => {
      if (cut === state.cut) return;
      state.cut = cut;
      draw();
    },
    focus: () => focusOn(state.focus),
    toTop: () => {
      scroller.scrollTop = 0;
      state.focus = 0;
    },
  };
}
