/** The newest warnings and errors of the log, for who looks at the box and has no log at hand. */
import type { LoggerOptions } from 'pino';
import type { Trouble } from './state.ts';

const KEPT = 20;
const TEXT_MAX = 500;
const LEVELS: Readonly<Record<number, Trouble['level']>> = { 40: 'warn', 50: 'error', 60: 'fatal' };

export interface TroubleMemory {
  readonly hooks: NonNullable<LoggerOptions['hooks']>;
  /** Oldest first, at most {@link KEPT}; one that repeats the one before takes its place. */
  newest(): readonly Trouble[];
}

export function newTroubleMemory(nowMs: () => number = Date.now): TroubleMemory {
  const kept: Trouble[] = [];
  return {
    newest: () => kept,
    hooks: {
      logMethod(args, method, level) {
        const known = LEVELS[level];
        if (known) {
          const text = textOf(args).slice(0, TEXT_MAX);
          if (kept.at(-1)?.text === text) kept.pop();
          kept.push({ at: nowMs(), level: known, text });
          if (kept.length > KEPT) kept.shift();
        }
        method.apply(this, args);
      },
    },
  };
}

/** The message with the reason or error that was logged beside it. */
function textOf(args: readonly unknown[]): string {
  const details = args[0];
  const message = args.find(part => typeof part === 'string') ?? '';
  if (typeof details !== 'object' || details === null) return String(message);
  const { reason, err } = details as { reason?: unknown; err?: unknown };
  const why = reason ?? (err instanceof Error ? err.message : undefined);
  return why === undefined ? String(message) : `${message}: ${String(why)}`;
}
