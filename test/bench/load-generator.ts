/** The harness's handle on the load generator process (`mqtt-load.ts`). */
import { type NodeProcess, nodeProcess } from '../../deploy/local/node-process.ts';
import type { Done, LoadCommand, Prepared } from './mqtt-load.ts';

export interface LoadGenerator {
  /** Makes the frames of the next round. */
  prepare(messages: number): Promise<Prepared>;
  /** Lets it publish up to the `until`th message of the round. */
  allow(until: number): void;
  /** Resolves when every message of the round has its PUBACK; call before the first `allow`. */
  done(): Promise<Done>;
  stop(): Promise<void>;
}

export async function startLoadGenerator(options: {
  /** URLs with user and password, one per site. */
  readonly brokers: readonly string[];
  /** Where the fleet's time begins. */
  readonly startMs: number;
  /** Connections per broker; 2. */
  readonly connections?: number;
}): Promise<LoadGenerator> {
  const generator: NodeProcess = nodeProcess({
    name: 'load generator',
    entry: new URL('mqtt-load.ts', import.meta.url),
    args: [
      ...options.brokers.flatMap(url => ['--broker', url]),
      ...['--start-ms', String(options.startMs), '--connections', String(options.connections ?? 2)],
    ],
    env: {},
  });
  await generator.start();

  const answer = <T extends { type: string }>(type: T['type']) =>
    new Promise<T>((resolve, reject) => {
      const forgetExit = generator.onUnexpectedExit(reason =>
        reject(new Error(`the load generator ${reason}: ${generator.output()}`)),
      );
      const release = generator.onMessage(message => {
        if (message.type !== type) return;
        release();
        forgetExit();
        resolve(message as unknown as T);
      });
    });
  let stopped = false;
  const send = (command: LoadCommand) => {
    if (!stopped) generator.send(command);
  };

  return {
    prepare(messages) {
      const prepared = answer<Prepared>('prepared');
      send({ type: 'prepare', messages });
      return prepared;
    },
    allow: until => send({ type: 'allow', until }),
    done: () => answer<Done>('done'),
    stop() {
      stopped = true;
      return generator.stop();
    },
  };
}
