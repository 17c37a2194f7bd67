/**
 * What is usual for one metric of one device, in three numbers: an exponentially weighted estimate of the centre and of
 * the mean absolute deviation from it, after Huber: whatever lies further off than three deviations counts as three, so
 * that an outlier moves neither by much. A level that changed for good becomes the usual one within about a window. Pure.
 */

export interface Statistics {
  /** Readings so far, up to the window. */
  readonly count: number;
  readonly centre: number;
  /** Mean absolute deviation. */
  readonly spread: number;
}

/** Further off than so many spreads counts as that. */
const CLIP = 3;
/** The first readings count in full: there is nothing yet to call them far off from. */
const UNCLIPPED = 8;
/** Standard deviation of normal noise by its mean absolute deviation. */
const DEVIATION_PER_SPREAD = Math.sqrt(Math.PI / 2);
/** Of the centre: a spread below it is rounding of the sensor, not its noise. */
const SPREAD_MIN_SHARE = 1e-3;

/** @param window readings that count, about: each weighs 1/window, and more while there are fewer */
export function withValue(known: Statistics | undefined, value: number, window: number): Statistics {
  if (!known) return { count: 1, centre: value, spread: 0 };
  const count = Math.min(known.count + 1, window);
  const weight = 1 / count;
  const clip = known.count < UNCLIPPED ? Number.POSITIVE_INFINITY : CLIP * spreadOf(known);
  const offset = Math.min(clip, Math.max(-clip, value - known.centre));
  const centre = known.centre + weight * offset;
  const spread = known.spread + weight * (Math.abs(offset) - known.spread);
  // The difference of two values may be more than a number can hold: such a sensor has no usual value.
  if (!Number.isFinite(centre) || !Number.isFinite(spread)) return { count: 1, centre: value, spread: 0 };
  return { count, centre, spread };
}

const spreadOf = ({ centre, spread }: Statistics): number =>
  Math.max(spread, SPREAD_MIN_SHARE * Math.abs(centre), Number.MIN_VALUE);

/** How far off `value` is, in standard deviations of which the least is `floor`. */
export const deviationOf = (statistics: Statistics, value: number, floor: number): number =>
  (value - statistics.centre) / Math.max(DEVIATION_PER_SPREAD * spreadOf(statistics), floor);
