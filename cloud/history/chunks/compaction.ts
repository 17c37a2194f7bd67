/**
 * The thread that compacts, seen from the node: history's hours that are over become chunks, out of the way of the event loop. One
 * that dies is started again; what it was at had not happened.
 */
import { once } from 'node:events';
import { Worker } from 'node:worker_threads';
import type { Logger } from 'pino';
import type { CompactionCount } from './compact.ts';

export interface CompactionOptions {
  readonly postgresUrl: string;
  /** An hour is over that long after its end. */
  readonly graceMs: number;
  /** From one pass to the next, and before the first. */
  readonly everyMs: number;
}

export type PassReport = { readonly count: CompactionCount } | { readonly failure: string };

export interface Compaction {
  /** Of all passes of this node. */
  readonly total: CompactionCount;
  readonly failures: number;
  close(): Promise<void>;
}

const RESTART_MS = 10_000;
const CLOSE_MS = 5000;
/** Steps are bounded (`due.ts`), and so is what they hold. */
const RESOURCE_LIMITS = { maxOldGenerationSizeMb: 512 };

export function startCompaction(options: CompactionOptions & { readonly logger: Logger }): Compaction {
  const { logger, ...workerData } = options;
  let total: CompactionCount = { messages: 0, chunks: 0, bytes: 0 };
  let failures = 0;
  let lastFailure = '';
  let closing = false;
  let worker: Worker | undefined;
  // A node that has just started has better things to do.
  let starting = startIn(options.everyMs);

  function startIn(ms: number): NodeJS.Timeout {
    const timer = setTimeout(() => {
      worker = start();
    }, ms);
    return timer.unref();
  }

  function start(): Worker {
    const started = new Worker(new URL('./compaction-worker.ts', import.meta.url), {
      workerData,
      resourceLimits: RESOURCE_LIMITS,
      execArgv: ['--disable-warning=ExperimentalWarning'],
    });
    started.on('message', (report: PassReport) => {
      if ('failure' in report) return fail(report.failure);
      const { messages, chunks, bytes } = report.count;
      lastFailure = '';
      if (messages === 0) return;
      total = {
        messages: total.messages + messages,
        chunks: total.chunks + chunks,
        bytes: total.bytes + bytes,
      };
      logger.info({ messages, chunks, bytes }, 'history: compacted');
    });
    started.on('error', error => fail(`the thread that compacts: ${error.message}`));
    started.on('exit', () => {
      worker = undefined;
      if (!closing) starting = startIn(RESTART_MS);
    });
    return started;
  }

  function fail(reason: string): void {
    failures++;
    if (reason !== lastFailure) logger.warn({ reason }, 'history: not compacted, trying again');
    lastFailure = reason;
  }

  return {
    get total() {
      return total;
    },
    get failures() {
      return failures;
    },
    async close() {
      closing = true;
      clearTimeout(starting);
      const running = worker;
      if (!running) return;
      const ended = once(running, 'exit');
      running.postMessage('close');
      const late = setTimeout(() => void running.terminate(), CLOSE_MS);
      await ended;
      clearTimeout(late);
    },
  };
}
