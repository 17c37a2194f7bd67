/**
 * `holdfast edge status`: how the gateway on this box is doing, without any cloud.
 * Exit codes: 0 fine, 1 something wants attention, 2 wrong options, or no gateway runs.
 */
import { request } from 'node:http';
import { parseArgs } from 'node:util';
import { statusAsText, stoppedAsText } from './as-text.ts';
import { statusSocket } from './socket-path.ts';
import { attention, type GatewayState } from './state.ts';
import { lookAtStopped } from './stopped.ts';

const USAGE = `holdfast edge status [--data FOLDER] [--json]
  --data FOLDER  the gateway's data folder; otherwise HOLDFAST_DATA_DIR
  --json         prints JSON`;
const ANSWER_MS = 5000;

/** @param args behind `status` */
export async function statusCommand(args: readonly string[]): Promise<void> {
  const options = parsed(args);
  const directory = options?.data ?? process.env.HOLDFAST_DATA_DIR;
  if (!options || !directory) {
    process.stderr.write(`${USAGE}\n`);
    process.exitCode = 2;
    return;
  }
  const asked = await askGateway(directory);
  if (asked.outcome === 'state') {
    const { state } = asked;
    const wants = attention(state);
    process.stdout.write(
      options.json
        ? `${JSON.stringify({ running: true, attention: wants, ...state }, null, 2)}\n`
        : statusAsText(state),
    );
    process.exitCode = wants.length === 0 ? 0 : 1;
    return;
  }
  process.exitCode = 2;
  if (asked.outcome === 'forbidden') {
    process.stderr.write(`${asked.reason}; run it as the gateway's user or as root\n`);
    return;
  }
  const stopped = await lookAtStopped(directory);
  const problems = asked.outcome === 'mute' ? [asked.reason, ...stopped.problems] : stopped.problems;
  process.stdout.write(
    options.json
      ? `${JSON.stringify({ running: false, ...stopped, problems }, null, 2)}\n`
      : stoppedAsText(directory, { ...stopped, problems }),
  );
}

function parsed(args: readonly string[]) {
  try {
    return parseArgs({
      args: [...args],
      options: { data: { type: 'string' }, json: { type: 'boolean', default: false } },
    }).values;
  } catch (error) {
    process.stderr.write(`${(error as Error).message}\n`);
    return null;
  }
}

type Asked =
  | { readonly outcome: 'state'; readonly state: GatewayState }
  | { readonly outcome: 'none' }
  | { readonly outcome: 'mute'; readonly reason: string }
  | { readonly outcome: 'forbidden'; readonly reason: string };

/** Nobody listens when there is no socket, or one that a killed gateway left. */
async function askGateway(directory: string): Promise<Asked> {
  let socket: ReturnType<typeof statusSocket>;
  try {
    socket = statusSocket(directory);
  } catch (error) {
    return outcomeOf(error as NodeJS.ErrnoException);
  }
  try {
    return { outcome: 'state', state: JSON.parse(await get(socket.path)) as GatewayState };
  } catch (error) {
    return outcomeOf(error as NodeJS.ErrnoException);
  } finally {
    socket.release();
  }
}

function outcomeOf(error: NodeJS.ErrnoException): Asked {
  if (error.code === 'ENOENT' || error.code === 'ECONNREFUSED') return { outcome: 'none' };
  const outcome = error.code === 'EACCES' || error.code === 'EPERM' ? 'forbidden' : 'mute';
  return { outcome, reason: `the gateway's status socket does not answer: ${error.message}` };
}

function get(socketPath: string): Promise<string> {
  return new Promise((resolve, reject) => {
    const asking = request({ socketPath, path: '/status', timeout: ANSWER_MS }, response => {
      let body = '';
      response.setEncoding('utf8');
      response.on('data', (text: string) => {
        body += text;
      });
      response.on('end', () => resolve(body));
      response.on('error', reject);
    });
    asking.on('timeout', () => asking.destroy(new Error(`no answer within ${ANSWER_MS / 1000} s`)));
    asking.on('error', reject);
    asking.end();
  });
}
