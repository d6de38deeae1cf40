// Keeps the page up to date: by server-sent events, by polling where those don't come through, and again by itself
// after the server was away.

import { events } from "./sse.js";
import { ask, Refused, request } from "./server.js";

const POLL_MS = 5000;
const FIRST_EVENT_MS = 5000;
const SILENCE_MS = 45000; // the server says something every 15 s
const FIRST_MS = 250;

/** One connection at a time. `hear` gets "state" or "change" and data, `tell` "live", "polling", "away" or "denied". */
export class Live {
  #abort = null;
  #awake = () => {};

  constructor(jobs, hear, tell) {
    this.path = `?jobs=${jobs}`;
    this.hear = hear;
    this.tell = tell;
  }

  /** Begin, or begin anew: with another key, or because somebody pressed "refresh". */
  restart() {
    this.stop();
    this.#abort = new AbortController();
    this.#run(this.#abort.signal);
  }

  stop() {
    this.#abort?.abort();
    this.#awake();
  }

  async #run(signal) {
    let pause = FIRST_MS;
    while (!signal.aborted) {
      try {
        await this.#stream(signal);
        pause = FIRST_MS;
      } catch (error) {
        if (!signal.aborted) pause = await this.#otherwise(error, signal, pause);
      }
      if (!signal.aborted) await this.#wait(pause);
    }
  }

  /** Hear events until they end; an error if there was none at all. */
  async #stream(signal) {
    const silence = new AbortController();
    let timer = setTimeout(() => silence.abort(), FIRST_EVENT_MS);
    let isHeard = false;
    try {
      const response = await request(`events${this.path}`, { signal: AbortSignal.any([signal, silence.signal]) });
      for await (const { event, data } of events(response)) {
        clearTimeout(timer);
        timer = setTimeout(() => silence.abort(), SILENCE_MS);
        if (event === "state" || event === "change") this.hear(event, JSON.parse(data));
        if (event === "state") this.tell("live");
        if (event === "bye") throw new Refused(401, JSON.parse(data).detail);
        isHeard = true;
      }
    } catch (error) {
      if (!isHeard || isDenied(error)) throw error;
    } finally {
      clearTimeout(timer);
    }
    if (!isHeard) throw new Refused(502, "No events came");
  }

  /** Where no events come through there may still be answers. Says how long to wait before the next attempt. */
  async #otherwise(error, signal, pause) {
    try {
      if (error.status === 0 || isDenied(error)) throw error;
      this.hear("state", await ask(`state${this.path}`, { signal }));
      this.tell("polling");
      return POLL_MS;
    } catch (again) {
      if (signal.aborted) return 0;
      this.tell(isDenied(again) ? "denied" : "away", again);
      if (isDenied(again)) this.stop();
      return Math.min(pause * 2, POLL_MS);
    }
  }

  #wait(milliseconds) {
    return new Promise((done) => {
      const timer = setTimeout(done, milliseconds);
      this.#awake = () => {
        clearTimeout(timer);
        done();
      };
    });
  }
}

const isDenied = (error) => error.status === 401 || error.status === 403;
