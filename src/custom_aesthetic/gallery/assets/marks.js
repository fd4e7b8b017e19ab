// Marks of pictures, which are answers: keep, reject, or none. A mark takes the place of an earlier one.

import { forget, remember, timeNow } from "./answers.js";
import { ask } from "./api.js";

export async function setMark(path, mark) {
  const time = timeNow();
  await ask("mark", { picture: path, mark, time });
  forget(({ kind, pictures }) => ["keep", "reject"].includes(kind) && pictures[0] === path);
  if (mark) remember({ time, kind: mark, pictures: [path], drawn: "gallery" });
}
