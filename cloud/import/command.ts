/**
 * `holdfast import`: what came on a stick into history. Progress goes to stderr, the summary to stdout.
 * Exit codes: 0 all is in history; 1 something was refused, or it stopped; 2 wrong options.
 */

import { type ImportCommandOptions, readOptions, USAGE } from './command-options.ts';
import { handOver } from './hand-over.ts';
import { type Ingest, openIngest } from './ingest.ts';
import { type Ledger, openLedger } from './ledger.ts';
import { missingParts, type PartSeen } from './missing-parts.ts';
import { type OpenedExport, openExport } from './open-export.ts';
import { ImportStopped, newPatience, type Patience } from './patience.ts';

type FileOutcome =
  | { readonly file: string; readonly outcome: 'refused'; readonly reason: string }
  | { readonly file: string; readonly outcome: 'fits'; readonly of: string; readonly messages: number }
  | {
      readonly file: string;
      readonly outcome: 'imported';
      readonly of: string;
      readonly messages: number;
      readonly fresh: number;
      readonly already: number;
    };

interface Servers {
  readonly ledger: Ledger;
  readonly ingest: Ingest;
  readonly partitions: number;
}

const say = (line: string): void => void process.stderr.write(`${line}\n`);
const count = (number: number): string => number.toLocaleString('en-US');

process.on('SIGINT', () => process.exit(130));
process.on('SIGTERM', () => process.exit(143));
process.exitCode = await run();

async function run(): Promise<number> {
  let options: ImportCommandOptions;
  try {
    options = await readOptions(process.argv.slice(2), process.env);
  } catch (error) {
    say(`${(error as Error).message}\n\n${USAGE}`);
    return 2;
  }
  const patience = newPatience({ waitMs: options.waitMs, say });
  const outcomes: FileOutcome[] = [];
  const parts: PartSeen[] = [];
  const releases: (() => Promise<unknown>)[] = [];
  let stopped: string | null = null;
  try {
    let servers: Servers | null = null;
    for (const file of options.files) {
      const opened = await openExport(file, options);
      if ('refused' in opened) {
        outcomes.push({ file, outcome: 'refused', reason: opened.refused });
        say(`${file}  REFUSED: ${opened.refused}`);
        continue;
      }
      if (options.servers) servers ??= await connectTo(options.servers, patience, releases);
      outcomes.push(await take(file, opened, servers, patience));
      parts.push({ export: opened.header.export, part: opened.header.part, last: opened.last });
    }
  } catch (error) {
    if (!(error instanceof ImportStopped)) throw error;
    stopped = error.message;
    say(`STOPPED: ${stopped}`);
  } finally {
    for (const release of releases.reverse()) await release();
  }
  return summarize(options, outcomes, missingParts(parts), stopped);
}

async function connectTo(
  urls: { natsUrl: string; postgresUrl: string },
  patience: Patience,
  releases: (() => Promise<unknown>)[],
): Promise<Servers> {
  const ledger = openLedger(urls.postgresUrl);
  releases.push(() => ledger.close());
  const partitions = await patience.insist('PostgreSQL', ledger.partitions);
  const ingest = await patience.insist('NATS', () => openIngest(urls.natsUrl));
  releases.push(() => ingest.close());
  return { ledger, ingest, partitions };
}

async function take(
  file: string,
  opened: OpenedExport,
  servers: Servers | null,
  patience: Patience,
): Promise<FileOutcome> {
  const name = `${opened.site}/${opened.gateway}`;
  if (!servers) {
    const messages = [...opened.ranges.values()].reduce((sum, set) => sum + set.size, 0);
    say(`${file}  of ${name}: whole, ${count(messages)} messages`);
    return { file, outcome: 'fits', of: name, messages };
  }
  const handed = await handOver(opened, { ...servers, patience });
  say(
    `${file}  of ${name}: ${count(handed.fresh)} messages new, ${count(handed.already)} were there already`,
  );
  return { file, outcome: 'imported', of: name, ...handed };
}

function summarize(
  options: ImportCommandOptions,
  outcomes: readonly FileOutcome[],
  missing: readonly string[],
  stopped: string | null,
): number {
  const refused = outcomes.filter(({ outcome }) => outcome === 'refused').length;
  let messages = 0;
  let fresh = 0;
  let already = 0;
  for (const outcome of outcomes) {
    if (outcome.outcome !== 'refused') messages += outcome.messages;
    if (outcome.outcome !== 'imported') continue;
    fresh += outcome.fresh;
    already += outcome.already;
  }
  for (const line of missing) say(line);
  if (options.json) {
    process.stdout.write(
      `${JSON.stringify({ files: outcomes, messages, fresh, already, refused, missing, stopped })}\n`,
    );
  } else if (!options.servers) {
    process.stdout.write(
      `Files that would be taken: ${outcomes.length - refused}, that would not: ${refused}.\n`,
    );
  } else {
    const end = stopped === null ? 'All of them are in history now.' : 'It was stopped; import again later.';
    process.stdout.write(
      `${count(messages)} messages: ${count(fresh)} new, ${count(already)} were there already. ${end}${refused > 0 ? ` Files refused: ${refused}.` : ''}\n`,
    );
  }
  return refused > 0 || stopped !== null ? 1 : 0;
}
