/**
 * `holdfast edge status`: how the gateway on this box is doing, without any cloud.
 * Exit codes: 0 fine, 1 something wants attention, 2 wrong options, or no gateway runs.
 */
import { parseArgs } from 'node:util';
import { statusAsText, stoppedAsText } from './as-text.ts';
import { askGateway } from './ask.ts';
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
  const asked = await askGateway(directory, { method: 'GET', path: '/status', answerMs: ANSWER_MS });
  if (asked.outcome === 'answer') {
    const state = JSON.parse(asked.body) as GatewayState;
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
