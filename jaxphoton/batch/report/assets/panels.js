// What the whole run comes to.
const cents = (value) => value.toLocaleString("en", { minimumFractionDigits: 2, maximumFractionDigits: 2 });
const LABELS = {
  images_per_s: ["Images per second", number],
  tokens_per_s: ["Tokens per second", number],
  seconds: ["Time", duration],
  compiling: ["Making programs ready, before that", duration],
  cost_per_million: ["Cost per million images", (value) => `$${cents(value)}`],
};

function header() {
  const when = new Date(data.created);
  const style = { dateStyle: "medium", timeStyle: "short" };
  const date = Number.isNaN(when.valueOf()) ? data.created : when.toLocaleString(undefined, style);
  const settings = [...data.settings, ["model digest", data.model], ["jaxphoton", data.version]];
  const task = data.settings.find(([name]) => /^tasks?$/u.test(name));
  find("top").append(
    make("h1", {}, "jaxphoton ", make("span", {}, task ? String(task[1]).replace(/["[\]]/gu, "") : "report")),
    make("p", { class: "when" }, `Run started ${date}`),
    make("details", { class: "settings" }, make("summary", {}, "Settings"),
      make("dl", {}, settings.map(([name, value]) => [
        make("dt", {}, make("bdi", {}, name)),
        make("dd", {}, make("bdi", {}, String(value)))]))),
  );
}

const figure = (label, value, note, kind) =>
  make("div", { class: `figure ${kind || ""}` },
    make("dt", {}, label), make("dd", {}, value, note ? make("small", {}, note) : null));

function figures() {
  const done = data.images - data.failed;
  const list = [
    figure("Images", number(data.images)),
    figure("Done", number(done), percent(done, data.images)),
    figure("Failed", number(data.failed), data.failed ? percent(data.failed, data.images) : "", data.failed ? "bad" : ""),
    figure("Tokens", number(data.tokens), done ? `${number(data.tokens / done)} an image` : ""),
  ];
  for (const [flag, count] of Object.entries(data.flags)) {
    list.push(figure(FILTERS[flag][0], number(count), percent(count, data.images)));
  }
  const [again, mended] = data.again;
  if (again) list.push(figure("Asked again", number(again), `${number(mended)} mended`));
  for (const [name, value] of data.summary) {
    const [label, unit] = LABELS[name] || [name.replaceAll("_", " ").replaceAll(".", ": "), number];
    list.push(figure(label, typeof value === "number" ? unit(value) : value));
  }
  return make("dl", { class: "figures" }, list);
}

const panel = (title, note, ...children) =>
  make("section", { class: "panel" },
    make("h2", {}, title, note ? make("small", {}, ` ${note}`) : null), children);

// Rows with a bar; each selects the images it counts.
function ranking(kind, rows, whole, label) {
  const most = Math.max(...rows.map(([, count]) => count));
  return make("ul", { class: "ranking" }, rows.map(([name, count]) => {
    const bar = make("i", { class: `bar-fill ${kind}` });
    bar.style.width = `${(100 * count) / most}%`;
    const value = `${number(count)}${whole ? ` · ${percent(count, whole)}` : ""}`;
    const attributes = { "data-kind": kind, "data-value": name, onclick: () => choose(kind, name) };
    return make("li", {}, make("button", attributes,
      bar, make("bdi", { class: "name" }, label ? label(name) : name), make("span", { class: "value" }, value)));
  }));
}

function histogram() {
  const { width, bins, texts, quantiles } = data.lengths;
  const most = Math.max(...bins);
  const step = 300 / bins.length;
  const range = (n) => `${n * width}${n === bins.length - 1 ? " or more" : width > 1 ? ` to ${(n + 1) * width - 1}` : ""}`;
  const bars = bins.map((count, n) => {
    const height = count ? Math.max(1.5, (96 * count) / most) : 0;
    return draw("g", {}, draw("title", {}, `${range(n)} words: ${number(count)} (${percent(count, texts)})`),
      draw("rect", { x: n * step, y: 0, width: step, height: 100, class: "hover" }),
      draw("rect", { x: n * step + 0.1 * step, y: 100 - height, width: 0.8 * step, height, rx: 1.5 }));
  });
  const ticks = [0, Math.floor(bins.length / 2), bins.length - 1].filter((n, place, all) => all.indexOf(n) === place);
  const labels = ticks.map((n) => {
    const anchor = ticks.length === 1 ? "middle" : { 0: "start", [bins.length - 1]: "end" }[n] || "middle";
    const label = range(n).replace(" to ", "–").replace(" or more", "+");
    return draw("text", { x: (n + 0.5) * step, y: 114, "text-anchor": anchor }, label);
  });
  const [low, middle, high] = quantiles;
  return panel("Length of texts", "words",
    draw("svg", { class: "histogram", viewBox: "0 0 300 118", role: "img", "aria-label": `Median ${middle} words` },
      bars, draw("line", { x1: 0, x2: 300, y1: 100.5, y2: 100.5 }), labels),
    make("p", { class: "hint" }, `Median ${middle}; nine in ten from ${low} to ${high}.`));
}

function shares(title, note, rows, value) {
  const whole = rows.reduce((sum, [, part]) => sum + part, 0);
  const swatch = (place) => COLOURS[place % COLOURS.length];
  const bar = make("div", { class: "stack", "aria-hidden": "true" }, rows.map(([name, part], place) => {
    const piece = make("i", { title: name });
    piece.style.width = `${(100 * part) / whole}%`;
    piece.style.background = swatch(place);
    return piece;
  }));
  return panel(title, note, bar, make("ul", { class: "shares" }, rows.map(([name, part], place) => {
    const dot = make("i", { class: "dot square" });
    dot.style.background = swatch(place);
    return make("li", {}, dot, make("bdi", {}, name), make("span", { class: "value" }, value(part)));
  })));
}

function panels() {
  const list = [];
  if (data.reasons.length) {
    list.push(panel("Failures", plural(data.failed, "image"), ranking("reason", data.reasons, data.failed)));
  }
  if (data.lengths.texts) {
    list.push(histogram());
    const rows = data.openings.filter(([name, count]) => name && count > 1);
    const begin = (name) => `${name} …`;
    if (rows.length) list.push(panel("How texts begin", "", ranking("opening", rows, data.lengths.texts, begin)));
  }
  if (data.objects.length) list.push(panel("Boxes, points, outlines", "", ranking("object", data.objects, 0)));
  if (data.notes.length) {
    list.push(panel("Notes", "what was done to pictures", ranking("note", data.notes, data.images)));
  }
  if (data.stages.length) list.push(shares("Time by stage", "", data.stages, (part) => percent(part, 1)));
  else if (data.ms.length) list.push(shares("Time by stage", "mean of an image", data.ms, (ms) => duration(ms / 1000)));
  return make("div", { class: "panels" }, list);
}

function overview() {
  header();
  const lines = plural(data.damage, "line");
  const damage = data.damage ? `${lines} of the journal cannot be read; their images are not counted.` : "";
  for (const text of [data.notice, damage]) if (text) find("overview").append(make("p", { class: "notice" }, text));
  find("overview").append(figures(), panels());
}
