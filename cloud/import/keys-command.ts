/**
 * `holdfast keys new --for cloud-import`: the key pair that exports are encrypted to. The file is one of age's, so
 * `age-keygen -y` reads it too. Exit codes: 0 made, 1 the file cannot be written, 2 wrong options.
 */
import { writeFileSync } from 'node:fs';
import { parseArgs } from 'node:util';
import { generateX25519Identity, identityToRecipient } from 'age-encryption';

const USAGE = `holdfast keys new --for cloud-import --out FILE
  makes the key pair of the cloud's import: the secret half into FILE, the public half on stdout, for
  holdfast edge export --to`;

const [verb, ...args] = process.argv.slice(2);
const out = verb === 'new' ? outFile(args) : null;
if (out === null) {
  process.stderr.write(`${USAGE}\n`);
  process.exitCode = verb === undefined || verb === 'help' || verb === '--help' ? 0 : 2;
} else {
  const identity = await generateX25519Identity();
  const recipient = await identityToRecipient(identity);
  try {
    writeFileSync(out, `# public key: ${recipient}\n${identity}\n`, { mode: 0o600, flag: 'wx' });
    process.stdout.write(`${recipient}\n`);
  } catch (error) {
    process.stderr.write(`${(error as Error).message}\n`);
    process.exitCode = 1;
  }
}

function outFile(from: readonly string[]): string | null {
  try {
    const { values } = parseArgs({
      args: [...from],
      options: { for: { type: 'string' }, out: { type: 'string' } },
    });
    return values.for === 'cloud-import' && values.out ? values.out : null;
  } catch {
    return null;
  }
}
