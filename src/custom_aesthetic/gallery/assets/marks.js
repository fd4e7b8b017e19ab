// Marks of pictures, which are answers: keep, reject, or none.

import { ask } from "./api.js";

export const setMark = (path, mark) => ask("mark", { picture: path, mark });
