/** Notices the end of a program that nobody asked for, and starts it again, as a supervisor would in production. */
import { setTimeout as sleep } from 'node:timers/promises';

export interface Runnable {
  pid(): number | undefined;
  start(): Promise<unknown>;
  stop(): Promise<void>;
  kill(): Promise<void>;
  output(): string;
}

export interface Supervisor {
  /** One line per program that ended though nobody asked it to, and per one that does not start again. */
  readonly crashes: readonly string[];
  /** The same program, looked after: whoever starts, stops or kills it says so here. It runs already. */
  supervised<P extends Runnable>(name: string, of: P): P;
  /** From now on. @returns what ends it */
  watch(): () => void;
}

const LOOK_EVERY_MS = 500;
/** For a program to start that finds no servers at first. */
const START_MS = 60_000;

export function newSupervisor(options: { report: (line: string) => void; signal: AbortSignal }): Supervisor {
  const { report, signal } = options;
  const crashes: string[] = [];
  const watched: (() => void)[] = [];

  return {
    crashes,
    supervised(name, of) {
      let wanted = true;
      let starting: Promise<unknown> | null = null;
      watched.push(() => {
        if (!wanted || starting || of.pid() !== undefined) return;
        const lastWords = of.output().trim().split('\n').slice(-3).join(' ⏎ ');
        crashes.push(`${name} ended by itself: ${lastWords}`);
        report(crashes.at(-1)!);
        starting = startAgain(of, signal)
          .catch(error => {
            crashes.push(`${name} does not start again: ${(error as Error).message}`);
            report(crashes.at(-1)!);
          })
          .finally(() => {
            starting = null;
          });
      });
      return {
        ...of,
        async start() {
          await starting;
          if (of.pid() === undefined) await startAgain(of, signal);
          wanted = true;
        },
        async stop() {
          wanted = false;
          await starting;
          await of.stop();
        },
        async kill() {
          wanted = false;
          await starting;
          await of.kill();
        },
      };
    },
    watch() {
      const timer = setInterval(() => {
        for (const look of watched) look();
      }, LOOK_EVERY_MS);
      return () => clearInterval(timer);
    },
  };
}

/** A program whose servers are not there may end at its start: a supervisor starts it again. */
async function startAgain(of: Runnable, signal: AbortSignal): Promise<void> {
  const deadline = performance.now() + START_MS;
  for (;;) {
    try {
      await of.start();
      return;
    } catch (error) {
      signal.throwIfAborted();
      if (performance.now() > deadline) throw error;
    }
    await sleep(LOOK_EVERY_MS);
  }
}
