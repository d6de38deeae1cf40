// The server: where it is, who we are, and its answers. The key is only ever a header.

const KEY = "opentinker_api_key";
const ADDRESS = "tinksched_server";
const HOME = "tinksched_home"; // whether the page's own server has the data; for early.js

/** An answer that isn't the one asked for. `status` 0: there was none. */
export class Refused extends Error {
  constructor(status, detail) {
    super(detail);
    this.status = status;
  }
}

export const key = () => localStorage.getItem(KEY) ?? "";

/** Keep the key in this browser; nothing empties it. */
export function keepKey(text) {
  forgetEarly();
  if (text) localStorage.setItem(KEY, text);
  else localStorage.removeItem(KEY);
}

let base = "";
export const server = () => base;
export function isAtHome(isSo) {
  if (isSo) localStorage.setItem(HOME, "yes");
  else localStorage.removeItem(HOME);
}
export const useServer = (usual) => {
  base = (localStorage.getItem(ADDRESS) || usual).replace(/\/+$/, "");
};

/** Speak with another server from now on. The key was for the old one, and isn't shown to the new one. */
export function keepServer(text) {
  if (text === base) return;
  localStorage.setItem(ADDRESS, text);
  useServer(text);
  keepKey("");
}

/** The answer that early.js has asked for, once. */
function takenOver(path, signal) {
  const { answers, stop } = window.early ?? {};
  const answer = answers?.get(path);
  if (!answer) return undefined;
  answers.delete(path);
  signal?.addEventListener("abort", () => stop.abort());
  return answer;
}

/** Nothing that was asked early is of use: it was asked elsewhere, or with another key. */
export function forgetEarly() {
  window.early?.answers.clear();
  window.early?.stop.abort();
}

/** Ask the dashboard's API; the response, or Refused. */
export async function request(path, { method = "GET", signal, headers = {} } = {}) {
  const asked = { ...headers, ...(key() ? { Authorization: `Bearer ${key()}` } : {}) };
  let response;
  try {
    response = await (takenOver(path, signal) ??
      fetch(`${base}/dashboard/api/${path}`, { method, signal, headers: asked, cache: "no-store" }));
  } catch {
    throw new Refused(0, `No answer from ${base || location.host}`);
  }
  if (response.ok) return response;
  const said = await response.json().catch(() => ({}));
  throw new Refused(
    response.status,
    typeof said.detail === "string" ? said.detail : `The server answered ${response.status}`,
  );
}

export const ask = async (path, options) => (await request(path, options)).json();
