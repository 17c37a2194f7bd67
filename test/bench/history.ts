/**
 * `history`: what the long memory costs, against PostgreSQL used plainly, on one private server.
 *
 *   footprint    bytes per reading as it comes in, compacted, and as a row per reading under a key; compaction per second
 *   writing      the whole history writer against a ready-made COPY and against an INSERT per row
 *   queries      a chart of a day of a million readings, and of a year
 *   exporting    seven days of one device as CSV, against `psql \copy`
 *   recordings   bytes per reading of real ones (`--recordings FOLDER`)
 *
 * `--messages` is how many are stored for the footprint; the others take no more than that either.
 */
import type { Benchmark } from './benchmark.ts';
import { measureExport } from './history/exporting.ts';
import { measureFootprint } from './history/footprint.ts';
import { measureQueries } from './history/queries.ts';
import { measureRecordings } from './history/recordings.ts';
import { startHistoryServer } from './history/server.ts';
import { measureWriting } from './history/writing.ts';

/** Ten million readings. */
const MESSAGES = 2_500_000;
const MESSAGES_PER_ROUND = 200_000;
const ROUNDS = 5;

export const history: Benchmark = {
  does: 'bytes per reading, writer against COPY and INSERT, compaction, charts, export',
  async run(options) {
    const { directory, report, recordings: folder, messages = MESSAGES, rounds = ROUNDS } = options;
    const server = await startHistoryServer(options);
    const footprint = await measureFootprint(server, messages, report);
    const perRound = Math.min(messages, MESSAGES_PER_ROUND);
    const writing = await measureWriting(server, { messages: perRound, rounds, directory, report });
    const queries = await measureQueries(server, messages, report);
    const exporting = await measureExport(server, { readingsMax: messages, rounds, directory, report });
    const parts = [footprint, writing, queries, exporting];
    const recordings = folder === undefined ? undefined : await measureRecordings(server, folder, report);
    const figures = {
      ...Object.assign({}, ...parts.map(part => part.figures)),
      ...(recordings && { recordings: recordings.figures }),
      rounds,
    };
    return { tables: [...parts, ...(recordings ? [recordings] : [])].map(part => part.table), figures };
  },
};
