// The page: a picture, one ask at a time, its answer, and the asks before it.
import * as answers from "./answer.js";
import { events, Fault, health, key, model } from "./asking.js";
import { find } from "./element.js";
import * as form from "./form.js";
import { History } from "./history.js";
import { highlight, marksOf, show as mark } from "./marks.js";
import * as pictures from "./picture.js";

const LIMIT = Number(document.querySelector('meta[name="jaxphoton-max-body"]').content);
const PATIENCE = 2000; // milliseconds between two looks at a server that starts
const STREAMED = ["caption", "query", "segment"];
const STILL = matchMedia("(prefers-reduced-motion: reduce)");
const NARROW = matchMedia("(max-width: 900px)");
const history = new History(find("history"), restore);
let picture = null;
let shown = null; // the answer on the page
let running = null; // {answer, controller}
let retry = null; // what a key was missing for
let choices = 0; // pictures chosen so far

// ---- the picture

async function choose(file) {
  if (!file) return;
  const focused = document.activeElement === find("choose");
  const mine = ++choices;
  const opened = await pictures.open(file);
  if (mine !== choices) return URL.revokeObjectURL(opened.url);
  stop();
  display(opened);
  fail("");
  shown = null;
  find("answer").hidden = true;
  history.show(null);
  if (focused) find("change").focus();
}

function display(next) {
  const before = picture;
  picture = next;
  if (before && before !== next) before.address = undefined; // which may be long
  forget(before);
  mark(find("marks"), marksOf({}));
  find("stage").classList.toggle("filled", Boolean(next));
  find("choose").hidden = Boolean(next);
  find("about").hidden = !next;
  find("frame").hidden = !next?.shown;
  find("unseen").hidden = !next || next.shown;
  note();
  if (!next) return;
  find("name").textContent = next.name;
  const size = pictures.bytes(next.file.size);
  find("size").textContent = next.shown ? `${next.width} × ${next.height}, ${size}` : size;
  find("unseen").textContent = "This browser cannot show the picture. The model may still be able to read it.";
  if (!next.shown) return find("picture").removeAttribute("src");
  find("frame").style.setProperty("--ratio", String(next.width / next.height));
  find("picture").src = next.url;
  find("picture").alt = `The picture ${next.name}`;
}

// Lets a picture go that is on the page no more.
function forget(old) {
  if (old && old !== picture && !history.holds(old)) URL.revokeObjectURL(old.url);
}

function note() {
  find("scaled").textContent = picture?.note ?? "";
  find("scaled").hidden = !picture?.note;
}

// ---- asking

async function ask() {
  const { missing, focus, arguments: given, asked } = form.filled(picture);
  fail(missing ?? "");
  if (missing) return focus.focus();
  stop();
  const answer = { skill: form.skill(), asked, picture, given, text: "", result: {}, state: "running" };
  Object.assign(answer, { began: performance.now(), first: null, total: null, fault: "" });
  const controller = new AbortController();
  running = { answer, controller };
  forget(history.add(answer)?.picture);
  look(answer);
  busy();
  reveal(answer);
  try {
    await hear(answer, controller.signal);
    answer.state = "done";
  } catch (error) {
    ended(answer, error);
  }
  answer.total = performance.now() - answer.began;
  if (running?.answer === answer) running = null;
  busy();
  if (shown === answer) look(answer);
  else history.show(shown);
  if (!running) find("status").textContent = `${answers.titleOf(answer)}. ${answers.summary(answer)}`;
}

// On a narrow screen the picture or the answer is out of sight.
function reveal(answer) {
  const behavior = STILL.matches ? "auto" : "smooth";
  if (!NARROW.matches) return;
  if (answers.isText(answer)) find("answer").scrollIntoView({ block: "center", behavior });
  else find("stage").scrollIntoView({ block: "nearest", behavior });
}

function ended(answer, error) {
  if (error.name === "AbortError") {
    answer.state = "stopped";
    return;
  }
  if (!(error instanceof Fault)) console.error(error);
  answer.state = "failed";
  answer.fault = error instanceof Fault ? error.message : `This page failed: ${error.message}`;
  if (error.status === 401) unlock(ask, error.message);
}

async function hear(answer, signal) {
  const body = { ...answer.given, stream: STREAMED.includes(answer.skill) };
  if (answer.picture) {
    body.image_url = await pictures.address(answer.picture, LIMIT);
    if (answer.picture === picture) note();
  }
  for await (const event of events(answer.skill, body, signal)) take(answer, event);
}

function take(answer, event) {
  const { chunk, type, ...rest } = event;
  if (chunk && answer.first === null) answer.first = performance.now() - answer.began;
  Object.assign(answer.result, rest);
  if (answer.skill === "segment") answer.result.path = event.path ?? (answer.result.path ?? "") + (chunk ?? "");
  else if (chunk) answer.text += chunk;
  const name = { caption: "caption", query: "answer" }[answer.skill];
  if (name) answer.result[name] = answer.text;
  if (shown !== answer) return;
  if (chunk && answers.isText(answer)) answers.grow(find("answer"), answer);
  else answers.show(find("answer"), answer, pointAt);
  if (answer.skill === "segment" || rest.reasoning) mark(find("marks"), marksOf(answer.result));
}

function stop() {
  running?.controller.abort();
  running = null;
  busy();
}

function busy() {
  if (!running && document.activeElement === find("stop")) find("go").focus();
  find("stop").hidden = !running;
  if (running) find("status").textContent = "Answering";
}

// ---- what is shown

const pointAt = (number) => highlight(find("marks"), number);

// Shows an answer with its picture.
function look(answer) {
  shown = answer;
  if (answer.picture !== picture) display(answer.picture);
  mark(find("marks"), marksOf(answer.result));
  find("answer").hidden = Boolean(answer.fault) && !answers.hasResult(answer);
  answers.show(find("answer"), answer, pointAt);
  fail(answer.fault);
  history.show(answer);
}

// Shows an earlier answer, and its ask in the form.
function restore(answer) {
  form.refill(answer);
  look(answer);
}

function fail(message) {
  find("fault").textContent = message;
  find("fault").hidden = !message;
}

// ---- the model

async function greet() {
  try {
    const { ready, status, reason, model: name } = await health();
    find("model").textContent = ready ? name : [name, status, reason].filter(Boolean).join(", ");
    document.title = `${name}, jaxphoton`;
    if (!ready) setTimeout(greet, PATIENCE);
    const { skills, reasoning } = await model();
    form.offer(skills, reasoning);
  } catch (error) {
    if (error.status === 401) unlock(greet, key.get() ? error.message : "");
    else fail(error.message);
  }
}

// Asks for a key, then does again what was refused without one.
function unlock(again, message = "") {
  retry = again;
  fail(message);
  find("key").hidden = false;
  find("secret").focus();
}

find("key").addEventListener("submit", (event) => {
  event.preventDefault();
  if (!/^[!-~]+$/.test(find("secret").value)) return fail("A key has letters, digits and signs, and no blanks.");
  key.set(find("secret").value);
  find("secret").value = "";
  find("key").hidden = true;
  fail("");
  if (retry !== greet) greet();
  retry?.();
});

// ---- hands

find("ask").addEventListener("submit", (event) => {
  event.preventDefault();
  ask();
});
find("stop").addEventListener("click", stop);
find("choose").addEventListener("click", () => find("file").click());
find("change").addEventListener("click", () => find("file").click());
find("file").addEventListener("change", () => {
  choose(find("file").files[0]);
  find("file").value = "";
});
document.addEventListener("keydown", (event) => event.key === "Escape" && stop());
document.addEventListener("paste", (event) => {
  if (!event.clipboardData.files.length) return;
  event.preventDefault();
  choose(event.clipboardData.files[0]);
});
const dragged = (event, over) => {
  event.preventDefault();
  find("stage").classList.toggle("over", over);
};
document.addEventListener("dragover", (event) => dragged(event, true));
document.addEventListener("dragleave", (event) => dragged(event, Boolean(event.relatedTarget)));
document.addEventListener("drop", (event) => {
  dragged(event, false);
  choose(event.dataTransfer.files[0]);
});

greet();
