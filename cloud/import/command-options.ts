/** The options of `holdfast import`, checked, with the files that they name read. */
import { globSync, readFileSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { EXPORT_EXTENSION } from '../../protocol/export/export-file.ts';
import { isNatsAddress, NATS_ADDRESS_RULE } from '../../protocol/nats-address.ts';
import { type Identity, parseIdentity } from './open-export.ts';
import { parseTrustList, type TrustList } from './trust-list.ts';

export const USAGE = `holdfast import --identity FILE --trust FILE FILES…
  FILES…             exports of gateways (holdfast edge export), or folders with them
  --identity FILE    the secret half of the cloud's import key; otherwise HOLDFAST_IMPORT_IDENTITY
  --trust FILE       lines "site/gateway ed25519:…": whose exports are taken; otherwise HOLDFAST_IMPORT_TRUST
  --check            only looks whether the files are whole and would be taken; needs no server
  --wait SECONDS     gives up when servers and history have not moved for so long; without it, waits
  --json             prints a summary as JSON
  Servers: HOLDFAST_NATS_URL, HOLDFAST_POSTGRES_URL`;

export interface ImportCommandOptions {
  readonly files: readonly string[];
  readonly identity: Identity;
  readonly trust: TrustList;
  /** Null: only checked. */
  readonly servers: { readonly natsUrl: string; readonly postgresUrl: string } | null;
  /** Without news; Infinity to wait for ever. */
  readonly waitMs: number;
  readonly json: boolean;
}

/** Rejects with an Error that says what to do, for whoever typed it. */
export async function readOptions(
  args: readonly string[],
  environment: Readonly<Record<string, string | undefined>>,
): Promise<ImportCommandOptions> {
  const { values, positionals } = parseArgs({
    args: [...args],
    allowPositionals: true,
    options: {
      identity: { type: 'string' },
      trust: { type: 'string' },
      check: { type: 'boolean', default: false },
      wait: { type: 'string' },
      json: { type: 'boolean', default: false },
    },
  });
  const identityFile = values.identity ?? environment.HOLDFAST_IMPORT_IDENTITY;
  const trustFile = values.trust ?? environment.HOLDFAST_IMPORT_TRUST;
  if (!identityFile) throw new Error('--identity FILE: made with holdfast keys new --for cloud-import');
  if (!trustFile) throw new Error('--trust FILE: with lines as holdfast edge export --show-key prints them');
  const identity = await parseIdentity(readFileSync(identityFile, 'utf8'));
  if (!identity) throw new Error(`${identityFile}: there is no AGE-SECRET-KEY-1… in it`);
  const trusted = parseTrustList(readFileSync(trustFile, 'utf8'));
  if (!trusted.ok) throw new Error(trusted.problems.map(problem => `${trustFile}, ${problem}`).join('\n'));
  const waitSeconds = values.wait === undefined ? Number.POSITIVE_INFINITY : Number(values.wait);
  if (!(waitSeconds > 0)) throw new Error('--wait: a number of seconds');
  const files = filesOf(positionals);
  if (files.length === 0) throw new Error(`FILES…: no ${EXPORT_EXTENSION} file was named`);
  return {
    files,
    identity,
    trust: trusted.trust,
    servers: values.check ? null : serversOf(environment),
    waitMs: waitSeconds * 1000,
    json: values.json,
  };
}

function serversOf(environment: Readonly<Record<string, string | undefined>>) {
  const { HOLDFAST_NATS_URL: natsUrl = '', HOLDFAST_POSTGRES_URL: postgresUrl = '' } = environment;
  if (!isNatsAddress(natsUrl || 'missing:')) throw new Error(`HOLDFAST_NATS_URL: ${NATS_ADDRESS_RULE}`);
  if (!URL.canParse(postgresUrl)) {
    throw new Error('HOLDFAST_POSTGRES_URL: postgres://user:password@host:port/database');
  }
  return { natsUrl, postgresUrl };
}

/** Of a folder, its exports in order; what was never finished is nobody's business. */
function filesOf(named: readonly string[]): string[] {
  return named.flatMap(path =>
    statSync(path, { throwIfNoEntry: false })?.isDirectory()
      ? globSync(`*${EXPORT_EXTENSION}`, { cwd: path })
          .sort()
          .map(name => join(path, name))
      : [path],
  );
}
