/** A bare TCP conversation, for asking a server whether it answers without a client library's own retries. */
import { connect } from 'node:net';

const answerTimeoutMs = 2000;

/** Sends the bytes and resolves with whether `accept` ever liked what came back (all of it so far). */
export function talk(
  host: string,
  port: number,
  send: string | Uint8Array,
  accept: (received: Buffer) => boolean,
): Promise<boolean> {
  return new Promise(resolve => {
    let received = Buffer.alloc(0);
    const socket = connect({ host, port });
    const finish = (result: boolean) => {
      socket.destroy();
      resolve(result);
    };
    socket.setTimeout(answerTimeoutMs, () => finish(false));
    socket.once('connect', () => socket.write(send));
    socket.on('data', chunk => {
      received = Buffer.concat([received, chunk]);
      if (accept(received)) finish(true);
      else if (received.length > 64 * 1024) finish(false);
    });
    socket.once('error', () => finish(false));
    socket.once('close', () => finish(false));
  });
}
