// The last asks, newest first, with their pictures; on this page only.
import { summary, titleOf } from "./answer.js";
import { make } from "./element.js";

const LAST = 12;

export class History {
  // `pick(answer)` is called with the one that is to be shown again.
  constructor(list, pick) {
    this.list = list;
    this.pick = pick;
    this.answers = [];
  }

  // Returns the one that this pushes out, if there is one.
  add(answer) {
    this.answers.unshift(answer);
    return this.answers.length > LAST ? this.answers.pop() : null;
  }

  holds(picture) {
    return this.answers.some((answer) => answer.picture === picture);
  }

  show(current) {
    const focused = [...this.list.querySelectorAll("button")].indexOf(document.activeElement);
    this.list.replaceChildren(...this.answers.map((answer) => this.entry(answer, answer === current)));
    this.list.parentElement.hidden = this.answers.length < 2;
    if (focused >= 0) this.list.querySelectorAll("button")[focused]?.focus();
  }

  entry(answer, current) {
    const { picture } = answer;
    const image = picture?.shown ? make("img", { src: picture.url, alt: "" }) : make("span", { class: "blank" });
    return make(
      "li",
      {},
      make(
        "button",
        { type: "button", "aria-current": current && "true", onclick: () => this.pick(answer) },
        image,
        make("span", {}, make("b", {}, titleOf(answer)), make("span", {}, summary(answer))),
      ),
    );
  }
}
