// The server's API. Seeds are strings here: they have 64 bits, and JavaScript's numbers 53.

/** An error that the server answered, or `status` 0 where it did not answer. */
export class ApiError extends Error {
  constructor(status, message, field = null) {
    super(message);
    this.status = status;
    this.field = field;
  }
}

// Quotes inside strings are escaped in JSON, so that these match keys alone.
const parse = (text) => JSON.parse(text.replace(/([{,]\s*"seed":\s*)(\d+)/g, '$1"$2"'));
const stringify = (value) => JSON.stringify(value).replace(/([{,]"seed":)"(\d+)"/g, "$1$2");

async function call(path, options = {}) {
  let answer;
  try {
    answer = await fetch(path, { cache: "no-store", ...options });
  } catch {
    throw new ApiError(0, "The server does not answer.");
  }
  const text = await answer.text();
  let body = null;
  try {
    body = text ? parse(text) : null;
  } catch {
    throw new ApiError(answer.status, `The server's answer is not JSON (status ${answer.status}).`);
  }
  if (!answer.ok) {
    const error = body?.error ?? {};
    throw new ApiError(answer.status, error.message ?? `The server answered with status ${answer.status}.`, error.param);
  }
  return body;
}

const job = (id) => `v1/jobs/${encodeURIComponent(id)}`;
const run = (name) => `v1/runs/${encodeURIComponent(name)}`;

export const server = () => call("v1/server");
export const models = async () => (await call("v1/models")).data;
export const jobs = (offset, limit) => call(`v1/jobs?offset=${offset}&limit=${limit}`);
export const findJob = (id) => call(job(id));
export const cancel = (id) => call(`${job(id)}/cancel`, { method: "POST" });
export const remove = (id) => call(job(id), { method: "DELETE" });
export const parameters = (file) => call("v1/parameters", { method: "POST", body: file });
export const runs = async () => (await call("v1/runs")).runs;
export const findRun = (name) => call(run(name));
export const metrics = async (name, points) => (await call(`${run(name)}/metrics?points=${points}`)).series;

/** Submits a request; returns the job. */
export function submit(request) {
  const headers = { "content-type": "application/json" };
  return call("v1/jobs", { method: "POST", headers, body: stringify(request) });
}

/** The address of the newest preview of a job, different for each. */
export const previewUrl = (id, number) => `${job(id)}/preview?number=${number}`;

/** The address of an image of a job. */
export const imageUrl = (id, index, format = "png") => `${job(id)}/images/${index}?format=${format}`;

/** The address of an image as a file to save. */
export const downloadUrl = (id, index, format = "png") => `${imageUrl(id, index, format)}&download=true`;

/**
 * Listens to events, and connects again after a break. `state(true)` and `state(false)` tell whether it is connected. Returns
 * a function that ends it.
 */
export function listen(path, names, take, state = () => {}) {
  let source = null;
  let timer = null;
  let wait = 1000;
  const open = () => {
    source = new EventSource(path);
    source.addEventListener("open", () => {
      wait = 1000;
      state(true);
    });
    source.addEventListener("error", () => {
      state(false);
      // A browser tries again by itself, but not after an answer that is an error.
      if (source.readyState !== EventSource.CLOSED) return;
      timer = setTimeout(open, wait);
      wait = Math.min(wait * 2, 15000);
    });
    for (const name of names) source.addEventListener(name, (event) => take(parse(event.data), name));
  };
  open();
  return () => {
    clearTimeout(timer);
    source.close();
  };
}

/** Listens to the queue. */
export const listenQueue = (take, state) => listen("v1/events", ["queue"], take, state);

/** Listens to a job, which is sent at each change. */
export function listenJob(id, take) {
  return listen(`${job(id)}/events`, ["queued", "running", "done", "failed", "canceled"], take);
}
