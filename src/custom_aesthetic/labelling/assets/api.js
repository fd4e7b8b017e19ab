// Talks to the server. Answers wait in a queue in sessionStorage until the server has them on the disk, so neither a
// reload nor a killed server loses any; while they cannot be sent, the page says so.

import { wait } from "./dom.js";
import { say } from "./message.js";

const RETRY_MS = 1000;
const NO_ANSWER = "The server does not answer; start the script again to continue.";
const NEW_KEY = "The script was started again: open its new address or QR code in this browser, and this page goes on.";
const token = document.querySelector('meta[name="token"]').content;
const listeners = [];
let reloading = false;
let sending = null;

export function stored(name, make) {
  const text = sessionStorage.getItem(name);
  const value = text === null ? make() : JSON.parse(text);
  store(name, value);
  return value;
}

export function store(name, value) {
  sessionStorage.setItem(name, JSON.stringify(value));
}

// crypto.randomUUID is missing where the page comes from another machine without encryption.
const randomName = () => Array.from(crypto.getRandomValues(new Uint32Array(4)), (part) => part.toString(36)).join("-");

// Not stored: a duplicated tab starts with a copy of the storage, and closing it would end the window it came from.
export const windowName = randomName();
const unsent = stored("unsent", () => []); // [{ name, body }] in order

const ALIVE_MS = 20000;

// Tells the server that this window is open, and, when it is closed, that it has gone.
export function keepAlive() {
  const tell = () => ask("alive", { hidden: document.hidden }).catch(() => {});
  const timer = setInterval(tell, ALIVE_MS);
  document.addEventListener("visibilitychange", tell);
  window.addEventListener("pageshow", (event) => event.persisted && ask("open"));
  window.addEventListener("pagehide", sayGoodbye);
  return () => {
    clearInterval(timer);
    document.removeEventListener("visibilitychange", tell);
    window.removeEventListener("pagehide", sayGoodbye);
  };
}

function sayGoodbye() {
  const body = JSON.stringify({ window: windowName, token });
  navigator.sendBeacon("/closed", new Blob([body], { type: "application/json" }));
}

// Calls `listener` with the progress that comes with most answers of the server.
export function onProgress(listener) {
  listeners.push(listener);
}

// POST /api/NAME; throws an Error, with the `status` of a refusal and whether the page lacks the key to the server.
export async function ask(name, body = {}) {
  const answer = await fetch(`/api/${name}`, {
    method: "POST",
    headers: { "Content-Type": "application/json", "X-Token": token },
    body: JSON.stringify({ window: windowName, ...body }),
  }).catch(() => { throw new Error(NO_ANSWER); });
  const content = await answer.json().catch(() => ({}));
  if (!answer.ok) {
    const reason = content.error || `The server could not do that (${answer.status}); its terminal says why.`;
    throw Object.assign(new Error(reason), { status: answer.status, lacksKey: content.needs === "key" });
  }
  if (content.progress) for (const listener of listeners) listener(content.progress);
  return content;
}

const sentence = (text) => (text.endsWith(".") ? text : `${text}.`);

// Repeats the request until the server answers. A restarted server has a new token: the page is then reloaded.
export async function askUntilAnswered(name, body = {}) {
  for (let failed = false; ; failed = true) {
    try {
      const content = await ask(name, body);
      if (failed) say("");
      return content;
    } catch (error) {
      if (error.status === 400) throw error;
      if (error.status === 403 && !error.lacksKey) {
        if (!reloading) location.reload();
        reloading = true; // a second call of reload would cancel the first
        await new Promise(() => {});
      }
      say(`${error.lacksKey ? NEW_KEY : sentence(error.message)}${kept()}`);
      await wait(RETRY_MS);
    }
  }
}

function kept() {
  const count = unsent.filter((one) => one.name !== "undo" && one.name !== "skip").length;
  return count ? ` This page keeps ${count} unsaved answer${count > 1 ? "s" : ""} until then.` : "";
}

// Sends a request after all earlier ones; it survives a reload and a restart of the server. Resolves with the answer,
// or with nothing where the request was refused.
export function send(name, body) {
  return new Promise((done) => {
    unsent.push({ name, body, done }); // what is stored is without the function
    store("unsent", unsent);
    sendUnsent();
  });
}

// Resolves when everything has been sent.
export function sendUnsent() {
  if (unsent.length) sending ??= sendAll();
  return sending ?? Promise.resolve();
}

async function sendAll() {
  while (unsent.length) {
    const { name, body, done } = unsent[0];
    let content;
    try {
      content = await askUntilAnswered(name, body);
    } catch (error) {
      say(error.message);
    }
    unsent.shift();
    store("unsent", unsent);
    done?.(content);
  }
  sending = null;
}
