/** The options of `holdfast edge export`, checked. What the gateway's environment says need not be said again. */
import { readFileSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { parseArgs, parseEnv } from 'node:util';
import { Encrypter } from 'age-encryption';
import { type GatewayId, ID_RULE, isGatewayId, isLogId, isSiteId, type SiteId } from '../../protocol/ids.ts';
import type { Place } from './export-buffer.ts';
import { defaultKeyFile } from './signing-key.ts';

export const USAGE = `holdfast edge export FOLDER --to RECIPIENT
  --to KEY | FILE    the cloud's import key, age1…, or a file with it; otherwise HOLDFAST_EXPORT_RECIPIENT
  --env FILE         the gateway's environment file, where its variables are not set here
  --site NAME, --gateway NAME, --data FOLDER, --mapping FILE
                     otherwise HOLDFAST_SITE, HOLDFAST_GATEWAY, HOLDFAST_DATA_DIR, HOLDFAST_MAPPING_FILE
  --no-mapping       the gateway has no mapping file; to be said where its environment is not there to say so
  --key FILE         the key to sign with; otherwise <data folder>/keys/export.key, made at first use
  --all              also what history has settled already
  --unmarked         also where the buffer cannot be told what was exported: no gateway may run on it again
  --from LOG:NUMBER  goes on where an export that was stopped says so
  --show-key         prints the line for the cloud's trust list, and ends
  --json             prints a summary as JSON`;

export interface ExportCommandOptions {
  readonly showKey: boolean;
  readonly folder: string;
  readonly recipient: string;
  readonly site: SiteId;
  readonly gateway: GatewayId;
  readonly dataDirectory: string;
  /** Null: the common shapes alone. */
  readonly mappingFile: string | null;
  readonly keyFile: string;
  readonly all: boolean;
  /** Exports also when what is exported cannot be marked as sent. */
  readonly unmarked: boolean;
  readonly from: Place | null;
  readonly json: boolean;
}

/** @param environment of this process @throws Error with what to do, for whoever typed it */
export function readOptions(
  args: readonly string[],
  environment: Readonly<Record<string, string | undefined>>,
): ExportCommandOptions {
  const { values, positionals } = parseArgs({
    args: [...args],
    allowPositionals: true,
    options: {
      to: { type: 'string' },
      env: { type: 'string' },
      site: { type: 'string' },
      gateway: { type: 'string' },
      data: { type: 'string' },
      mapping: { type: 'string' },
      'no-mapping': { type: 'boolean', default: false },
      key: { type: 'string' },
      all: { type: 'boolean', default: false },
      unmarked: { type: 'boolean', default: false },
      from: { type: 'string' },
      'show-key': { type: 'boolean', default: false },
      json: { type: 'boolean', default: false },
    },
  });
  const env = values.env === undefined ? environment : parseEnv(readFileSync(values.env, 'utf8'));
  const site = values.site ?? env.HOLDFAST_SITE ?? '';
  const gateway = values.gateway ?? env.HOLDFAST_GATEWAY ?? '';
  const dataDirectory = values.data ?? env.HOLDFAST_DATA_DIR ?? '';
  if (!isSiteId(site)) throw new Error(`--site NAME or HOLDFAST_SITE: ${ID_RULE}`);
  if (!isGatewayId(gateway)) throw new Error(`--gateway NAME or HOLDFAST_GATEWAY: ${ID_RULE}`);
  if (dataDirectory === '') throw new Error("--data FOLDER or HOLDFAST_DATA_DIR: the gateway's data folder");
  const common = {
    site,
    gateway,
    dataDirectory,
    keyFile: values.key ?? defaultKeyFile(dataDirectory),
    all: values.all,
    unmarked: values.unmarked,
    json: values.json,
    from: values.from === undefined ? null : placeOf(values.from),
  };
  if (values['show-key']) {
    return { ...common, showKey: true, folder: '', recipient: '', mappingFile: null };
  }
  const [folder, ...rest] = positionals;
  if (folder === undefined || rest.length > 0) throw new Error('one FOLDER to write to');
  if (!statSync(folder, { throwIfNoEntry: false })?.isDirectory()) {
    throw new Error(`${folder} is not a folder; is the stick mounted there?`);
  }
  return {
    ...common,
    showKey: false,
    folder,
    recipient: recipientOf(
      values.to ?? environment.HOLDFAST_EXPORT_RECIPIENT ?? env.HOLDFAST_EXPORT_RECIPIENT,
    ),
    mappingFile: mappingFileOf(),
  };

  /** Batches are made here: under another mapping than the gateway's, messages would be set aside for good. */
  function mappingFileOf(): string | null {
    const file = values.mapping ?? env.HOLDFAST_MAPPING_FILE;
    if (values['no-mapping']) {
      if (values.mapping !== undefined) throw new Error('--mapping or --no-mapping, not both');
      return null;
    }
    if (file) return file;
    if (env.HOLDFAST_SITE === undefined) {
      throw new Error('--mapping FILE with which the gateway runs, or --no-mapping where it has none');
    }
    return null;
  }
}

function placeOf(text: string): Place {
  const [log = '', number = ''] = text.split(':');
  if (!isLogId(log) || !/^[1-9]\d{0,14}$/.test(number)) {
    throw new Error(`--from ${text}: as the export that was stopped has printed it`);
  }
  return { logId: log, sequence: Number(number) };
}

function recipientOf(given: string | undefined): string {
  if (!given) {
    throw new Error(
      "--to RECIPIENT: the cloud's import key, age1…, or a file with it (made with: holdfast keys new)",
    );
  }
  // Whoever gives the file with the secret half by mistake has its public half in a comment there.
  const text = given.startsWith('age1') ? given : readFileSync(given, 'utf8');
  const recipient = /\bage1[a-z0-9]+/.exec(text)?.[0];
  if (recipient === undefined) throw new Error(`--to ${given}: there is no age1… in it`);
  try {
    new Encrypter().addRecipient(recipient);
  } catch (error) {
    throw new Error(`--to ${recipient}: no import key; is it whole? (${(error as Error).message})`);
  }
  return recipient;
}

export const logFolderOf = (dataDirectory: string): string => join(dataDirectory, 'log');
