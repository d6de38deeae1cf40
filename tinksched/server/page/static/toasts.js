// Short answers to what somebody did; they go away by themselves.

import { byId, draw, h } from "./dom.js";

const TOAST_MS = 7000;
const toasts = [];

export function toast(text, isBad = false) {
  const one = { text, isBad };
  toasts.push(one);
  show();
  setTimeout(() => {
    toasts.splice(toasts.indexOf(one), 1);
    show();
  }, TOAST_MS);
}

const show = () =>
  draw(
    byId("toasts"),
    toasts.map(({ text, isBad }) => h("p", { class: isBad ? "is-bad" : "" }, text)),
  );
