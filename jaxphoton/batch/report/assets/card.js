// One image.
const COLOURS = [
  "#ff4d6d", "#2ec4ff", "#ffb700", "#3ddc84", "#c77dff", "#ff7a1a", "#00e0c6", "#ff8fd8", "#b5e61d", "#8c9eff",
];
const objects = new Map();
for (const [name] of data.objects) objects.set(name, COLOURS[objects.size % COLOURS.length]);

function colour(name) {
  if (!objects.has(name)) objects.set(name, COLOURS[objects.size % COLOURS.length]);
  return objects.get(name);
}

// Numbers only, which the box scales to the picture.
function outlined(result, width, height, tip) {
  const [left, top, right, bottom] = result.boxes[0];
  const scale = `scale(${(right - left) * width} ${(bottom - top) * height})`;
  const path = {
    d: result.outline.map(([command, ...numbers]) => command + numbers.map(Number).join(" ")).join(" "),
    transform: `translate(${left * width} ${top * height}) ${scale}`,
    "data-object": result.asked,
  };
  const shape = { ...path, class: "box outline", stroke: colour(result.asked), fill: colour(result.asked) };
  return [draw("path", { ...path, class: "halo" }), draw("path", shape, tip())];
}

function overlay(entry) {
  const [width, height] = entry.thumbnail;
  const radius = Math.max(width, height) * 0.022;
  const shapes = [];
  for (const result of entry.results) {
    const tip = () => draw("title", {}, result.asked);
    if (result.outline) shapes.push(...outlined(result, width, height, tip));
    for (const [left, top, right, bottom] of result.outline ? [] : result.boxes || []) {
      const at = { x: left * width, y: top * height, width: (right - left) * width, height: (bottom - top) * height };
      const box = { ...at, class: "box", stroke: colour(result.asked), "data-object": result.asked };
      shapes.push(draw("rect", { ...at, class: "halo", "data-object": result.asked }), draw("rect", box, tip()));
    }
    for (const [x, y] of result.points || []) {
      const at = { cx: x * width, cy: y * height, r: radius, class: "point", fill: colour(result.asked) };
      shapes.push(draw("circle", { ...at, "data-object": result.asked }, tip()));
    }
  }
  return shapes.length ? draw("svg", { viewBox: `0 0 ${width} ${height}`, "aria-hidden": "true" }, shapes) : null;
}

function picture(entry) {
  if (!entry.thumbnail) {
    const why = entry.missing === entry.fault ? "No picture" : `No picture: ${entry.missing}`;
    return make("div", { class: "picture none" }, make("span", {}, why));
  }
  const [width, height] = entry.thumbnail;
  const image = make("img", {
    src: `data:image/webp;base64,${find(`thumbnail-${entry.index}`).textContent}`,
    alt: texts(entry)[0] || entry.key,
    loading: "lazy",
    decoding: "async",
    width,
    height,
    class: Math.max(width, height) < 128 ? "tiny" : null,
  });
  if (!entry.link) return make("div", { class: "picture" }, image, overlay(entry));
  const original = { href: entry.link, target: "_blank", rel: "noreferrer noopener", title: "Open the original" };
  return make("a", { class: "picture", ...original }, image, overlay(entry));
}

// Marks what was searched for.
function marked(text) {
  const wanted = words(state.query).map((word) => word.replace(/[\\^$.*+?()[\]{}|/-]/gu, "\\$&"));
  if (!wanted.length) return [text];
  const parts = text.split(new RegExp(`(${wanted.join("|")})`, "giu"));
  return parts.map((part, place) => (place % 2 ? make("mark", {}, part) : part));
}

function prose(text) {
  const shown = text.trim() ? marked(text) : [make("em", {}, "empty")];
  const node = make("p", { class: "text", dir: "auto" }, shown);
  if (text.length < 700) return node;
  node.classList.add("long");
  const toggle = make("button", { class: "quiet", onclick: () => {
    toggle.textContent = node.classList.toggle("long") ? "Show all" : "Show less";
  } }, "Show all");
  return make("div", {}, node, toggle);
}

function located(result) {
  const found = places(result);
  const noun = result.outline ? "outline" : result.boxes ? "box" : "point";
  const count = found ? `${number(found)} ${noun}${found === 1 ? "" : noun === "box" ? "es" : "s"}` : "none found";
  const dot = make("i", { class: result.boxes ? "dot square" : "dot" });
  dot.style.background = colour(result.asked);
  return make("span", { class: "located" }, dot, make("b", { dir: "auto" }, marked(result.asked)), ` ${count}`);
}

function answer(result, several) {
  const asked = result.asked || (several ? [result.task, result.length].filter(Boolean).join(", ") : "");
  return make("div", {}, asked ? make("p", { class: "asked", dir: "auto" }, marked(asked)) : null, prose(result.text));
}

const FLAGS = { "cut-off": "cut off", empty: "empty", repeated: "repeated" };

function badges(entry) {
  const odd = entry.flags.filter((flag) => flag in FLAGS);
  const flags = odd.map((flag) => make("span", { class: "badge warn" }, FLAGS[flag]));
  const failed = entry.status === "failed" ? make("span", { class: "badge bad" }, entry.reason || "failed") : null;
  const noted = entry.notes.map((note) => make("span", { class: "badge" }, marked(note)));
  return failed || flags.length || noted.length ? make("p", { class: "badges" }, failed, flags, noted) : null;
}

function copied(entry) {
  const found = texts(entry);
  if (found.length) return found.join("\n\n");
  if (entry.status === "failed") return `${entry.key}: ${entry.fault}`;
  return JSON.stringify(entry.results.map(({ asked, boxes, points, outline }) => ({ object: asked, boxes, points, outline })));
}

async function copy(text) {
  try {
    await navigator.clipboard.writeText(text);
  } catch {
    // Refused in some browsers for pages opened from disk.
    const area = make("textarea", { class: "offscreen" });
    area.value = text;
    document.body.append(area);
    area.select();
    document.execCommand("copy");
    area.remove();
  }
}

function copyButton(entry) {
  const button = make("button", { class: "quiet copy", title: "Copy (c)", onclick: async () => {
    await copy(copied(entry));
    button.textContent = "Copied";
    setTimeout(() => (button.textContent = "Copy"), 1200);
  } }, "Copy");
  return button;
}

function facts(entry) {
  const list = [];
  if (entry.words) list.push(plural(entry.words, "word"));
  if (entry.tokens) list.push(plural(entry.tokens, "token"));
  if (entry.status === "ok") list.push(entry.finish);
  if (entry.size[0]) list.push(`${entry.size[0]}×${entry.size[1]}`);
  if (entry.ms) list.push(duration(entry.ms / 1000));
  return list.map((fact) => fact.replaceAll(" ", "\u00a0")).join(" · ");
}

function card(entry) {
  const answers = entry.results.filter((result) => result.text !== null);
  const bodies = answers.map((result) => answer(result, answers.length > 1));
  const found = entry.results.filter((result) => result.boxes || result.points);
  if (found.length) bodies.push(make("p", { class: "found" }, found.map(located)));
  if (entry.status === "failed") bodies.push(make("p", { class: "fault", dir: "auto" }, marked(entry.fault)));
  const body = entry.old
    ? make("div", { class: "pair" },
        make("div", { class: "now" }, make("h4", {}, "New"), bodies),
        make("div", { class: "before" }, make("h4", {}, "Old"), prose(entry.old)))
    : make("div", { class: "bodies" }, bodies);
  const attributes = { class: `card ${entry.status}`, tabindex: 0, "data-key": entry.key, "aria-label": entry.key };
  return make("article", attributes,
    picture(entry),
    make("div", { class: "content" },
      make("h3", { title: entry.path || entry.key }, make("bdi", {}, marked(entry.key))),
      badges(entry), body,
      make("p", { class: "facts" }, make("span", {}, facts(entry)), copyButton(entry))));
}
