/**
 * A column of whole numbers as bytes, in a form that plain SQL reads too (`holdfast.unpack` in sql/002-long-memory.sql), pure.
 *
 *   value i = base + step × i + what the bytes say
 *
 *   form   0              nothing: the numbers lie on a line
 *          1, 2, 4, 8     so many bytes per number, big-endian, signed: how far it is from `base`
 *          + CUMULATIVE   the same, but each adds to all that were before it
 *
 * What does not fit into 1, 2 or 4 bytes has the least number there, and follows behind the column in 8 bytes.
 */

/** Whole numbers, each exactly representable as a double. */
export type Integers = ArrayLike<number>;

/** Up to here sums and products of a column stay exact, in doubles and in bigint. Larger ones are written as they are. */
export const LARGEST = 2 ** 48;

export interface Series {
  readonly form: number;
  readonly base: number;
  readonly step: number;
  readonly bytes: Uint8Array;
}

export const CUMULATIVE = 16;
const WIDTHS = [1, 2, 4] as const;
const WIDE = 8;
/** Deltas that are looked at for the usual one. */
const SAMPLE_MAX = 255;

type Width = (typeof WIDTHS)[number];

const leastOf = (width: Width): number => -(2 ** (8 * width - 1));

/** @param values at least one */
export function packSeries(values: Integers): Series {
  const n = values.length;
  const first = values[0]!;
  if (hasLarger(values)) {
    const layout = { width: WIDE, cost: WIDE * n } as const;
    return { form: WIDE, base: 0, step: 0, bytes: written(Float64Array.from(values), layout) };
  }
  const step = usualDelta(values);
  const residuals = new Float64Array(n);
  let isLine = true;
  for (let i = 1; i < n; i++) {
    residuals[i] = values[i]! - values[i - 1]! - step;
    if (residuals[i] !== 0) isLine = false;
  }
  if (isLine) return { form: 0, base: first, step, bytes: new Uint8Array() };
  const cumulative = cheapest(residuals);

  const middle = middleOf(values);
  const offsets = new Float64Array(n);
  for (let i = 0; i < n; i++) offsets[i] = values[i]! - middle;
  const offset = cheapest(offsets);
  return offset.cost < cumulative.cost
    ? { form: offset.width, base: middle, step: 0, bytes: written(offsets, offset) }
    : { form: cumulative.width + CUMULATIVE, base: first, step, bytes: written(residuals, cumulative) };
}

/** @param bytes those of the series; more may follow */
export function unpackSeries({ form, base, step, bytes }: Series, count: number): Float64Array {
  const values = new Float64Array(count);
  const isCumulative = form >= CUMULATIVE;
  const width = form % CUMULATIVE;
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  // Of no form, or of the widest, everything fits.
  const least = width === 0 || width === WIDE ? Number.NaN : leastOf(width as Width);
  let wide = count * width;
  let sum = base;
  for (let i = 0; i < count; i++) {
    let residual = 0;
    if (width === 1) residual = view.getInt8(i);
    else if (width === 2) residual = view.getInt16(2 * i);
    else if (width === 4) residual = view.getInt32(4 * i);
    else if (width === WIDE) residual = Number(view.getBigInt64(WIDE * i));
    if (residual === least) {
      residual = Number(view.getBigInt64(wide));
      wide += WIDE;
    }
    if (isCumulative && i > 0) sum += residual + step;
    values[i] = isCumulative ? sum : base + residual + step * i;
  }
  return values;
}

function hasLarger(values: Integers): boolean {
  for (let i = 0; i < values.length; i++) if (Math.abs(values[i]!) > LARGEST) return true;
  return false;
}

interface Layout {
  readonly width: Width | typeof WIDE;
  readonly cost: number;
}

function cheapest(residuals: Float64Array): Layout {
  let best: Layout = { width: WIDE, cost: WIDE * residuals.length };
  for (const width of WIDTHS) {
    const least = leastOf(width);
    let outside = 0;
    for (let i = 0; i < residuals.length; i++)
      if (residuals[i]! <= least || residuals[i]! >= -least) outside++;
    const cost = width * residuals.length + WIDE * outside;
    if (cost < best.cost) best = { width, cost };
    if (outside === 0) break;
  }
  return best;
}

function written(residuals: Float64Array, { width, cost }: Layout): Uint8Array {
  const bytes = new Uint8Array(cost);
  const view = new DataView(bytes.buffer);
  if (width === WIDE) {
    for (const [i, residual] of residuals.entries()) view.setBigInt64(WIDE * i, BigInt(residual));
    return bytes;
  }
  const least = leastOf(width);
  let wide = width * residuals.length;
  for (let i = 0; i < residuals.length; i++) {
    let residual = residuals[i]!;
    if (residual <= least || residual >= -least) {
      view.setBigInt64(wide, BigInt(residual));
      wide += WIDE;
      residual = least;
    }
    if (width === 1) view.setInt8(i, residual);
    else if (width === 2) view.setInt16(2 * i, residual);
    else view.setInt32(4 * i, residual);
  }
  return bytes;
}

/** The median of evenly spread ones. */
function usualDelta(values: Integers): number {
  const n = values.length;
  if (n < 2) return 0;
  const every = Math.max(1, Math.floor((n - 1) / SAMPLE_MAX));
  const deltas = new Float64Array(Math.ceil((n - 1) / every));
  for (let i = 1, k = 0; i < n; i += every) deltas[k++] = values[i]! - values[i - 1]!;
  deltas.sort();
  return deltas[deltas.length >> 1]!;
}

function middleOf(values: Integers): number {
  let least = values[0]!;
  let most = least;
  for (let i = 1; i < values.length; i++) {
    least = Math.min(least, values[i]!);
    most = Math.max(most, values[i]!);
  }
  return Math.floor((least + most) / 2);
}
