// Asks for what the page needs first, while the rest of it is still on its way. Not a module: it waits for nothing.
// server.js takes the answers over. Where this page has been before, it knows that its own server has the events.

{
  const key = localStorage.getItem("opentinker_api_key");
  const stop = new AbortController();
  const ask = (path) => {
    const headers = key ? { Authorization: `Bearer ${key}` } : {};
    const answer = fetch(`/dashboard/api/${path}`, { headers, cache: "no-store", signal: stop.signal });
    answer.catch(() => {}); // whoever takes it over hears of it
    return answer;
  };
  const wanted = localStorage.getItem("tinksched_home") ? ["session", "events?jobs=200"] : ["session"];
  window.early = { stop, answers: new Map(wanted.map((path) => [path, ask(path)])) };
}
