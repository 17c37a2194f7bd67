/** The harness's handle on a fleet at its own pace (`steady-load.ts`). */
import { nodeProcess } from '../../deploy/local/node-process.ts';
import type { SteadyProgress } from './steady-load.ts';

export interface SteadyFleet {
  readonly messagesPerSecond: number;
  /** As the broker said, a fraction of a second ago. */
  readonly acknowledged: number;
  /** Publishes no more; resolves with the number of messages when all are acknowledged. */
  finish(): Promise<number>;
  stop(): Promise<void>;
}

export async function startSteadyFleet(options: {
  /** URL with user and password. */
  readonly broker: string;
  readonly devices: number;
  /** Each device publishes once in this time. */
  readonly intervalMs: number;
  readonly seed: number;
}): Promise<SteadyFleet> {
  const { broker, devices, intervalMs, seed } = options;
  const load = nodeProcess({
    name: 'steady fleet',
    entry: new URL('steady-load.ts', import.meta.url),
    args: [
      ...['--broker', broker, '--devices', String(devices)],
      ...['--interval-ms', String(intervalMs), '--seed', String(seed)],
    ],
    env: {},
  });
  let acknowledged = 0;
  const done = Promise.withResolvers<number>();
  done.promise.catch(() => {});
  load.onMessage(message => {
    const { type, acknowledged: count } = message as unknown as SteadyProgress;
    if (type !== 'progress' && type !== 'done') return;
    acknowledged = count;
    if (type === 'done') done.resolve(count);
  });
  load.onUnexpectedExit(reason => done.reject(new Error(`the steady fleet ${reason}: ${load.output()}`)));
  await load.start();
  return {
    messagesPerSecond: (devices * 1000) / intervalMs,
    get acknowledged() {
      return acknowledged;
    },
    finish() {
      load.send({ type: 'stop' });
      return done.promise;
    },
    stop: () => load.stop(),
  };
}
