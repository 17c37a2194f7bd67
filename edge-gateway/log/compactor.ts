/**
 * The thread that compacts, seen from the main one: started with the first job, ended when there was none for a while,
 * so that an online box does not pay for it.
 *
 *   none ──job──▶ working ──done──▶ resting ──job──▶ working
 *    ▲               │ dies            │ IDLE_MS
 *    └───────────────┴─────────────────┘
 *
 * Its memory is bounded; when it dies of that or of anything else, the job has failed and the next one starts a new
 * thread (H).
 */
import { Worker } from 'node:worker_threads';
import type { MappingConfig } from '../mapping/mapping-file.ts';
import type { Compactor, JobOutcome } from './compaction-job.ts';

const IDLE_MS = 20_000;
const RESOURCE_LIMITS = { maxOldGenerationSizeMb: 32, maxYoungGenerationSizeMb: 2, stackSizeMb: 2 };

type Phase =
  | { readonly phase: 'none' }
  | { readonly phase: 'working'; readonly worker: Worker; readonly settle: (outcome: JobOutcome) => void }
  | { readonly phase: 'resting'; readonly worker: Worker; readonly timer: NodeJS.Timeout }
  | { readonly phase: 'closed' };

/** @param script what the thread runs; another one in tests */
export function startCompactor(
  mapping: MappingConfig,
  script: URL = new URL('./compaction-worker.ts', import.meta.url),
): Compactor {
  let phase: Phase = { phase: 'none' };
  let ending: Promise<unknown> = Promise.resolve();

  function start(): Worker {
    const worker = new Worker(script, {
      workerData: mapping,
      resourceLimits: RESOURCE_LIMITS,
      execArgv: ['--disable-warning=ExperimentalWarning'],
      env: {},
    });
    worker.on('message', (outcome: JobOutcome) => {
      if (phase.phase !== 'working' || phase.worker !== worker) return;
      const { settle } = phase;
      const timer = setTimeout(() => gone(worker, 'idle'), IDLE_MS);
      timer.unref();
      worker.unref();
      phase = { phase: 'resting', worker, timer };
      settle(outcome);
    });
    worker.on('error', error => gone(worker, error.message));
    worker.on('exit', code => gone(worker, `ended with code ${code}`));
    return worker;
  }

  function gone(worker: Worker, reason: string): void {
    if (!('worker' in phase) || phase.worker !== worker) return;
    const before = phase;
    phase = { phase: 'none' };
    if (before.phase === 'resting') clearTimeout(before.timer);
    // Not before it has ended: what it does to the disk until then counts.
    ending = worker.terminate().then(() => {
      if (before.phase !== 'working') return;
      before.settle({ outcome: 'failed', reason: `the thread that compacts: ${reason}`, code: '' });
    });
  }

  return {
    run(job) {
      if (phase.phase === 'working') throw new Error('two jobs at a time');
      if (phase.phase === 'closed')
        return Promise.resolve({ outcome: 'failed', reason: 'closed', code: '' } as const);
      if (phase.phase === 'resting') clearTimeout(phase.timer);
      const worker = phase.phase === 'resting' ? phase.worker : start();
      return new Promise(settle => {
        phase = { phase: 'working', worker, settle };
        worker.ref();
        worker.postMessage(job);
      });
    },
    async close() {
      if ('worker' in phase) gone(phase.worker, 'closing');
      phase = { phase: 'closed' };
      await ending;
    },
  };
}
