/** The last resort on Debian and Ubuntu: installing as root. Says so first, and keeps the new services from starting. */
import { rmSync, writeFileSync } from 'node:fs';
import { runCommand } from './run-command.ts';

const timeoutMs = 20 * 60_000;

/** Read by the packages' install scripts; 101 means that no service may be started. */
const policyFile = '/usr/sbin/policy-rc.d';

/** Why it failed, or undefined. */
export async function installAsRoot(
  packages: readonly string[],
  report: (line: string) => void,
): Promise<string | undefined> {
  if ((await runCommand('apt-get', ['--version'])).code !== 0) return 'there is no apt-get';
  report(`nothing else served: installing ${packages.join(', ')} on this machine with apt-get, as root`);
  const env = { DEBIAN_FRONTEND: 'noninteractive' };
  const mine = forbidServices();
  try {
    await runCommand('apt-get', ['update'], { env, timeoutMs });
    const install = await runCommand(
      'apt-get',
      ['install', '--yes', '--no-install-recommends', ...packages],
      {
        env,
        timeoutMs,
      },
    );
    return install.code === 0
      ? undefined
      : `apt-get install failed: ${install.said.split('\n').at(-1) ?? ''}`;
  } finally {
    if (mine) rmSync(policyFile, { force: true });
  }
}

/** False when the machine has a policy of its own, which stays. */
function forbidServices(): boolean {
  try {
    writeFileSync(policyFile, '#!/bin/sh\nexit 101\n', { mode: 0o755, flag: 'wx' });
    return true;
  } catch {
    return false;
  }
}
