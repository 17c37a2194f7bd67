/**
 * The key that this gateway signs its exports with: Ed25519, PKCS #8 PEM, for its owner's eyes only. Made at first use;
 * the cloud takes a file only when the public half is on its trust list.
 */
import { createPrivateKey, generateKeyPairSync, type KeyObject } from 'node:crypto';
import { existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { codeOf } from '../log/files.ts';

export const defaultKeyFile = (dataDirectory: string): string => join(dataDirectory, 'keys', 'export.key');

export type SigningKeyOutcome =
  | { readonly outcome: 'key'; readonly key: KeyObject; readonly made: boolean }
  | { readonly outcome: 'unusable'; readonly reason: string };

export function openSigningKey(file: string): SigningKeyOutcome {
  try {
    const key = createPrivateKey(readFileSync(file));
    if (key.asymmetricKeyType !== 'ed25519') {
      return { outcome: 'unusable', reason: `${file} holds another kind of key; wanted is Ed25519` };
    }
    return { outcome: 'key', key, made: false };
  } catch (error) {
    if (codeOf(error) !== 'ENOENT') {
      return { outcome: 'unusable', reason: `the signing key ${file}: ${(error as Error).message}` };
    }
  }
  const { privateKey } = generateKeyPairSync('ed25519');
  try {
    // No folders above it: a data folder that is not there is a wrong one.
    if (!existsSync(dirname(file))) mkdirSync(dirname(file), { mode: 0o700 });
    writeFileSync(file, privateKey.export({ type: 'pkcs8', format: 'pem' }), { mode: 0o600, flag: 'wx' });
    return { outcome: 'key', key: privateKey, made: true };
  } catch (error) {
    const reason = `no signing key could be made at ${file}: ${(error as Error).message}; --key FILE puts it elsewhere`;
    return { outcome: 'unusable', reason };
  }
}
