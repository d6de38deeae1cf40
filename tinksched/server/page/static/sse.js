// Server-sent events read with `fetch`, since `EventSource` can't send the key as a header.

/** The events of a response, as {event, id, data}. A comment is an event without a name: a sign of life. */
export async function* events(response) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  try {
    for (;;) {
      const { value, done } = await reader.read();
      if (done) return;
      const parts = (rest + value).split("\n\n");
      rest = parts.pop();
      for (const part of parts) yield parsed(part);
    }
  } finally {
    reader.cancel().catch(() => {});
  }
}

function parsed(text) {
  const found = { event: "", id: null, data: [] };
  for (const line of text.split("\n")) {
    const [, field, value] = /^(event|id|data): ?(.*)$/s.exec(line) ?? [];
    if (field === "data") found.data.push(value);
    else if (field) found[field] = value;
  }
  return { ...found, data: found.data.join("\n") };
}
