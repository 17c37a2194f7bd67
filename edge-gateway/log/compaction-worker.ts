/** The thread that compacts: one job after the other, on the real file system. */
import { parentPort, workerData } from 'node:worker_threads';
import { compileMapping } from '../mapping/compile.ts';
import type { MappingConfig } from '../mapping/mapping-file.ts';
import { type Job, runJob } from './compaction-job.ts';
import { nodeFiles } from './files.ts';

const mapping = compileMapping(workerData as MappingConfig);
let doing = Promise.resolve();
parentPort!.on('message', (job: Job) => {
  doing = doing.then(async () => parentPort!.postMessage(await runJob(nodeFiles, mapping, job)));
});
