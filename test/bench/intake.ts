/**
 * `intake`: what a gateway takes from Mosquitto, each PUBACK after the fdatasync of its message, beside a QoS 1
 * subscriber that acknowledges at once and does nothing. Same broker, same generator, rounds in turns.
 */
import { mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { nodeProcess } from '../../deploy/local/node-process.ts';
import { startMosquitto } from '../../deploy/local/servers.ts';
import type { Benchmark, BenchmarkOptions } from './benchmark.ts';
import type { IntakeProgress } from './intake-subject.ts';
import { startLoadGenerator } from './load-generator.ts';
import { median, rounded, table } from './tables.ts';

const ROUNDS = 5;
const MESSAGES = 200_000;
const WARM_UP_MESSAGES = 20_000;
/** Published and not yet acknowledged by the subscriber: the broker always has some, and never a queue that grows. */
const WINDOW_MESSAGES = 20_000;

export const intake: Benchmark = {
  does: 'a gateway, PUBACK after fdatasync, against a null QoS 1 subscriber of the same Mosquitto',
  async run(options) {
    const { rounds = ROUNDS, messages = MESSAGES, report } = options;
    const measured: { gateway: number; none: number }[] = [];
    for (let round = 1; round <= rounds; round++) {
      const gateway = await measure(options, 'gateway', round, messages);
      const none = await measure(options, 'null', round, messages);
      measured.push({ gateway, none });
      report(`round ${round} of ${rounds}: gateway ${gateway} messages/s, null subscriber ${none}`);
    }
    const share = median(measured.map(round => round.gateway / round.none));
    return {
      tables: [
        table([
          ['median of rounds', 'messages/s'],
          ['gateway, PUBACK after fdatasync', median(measured.map(round => round.gateway))],
          ['null subscriber', median(measured.map(round => round.none))],
          ['share', rounded(share, 2)],
        ]),
      ],
      figures: {
        gateway_messages_per_s: median(measured.map(round => round.gateway)),
        null_messages_per_s: median(measured.map(round => round.none)),
        share: rounded(share, 3),
        messages,
        rounds,
      },
    };
  },
};

/** A fresh broker and subscriber each time, so that no round inherits anything. @returns messages/s */
async function measure(
  { directory, binaries, releases }: BenchmarkOptions,
  subject: 'gateway' | 'null',
  round: number,
  messages: number,
): Promise<number> {
  const folder = join(directory, `${subject}-${round}`);
  mkdirSync(folder, { recursive: true });
  const broker = await startMosquitto({
    binaries,
    directory: join(folder, 'broker'),
    users: [{ user: 'bench', password: 'bench' }],
  });
  releases.add(() => broker.stop());
  const subscriber = nodeProcess({
    name: `${subject} subscriber`,
    entry: new URL('intake-subject.ts', import.meta.url),
    args: ['--as', subject, '--broker', broker.url, '--directory', join(folder, 'buffer')],
    env: {},
  });
  await subscriber.start();
  releases.add(() => subscriber.stop());
  const load = await startLoadGenerator({ brokers: [broker.url], startMs: Date.now() });
  releases.add(() => load.stop());

  let before = 0;
  const run = async (count: number): Promise<number> => {
    const prepared = await load.prepare(count);
    const taken = new Promise<void>((resolve, reject) => {
      const forgetExit = subscriber.onUnexpectedExit(reason =>
        reject(new Error(`${subject} subscriber ${reason}: ${subscriber.output()}`)),
      );
      const forget = subscriber.onMessage(message => {
        const { type, acknowledged } = message as unknown as IntakeProgress;
        if (type !== 'progress') return;
        load.allow(acknowledged - before + WINDOW_MESSAGES);
        if (acknowledged - before < prepared.messages) return;
        before = acknowledged;
        forget();
        forgetExit();
        resolve();
      });
    });
    const startedAt = performance.now();
    load.allow(WINDOW_MESSAGES);
    await taken;
    return Math.round(prepared.messages / ((performance.now() - startedAt) / 1000));
  };
  await run(WARM_UP_MESSAGES);
  const rate = await run(messages);
  await load.stop();
  await subscriber.stop();
  await broker.stop();
  return rate;
}
