// The jobs of the server, kept up to date by its events.

import * as api from "./api.js";

const PAGE = 60;
// A browser opens six connections to a server, of which the queue has one.
const STREAMS = 3;

/** True for jobs that wait or run. */
export const isActive = ({ state }) => state === "queued" || state === "running";

/** All known jobs; `changed` is called after changes, `connected` with the state of the connection. */
export class Jobs {
  constructor(changed, connected) {
    Object.assign(this, { changed, connected });
    this.byId = new Map();
    this.streams = new Map();
    this.shown = PAGE;
    this.older = false;
  }

  /** Begins to listen. */
  start() {
    api.listenQueue(
      () => this.refresh(),
      (state) => this.connected(state),
    );
  }

  /** Active jobs: those that run, then those that wait, in their order. */
  get active() {
    const place = (job) => (job.state === "running" ? -1 : (job.position ?? 1e9));
    return [...this.byId.values()].filter(isActive).sort((a, b) => place(a) - place(b) || a.created - b.created);
  }

  /** Jobs that have ended, the newest first. */
  get ended() {
    const when = (job) => job.finished ?? job.created;
    return [...this.byId.values()].filter((job) => !isActive(job)).sort((a, b) => when(b) - when(a));
  }

  /** Takes the state of a job. */
  put(job) {
    this.byId.set(job.id, job);
    this.#follow();
    this.changed();
  }

  /** Forgets a job. */
  forget(id) {
    this.byId.delete(id);
    this.changed();
  }

  /** Asks for more of the past. */
  showOlder() {
    this.shown += PAGE;
    return this.refresh();
  }

  /** Asks for the list. Calls while one is under way lead to one more. */
  async refresh() {
    if (this.asking) {
      this.again = true;
      return;
    }
    this.asking = true;
    try {
      const list = [];
      do {
        this.again = false;
        list.length = 0;
        while (list.length < this.shown) {
          const { jobs } = await api.jobs(list.length, Math.min(500, this.shown - list.length));
          list.push(...jobs);
          if (jobs.length === 0) break;
        }
      } while (this.again);
      this.older = list.length >= this.shown;
      this.byId = new Map(list.map((job) => [job.id, job]));
      this.#follow();
      this.changed();
    } catch {
      // The events tell when the server is back.
      this.connected(false);
    } finally {
      this.asking = false;
    }
  }

  // Listens to the jobs that run, and closes the streams of others.
  #follow() {
    const running = this.active.filter(({ state }) => state === "running").slice(0, STREAMS).map(({ id }) => id);
    for (const [id, close] of this.streams) {
      if (running.includes(id)) continue;
      close();
      this.streams.delete(id);
    }
    for (const id of running) {
      if (this.streams.has(id)) continue;
      const close = api.listenJob(id, (job) => {
        this.byId.set(job.id, job);
        if (!isActive(job)) this.#follow();
        this.changed();
      });
      this.streams.set(id, close);
    }
  }
}
