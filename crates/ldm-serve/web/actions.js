// What can be done with a job, and its settings as text.

import * as api from "./api.js";
import { button, confirmed, duration, el, toast } from "./dom.js";

/** Cancels a job. */
export async function cancel(job, jobs) {
  try {
    jobs.put(await api.cancel(job.id));
  } catch (error) {
    if (error.status !== 409) toast(error.message, true);
    jobs.refresh();
  }
}

/** Removes a job after a question; true once it is gone. */
export async function remove(job, jobs) {
  const images = job.images.length === 1 ? "this image" : `these ${job.images.length} images`;
  if (!(await confirmed(job.images.length > 0 ? `Delete ${images} from the server?` : "Remove this job from the list?", "Delete"))) {
    return false;
  }
  try {
    await api.remove(job.id);
  } catch (error) {
    if (error.status !== 404 && error.status !== 410) {
      toast(error.message, true);
      return false;
    }
  }
  jobs.forget(job.id);
  return true;
}

/** The title of a job: what it shows. */
export function titleOf({ request }) {
  if (request.prompt) return request.prompt;
  if (request.class !== undefined) return `Class ${request.class}`;
  if (request.layout?.length > 0) return request.layout.map(({ label }) => label).join(", ");
  if (request.label_map) return "From a label map";
  return request.image ? "From an image" : "Without a prompt";
}

/** The alternative text of an image of a job. */
export const altOf = (job, index) =>
  job.images.length > 1 ? `${titleOf(job)} (${index + 1} of ${job.images.length})` : titleOf(job);

/** The settings of a job in a line. */
export function settingsOf(job) {
  const { request, images, started, finished } = job;
  const [first] = images;
  const size = first ? `${first.width}×${first.height}` : request.width ? `${request.width}×${request.height}` : null;
  return [
    request.model,
    request.steps ? `${request.steps} steps` : null,
    request.sampler,
    request.guidance_scale !== undefined ? `guidance ${request.guidance_scale}` : null,
    size,
    `seed ${request.seed}`,
    job.state === "done" && started && finished ? duration((finished - started) / 1000) : null,
  ].filter(Boolean).join(" · ");
}

/** The buttons of a result; `app` has `form` and `jobs`. */
export function resultButtons(job, index, app, { closed = () => {} } = {}) {
  const name = `${job.id.slice(0, 8)}-${index}.png`;
  const image = job.images.find((each) => each.index === index);
  const reuse = button("Reuse settings", () => {
    closed();
    const ignored = app.form.fill({ ...job.request, seed: image?.seed ?? job.request.seed, n: 1 });
    const files = ["image", "mask", "label_map"].filter((key) => job.request[key]).map((key) => key.replace("_", " "));
    const left = [...ignored, ...files];
    toast(left.length > 0 ? `Settings taken, without: ${left.join(", ")}.` : "Settings taken.");
  });
  const takesImage = ["none", "class", "text", "layout", "low_resolution", "inpainting", "text_inpainting"];
  return [
    reuse,
    image && takesImage.includes(app.form.model.conditioning) ? button("Use as image", async () => {
      closed();
      await app.form.image.setUrl(api.imageUrl(job.id, index), name);
    }, { title: "Start from this image" }) : null,
    image ? el("a", { class: "button", href: api.downloadUrl(job.id, index), download: name, text: "Download" }) : null,
    button("Delete", async () => {
      if (await remove(job, app.jobs)) closed(true);
    }, { class: "quiet-danger" }),
  ].filter(Boolean);
}
