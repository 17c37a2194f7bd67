/**
 * A listener on the wire between broker and gateway: which messages the broker handed over, and which of them the gateway
 * acknowledged. It is how lab and chaos tell what the broker lost from what Holdfast lost (A), without a word of Holdfast's.
 *
 *   broker ──PUBLISH──▶ tap ──▶ gateway ──PUBACK──▶ tap ──▶ broker
 */
import { connect, createServer, type Socket } from 'node:net';
import { type Packet, parser } from 'mqtt-packet';

export interface BrokerTap {
  readonly port: number;
  /** Acknowledged by the gateway to the broker, by `messageKey`. */
  readonly acknowledged: ReadonlySet<string>;
  /** How often the broker handed a message over as a new one, without the mark of a repetition. */
  handedOver(key: string): number;
  /** How often with that mark. */
  handedOverAgain(key: string): number;
  close(): Promise<void>;
}

/** Names a message of a device by its own counter. */
export const messageKey = (device: string, n: number): string => `${device} ${n}`;

/** @param keyOf names a message; null for one that does not count */
export async function openBrokerTap(
  target: { host: string; port: number },
  keyOf: (topic: string, payload: Buffer) => string | null,
): Promise<BrokerTap> {
  const acknowledged = new Set<string>();
  const handedOver = new Map<string, number>();
  const handedOverAgain = new Map<string, number>();
  const sockets = new Set<Socket>();

  const server = createServer(near => {
    const far = connect(target.port, target.host);
    /** What stands for a packet id on this connection. */
    const under = new Map<number, string>();
    near.setNoDelay(true);
    far.setNoDelay(true);
    for (const [socket, other] of [
      [near, far],
      [far, near],
    ] as const) {
      sockets.add(socket);
      socket.on('error', () => other.destroy());
      socket.on('close', () => {
        sockets.delete(socket);
        other.destroy();
      });
    }
    listen(far, packet => {
      if (packet.cmd !== 'publish' || packet.qos === 0) return;
      const key = keyOf(packet.topic, packet.payload as Buffer);
      if (key === null) return;
      under.set(packet.messageId!, key);
      const times = packet.dup ? handedOverAgain : handedOver;
      times.set(key, (times.get(key) ?? 0) + 1);
    });
    listen(near, packet => {
      if (packet.cmd !== 'puback') return;
      const key = under.get(packet.messageId!);
      if (key === undefined) return;
      acknowledged.add(key);
      under.delete(packet.messageId!);
    });
    near.pipe(far);
    far.pipe(near);
  });

  await new Promise<void>(resolve => server.listen(0, '127.0.0.1', resolve));
  const { port } = server.address() as { port: number };
  return {
    port,
    acknowledged,
    handedOver: key => handedOver.get(key) ?? 0,
    handedOverAgain: key => handedOverAgain.get(key) ?? 0,
    close() {
      for (const socket of sockets) socket.destroy();
      return new Promise(resolve => server.close(() => resolve()));
    },
  };
}

function listen(socket: Socket, hear: (packet: Packet) => void): void {
  const packets = parser({ protocolVersion: 5 });
  packets.on('packet', hear);
  socket.on('data', chunk => packets.parse(chunk));
}
