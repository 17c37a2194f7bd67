/**
 * Time, chance and order of a simulated cluster. One queue of events, by (time, order of asking); all chance comes from the
 * seed; between two events every promise that can go on has gone on. So a seed always gives the same run, which its hash says.
 *
 *   event ─▶ its process is up ─▶ runs, and all that follows from it at once ─▶ next event
 *              ├ paused: waits until it goes on, or is dropped with it
 *              └ dead: dropped
 *
 * Production code asks `Date.now`, `performance.now`, `Math.random` and the timers of the language. While a simulation runs,
 * those are the world's: of the process whose event is being handled. So nothing of it need be passed in, and nothing of it
 * can be forgotten.
 */
import { randomFrom } from '../deploy/faults/random.ts';

/** Something that can be killed or paused by itself, with a clock of its own. */
export interface Process {
  readonly name: string;
  phase: 'up' | 'paused' | 'dead';
  /** How far its clock is ahead of the true time. */
  clockAheadMs: number;
  /** What waits while it is paused. */
  readonly held: Event[];
}

interface Event {
  at: number;
  order: number;
  readonly process: Process | null;
  readonly label: string;
  run: (() => void) | null;
}

export interface World {
  readonly random: () => number;
  /** Milliseconds since 1970, true time. */
  now(): number;
  /** Since the start. */
  elapsed(): number;
  /** Whole numbers from `least` to `most`. */
  between(least: number, most: number): number;
  chance(probability: number): boolean;
  pick<T>(items: readonly T[]): T;
  spawn(name: string): Process;
  kill(process: Process): void;
  pause(process: Process): void;
  resume(process: Process): void;
  /** Runs `work` as an event of the process, which drops with it. @returns takes it back */
  after(delayMs: number, process: Process | null, label: string, work: () => void): () => void;
  /** Into the trace alone. */
  readonly note: ((words: string) => void) | null;
  /** A bug: the run ends as a failure with this. */
  crash(error: unknown): void;
  readonly crashes: readonly string[];
  /** Runs until nothing is left, `finish` was called, or the time is over. */
  run(untilMs: number): Promise<void>;
  finish(): void;
  readonly events: number;
  /** Of all events so far: equal for equal runs. */
  hash(): string;
}

/** 2026-01-01, so that days and months change in no run. */
export const START = Date.UTC(2026, 0, 1, 12);
const IMMEDIATES_AT_ONCE = 256;

const real = {
  setImmediate: globalThis.setImmediate,
  setTimeout: globalThis.setTimeout,
  clearTimeout: globalThis.clearTimeout,
  setInterval: globalThis.setInterval,
  clearInterval: globalThis.clearInterval,
  dateNow: Date.now,
  random: Math.random,
  performanceNow: performance.now.bind(performance),
};

interface Running {
  readonly world: World;
  current: Process | null;
}
let active: Running | null = null;

export function newWorld(seed: number, trace?: (line: string) => void): World {
  const random = randomFrom(seed);
  const queue = newQueue();
  const crashes: string[] = [];
  let nowMs = 0;
  let order = 0;
  let events = 0;
  let finished = false;
  let [high, low] = [0x811c9dc5, 0x1000193];

  function mix(label: string, at: number): void {
    let mixed = low ^ Math.trunc(at * 1000);
    for (let i = 0; i < label.length; i++) mixed = Math.imul(mixed ^ label.charCodeAt(i), 0x01000193);
    low = mixed;
    high = Math.imul(high ^ mixed, 0x85ebca6b) ^ (high >>> 13);
  }

  const world: World = {
    random,
    now: () => START + nowMs,
    elapsed: () => nowMs,
    between: (least, most) => least + Math.floor(random() * (most - least + 1)),
    chance: probability => random() < probability,
    pick: items => items[Math.floor(random() * items.length)]!,
    spawn: name => ({ name, phase: 'up', clockAheadMs: 0, held: [] }),
    kill(process) {
      process.phase = 'dead';
      process.held.length = 0;
    },
    pause(process) {
      if (process.phase === 'up') process.phase = 'paused';
    },
    resume(process) {
      if (process.phase !== 'paused') return;
      process.phase = 'up';
      for (const event of process.held.splice(0)) {
        event.at = nowMs;
        event.order = order++;
        queue.push(event);
      }
    },
    after(delayMs, process, label, work) {
      const event: Event = {
        at: nowMs + Math.max(0, delayMs),
        order: order++,
        process,
        label,
        run: work,
      };
      queue.push(event);
      return () => {
        event.run = null;
      };
    },
    note: trace ? words => trace(`${nowMs.toFixed(3).padStart(12)}             ${words}`) : null,
    crash(error) {
      crashes.push(error instanceof Error ? (error.stack ?? error.message) : String(error));
    },
    crashes,
    get events() {
      return events;
    },
    hash: () => (high >>> 0).toString(16).padStart(8, '0') + (low >>> 0).toString(16).padStart(8, '0'),
    finish() {
      finished = true;
    },
    run(untilMs) {
      if (active) throw new Error('one simulation at a time');
      const running: Running = { world, current: null };
      const { promise, resolve } = Promise.withResolvers<void>();
      const onRejection = (error: unknown) => world.crash(error);
      process.on('unhandledRejection', onRejection);
      install(running);
      const done = () => {
        if (active !== running) return;
        uninstall();
        process.off('unhandledRejection', onRejection);
        resolve();
      };
      const step = () => {
        if (finished) return;
        for (;;) {
          const event = queue.pop();
          if (!event || event.at > untilMs || crashes.length > 0) {
            finished = true;
            return;
          }
          const { process: of } = event;
          if (event.run === null || of?.phase === 'dead') continue;
          if (of?.phase === 'paused') {
            of.held.push(event);
            continue;
          }
          nowMs = event.at;
          events++;
          mix(event.label, nowMs);
          trace?.(`${nowMs.toFixed(3).padStart(12)}  ${(of?.name ?? '').padEnd(10)} ${event.label}`);
          running.current = of;
          try {
            event.run();
          } catch (error) {
            world.crash(error);
          }
          return;
        }
      };
      // Between two immediates Node runs all microtasks and ticks; only a turn of its loop costs a system call.
      const turn = () => {
        if (finished) return done();
        for (let i = 0; i < IMMEDIATES_AT_ONCE; i++) real.setImmediate(step);
        real.setImmediate(turn);
      };
      turn();
      return promise;
    },
  };
  return world;
}

function install(running: Running): void {
  active = running;
  const { world } = running;
  const clock = () => world.now() + (running.current?.clockAheadMs ?? 0);
  Date.now = () => Math.floor(clock());
  // From 1 on: production takes 0 for "never".
  performance.now = () => world.elapsed() + 1;
  Math.random = world.random;
  const timer = (work: (...values: unknown[]) => void, ms: number, again: boolean, values: unknown[]) => {
    const of = running.current;
    const handle = { cancel: () => {}, unref: () => handle, ref: () => handle };
    const arm = () => {
      handle.cancel = world.after(Math.max(1, ms || 0), of, again ? 'interval' : 'timer', () => {
        if (again) arm();
        work(...values);
      });
    };
    arm();
    return handle;
  };
  const cancel = (handle: { cancel?: () => void } | undefined) => handle?.cancel?.();
  const globals = globalThis as unknown as Record<string, unknown>;
  globals.setTimeout = (work: () => void, ms: number, ...values: unknown[]) => timer(work, ms, false, values);
  globals.setInterval = (work: () => void, ms: number, ...values: unknown[]) => timer(work, ms, true, values);
  globals.clearTimeout = cancel;
  globals.clearInterval = cancel;
}

function uninstall(): void {
  active = null;
  Date.now = real.dateNow;
  performance.now = real.performanceNow;
  Math.random = real.random;
  globalThis.setTimeout = real.setTimeout;
  globalThis.setInterval = real.setInterval;
  globalThis.clearTimeout = real.clearTimeout;
  globalThis.clearInterval = real.clearInterval;
}

/** A binary heap: what is soonest, and of the same time what was asked for first. */
function newQueue(): { push(event: Event): void; pop(): Event | undefined } {
  const heap: Event[] = [];
  const before = (a: Event, b: Event) => a.at < b.at || (a.at === b.at && a.order < b.order);
  return {
    push(event) {
      let index = heap.push(event) - 1;
      while (index > 0) {
        const parent = (index - 1) >> 1;
        if (!before(event, heap[parent]!)) break;
        heap[index] = heap[parent]!;
        index = parent;
      }
      heap[index] = event;
    },
    pop() {
      const top = heap[0];
      const last = heap.pop();
      if (!top || !last || heap.length === 0) return top;
      let index = 0;
      for (;;) {
        let child = 2 * index + 1;
        if (child >= heap.length) break;
        if (child + 1 < heap.length && before(heap[child + 1]!, heap[child]!)) child++;
        if (!before(heap[child]!, last)) break;
        heap[index] = heap[child]!;
        index = child;
      }
      heap[index] = last;
      return top;
    },
  };
}
