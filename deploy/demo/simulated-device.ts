/** What a simulated device measures: random walks, and one oven that gets too hot every other minute. Pure. */

export interface DeviceState {
  readonly name: string;
  readonly counter: number;
  readonly temperature: number;
  readonly humidity: number;
  readonly battery: number;
  readonly vibration: number;
}

const roles = ['pump', 'fridge', 'compressor', 'meter'] as const;
export const OVEN = 'oven-1';
const OVEN_PERIOD_MS = 120_000;

/** Names of `count` devices of a site: the oven first, then pumps, fridges and so on. */
export function deviceNames(count: number): string[] {
  return Array.from({ length: count }, (_, index) =>
    index === 0
      ? OVEN
      : `${roles[index % roles.length]}-${String(Math.ceil(index / roles.length)).padStart(3, '0')}`,
  );
}

/** @param random numbers of [0, 1) */
export function newDevice(name: string, random: () => number): DeviceState {
  return {
    name,
    counter: 0,
    temperature: name.startsWith('fridge') ? 4 + random() : 18 + 6 * random(),
    humidity: 35 + 15 * random(),
    battery: 40 + 60 * random(),
    vibration: 0.1 + 0.1 * random(),
  };
}

export function measure(state: DeviceState, atMs: number, random: () => number): DeviceState {
  const step = (size: number) => (random() + random() + random() - 1.5) * size;
  const oven = 27.5 + 5 * Math.sin((2 * Math.PI * atMs) / OVEN_PERIOD_MS);
  return {
    name: state.name,
    counter: state.counter + 1,
    temperature: state.name === OVEN ? oven + step(0.2) : state.temperature + step(0.1),
    humidity: Math.min(95, Math.max(5, state.humidity + step(0.4))),
    battery: Math.max(1, state.battery - 0.0005),
    vibration: Math.max(0, state.vibration + step(0.02)),
  };
}

export const payloadOf = (state: DeviceState, atMs: number): string =>
  JSON.stringify({
    ts: atMs,
    counter: state.counter,
    temperature: round(state.temperature, 2),
    humidity: round(state.humidity, 1),
    battery: Math.round(state.battery),
    vibration: round(state.vibration, 3),
  });

const round = (value: number, digits: number) => Number(value.toFixed(digits));
