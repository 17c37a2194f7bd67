/** Programs inside container images, where a Docker engine answers. */
import type { Binary, ProgramName } from './binaries.ts';
import { programsOf, versionIn } from './binaries.ts';
import { runCommand } from './run-command.ts';
import type { ServerName } from './server.ts';

/** The same images as in compose.yaml beside this file. */
export const images: Readonly<Record<ServerName, string>> = {
  mosquitto: 'eclipse-mosquitto:2.0',
  nats: 'nats:2.11',
  redis: 'redis:7.4',
  postgres: 'postgres:17',
};

const engineTimeoutMs = 10_000;
const pullTimeoutMs = 15 * 60_000;

/** Why there is no engine to use, or undefined when one answers. */
export async function dockerTrouble(docker: string): Promise<string | undefined> {
  const info = await runCommand(docker, ['info', '--format', '{{.ServerVersion}}'], {
    timeoutMs: engineTimeoutMs,
  });
  if (info.code === 0 && info.stdout.trim() !== '') return undefined;
  return info.said.includes('ENOENT') ? 'no docker command' : 'the Docker engine does not answer';
}

/** Pulls the server's image when it is not there yet and names the programs in it; a reason when that fails. */
export async function programsInImage(
  server: ServerName,
  docker: string,
  report: (line: string) => void,
): Promise<Partial<Record<ProgramName, Binary>> | { reason: string }> {
  const image = images[server];
  const there = await runCommand(docker, ['image', 'inspect', '--format', '{{.Id}}', image]);
  if (there.code !== 0) {
    report(`pulling the container image ${image}`);
    const pull = await runCommand(docker, ['pull', '--quiet', image], { timeoutMs: pullTimeoutMs });
    if (pull.code !== 0)
      return { reason: `${image} cannot be pulled: ${pull.said.split('\n').at(-1) ?? ''}` };
  }
  const found: Partial<Record<ProgramName, Binary>> = {};
  for (const program of programsOf[server]) {
    const argument = program === 'mosquitto' ? '-h' : '--version';
    const asked = await runCommand(docker, ['run', '--rm', '--entrypoint', program, image, argument]);
    const version = versionIn(asked.said);
    if (asked.code === undefined || asked.code >= 125 || version === undefined) continue;
    found[program] = { path: program, env: {}, version, origin: { kind: 'container', docker, image } };
  }
  return found;
}
