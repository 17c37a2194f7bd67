/** What `holdfast lab …` understands. Pure. */

import { FAIR, type Weather, weatherFault } from '../local/link-weather.ts';
import { problem, type Read, readOptions } from '../local/read-options.ts';
import { type FaultKind, faultKinds } from './plan.ts';

export interface LabArguments {
  readonly seed: number;
  readonly durationMs: number;
  readonly devices: number;
  /** Messages per second of all devices together. */
  readonly rate: number;
  /** What the link is like when nothing is wrong with it. */
  readonly weather: Weather;
  readonly faults: readonly FaultKind[];
  readonly json: boolean;
  /** Print what would go wrong, and do nothing. */
  readonly planOnly: boolean;
}

export const HELP = `holdfast lab [options]

A site, its devices and the cloud on this machine, and everything that can go wrong between them. In the end it counts
what became of every message that the broker acknowledged to a device; exit code 0 when none is lost and none is double.

  --minutes N        how long things go wrong (1); draining and counting come on top
  --seed N           draws what goes wrong and when (a new one each time)
  --plan             only print what that seed would do
  --json             the last line is the count as JSON
  --devices N        devices of the site (20); every fifth sends no timestamp of its own
  --rate N           messages per second of all together (200)
  --loss N           share of the link's TCP segments that are lost, all the time, such as 0.02 (0)
  --delay N          one-way delay of the link, milliseconds (0)
  --bandwidth N      bytes per second of the link, each way (0: no limit)
  --faults A,B       only these; none for none:
${faultLines()}`;

function faultLines(): string {
  const half = Math.ceil(faultKinds.length / 2);
  return [faultKinds.slice(0, half), faultKinds.slice(half)]
    .map(kinds => `                     ${kinds.join(', ')}`)
    .join(',\n');
}

/** @param newSeed for a run that names none */
export function readLabArguments(words: string[], newSeed: number): Read<LabArguments> {
  const read = readOptions(words, {
    minutes: { type: 'string' },
    seed: { type: 'string' },
    devices: { type: 'string' },
    rate: { type: 'string' },
    loss: { type: 'string' },
    delay: { type: 'string' },
    bandwidth: { type: 'string' },
    faults: { type: 'string' },
    plan: { type: 'boolean' },
    json: { type: 'boolean' },
  });
  if (!read.ok) return read;
  const { value: values } = read;

  const numbers = {
    minutes: Number(values.minutes ?? 1),
    seed: Number(values.seed ?? newSeed),
    devices: Number(values.devices ?? 20),
    rate: Number(values.rate ?? 200),
  };
  if (!(numbers.minutes > 0 && numbers.minutes <= 1440))
    return problem(`--minutes ${values.minutes}: a number up to 1440`);
  if (!Number.isInteger(numbers.seed) || numbers.seed < 0 || numbers.seed >= 2 ** 32)
    return problem(`--seed ${values.seed}: a whole number below 2^32`);
  if (!Number.isInteger(numbers.devices) || numbers.devices < 1 || numbers.devices > 1000)
    return problem(`--devices ${values.devices}: a whole number from 1 to 1000`);
  if (!(numbers.rate > 0 && numbers.rate <= 20_000))
    return problem(`--rate ${values.rate}: a number up to 20000`);
  const weather = {
    ...FAIR,
    lossRate: Number(values.loss ?? 0),
    delayMs: Number(values.delay ?? 0),
    bytesPerSecond: Number(values.bandwidth ?? 0),
  };
  const fault = weatherFault(weather);
  if (fault) return problem(`--loss, --delay, --bandwidth: ${fault}`);

  const named = values.faults === undefined ? [...faultKinds] : String(values.faults).split(',');
  const faults: FaultKind[] = [];
  for (const name of named) {
    const kind = faultKinds.find(each => each === name.trim());
    if (kind) faults.push(kind);
    else if (name !== 'none') return problem(`--faults: there is no ${name}`);
  }
  return {
    ok: true,
    value: {
      seed: numbers.seed,
      durationMs: numbers.minutes * 60_000,
      devices: numbers.devices,
      rate: numbers.rate,
      weather,
      faults,
      json: values.json === true,
      planOnly: values.plan === true,
    },
  };
}
