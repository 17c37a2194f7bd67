/**
 * `holdfast edge export`: the buffer's content onto a stick. Progress and advice go to stderr, a summary to stdout.
 * Exit codes: 0 exported, or nothing to export; 1 stopped, with how to go on; 2 wrong options, mapping or key.
 */
import pino from 'pino';
import { signingKeyText } from '../../protocol/export/signing.ts';
import { newBatchReader } from '../batch-reader.ts';
import type { LogRun } from '../log/disk-buffer.ts';
import { codeOf } from '../log/files.ts';
import type { MarkOutcome } from '../log/mark-stopped.ts';
import { openReadOnly } from '../log/read-only.ts';
import { compileMapping } from '../mapping/compile.ts';
import { inDataFolder, loadMappingFile, NO_MAPPING } from '../mapping/mapping-file.ts';
import { type ExportCommandOptions, logFolderOf, readOptions, USAGE } from './command-options.ts';
import { countAsSent } from './count-as-sent.ts';
import { type ExportOutcome, exportBuffer, type Place } from './export-buffer.ts';
import { openSigningKey } from './signing-key.ts';

const say = (line: string): void => void process.stderr.write(`${line}\n`);
const count = (number: number): string => number.toLocaleString('en-US');
const filesText = (number: number): string => (number === 1 ? '1 file' : `${number} files`);
const mebibytes = (bytes: number): string => `${(bytes / 1024 / 1024).toFixed(1)} MiB`;

/** @param args behind `export` */
export async function exportCommand(args: readonly string[]): Promise<void> {
  let options: ExportCommandOptions;
  try {
    options = readOptions(args, process.env);
  } catch (error) {
    say(`${(error as Error).message}\n\n${USAGE}`);
    process.exitCode = 2;
    return;
  }
  process.exitCode = await run(options);
}

async function run(options: ExportCommandOptions): Promise<number> {
  const { site, gateway } = options;
  const signing = openSigningKey(options.keyFile);
  if (signing.outcome === 'unusable') {
    say(signing.reason);
    return 2;
  }
  const trustLine = `${site}/${gateway} ${signingKeyText(signing.key)}`;
  if (options.showKey) {
    process.stdout.write(`${trustLine}\n`);
    return 0;
  }
  if (signing.made) {
    say(
      `A signing key was made at ${options.keyFile}. The cloud takes files of this gateway once its trust list has the line:`,
    );
    say(`  ${trustLine}`);
  }
  const mapped =
    options.mappingFile === null
      ? { ok: true as const, config: NO_MAPPING }
      : loadMappingFile(options.mappingFile);
  if (!mapped.ok) {
    for (const problem of mapped.problems) say(`mapping: ${problem}`);
    return 2;
  }
  const directory = logFolderOf(options.dataDirectory);
  const opened = await openReadOnly(directory);
  if (opened.outcome === 'unusable') {
    say(`No disk buffer can be read in ${directory}: ${opened.reason}`);
    return 2;
  }
  const { buffer } = opened;
  if (options.from && !buffer.logs.some(log => log.logId === options.from!.logId)) {
    say(`--from ${textOf(options.from)}: that log is not in the buffer any more; leave --from out`);
    return 2;
  }
  const readBatch = newBatchReader({
    buffer,
    mapping: compileMapping(inDataFolder(mapped.config, options.dataDirectory)),
    logger: pino({ level: 'warn' }, pino.destination(2)),
  });
  let outcome: ExportOutcome;
  try {
    outcome = await exportBuffer({
      buffer,
      readBatch,
      countAsSent: runs => countOrWarn(options, runs),
      site,
      gateway,
      folder: options.folder,
      recipient: options.recipient,
      key: signing.key,
      now: new Date(),
      all: options.all,
      ...(options.from && { from: options.from }),
      onFile: ({ file, messages, bytes }) => say(`${file}  ${count(messages)} messages, ${mebibytes(bytes)}`),
    });
  } catch (error) {
    if (codeOf(error) === '') throw error;
    say(`The buffer in ${directory} cannot be read on: ${(error as Error).message}`);
    return 1;
  }
  if (outcome.outcome === 'not-marked') {
    say(
      `Nothing was written: what is exported must count as sent, and that cannot be noted. ${outcome.reason}`,
    );
    say('Where no gateway will run on this folder again: --unmarked');
    if (options.json) process.stdout.write(`${JSON.stringify(outcome)}\n`);
    return 1;
  }
  const unreadable = await buffer.unreadable();
  report(options, outcome, unreadable, buffer.foreignBytes);
  return outcome.outcome === 'exported' ? 0 : 1;
}

async function countOrWarn(options: ExportCommandOptions, runs: readonly LogRun[]): Promise<MarkOutcome> {
  const marked = await countAsSent(options.dataDirectory, runs);
  if (marked.outcome === 'marked' || !options.unmarked) return marked;
  say(`Not noted as sent: ${marked.reason}. Let no gateway run on this folder again.`);
  return { outcome: 'marked' };
}

function report(
  options: ExportCommandOptions,
  outcome: Exclude<ExportOutcome, { outcome: 'not-marked' }>,
  unreadable: number,
  foreignBytes: number,
): void {
  const { files, messages, bytes } = outcome;
  const goOnFrom = outcome.outcome === 'stopped' ? textOf(outcome.goOnFrom) : null;
  if (unreadable > 0) {
    say(`${count(unreadable)} messages in the buffer cannot be read: damaged. They are not in the export.`);
  }
  if (foreignBytes > 0) {
    say(
      `${mebibytes(foreignBytes)} of the buffer were written by a newer version and are not in the export.`,
    );
  }
  if (outcome.outcome === 'stopped') say(adviceFor(outcome.error, options.folder, files.length, goOnFrom!));
  if (options.json) {
    const summary = { outcome: outcome.outcome, export: outcome.export, files, messages, bytes };
    const reason = outcome.outcome === 'stopped' ? outcome.error.message : null;
    process.stdout.write(`${JSON.stringify({ ...summary, unreadable, foreignBytes, reason, goOnFrom })}\n`);
  } else if (outcome.outcome === 'exported' && files.length === 0) {
    process.stdout.write('Nothing to export: history has settled all that is in the buffer.\n');
  } else if (outcome.outcome === 'exported') {
    process.stdout.write(
      `Exported: ${count(messages)} messages in ${filesText(files.length)}, ${mebibytes(bytes)}. Unmount the stick before it is pulled out.\n`,
    );
  }
}

function adviceFor(error: Error, folder: string, files: number, goOnFrom: string): string {
  const written =
    files > 0
      ? `What was written before, ${filesText(files)}, is whole and can be imported. To go on: holdfast edge export … --from ${goOnFrom}`
      : 'Nothing was written.';
  const what = ['ENOSPC', 'EDQUOT'].includes(codeOf(error))
    ? `No space is left in ${folder}: take another stick, or remove from this one what has been imported.`
    : ['EACCES', 'EPERM', 'EROFS'].includes(codeOf(error))
      ? `${folder} cannot be written to: ${error.message}`
      : `${folder} takes no more; was the stick pulled out? (${error.message})`;
  return `${what}\n${written}`;
}

const textOf = ({ logId, sequence }: Place): string => `${logId}:${sequence}`;
