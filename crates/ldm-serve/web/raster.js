// Rasters of one byte a pixel: masks and label maps, painted without soft edges.

const UNDO = 30;

/** A raster that can be painted, and remembers its last states. */
export class Raster {
  constructor(width, height, value = 0) {
    this.width = width;
    this.height = height;
    this.data = new Uint8Array(width * height).fill(value);
    this.past = [];
  }

  /** Remembers the present state for `undo`. */
  remember() {
    this.past.push(this.data.slice());
    if (this.past.length > UNDO) this.past.shift();
  }

  /** Goes back to the last remembered state; false where there is none. */
  undo() {
    const before = this.past.pop();
    if (before) this.data = before;
    return before !== undefined;
  }

  /** Paints a disc. */
  disc(x, y, radius, value) {
    const top = Math.max(0, Math.ceil(y - radius));
    const bottom = Math.min(this.height - 1, Math.floor(y + radius));
    for (let row = top; row <= bottom; row += 1) {
      const half = Math.sqrt(Math.max(0, radius * radius - (row - y) * (row - y)));
      const left = Math.max(0, Math.ceil(x - half));
      const right = Math.min(this.width, Math.floor(x + half) + 1);
      if (right > left) this.data.fill(value, row * this.width + left, row * this.width + right);
    }
  }

  /** Paints a line with a round brush. */
  line([x0, y0], [x1, y1], radius, value) {
    const length = Math.hypot(x1 - x0, y1 - y0);
    const count = Math.max(1, Math.ceil(length / Math.max(0.5, radius / 3)));
    for (let index = 0; index <= count; index += 1) {
      const share = index / count;
      this.disc(x0 + (x1 - x0) * share, y0 + (y1 - y0) * share, radius, value);
    }
  }

  /** Gives a value to the area of equal values around a pixel. */
  flood(x, y, value) {
    const { width, height, data } = this;
    const start = Math.floor(y) * width + Math.floor(x);
    const old = data[start];
    if (old === undefined || old === value) return;
    const open = [start];
    data[start] = value;
    while (open.length > 0) {
      const at = open.pop();
      const column = at % width;
      for (const [next, inside] of [
        [at - 1, column > 0],
        [at + 1, column < width - 1],
        [at - width, at >= width],
        [at + width, at < width * (height - 1)],
      ]) {
        if (inside && data[next] === old) {
          data[next] = value;
          open.push(next);
        }
      }
    }
  }

  /** Gives every pixel a value. */
  fill(value) {
    this.data.fill(value);
  }

  /** Exchanges 0 and 255. */
  invert() {
    this.data = this.data.map((value) => 255 - value);
  }

  /** True where every pixel has a value. */
  isOnly(value) {
    return this.data.every((each) => each === value);
  }

  /** The same in another size. */
  resized(width, height) {
    const raster = new Raster(width, height);
    for (let y = 0; y < height; y += 1) {
      const row = Math.floor(((y + 0.5) * this.height) / height) * this.width;
      for (let x = 0; x < width; x += 1) {
        raster.data[y * width + x] = this.data[row + Math.floor(((x + 0.5) * this.width) / width)];
      }
    }
    return raster;
  }
}
