/**
 * The standard fleet: what every figure of bytes or speed in this project is measured on. The same seed gives the
 * same messages on every machine.
 *
 * Device i is `dev-<i>` (four digits) at site i mod `sites`. It publishes once per interval, at a phase drawn evenly from
 * the interval, so all devices interleave and messages come in the order of the plan. `ts` is the planned time plus
 * Gaussian jitter (σ 2 ms), in whole milliseconds, so neighbours may swap their timestamps.
 *
 * Every metric is a random walk with Gaussian steps that drifts back to the device's own mean by 1 % per step:
 *
 *   metric       mean of the device, start   step σ   rounded to   clamped to    bits, device unknown   bits, last value known
 *   temperature  N(21, σ 1.5) °C             0.05     0.01         -40 … 85      9.3                    4.4
 *   humidity     N(40, σ 4) %                0.15     0.1          0 … 100       7.4                    2.7
 *   battery      even in 40 … 100 %          0.01     1            0 … 100       5.9                    0.1
 *   vibration    even in 0.05 … 0.4 g        0.004    0.001        0 … 16        8.5                    4.1
 *
 * (The battery does not return to a mean: it falls by 0.001 per step.) The jitter of `ts` and the spacing of random
 * phases add about 4 bits per message, and the order of 500 devices, to whoever does not know it, 7.6 bits. A batch that holds one
 * message of each of 500 devices thus carries some 43 bits per message, 1.34 bytes per reading: no lossless
 * code that sees the batch alone can do better. With the previous message known it is 16 bits, 0.5 bytes per reading.
 */
import { gzipSync } from 'node:zlib';

export interface FleetMessage {
  /** Index of the site, from 0. */
  readonly site: number;
  readonly device: string;
  readonly topic: string;
  /** The device's own timestamp, milliseconds since 1970; also in the payload. */
  readonly ts: number;
  /** `{"ts":…,"temperature":21.37,"humidity":40.2,"battery":97,"vibration":0.123}` */
  readonly payload: string;
}

export interface FleetOptions {
  readonly devices?: number;
  readonly sites?: number;
  readonly seed?: number;
  /** Start of the first interval, milliseconds since 1970. */
  readonly startMs?: number;
  /** Each device publishes once in this time. */
  readonly intervalMs?: number;
}

export const STANDARD_SEED = 20_240_229;
export const STANDARD_START_MS = Date.UTC(2025, 0, 1);

/** The messages of the fleet in the order of publishing, without end. */
export function* standardFleet(options: FleetOptions = {}): Generator<FleetMessage, never, void> {
  const { devices = 1000, sites = 2, seed = STANDARD_SEED } = options;
  const { startMs = STANDARD_START_MS, intervalMs = 1000 } = options;
  const random = seededRandom(seed);
  const gaussian = seededGaussian(random);

  const names = Array.from({ length: devices }, (_, i) => `dev-${String(i).padStart(4, '0')}`);
  const topics = names.map(name => `devices/${name}/telemetry`);
  const phase = Float64Array.from(names, () => random() * intervalMs);
  const temperatureMean = Float64Array.from(names, () => 21 + 1.5 * gaussian());
  const humidityMean = Float64Array.from(names, () => 40 + 4 * gaussian());
  const vibrationMean = Float64Array.from(names, () => 0.05 + 0.35 * random());
  const temperature = temperatureMean.slice();
  const humidity = humidityMean.slice();
  const battery = Float64Array.from(names, () => 40 + 60 * random());
  const vibration = vibrationMean.slice();
  const order = Uint32Array.from(names.keys()).sort((a, b) => phase[a]! - phase[b]!);

  for (let interval = 0; ; interval++) {
    for (const i of order) {
      const ts = Math.round(startMs + interval * intervalMs + phase[i]! + 2 * gaussian());
      temperature[i] = walk(temperature[i]!, temperatureMean[i]!, 0.05 * gaussian(), -40, 85);
      humidity[i] = walk(humidity[i]!, humidityMean[i]!, 0.15 * gaussian(), 0, 100);
      battery[i] = walk(battery[i]!, battery[i]!, 0.01 * gaussian() - 0.001, 0, 100);
      vibration[i] = walk(vibration[i]!, vibrationMean[i]!, 0.004 * gaussian(), 0, 16);
      yield {
        site: i % sites,
        device: names[i]!,
        topic: topics[i]!,
        ts,
        payload:
          `{"ts":${ts},"temperature":${Math.round(temperature[i]! * 100) / 100}` +
          `,"humidity":${Math.round(humidity[i]! * 10) / 10},"battery":${Math.round(battery[i]!)}` +
          `,"vibration":${Math.round(vibration[i]! * 1000) / 1000}}`,
      };
    }
  }
}

/** What the same messages take as gzipped lines of topic and payload: printed beside every figure of bytes. */
export function gzipBytes(messages: readonly Pick<FleetMessage, 'topic' | 'payload'>[]): number {
  return gzipSync(messages.map(({ topic, payload }) => `${topic} ${payload}\n`).join('')).length;
}

function walk(value: number, mean: number, step: number, min: number, max: number): number {
  return Math.min(max, Math.max(min, value + 0.01 * (mean - value) + step));
}

/** Mulberry32: 32 bits of state, even in [0, 1). */
function seededRandom(seed: number): () => number {
  let state = seed | 0;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}

/** Normal deviates (mean 0, σ 1) by Box and Muller, which makes two at a time. */
function seededGaussian(random: () => number): () => number {
  let spare = Number.NaN;
  return () => {
    if (!Number.isNaN(spare)) {
      const value = spare;
      spare = Number.NaN;
      return value;
    }
    const radius = Math.sqrt(-2 * Math.log(1 - random()));
    const angle = 2 * Math.PI * random();
    spare = radius * Math.sin(angle);
    return radius * Math.cos(angle);
  };
}
