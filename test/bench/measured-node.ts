/**
 * A cloud node that tells what it uses, asked over its IPC channel: memory after a full garbage collection, CPU so far,
 * and a CPU profile between two questions.
 */
import { writeFileSync } from 'node:fs';
import { Session } from 'node:inspector/promises';
import { setTimeout as sleep } from 'node:timers/promises';
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import '../../cloud/main.ts';

export type Question =
  | { readonly type: 'measure'; readonly collect: boolean }
  | { readonly type: 'profile' }
  | { readonly type: 'profiled'; readonly file: string };

export interface Measured {
  readonly type: 'measured';
  readonly rssBytes: number;
  readonly heapBytes: number;
  /** Of the heap with what is free in it, and of buffers outside of it. */
  readonly heapTotalBytes: number;
  readonly externalBytes: number;
  /** User and system time since the process began. */
  readonly cpuMs: number;
}

/** What the first collection sets free is given back to the system by the later ones. */
const COLLECTIONS = 4;
const BETWEEN_COLLECTIONS_MS = 300;

setFlagsFromString('--expose-gc');
const collectGarbage = runInNewContext('gc') as () => void;
const session = new Session();

process.on('message', async (question: Question) => {
  if (question.type === 'measure') {
    for (let i = 0; question.collect && i < COLLECTIONS; i++) {
      collectGarbage();
      await sleep(BETWEEN_COLLECTIONS_MS);
    }
    const { rss, heapUsed, heapTotal, external } = process.memoryUsage();
    const { user, system } = process.cpuUsage();
    const measured: Measured = {
      type: 'measured',
      rssBytes: rss,
      heapBytes: heapUsed,
      heapTotalBytes: heapTotal,
      externalBytes: external,
      cpuMs: (user + system) / 1000,
    };
    process.send?.(measured);
  } else if (question.type === 'profile') {
    session.connect();
    await session.post('Profiler.enable');
    await session.post('Profiler.start');
  } else {
    const { profile } = await session.post('Profiler.stop');
    writeFileSync(question.file, JSON.stringify(profile));
    session.disconnect();
  }
});
