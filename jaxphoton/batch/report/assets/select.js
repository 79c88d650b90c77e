// Which images are shown, and in what order.
const data = JSON.parse(find("data").textContent);
const state = { filter: "all", detail: null, query: "", sort: "run", boxes: true, list: false, hidden: new Set() };

const flagged = (flag) => (entry) => entry.flags.includes(flag);
const FILTERS = {
  all: ["All", () => true],
  failed: ["Failed", (entry) => entry.status === "failed"],
  "cut-off": ["Cut off", flagged("cut-off")],
  repeated: ["Repeated", flagged("repeated")],
  empty: ["Empty", flagged("empty")],
  longest: ["Longest", flagged("longest")],
  shortest: ["Shortest", flagged("shortest")],
  notes: ["Has notes", (entry) => entry.notes.length > 0],
};

// What a row of the overview selects.
const DETAILS = {
  reason: (entry, value) => entry.status === "failed" && entry.reason === value,
  note: (entry, value) => entry.kinds.includes(value),
  opening: (entry, value) => entry.results.some((result) => result.opening === value),
  object: (entry, value) => entry.results.some((result) => result.asked === value && places(result) > 0),
};

const names = new Intl.Collator(undefined, { numeric: true });
const SORTS = {
  run: ["In run order", (a, b) => a.index - b.index],
  name: ["By name", (a, b) => names.compare(a.key, b.key)],
  longest: ["Longest text first", (a, b) => b.words - a.words],
  shortest: ["Shortest text first", (a, b) => a.words - b.words],
  tokens: ["Most tokens first", (a, b) => b.tokens - a.tokens],
  slowest: ["Slowest first", (a, b) => b.ms - a.ms],
};
const OF_TEXTS = new Set(["longest", "shortest"]);

const places = (result) => (result.boxes || []).length + (result.points || []).length;
const texts = (entry) => entry.results.map((result) => result.text).filter((text) => text !== null);
const folded = (text) => text.normalize("NFKC").toLowerCase();
const words = (query) => folded(query).split(/\s+/u).filter(Boolean);

data.entries.forEach((entry, index) => {
  entry.index = index;
  entry.words = texts(entry).reduce((sum, text) => sum + text.split(/\s+/u).filter(Boolean).length, 0);
  const asked = entry.results.map((result) => result.asked);
  const parts = [entry.key, ...texts(entry), ...asked, entry.reason, entry.fault, ...entry.notes, entry.old];
  entry.haystack = folded(parts.join("\n"));
});

function selected() {
  const wanted = words(state.query);
  const list = data.entries.filter(
    (entry) =>
      FILTERS[state.filter][1](entry) &&
      (!state.detail || DETAILS[state.detail.kind](entry, state.detail.value)) &&
      wanted.every((word) => entry.haystack.includes(word)),
  );
  const sort = OF_TEXTS.has(state.filter) && state.sort === "run" ? state.filter : state.sort;
  // Without a text there is no length: such images come last, whichever way the lengths run.
  const order = (a, b) => (OF_TEXTS.has(sort) ? !texts(a).length - !texts(b).length : 0);
  return list.sort((a, b) => order(a, b) || SORTS[sort][1](a, b) || a.index - b.index);
}
