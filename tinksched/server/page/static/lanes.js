// The timeline's geometry: which runs lie beside each other, and where a GPU was idle. Pure.

/** Runs of one GPU in groups that overlap, each packed into lanes in which nothing does: a list of lists of lanes. */
export function lanes(runs, now) {
  const groups = [];
  let until = -Infinity;
  for (const run of [...runs].sort((one, other) => one.from - other.from)) {
    if (run.from >= until - 0.001) groups.push([]);
    const group = groups.at(-1);
    const lane = group.find((row) => (row.at(-1).to ?? now) <= run.from + 0.001);
    if (lane) lane.push(run);
    else group.push([run]);
    until = Math.max(until, run.to ?? now);
  }
  return groups;
}

/** Groups without overlap follow each other in one lane: a list of [lane, its place, of how many]. */
export function rows(groups) {
  const alone = groups.filter((group) => group.length === 1).flatMap(([lane]) => lane);
  return [
    [alone, 0, 1],
    ...groups
      .filter((group) => group.length > 1)
      .flatMap((group) => group.map((lane, place) => [lane, place, group.length])),
  ];
}

/** Runs too narrow to be seen alone (in seconds), joined with a neighbour of the same outcome. */
export function joined(lane, narrow, now) {
  const bars = [];
  for (const run of lane) {
    const to = run.to ?? now;
    const last = bars.at(-1);
    if (
      last &&
      last.outcome === run.outcome &&
      run.from - last.to < narrow &&
      Math.max(to - run.from, last.least) < 4 * narrow
    ) {
      last.to = to;
      last.runs.push(run);
      last.least = Math.max(last.least, to - run.from);
    } else {
      bars.push({ from: run.from, to, outcome: run.outcome, runs: [run], least: to - run.from });
    }
  }
  return bars;
}

/** When nothing ran between two instants: a list of [from, to]. */
export function gaps(runs, from, to) {
  const found = [];
  let busyUntil = from;
  for (const run of [...runs].sort((one, other) => one.from - other.from)) {
    if (run.from > busyUntil) found.push([busyUntil, Math.min(run.from, to)]);
    busyUntil = Math.max(busyUntil, run.to ?? to);
  }
  if (busyUntil < to) found.push([busyUntil, to]);
  return found;
}
