// What the page knows of the machine: the last scene, with every change since.

const DAY = 86400;
const RANK = { running: 0, starting: 0, queued: 1 };

/** The scene and its jobs. `parts` is replaced key by key; `jobs` is a map, since changes name single ones. */
export class Scene {
  parts = null;
  jobs = new Map();
  isWhole = false; // whether every job is here, not only the most relevant ones
  #sorted = null;
  #words = new WeakMap();

  /** A whole scene, instead of the last one. Says which jobs' status is another than before. */
  replace(parts) {
    const before = this.jobs;
    this.parts = parts;
    this.jobs = new Map(parts.jobs.map((job) => [job.id, job]));
    this.isWhole = this.jobs.size >= parts.counts.total;
    this.#sorted = null;
    return parts.jobs.filter((job) => before.get(job.id) && before.get(job.id).status !== job.status);
  }

  /** What has changed. Says which jobs' status is another than before. */
  merge({ jobs = [], gone = [], runs = [], ...parts }) {
    Object.assign(this.parts, parts);
    if (runs.length) this.parts.timeline = this.#timeline(runs);
    const news = jobs.filter((job) => this.jobs.get(job.id)?.status !== job.status);
    this.add(jobs);
    for (const id of gone) this.jobs.delete(id);
    return news;
  }

  #timeline(fresh) {
    const runs = new Map(this.parts.timeline.map((run) => [run.run, run]));
    for (const run of fresh) runs.set(run.run, run);
    return [...runs.values()].filter((run) => run.to == null || run.to > this.parts.now - DAY);
  }

  /** More jobs. */
  add(jobs) {
    for (const job of jobs) this.jobs.set(job.id, job);
    this.#sorted = null;
  }

  /** What changes of jobs came by while all of them were being fetched is newer than what was fetched. */
  addOlder(jobs) {
    this.add(jobs.filter((job) => !this.jobs.has(job.id)));
  }

  /** All jobs: those that run, newest first, the queue in its order, then those that ended, newest first. */
  all() {
    this.#sorted ??= [...this.jobs.values()].sort(compare);
    return this.#sorted;
  }

  queue() {
    return this.all().filter((job) => job.status === "queued");
  }

  /** The jobs that a filter leaves. */
  matching({ status, q }) {
    const terms = q.toLowerCase().split(/\s+/).filter(Boolean);
    if (!status && !terms.length) return this.all();
    return this.all().filter((job) => isOf(job, status) && terms.every((term) => this.#fits(job, term)));
  }

  #fits(job, term) {
    const [, field, value] = /^(id|gpu|port|url|user|name):(.+)$/.exec(term) ?? [];
    if (field === "gpu") return (job.gpus ?? []).some((gpu) => String(gpu) === value);
    if (field === "port") return String(job.port) === value;
    if (field)
      return String(job[field] ?? "")
        .toLowerCase()
        .includes(value);
    return this.#text(job).includes(term);
  }

  #text(job) {
    if (!this.#words.has(job)) {
      const gpus = (job.gpus ?? []).map((gpu) => `gpu${gpu}`);
      const words = [job.id, job.name, job.user, job.kind, job.port, job.url, job.error, job.reason, ...gpus];
      this.#words.set(
        job,
        words
          .filter((word) => word != null)
          .join("\n")
          .toLowerCase(),
      );
    }
    return this.#words.get(job);
  }
}

/** Whether a card's filter has this job; "starting" counts as running. */
function isOf(job, status) {
  return !status || status === "total" || job.status === status || (status === "running" && job.status === "starting");
}

function compare(one, other) {
  const rank = RANK[one.status] ?? 2;
  const otherRank = RANK[other.status] ?? 2;
  if (rank !== otherRank) return rank - otherRank;
  if (rank === 1) return (one.place ?? Infinity) - (other.place ?? Infinity) || one.created_at - other.created_at;
  return rank === 0 ? other.started_at - one.started_at : other.ended_at - one.ended_at;
}
