// The page: plain modules, one concern each, no build step.
//
//   dom.js, message.js   small helpers; the message at the bottom
//   api.js               requests, and the queue of what is not sent yet
//   answers.js           answers of every kind, and undo
//   views.js, keys.js    the views and their navigation; the keys and the dialog that shows them
//   progress.js          the line at the top
//   score.js             the view Score: loads groups, sends answers; its modes are pair.js, stars.js, pick.js
//   frames.js, zoom.js   a picture with its label, name and size; 100 %
//   summary.js           the page at the end
//
// To add a view: a module that calls `addView` (views.js) and `addKeys` (keys.js), imported here. What it asks of the
// server is a route (labelling/web.py); an answer of the user goes through `answer` (answers.js), so that it is kept,
// sent again and undone like all others.

import { pairMode } from "./pair.js";
import { pickMode } from "./pick.js";
import "./progress.js";
import { startScoring } from "./score.js";
import { starsMode } from "./stars.js";
import { showView } from "./views.js";

showView("score");
startScoring({ pair: pairMode, stars: starsMode, pick: pickMode });
