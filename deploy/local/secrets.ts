/** Passwords for servers on this machine: random, made once, kept beside the data for the owner's eyes only. */
import { pbkdf2Sync, randomBytes } from 'node:crypto';
import { readFileSync, writeFileSync } from 'node:fs';

export function newPassword(): string {
  return randomBytes(18).toString('base64url');
}

/** The password in that file, or a new one put there (mode 600). */
export function keptPassword(file: string): string {
  try {
    return readFileSync(file, 'utf8').trim();
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ENOENT') throw error;
  }
  const password = newPassword();
  writeFileSync(file, `${password}\n`, { mode: 0o600, flag: 'wx' });
  return password;
}

const mosquittoIterations = 101;
const mosquittoSaltBytes = 12;
const mosquittoKeyBytes = 64;

/** A line of mosquitto's password file (`$7$`, PBKDF2-SHA512 with mosquitto's own parameters). */
export function mosquittoPasswordLine(user: string, password: string): string {
  if (user === '' || /[:\r\n]/.test(user))
    throw new Error(`not a user name for mosquitto: ${JSON.stringify(user)}`);
  const salt = randomBytes(mosquittoSaltBytes);
  const key = pbkdf2Sync(password, salt, mosquittoIterations, mosquittoKeyBytes, 'sha512');
  return `${user}:$7$${mosquittoIterations}$${salt.toString('base64')}$${key.toString('base64')}`;
}
