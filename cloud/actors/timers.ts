/**
 * Which twins are to be looked at when a gateway's clock has come so far. Per gateway, twins lie in buckets of a second by
 * the earliest thing that may become due. A device that is heard again is not moved: its bucket finds that nothing is due
 * yet and files it anew. So a twin that is alive costs one look per duration of its rule, however often it speaks.
 *
 * Holds nothing that the twins' states do not say: it is built anew from them at any time, such as after a restart.
 */

export interface Timers {
  /** By gateway. */
  readonly wheels: Map<string, Wheel>;
}

interface Wheel {
  readonly buckets: Map<number, string[]>;
  /** Where each device lies; an entry in another bucket is void. */
  readonly places: Map<string, number>;
  earliest: number;
}

const BUCKET_MS = 1000;

export const newTimers = (): Timers => ({ wheels: new Map() });

/** Looks at the device when the gateway's clock reaches `dueMs`; an earlier look that is filed stays. */
export function file(timers: Timers, gateway: string, device: string, dueMs: number): void {
  let wheel = timers.wheels.get(gateway);
  if (!wheel) {
    wheel = { buckets: new Map(), places: new Map(), earliest: Number.POSITIVE_INFINITY };
    timers.wheels.set(gateway, wheel);
  }
  const bucket = Math.ceil(dueMs / BUCKET_MS);
  const place = wheel.places.get(device);
  if (place !== undefined && place <= bucket) return;
  wheel.places.set(device, bucket);
  const devices = wheel.buckets.get(bucket);
  if (devices) devices.push(device);
  else wheel.buckets.set(bucket, [device]);
  wheel.earliest = Math.min(wheel.earliest, bucket);
}

export const isFiled = (timers: Timers, gateway: string, device: string): boolean =>
  timers.wheels.get(gateway)?.places.has(device) ?? false;

/** Takes out devices that are due, earliest first, at most about `devicesMax`: the others are due the next time too. */
export function takeDue(timers: Timers, gateway: string, clockMs: number, devicesMax: number): string[] {
  const wheel = timers.wheels.get(gateway);
  const now = Math.floor(clockMs / BUCKET_MS);
  if (!wheel || wheel.earliest > now) return [];
  const due: string[] = [];
  const ripe = [...wheel.buckets.keys()].filter(bucket => bucket <= now).sort((a, b) => a - b);
  for (const bucket of ripe) {
    const devices = wheel.buckets.get(bucket)!;
    while (due.length < devicesMax && devices.length > 0) {
      const device = devices.pop()!;
      if (wheel.places.get(device) !== bucket) continue;
      wheel.places.delete(device);
      due.push(device);
    }
    if (devices.length > 0) break;
    wheel.buckets.delete(bucket);
  }
  wheel.earliest = Number.POSITIVE_INFINITY;
  for (const bucket of wheel.buckets.keys()) wheel.earliest = Math.min(wheel.earliest, bucket);
  if (wheel.places.size === 0) timers.wheels.delete(gateway);
  return due;
}
