// Ties the parts together: what is chosen decides what is shown.
const PAGE = 48;
let list = [];
let rendered = 0;

function grow() {
  const next = list.slice(rendered, rendered + PAGE);
  rendered += next.length;
  find("cards").append(...next.map(card));
  find("more").hidden = rendered >= list.length;
}

// Cards are made as they come near; a page that is still short grows again, as its end stays in view.
const watcher = new IntersectionObserver((seen) => {
  if (!seen.some((each) => each.isIntersecting) || rendered >= list.length) return;
  grow();
  watcher.unobserve(find("more"));
  watcher.observe(find("more"));
}, { rootMargin: "1200px" });

function render() {
  list = selected();
  rendered = 0;
  find("cards").replaceChildren();
  grow();
  const shown = data.entries.length;
  const sample = shown < data.images ? ` on this page, of ${number(data.images)} in the run` : "";
  const part = list.length === shown ? "" : `${number(list.length)} of `;
  find("count").textContent = `${part}${plural(shown, "image")}${sample}`;
  const nothing = shown ? "No image fits. Press Esc to see all." : "No image is done yet.";
  if (!list.length) find("cards").append(make("p", { class: "nothing" }, nothing));
  showChoice();
}

const press = (button, on) => button.setAttribute("aria-pressed", String(on));

function showChoice() {
  const { kind, value } = state.detail || {};
  for (const button of find("filters").children) press(button, button.dataset.filter === state.filter);
  for (const row of document.querySelectorAll(".ranking button")) {
    press(row, row.dataset.kind === kind && row.dataset.value === value);
  }
  find("detail").replaceChildren();
  if (!kind) return;
  const attributes = { class: "chip on", title: "Remove", onclick: () => choose(null) };
  find("detail").append(make("button", attributes, make("bdi", {}, `${kind}: ${value}`), " ×"));
}

function reveal() {
  if (find("results").getBoundingClientRect().top < 0) find("results").scrollIntoView();
}

function filter(name) {
  Object.assign(state, { filter: name, detail: null });
  render();
  reveal();
}

function choose(kind, value) {
  state.detail = kind ? { kind, value } : null;
  state.filter = kind ? "all" : state.filter;
  render();
  if (kind) find("results").scrollIntoView();
}

function reset() {
  Object.assign(state, { filter: "all", detail: null, query: "", sort: "run" });
  find("search").value = "";
  find("sort").value = "run";
  render();
}

function arrange(on) {
  state.list = on;
  find("cards").className = on ? "list" : "grid";
  press(find("view"), on);
}

function showBoxes(on) {
  state.boxes = on;
  document.body.classList.toggle("bare", !on);
  if (find("boxes")) press(find("boxes"), on);
}

// Shapes of objects that are switched off are hidden by a style sheet, in cards still to be made too.
const sheet = new CSSStyleSheet();
document.adoptedStyleSheets = [sheet];

function toggleObject(name, button) {
  if (!state.hidden.delete(name)) state.hidden.add(name);
  press(button, !state.hidden.has(name));
  const rules = [...state.hidden].map((each) => `.picture [data-object="${CSS.escape(each)}"]{display:none}`);
  sheet.replaceSync(rules.join("\n"));
}

function toolbar() {
  for (const [name, [label, fits]] of Object.entries(FILTERS)) {
    const count = data.entries.filter(fits).length;
    if (!count && name !== "all" && name !== "failed") continue;
    const attributes = { class: "chip", "data-filter": name, onclick: () => filter(name) };
    find("filters").append(make("button", attributes, label, make("small", {}, ` ${number(count)}`)));
  }
  find("sort").append(...Object.entries(SORTS).map(([name, [label]]) => make("option", { value: name }, label)));
  find("sort").addEventListener("change", (event) => { state.sort = event.target.value; render(); });
  find("search").addEventListener("input", (event) => { state.query = event.target.value; render(); });
  find("view").addEventListener("click", () => arrange(!state.list));
  if (data.objects.length) legend();
}

function legend() {
  const chip = { class: "chip", "aria-pressed": "true", title: "Show or hide" };
  const all = { ...chip, id: "boxes", onclick: () => showBoxes(!state.boxes) };
  find("legend").append(make("button", all, "Shapes"));
  for (const [name] of data.objects) {
    const dot = make("i", { class: "dot" });
    dot.style.background = colour(name);
    const toggle = (event) => toggleObject(name, event.currentTarget);
    find("legend").append(make("button", { ...chip, onclick: toggle }, dot, make("bdi", {}, name || "object")));
  }
}

function step(by) {
  const cards = [...document.querySelectorAll(".card")];
  const at = cards.indexOf(document.activeElement.closest(".card"));
  const next = cards[Math.min(cards.length - 1, Math.max(0, at + by))];
  if (!next) return;
  next.focus({ preventScroll: true });
  next.scrollIntoView({ block: "nearest" });
}

const KEYS = {
  "/": () => find("search").focus(),
  j: () => step(1),
  k: () => step(-1),
  b: () => showBoxes(!state.boxes),
  v: () => arrange(!state.list),
  c: () => document.activeElement.closest(".card")?.querySelector(".copy").click(),
  Escape: reset,
};

document.addEventListener("keydown", (event) => {
  const typing = /^(INPUT|SELECT|TEXTAREA)$/u.test(event.target.tagName);
  if (event.ctrlKey || event.metaKey || event.altKey || (typing && event.key !== "Escape")) return;
  const action = KEYS[event.key];
  if (!action) return;
  event.preventDefault();
  if (typing) event.target.blur();
  action();
});

overview();
toolbar();
arrange(data.entries.some((entry) => entry.old));
render();
watcher.observe(find("more"));
document.documentElement.dataset.ready = "";
