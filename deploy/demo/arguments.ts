/** What `npm start -- …` understands. Pure. */

import { isDeviceId, isSiteId } from '../../protocol/ids.ts';
import { problem, type Read, readOptions } from '../local/read-options.ts';

export const demoSites = ['demo', 'plant'] as const;

export interface Replay {
  readonly file: string;
  readonly site: string;
  readonly device: string;
  readonly metric: string;
  /** Times faster than it was recorded. */
  readonly speed: number;
}

export interface DemoArguments {
  /** From when the fleet runs; null: until Ctrl-C. */
  readonly forMs: number | null;
  readonly replay: Replay | null;
  readonly devices: number;
  readonly fresh: boolean;
  readonly lan: boolean;
  /** Null: 8080, or any free one when that is taken. */
  readonly port: number | null;
}

export const HELP = `npm start -- [options]

  --for 30s            end by itself that long after the fleet runs (s, m or h), with a JSON summary as the last line
  --replay FILE.csv    make a recording (timestamp,value) a device, shifted in time so that it ends now
  --as SITE/DEVICE/METRIC   what the recording is; SITE is one of ${demoSites.join(', ')}
  --speed N            replay N times faster than recorded (1000)
  --devices N          simulated devices (200)
  --port N             port of the dashboard (8080, or a free one)
  --fresh              forget the data of earlier runs
  --lan                open the broker of ${demoSites[0]} to the network, with a generated password

Servers that run already are used when their URL is in HOLDFAST_NATS_URL, HOLDFAST_REDIS_URL, HOLDFAST_POSTGRES_URL,
or HOLDFAST_MQTT_URL (the broker of ${demoSites[0]}; HOLDFAST_MQTT_URL_${demoSites[1].toUpperCase()} for that of ${demoSites[1]}). HOLDFAST_DEMO_DIR is the folder of data and tools (.holdfast of this project).`;

const UNIT_MS: Record<string, number> = { s: 1000, m: 60_000, h: 3_600_000 };

/** @returns the arguments, or what is wrong with them. */
export function readDemoArguments(words: string[]): Read<DemoArguments> {
  const read = readOptions(words, {
    for: { type: 'string' },
    replay: { type: 'string' },
    as: { type: 'string' },
    speed: { type: 'string' },
    devices: { type: 'string' },
    port: { type: 'string' },
    fresh: { type: 'boolean' },
    lan: { type: 'boolean' },
  });
  if (!read.ok) return read;
  const { value: values } = read;

  let forMs: number | null = null;
  if (values.for !== undefined) {
    const [, amount, unit = 's'] = /^(\d+(?:\.\d+)?)([smh])?$/.exec(String(values.for)) ?? [];
    if (!amount) return problem(`--for ${values.for}: a time such as 30s, 5m or 1h`);
    forMs = Number(amount) * UNIT_MS[unit]!;
  }
  const devices = wholeNumber(values.devices ?? '200');
  if (devices === null || devices > 5000)
    return problem(`--devices ${values.devices}: a whole number up to 5000`);
  const port = values.port === undefined ? null : wholeNumber(values.port);
  if (values.port !== undefined && (port === null || port > 65_535))
    return problem(`--port ${values.port}: 0 to 65535`);

  let replay: Replay | null = null;
  if (values.replay !== undefined) {
    const [site = '', device = '', metric = '', ...rest] = String(values.as ?? '').split('/');
    if (!isSiteId(site) || !isDeviceId(device) || metric === '' || rest.length > 0) {
      return problem('--replay needs --as SITE/DEVICE/METRIC, such as --as demo/machine/temperature');
    }
    if (!demoSites.includes(site as (typeof demoSites)[number])) {
      return problem(`--as ${values.as}: the sites of this demo are ${demoSites.join(', ')}`);
    }
    const speed = Number(values.speed ?? 1000);
    if (!(speed > 0)) return problem(`--speed ${values.speed}: a number above 0`);
    replay = { file: String(values.replay), site, device, metric, speed };
  } else if (values.as !== undefined || values.speed !== undefined)
    return problem('--as and --speed go with --replay FILE.csv');

  return {
    ok: true,
    value: { forMs, replay, devices, port, fresh: values.fresh === true, lan: values.lan === true },
  };
}

const wholeNumber = (text: string | boolean): number | null =>
  /^\d+$/.test(String(text)) ? Number(text) : null;
