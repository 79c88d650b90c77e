// What is asked: the skills, and the fields of each.
import { find } from "./element.js";

const OBJECT_LABELS = { detect: "What to find", point: "What to point at", segment: "What to outline" };
const ask = find("ask");

export const skill = () => ask.elements.skill.value;

// What the form asks, or what is missing: {arguments, asked} or {missing, focus}.
export function filled(picture) {
  const name = skill();
  if (!picture && name !== "query") return { missing: "Choose a picture first.", focus: find("choose") };
  if (name === "caption") {
    const length = ask.elements.extent.value;
    return { arguments: { length }, asked: length };
  }
  const field = find(name === "query" ? "question" : "object");
  const asked = field.value.trim();
  if (!asked) return { missing: name === "query" ? "Type a question first." : "Say what first.", focus: field };
  if (name !== "query") return { arguments: { object: asked }, asked };
  return { arguments: { question: asked, reasoning: find("reasoning").checked && !find("reason").hidden }, asked };
}

// Puts an earlier ask into the form.
export function refill(answer) {
  ask.elements.skill.value = answer.skill;
  if (answer.given.length) ask.elements.extent.value = answer.given.length;
  if (answer.given.question) find("question").value = answer.given.question;
  if (answer.given.object) find("object").value = answer.given.object;
  fields();
}

// Leaves out what the model has not; all is offered where the server does not say.
export function offer(skills, reasoning) {
  for (const input of ask.elements.skill) {
    input.disabled = Boolean(skills) && !skills.includes(input.value);
    input.title = input.disabled ? "This model cannot do that." : "";
  }
  find("reason").hidden = reasoning === false;
}

// Shows the fields of the skill that is chosen.
function fields() {
  for (const part of ask.querySelectorAll("[data-for]")) part.hidden = !part.dataset.for.split(" ").includes(skill());
  find("object-label").textContent = OBJECT_LABELS[skill()] ?? "";
}

ask.addEventListener("change", fields);
fields();
