// The server: where it is, who we are, and its answers. The key is only ever a header.

const KEY = "opentinker_api_key";
const ADDRESS = "tinksched_server";

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
  if (text) localStorage.setItem(KEY, text);
  else localStorage.removeItem(KEY);
}

let base = "";
export const server = () => base;
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

/** Ask the dashboard's API; the response, or Refused. */
export async function request(path, { method = "GET", signal, headers = {} } = {}) {
  const asked = { ...headers, ...(key() ? { Authorization: `Bearer ${key()}` } : {}) };
  let response;
  try {
    response = await fetch(`${base}/dashboard/api/${path}`, { method, signal, headers: asked, cache: "no-store" });
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
