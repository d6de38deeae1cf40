// Times, sizes and numbers as people read them. Times are seconds since the epoch, sizes bytes; "–" is unknown.

export const UNKNOWN = "–";
const DAY = 86400;
const MONTHS = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];

let ahead = 0; // the server's clock minus ours

/** What the server's clock says now; given its `now`, from then on. */
export function serverTime(now) {
  if (now) ahead = now - Date.now() / 1000;
  return Date.now() / 1000 + ahead;
}

/** "45 s", "12 min", "2 h 05", "3 d 4 h". */
export function duration(seconds) {
  if (seconds == null || Number.isNaN(seconds)) return UNKNOWN;
  const whole = Math.max(0, Math.round(seconds));
  if (whole < 60) return `${whole} s`;
  const minutes = Math.floor(whole / 60);
  if (minutes < 60) return `${minutes} min`;
  if (whole < DAY) return `${Math.floor(minutes / 60)} h ${two(minutes % 60)}`;
  return `${Math.floor(whole / DAY)} d ${Math.floor((whole % DAY) / 3600)} h`;
}

/** What changes on the screen costs: what has lasted for hours moves in steps of 5 or 30 minutes. */
function coarsely(seconds) {
  return seconds < 3600 ? seconds : seconds - (seconds % (seconds < 21600 ? 300 : 1800));
}

/** How long ago, in steps that need no clock that ticks: under a minute it is "just now". */
export function ago(at) {
  if (at == null) return UNKNOWN;
  const gone = serverTime() - at;
  return gone < 60 ? "just now" : `${duration(coarsely(gone))} ago`;
}

/** How long it has lasted until now. */
export function lasting(since) {
  if (since == null) return UNKNOWN;
  const gone = serverTime() - since;
  return gone < 60 ? "< 1 min" : duration(coarsely(gone));
}

// By hand: the browser's own formats take as long to load as the whole page.
const two = (value) => String(value).padStart(2, "0");
const clock = (then) => `${two(then.getHours())}:${two(then.getMinutes())}`;

/** "14:05", with the day where it isn't today. */
export function when(at) {
  if (at == null) return UNKNOWN;
  const then = new Date(at * 1000);
  const isToday = then.toDateString() === new Date(serverTime() * 1000).toDateString();
  return isToday ? clock(then) : `${MONTHS[then.getMonth()]} ${then.getDate()} ${clock(then)}`;
}

/** "14:05", whatever the day. */
export const hourOf = (at) => clock(new Date(at * 1000));

/** The whole date and time, for titles. */
export function exactly(at) {
  if (at == null) return null;
  const then = new Date(at * 1000);
  const day = `${then.getFullYear()}-${two(then.getMonth() + 1)}-${two(then.getDate())}`;
  return `${day} ${clock(then)}:${two(then.getSeconds())}`;
}

/** "about 14:05 (in 35 min)". */
export function expected(at) {
  const left = at - serverTime();
  return left < 60 ? "any moment now" : `about ${when(at)} (in ${duration(coarsely(left))})`;
}

/** "61.2 GiB". */
export function bytes(size) {
  if (size == null) return UNKNOWN;
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let value = size;
  let unit = 0;
  while (value >= 1000 && unit < units.length - 1) {
    value /= 1024;
    unit += 1;
  }
  return `${unit && value < 10 ? Number(value.toFixed(1)) : Math.round(value)} ${units[unit]}`;
}

export const percent = (value) => (value == null ? UNKNOWN : `${Math.round(value)} %`);

/** "5,000". */
export const grouped = (value) => String(value).replace(/\B(?=(\d{3})+$)/g, ",");

/** A number of the usual size, without digits that nobody reads. */
export function number(value) {
  if (typeof value !== "number" || !Number.isFinite(value)) return value == null ? UNKNOWN : String(value);
  if (Number.isInteger(value)) return grouped(value);
  const size = Math.abs(value);
  return size !== 0 && (size < 1e-3 || size >= 1e6) ? value.toExponential(2) : String(Number(value.toPrecision(4)));
}

/** "1 job", "3 jobs". */
export const counted = (count, thing) => `${grouped(count)} ${thing}${count === 1 ? "" : "s"}`;
