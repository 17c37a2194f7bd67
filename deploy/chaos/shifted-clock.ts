/**
 * A wall clock that jumps, for one Node process: loaded before everything else (`--import`), it adds to every question for the
 * time what the file `HOLDFAST_CHAOS_CLOCK` says, in milliseconds. Monotonic time goes on as it is, as it does on a machine whose
 * clock is set.
 */
import { readFileSync } from 'node:fs';

const LOOK_EVERY_MS = 100;

const file = process.env.HOLDFAST_CHAOS_CLOCK;
const RealDate = Date;
let shiftMs = 0;

function look(): void {
  try {
    shiftMs = Number(readFileSync(file!, 'utf8')) || 0;
  } catch {
    shiftMs = 0;
  }
}

if (file !== undefined) {
  look();
  setInterval(look, LOOK_EVERY_MS).unref();
  const now = () => RealDate.now() + shiftMs;
  globalThis.Date = new Proxy(RealDate, {
    get: (target, name) => (name === 'now' ? now : Reflect.get(target, name)),
    construct: (target, given, asked) =>
      Reflect.construct(target, given.length === 0 ? [now()] : given, asked),
    apply: () => new RealDate(now()).toString(),
  });
}
