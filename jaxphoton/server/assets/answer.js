// One answer: what was asked, what came back, how long it took.
import { count, duration, make } from "./element.js";

const NAMES = { caption: "Caption", query: "Question", detect: "Detect", point: "Point", segment: "Segment" };
const STATES = {
  running: "Answering",
  done: "Done",
  stopped: "Stopped",
  failed: "Failed",
};

export const isText = ({ skill }) => skill === "caption" || skill === "query";
const places = (result) => result.objects ?? result.points;
const decimals = (value) => (Number.isFinite(value) ? value.toFixed(3) : "no number");
const corners = (place) => ("x" in place ? [place.x, place.y] : [place.x_min, place.y_min, place.x_max, place.y_max]);
const written = (place) => corners(place).map(decimals).join(", ");

export const titleOf = ({ skill, asked }) => `${NAMES[skill]}: ${asked}`;

// An answer in one line, for the list of asks and for those who listen.
export function summary({ skill, result, text, state, fault }) {
  if (fault) return fault;
  if (places(result)) return places(result).length ? `${places(result).length} found` : "Nothing found";
  if (skill === "segment" && state === "done") return result.path ? "Outlined" : `No outline: ${result.parse_error}`;
  return text || (state === "done" ? "An empty answer" : STATES[state]);
}

// Shows an answer; `point(number)` is told which of its places is looked at, 0 for none.
export function show(section, answer, point) {
  const { skill, asked, result, state } = answer;
  const finished = state !== "running";
  section.dataset.state = state;
  section.setAttribute("aria-busy", String(!finished));
  section.replaceChildren(
    make("header", {}, make("h2", {}, make("span", {}, NAMES[skill]), ` ${asked}`)),
    ...thought(answer),
    make("p", { class: "text" }, body(answer)),
    ...(places(result)?.length ? [listed(places(result), point)] : []),
    ...(finished ? [facts(answer)] : []),
    ...(finished && hasResult(answer) ? [copies(answer)] : []),
  );
}

// Shows that the text of the answer shown has grown.
export function grow(section, answer) {
  section.querySelector(".text").textContent = body(answer);
}

function body(answer) {
  if (isText(answer)) return answer.text || (answer.state === "done" ? summary(answer) : "");
  if (answer.state === "running") return answer.result.bbox ? "Outlining" : "Looking";
  return answer.fault ? "" : summary(answer);
}

export const hasResult = ({ result, text }) => Boolean(text || places(result) || result.bbox || result.reasoning);

// Stays open as its reader left it, also where the answer is shown again.
function thought(answer) {
  const text = answer.result.reasoning?.text;
  if (!text) return [];
  const ontoggle = (event) => (answer.unfolded = event.target.open);
  const parts = [make("summary", {}, "Reasoning"), make("p", {}, text)];
  return [make("details", { class: "thought", open: answer.unfolded, ontoggle }, ...parts)];
}

// One stop of the Tab key, however many there are; the arrow keys go through them.
function listed(found, point) {
  const entry = (place, index) =>
    make(
      "li",
      {},
      make(
        "button",
        {
          type: "button",
          tabindex: index ? "-1" : "0",
          onmouseenter: () => point(index + 1),
          onmouseleave: () => point(0),
          onfocus: () => point(index + 1),
          onblur: () => point(0),
        },
        make("b", {}, String(index + 1)),
        make("span", {}, written(place)),
      ),
    );
  return make("ol", { class: "places", onkeydown: step }, found.map(entry));
}

function step(event) {
  const way = { ArrowDown: "nextElementSibling", ArrowUp: "previousElementSibling" }[event.key];
  if (!way) return;
  event.preventDefault();
  event.target.closest("li")[way]?.firstChild.focus();
}

function facts(answer) {
  const { state, first, total, result } = answer;
  const metrics = result.metrics ?? {};
  const rate = metrics.decode_time_ms > 0 ? (1000 * (metrics.output_tokens - 1)) / metrics.decode_time_ms : 0;
  const shown = [
    state === "stopped" && ["Stopped", "by you"],
    isText(answer) && first !== null && ["First text", duration(first)],
    total !== null && ["Total", duration(total)],
    metrics.output_tokens && ["Tokens", count(metrics.output_tokens)],
    isText(answer) && rate >= 1 && ["Rate", `${count(rate)}/s`],
    result.finish_reason === "length" && ["Cut", "the most tokens were reached"],
  ];
  return make(
    "dl",
    { class: "facts" },
    shown.filter(Boolean).map(([name, value]) => make("div", {}, make("dt", {}, name), make("dd", {}, value))),
  );
}

function copies(answer) {
  const { completed, ...result } = answer.result;
  const lines = places(result)?.map(written).join("\n");
  const text = answer.text || lines || result.path || summary(answer);
  return make(
    "div",
    { class: "copies" },
    copy("Copy text", text),
    copy("Copy JSON", JSON.stringify(result, null, 2)),
  );
}

function copy(label, text) {
  const button = make("button", { type: "button", class: "quiet" }, label);
  button.addEventListener("click", async () => {
    button.textContent = (await copied(text)) ? "Copied" : "Not allowed here";
    setTimeout(() => (button.textContent = label), 1500);
  });
  return button;
}

// Addresses other than this machine's, without TLS, have no clipboard in a browser.
async function copied(text) {
  if (navigator.clipboard) return navigator.clipboard.writeText(text).then(() => true, () => false);
  const area = make("textarea", { class: "heard", readonly: true });
  area.value = text;
  document.body.append(area);
  area.select();
  const done = document.execCommand("copy");
  area.remove();
  return done;
}
