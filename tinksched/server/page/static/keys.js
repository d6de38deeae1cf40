// What the keyboard does.

/** `does` maps keys to functions; none is called while somebody writes, or behind a small dialog. */
export function listen(does) {
  addEventListener("keydown", (event) => {
    const isWriting = event.target.matches?.("input, textarea, select, [contenteditable]");
    const isAsked = document.querySelector("dialog.small[open]");
    if (isWriting || isAsked || event.ctrlKey || event.metaKey || event.altKey || !does[event.key]) return;
    if (does[event.key]() !== false) event.preventDefault();
  });
}
